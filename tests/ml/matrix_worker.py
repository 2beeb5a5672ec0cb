"""One rank that trains prepared runs one after another: a pair of processes for a whole table of runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aitrain.rundir.stop import StopRequest
from aitrain.worker import work

if __name__ == "__main__":
    for name in sys.argv[1:]:
        work(
            Path(name), rank=int(os.environ["RANK"]), world=int(os.environ["WORLD_SIZE"]), stop=StopRequest(Path(name))
        )
