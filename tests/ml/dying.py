"""Runs in a process of their own that ends by SIGKILL at a chosen point, as the OOM killer would end it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

POINTS = ("training", "files", "manifest", "rename", "published", "event")
"""Between saves; and inside one: with the optimizer not written, before the manifest, before the rename, before old
checkpoints go; and in the middle of a line of metrics."""


def start(words: Sequence[str], point: str | None = None, number: int = 1) -> Any:
    """Start a run that dies the `number`-th time it reaches `point`; None lets it live."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aitrain.ml.causal"])
    process = context.Process(target=_train, args=(list(words), point, number))
    process.start()
    return process


def run_until_death(words: Sequence[str], point: str, number: int) -> None:
    """Start such a run and wait for its death."""
    process = start(words, point, number)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"{point} {number}: exit code {process.exitcode}"


def _train(words: list[str], point: str | None, number: int) -> None:
    import aitrain

    if point is not None:
        _deadly(point, number)
    aitrain.train(*words)


def _deadly(point: str, number: int) -> None:
    from aitrain.ml import causal, run_loop
    from aitrain.rundir import checkpoints, events

    if point == "event":
        events.EventLog.add = _torn(events.EventLog.add, number)  # type: ignore[method-assign]
        return
    owner, name = {
        "training": (run_loop.RunLoop, "training_step"),
        "files": (causal.CausalTrainer, "_save_optimizer_and_scheduler"),
        "manifest": (checkpoints, "write_json"),
        "rename": (checkpoints.os, "rename"),
        "published": (run_loop, "tidy"),
    }[point]
    setattr(owner, name, _dying(getattr(owner, name), number, only="step-" if point == "rename" else ""))


def _dying(original: Callable[..., Any], number: int, only: str) -> Callable[..., Any]:
    seen = 0

    def replacement(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += only in " ".join(map(str, args)) if only else 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    return replacement


def _torn(original: Callable[..., Any], number: int) -> Callable[..., Any]:
    seen = 0

    def add(self: Any, event: str, step: int, **values: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            with Path(self.path).open("ab") as file:
                file.write('{"event": "train", "step": 5, "text": "ß'.encode()[:-1])
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, event, step, **values)

    return add
