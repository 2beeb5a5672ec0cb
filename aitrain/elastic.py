"""torchrun without its own last words: what a failed worker had to say is in its status file, printed by us."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

FIRST_FAILURE = "AITRAIN_FIRST_FAILURE"
"""Environment variable with the file that is told which rank ended badly first."""


def main() -> int:
    """torchrun's command line, unchanged. Exit code 1 when a worker failed."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as error:
        if FIRST_FAILURE in os.environ:
            rank, failure = error.get_first_failure()
            Path(os.environ[FIRST_FAILURE]).write_text(json.dumps({"rank": rank, "exit_code": failure.exitcode}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
