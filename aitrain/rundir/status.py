"""How each rank ended, as files: torchrun's own exit code says only that something did."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aitrain.errors import AitrainError, Problem, Refused, Stopped
from aitrain.rundir.folder import CONTROL, read_json, write_json


@dataclass(frozen=True)
class RankStatus:
    """One rank's last word. `state` is running, finished, stopped, refused or failed."""

    rank: int
    pid: int
    state: str
    time: float
    exit_code: int = 0
    message: str = ""
    traceback: str = ""
    problems: tuple[Problem, ...] = ()
    """What a refusal was about."""

    def died(self) -> bool:
        """Whether the process is gone without having said so."""
        if self.state != "running":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _is_zombie(self.pid)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def write_status(folder: Path, rank: int, state: str, error: BaseException | None = None) -> None:
    """Record what became of a rank; a user's mistake is recorded without a traceback."""
    code, text, trace = 0, "", ""
    if error is not None:
        code = error.exit_code if isinstance(error, AitrainError) else 1
        text = str(error) or type(error).__name__
        if not isinstance(error, AitrainError):
            trace = "".join(traceback.format_exception(error))
    problems = error.problems if isinstance(error, Refused) else ()
    status = RankStatus(rank, os.getpid(), state, time.time(), code, text, trace, problems)
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
            found.append(RankStatus(**{**value, "problems": tuple(Problem(**p) for p in value["problems"])}))
    return sorted(found, key=lambda status: (status.state not in ("failed", "refused"), status.time))


def clear(folder: Path) -> None:
    """Remove what an earlier start of this run left: statuses and a stop request."""
    for path in [*(folder / CONTROL).glob("rank-*.json"), folder / CONTROL / "stop.json"]:
        path.unlink(missing_ok=True)
