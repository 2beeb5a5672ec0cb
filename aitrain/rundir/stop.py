"""Asking a run to stop: signals where the run is in this process, a file where it runs in others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from aitrain.errors import Stopped
from aitrain.rundir.folder import CONTROL, read_json, write_json

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def owned_signals() -> list[signal.Signals]:
    """The signals a run takes over: none outside the main thread, and not SIGHUP where nohup has it ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


class StopRequest:
    """Whether this run was asked to stop, and by which signal.

    Outside `training()` a signal raises Stopped at once, since there is nothing to save; inside it is only noted, and
    the training loop saves and stops after the step. A second signal ends the process without further ado.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.signum = 0
        self.noting = False

    def requested(self) -> int:
        """The signal's number, or 0."""
        if not self.signum and self.folder is not None and (self.folder / CONTROL / "stop.json").exists():
            self.signum = int((read_json(self.folder / CONTROL / "stop.json") or {}).get("signal", signal.SIGTERM))
        return self.signum

    @contextmanager
    def training(self) -> Iterator[None]:
        """While active, signals are noted instead of raised."""
        self.noting = True
        try:
            yield
        finally:
            self.noting = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take over the four signals; the handlers from before come back at the end."""
        before = {number: signal.signal(number, self._received) for number in owned_signals()}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = signum
        if not self.noting:
            raise Stopped(signum)


def request_stop(folder: Path, signum: int) -> None:
    """Ask the workers of a run to save and stop; all of them see it at the same step."""
    write_json(folder / CONTROL / "stop.json", {"signal": signum})
