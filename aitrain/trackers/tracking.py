"""The tracker of a run while it runs: started before the first event, finished however the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aitrain.config.options import Tracker
from aitrain.config.run import Run
from aitrain.rundir.events import EventLog
from aitrain.rundir.status import state_of


@contextmanager
def tracked(entry: Tracker | None, run: Run, folder: Path, events: EventLog) -> Iterator[None]:
    """Pass every event to the run's tracker, and tell it `finished`, `stopped` or `failed` at the end.

    Does nothing without a tracker, and on ranks that write no events. Raises MachineError if it does not start.
    """
    if entry is None or not events.writes:
        yield
        return
    tracking = Tracking(run.tracking.name, entry.start(run, folder), events)
    events.listeners = (*events.listeners, tracking)
    try:
        yield
    except BaseException as error:
        tracking.finish("stopped" if state_of(error) == "stopped" else "failed")
        raise
    tracking.finish("finished")


class Tracking:
    """A tracker that cannot end the run: when it fails, a note says so and it is left alone from then on."""

    def __init__(self, name: str, tracker: Any, events: EventLog) -> None:
        self.name = name
        self.tracker = tracker
        self.events = events
        self.step = 0
        self.works = True

    def log(self, event: dict[str, Any]) -> None:
        """Pass one event on."""
        self.step = event["step"]
        self._attempt(lambda: self.tracker.log(event))

    def finish(self, status: str) -> None:
        """Tell the tracker how the run ended, also one that failed to log."""
        self.works = True
        self._attempt(lambda: self.tracker.finish(status))

    def _attempt(self, call: Callable[[], None]) -> None:
        if not self.works:
            return
        try:
            call()
        except Exception as error:  # a service that is down raises whatever its client likes
            self.works = False
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.events.add("note", self.step, text=f"tracking={self.name} failed, the run goes on: {lines[0]}")
