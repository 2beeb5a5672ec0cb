"""`tracking=trackio`: Trackio (https://github.com/gradio-app/trackio), SQLite and a dashboard on this machine."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aitrain.config.section import OptionSection, key
from aitrain.errors import MachineError, Problem
from aitrain.trackers.identity import own_id
from aitrain.trackers.metrics import metrics

if TYPE_CHECKING:
    from aitrain.config.run import Run

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio(OptionSection):
    """Trackio on this machine; look at it with `trackio show`."""

    name: Literal["trackio"]
    """The tracker; choose it with `tracking=trackio`."""
    project: str = key(min_length=1)
    """Project the run is listed in."""
    group: str | None
    """Runs with the same group are shown together."""
    dir: str | None
    """Folder of Trackio's databases. null: TRACKIO_DIR, or Trackio's own folder, where `trackio show` looks."""

    def problems(self, run: Run) -> Iterator[Problem]:
        for name in REMOTE:
            if os.environ.get(name):
                yield Problem(
                    "tracking",
                    f"trackio stays on this machine, and {name} is set",
                    f"unset {name}; 'trackio sync' sends later",
                )


class TrackioRun:
    """One run at Trackio."""

    def __init__(self, run: Any, finish: Any) -> None:
        self.run = run
        self.finish_current = finish

    def log(self, event: dict[str, Any]) -> None:
        """Store the numbers of an event."""
        values = metrics(event)
        if values:
            self.run.log(values, step=event["step"])

    def finish(self, status: str) -> None:
        """Store how the run ended, as an alert that the dashboard shows unless all went well, and write everything."""
        if status != "finished":
            self.run.alert(title=f"run {status}")
        with redirect_stdout(io.StringIO()):
            self.finish_current()


def start(run: Run, folder: Path) -> TrackioRun:
    """Begin the run, or go on with it. Raises MachineError when Trackio refuses or already uses another folder."""
    section: Trackio = run.tracking  # type: ignore[assignment]
    wanted = Path(section.dir).expanduser().resolve() if section.dir else None
    if wanted is not None:
        os.environ["TRACKIO_DIR"] = str(wanted)
    import trackio
    from trackio.utils import TRACKIO_DIR

    if wanted is not None and Path(TRACKIO_DIR).resolve() != wanted:
        raise MachineError(
            Problem(
                "tracking.dir", f"trackio already uses {TRACKIO_DIR} in this process", "start the run in a new process"
            )
        )
    try:
        with redirect_stdout(io.StringIO()):
            begun = trackio.init(
                project=section.project,
                name=f"{run.run.name}-{own_id(folder, 'trackio')}",
                group=section.group,
                config=run.tree(),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
    except (ValueError, OSError) as error:
        raise MachineError(Problem("tracking", f"trackio does not start: {error}")) from error
    return TrackioRun(begun, trackio.finish)
