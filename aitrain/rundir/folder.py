"""The run directory: names of its files, safe writing, and the lock that keeps a second run out."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitrain.errors import MachineError, Problem

CONFIG, PLAN, LOCK, LOG, METRICS = "config.yaml", "plan.json", "lock.json", "log.txt", "metrics.jsonl"
CHECKPOINTS, MODEL, REPORT, PAGE, CONTROL = "checkpoints", "model", "report.json", "report.html", "control"
OUTCOME = "outcome.json"
"""File in `control` with what the first rank of several came to."""


def write_text(path: Path, text: str) -> None:
    """Write aside, flush to disk, rename: a reader sees the old file or the new one, never half."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON (no NaN), indented, written by `write_text`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if there is no such file or it is not JSON."""
    with suppress(OSError, ValueError):  # bytes that are no UTF-8 are a ValueError too
        return json.loads(path.read_text(encoding="utf-8"))
    return None


@dataclass
class RunLock:
    """Held by the process that owns the run, released by the kernel when that process ends, however it ends."""

    folder: Path
    descriptor: int

    def release(self) -> None:
        """Let go, so that another run may use the folder."""
        os.close(self.descriptor)


def in_use_by(folder: Path) -> str | None:
    """Who holds the folder, in words, or None; takes nothing and writes nothing."""
    try:
        descriptor = os.open(folder / CONTROL / "owner.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _owner(folder)
    finally:
        os.close(descriptor)
    return None


def _owner(folder: Path) -> str:
    owner = read_json(folder / CONTROL / "owner.json") or {}
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"


def acquire(folder: Path) -> RunLock:
    """Take the folder for this process. Raises MachineError naming who has it."""
    control = folder / CONTROL
    control.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(control / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        what = f"{folder} is in use by {_owner(folder)}"
        raise MachineError(Problem("run.dir", what, "wait for it, stop it, or choose another run.dir")) from error
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    write_json(control / "owner.json", {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    return RunLock(folder, descriptor)


def wait_for_owner_to_end(folder: Path) -> None:
    """Block until the process that owns the run is gone. For a thread of a worker, which must not outlive it."""
    descriptor = os.open(folder / CONTROL / "owner.lock", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)
