"""torchrun without its own last words: what a failed worker had to say is in its status file, printed by us."""

from __future__ import annotations

import logging
import sys


def main() -> int:
    """torchrun's command line, unchanged. Exit code 1 when a worker failed."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run.main(sys.argv[1:])
    except ChildFailedError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
