"""`metrics.jsonl`: strict JSON, one object an event, in the order things happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aitrain.rundir.folder import METRICS, write_text


class Listener(Protocol):
    """Anything that wants to know what happens in a run: the progress view, a tracker."""

    def log(self, event: dict[str, Any]) -> None:
        """Take note of one event."""


def now() -> str:
    """The time as events and reports write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class EventLog:
    """Appends events to `metrics.jsonl` and passes them on. Only rank 0 writes; the others pass nothing."""

    def __init__(self, folder: Path, *, writes: bool, listeners: tuple[Listener, ...] = ()) -> None:
        self.path = folder / METRICS
        self.writes = writes
        self.listeners = listeners

    def add(self, event: str, step: int, **values: Any) -> None:
        """Record one event. Raises ValueError for NaN or infinity, which strict JSON does not have."""
        if not self.writes:
            return
        entry = {"event": event, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False, ensure_ascii=False) + "\n")
        for listener in self.listeners:
            listener.log(entry)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of `metrics.jsonl`; a half-written last line of a killed run is left out."""
    with suppress(FileNotFoundError), (folder / METRICS).open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(json.JSONDecodeError):
                yield json.loads(line)


def forget_after(folder: Path, step: int) -> int:
    """Drop what a killed run recorded after the checkpoint it resumes from, which will be recorded again.

    Step 0 means that it begins anew, and all is dropped. Returns how many events were dropped.
    """
    events = list(read_events(folder))
    kept = [event for event in events if event["step"] <= step and event["event"] != "end"] if step else []
    write_text(folder / METRICS, "".join(json.dumps(e, allow_nan=False, ensure_ascii=False) + "\n" for e in kept))
    return len(events) - len(kept)
