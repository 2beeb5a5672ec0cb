"""How each rank ended, as files: torchrun's own exit code says only that something did."""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aitrain.errors import AitrainError, Refused, Stopped
from aitrain.rundir.folder import CONTROL, read_json, write_json


@dataclass(frozen=True)
class RankStatus:
    """One rank's last word. `state` is running, finished, stopped, refused or failed."""

    rank: int
    state: str
    time: float
    exit_code: int = 0
    message: str = ""
    traceback: str = ""


def write_status(folder: Path, rank: int, state: str, error: BaseException | None = None) -> None:
    """Record what became of a rank; a user's mistake is recorded without a traceback."""
    code, text, trace = 0, "", ""
    if error is not None:
        code = error.exit_code if isinstance(error, AitrainError) else 1
        text = str(error) or type(error).__name__
        if not isinstance(error, AitrainError):
            trace = "".join(traceback.format_exception(error))
    status = RankStatus(rank, state, time.time(), code, text, trace)
    write_json(folder / CONTROL / f"rank-{rank}.json", asdict(status))


def state_of(error: BaseException) -> str:
    """The state that an exception leaves a rank in."""
    if isinstance(error, Stopped):
        return "stopped"
    return "refused" if isinstance(error, Refused) else "failed"


def read_statuses(folder: Path) -> list[RankStatus]:
    """The statuses of all ranks that wrote one, the earliest failure first."""
    found: list[RankStatus] = []
    for path in sorted((folder / CONTROL).glob("rank-*.json")):
        value: Any = read_json(path)
        if value:
            found.append(RankStatus(**value))
    return sorted(found, key=lambda status: (status.state not in ("failed", "refused"), status.time))


def clear(folder: Path) -> None:
    """Remove what an earlier start of this run left: statuses and a stop request."""
    for path in [*(folder / CONTROL).glob("rank-*.json"), folder / CONTROL / "stop.json"]:
        path.unlink(missing_ok=True)
