"""`tracking=tensorboard`: event files for TensorBoard, on this machine (https://www.tensorflow.org/tensorboard)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from aitrain.config.section import OptionSection
from aitrain.errors import MachineError, Problem
from aitrain.trackers.identity import own_id
from aitrain.trackers.metrics import metrics

if TYPE_CHECKING:
    from aitrain.config.run import Run


class TensorBoard(OptionSection):
    """Event files for TensorBoard."""

    name: Literal["tensorboard"]
    """The tracker; choose it with `tracking=tensorboard`."""
    dir: str | None
    """Folder of runs to compare; each gets a folder of its own in it. null: `tensorboard` in the run directory."""


class EventFiles:
    """One run's event files."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, event: dict[str, Any]) -> None:
        """Write the numbers of an event, and the text of a note."""
        step = event["step"]
        if event["event"] == "resume":
            self._hide_after(step)
        if event["event"] == "note":
            self.writer.add_text("note", event["text"], step)
        for name, value in metrics(event).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def _hide_after(self, step: int) -> None:
        """Have TensorBoard show what follows instead of what an earlier start wrote for later steps."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        log = SessionLog(status=SessionLog.START)
        self.writer.file_writer.add_event(Event(step=step + 1, file_version="brain.Event:2"), step + 1)
        self.writer.file_writer.add_event(Event(step=step + 1, session_log=log), step + 1)

    def finish(self, status: str) -> None:
        """Note how the run ended and close the file."""
        self.writer.add_text("status", status)
        self.writer.close()


def start(run: Run, folder: Path) -> EventFiles:
    """Open an event file. Raises MachineError when its folder cannot be written."""
    from torch.utils.tensorboard.writer import SummaryWriter

    section: TensorBoard = run.tracking  # type: ignore[assignment]
    place = folder / "tensorboard"
    if section.dir is not None:
        place = Path(section.dir).expanduser() / f"{run.run.name}-{own_id(folder, 'tensorboard')}"
    try:
        writer = SummaryWriter(str(place))
    except OSError as error:
        raise MachineError(Problem("tracking.dir", f"{place} cannot be written: {error.strerror}")) from error
    tree = yaml.safe_dump(run.tree(), sort_keys=False, allow_unicode=True)
    writer.add_text("config", "\n".join(f"    {line}" for line in tree.splitlines()))
    return EventFiles(writer)
