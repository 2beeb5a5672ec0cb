"""Checkpoints that are whole or absent: written aside, manifest last, one rename; read only when the manifest holds.

The order on disk is: every file is flushed (fsync), then the manifest with size and sha256 of each, then the folder is
renamed to its final name, then the parent folder is flushed. A process killed at any moment leaves either a complete
checkpoint or a folder whose name begins with a dot, which the next run removes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitrain.errors import DataError, Problem
from aitrain.rundir.folder import CHECKPOINTS, read_json, write_json

MANIFEST = "manifest.json"
NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    step: int


def name_of(step: int) -> str:
    """`step-000123`."""
    return f"step-{step:06d}"


def begin(run_folder: Path) -> Path:
    """An empty folder beside the final one to write into. Called by one rank; the others are told its name."""
    root = run_folder / CHECKPOINTS
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f".partial-{uuid.uuid4().hex[:8]}"
    partial.mkdir()
    return partial


def publish(partial: Path, run_folder: Path, step: int, facts: dict[str, Any]) -> Checkpoint:
    """Make a written folder the checkpoint of a step. Called by one rank, after all have written."""
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        files[path.relative_to(partial).as_posix()] = {"bytes": path.stat().st_size, "sha256": _flushed_digest(path)}
    for folder in [*(p for p in partial.rglob("*") if p.is_dir()), partial]:
        _flush_folder(folder)
    write_json(partial / MANIFEST, {"step": step, **facts, "files": files})
    _flush_folder(partial)
    final = run_folder / CHECKPOINTS / name_of(step)
    if final.exists():  # a resumed run reaches a step again that it had already saved, with the same content
        shutil.rmtree(final)
    os.rename(partial, final)
    _flush_folder(final.parent)
    return Checkpoint(final, step)


def _flushed_digest(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if it is whole."""
    manifest = read_json(path / MANIFEST)
    try:
        listed = [(str(name), int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()]
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"{path / MANIFEST} is missing or not readable"
    if path.name != name_of(manifest.get("step", -1)):
        return f"{path / MANIFEST} belongs to step {manifest.get('step')}"
    for name, size, digest in listed:
        file = path / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != size:
            return f"{file} has {file.stat().st_size} bytes instead of {size}"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                return f"{file} is damaged: its sha256 differs from the manifest's"
    return None


def existing(run_folder: Path) -> list[Checkpoint]:
    """Published checkpoints, oldest first, not verified."""
    root = run_folder / CHECKPOINTS
    found = [Checkpoint(p, int(m[1])) for p in root.glob("step-*") if (m := NAME.fullmatch(p.name)) and p.is_dir()]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_valid(run_folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and what is wrong with newer ones."""
    faults: list[str] = []
    for checkpoint in reversed(existing(run_folder)):
        wrong = fault(checkpoint.path)
        if wrong is None:
            return checkpoint, faults
        faults.append(wrong)
    return None, faults


def named(path: Path, key: str = "run.resume") -> Checkpoint:
    """The checkpoint in a folder the user named. Raises DataError when it is none, or not whole."""
    match = NAME.fullmatch(path.name)
    if not path.is_dir() or not match:
        inside = [c.path.as_posix() for c in existing(path)]
        advice = f"did you mean '{inside[-1]}'?" if inside else "name a folder …/checkpoints/step-N"
        raise DataError(Problem(key, f"{path} is no checkpoint", advice))
    wrong = fault(path)
    if wrong:
        raise DataError(Problem(key, f"the checkpoint is not whole: {wrong}", "name an earlier one"))
    return Checkpoint(path, int(match[1]))


def tidy(run_folder: Path, *, newest: int, keep: int | None, best: int | None) -> list[Path]:
    """Remove half-written folders and the oldest checkpoints; never the newest one nor the best one.

    `newest` is the step saved last. Checkpoints after it are what a continued run could not use, and go too, lest they
    count among the newest. `keep` counts the newest checkpoints (None: all). Returns what was removed.
    """
    for partial in _partials(run_folder):
        shutil.rmtree(partial, ignore_errors=True)
    checkpoints = existing(run_folder)
    usable = [checkpoint for checkpoint in checkpoints if checkpoint.step <= newest]
    unusable = [checkpoint for checkpoint in checkpoints if checkpoint.step > newest]
    old = [checkpoint for checkpoint in usable[:-keep] if checkpoint.step != best] if keep else []
    for checkpoint in [*unusable, *old]:
        hidden = checkpoint.path.with_name(f".removed-{checkpoint.path.name}")
        os.rename(checkpoint.path, hidden)  # a half-removed checkpoint must not look like one
        shutil.rmtree(hidden, ignore_errors=True)
    return [checkpoint.path for checkpoint in [*unusable, *old]]


def _partials(run_folder: Path) -> Iterator[Path]:
    root = run_folder / CHECKPOINTS
    yield from root.glob(".partial-*")
    yield from root.glob(".removed-*")
