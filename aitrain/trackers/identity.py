"""A run's id at its tracker, kept in the run directory so that a resumed run goes on where it was."""

from __future__ import annotations

import uuid
from pathlib import Path

from aitrain.rundir.folder import CONTROL, read_json, write_json

IDS = "tracker.json"


def known_id(folder: Path, tracker: str) -> str | None:
    """The id this run has at a tracker, or None when it has not been there."""
    ids = read_json(folder / CONTROL / IDS) or {}
    return ids.get(tracker)


def keep_id(folder: Path, tracker: str, value: str) -> None:
    """Remember the id for the next start of this run."""
    ids = read_json(folder / CONTROL / IDS) or {}
    (folder / CONTROL).mkdir(parents=True, exist_ok=True)
    write_json(folder / CONTROL / IDS, {**ids, tracker: value})


def own_id(folder: Path, tracker: str) -> str:
    """The id of this run at a tracker that lets us choose it: the known one, or a fresh one that is kept."""
    found = known_id(folder, tracker)
    if found is None:
        found = uuid.uuid4().hex[:8]
        keep_id(folder, tracker, found)
    return found
