"""A plan to processes: in place for one, through torchrun for several. The only file that starts workers.

The parent owns signals. Workers live in a session of their own and are asked to stop by a file that all ranks see at
the same step; torchrun is only ended by force when they do not come to an end in `hardware.stop_timeout` seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from aitrain.compose import Request
from aitrain.config.run import Run
from aitrain.elastic import FIRST_FAILURE
from aitrain.errors import Refused, Stopped, TrainingFailed
from aitrain.plan import Plan
from aitrain.progress import progress_view
from aitrain.rundir import checkpoints
from aitrain.rundir.folder import CONTROL, OUTCOME, read_json, write_json
from aitrain.rundir.status import clear, read_statuses
from aitrain.rundir.stop import StopRequest, owned_signals, request_stop
from aitrain.worker import environment, work

OTHERS = 1.0
"""Seconds the other ranks get to say that they failed too, once one has."""


FAILED_FIRST = "failed_first.json"


class WorkerBug(Exception):
    """A worker ended with an exception that is no user's mistake; carries its traceback."""


def launch(run: Run, plan: Plan, folder: Path, stop: StopRequest) -> dict[str, Any]:
    """Run the workers to their end and return the outcome.

    Raises what the worker raised: Stopped, TrainingFailed, Refused, or WorkerBug with the first failing rank's
    traceback.
    """
    clear(folder)
    if plan.processes > 1:
        return _launch_many(run, plan, folder)
    with closing(progress_view(run, plan, folder)) as view, environment(plan.env):
        return work(folder, stop=stop, listeners=(view,))


def _launch_many(run: Run, plan: Plan, folder: Path) -> dict[str, Any]:
    for name in (OUTCOME, FAILED_FIRST):
        (folder / CONTROL / name).unlink(missing_ok=True)
    values = {**os.environ, **plan.env, "PYTHONUNBUFFERED": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    values[FIRST_FAILURE] = str(folder / CONTROL / FAILED_FIRST)
    parent = _Parent(folder, run.hardware.stop_timeout)
    with parent.owning_signals():  # before anything is started: a signal in between would leave workers behind
        process = subprocess.Popen(plan.argv, env=values, start_new_session=True)
        parent.wait(process)
    return _outcome(parent, folder, process.returncode)


class _Parent:
    """Waits for torchrun, passes signals on as stop requests, and ends it by force when patience is over."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder
        self.patience = patience
        self.signum = 0
        self.deadline: float | None = None
        self.dead: list[int] = []
        """Ranks seen to have died without a word, before anything was ended by us."""

    def owning_signals(self) -> AbstractContextManager[None]:
        """While active, signals come here."""
        return handling_signals(self._received)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            self.deadline = 0.0
            return
        self.signum = signum
        self.deadline = time.monotonic() + self.patience
        request_stop(self.folder, signum)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until torchrun has ended, by itself or by force."""
        try:
            self._watch(process)
        finally:
            if process.poll() is None:
                _end(process)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        failed_at: float | None = None
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if failed_at is None and self._someone_failed():
                failed_at = time.monotonic()
            # One rank failed: the others wait for it in a collective operation and will not end by themselves.
            if failed_at is not None and time.monotonic() > failed_at + OTHERS:
                _end(process)
            if self.deadline is not None and time.monotonic() > self.deadline:
                _end(process)

    def _someone_failed(self) -> bool:
        statuses = read_statuses(self.folder)
        self.dead = self.dead or [status.rank for status in statuses if status.died()]
        return bool(self.dead) or any(status.state in ("failed", "refused") for status in statuses)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill torchrun and its workers, which are one process group of their own and their sessions' children."""
    for pid in [*_descendants(process.pid), process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def handling_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While active, the signals a run takes over go to a handler; those from before come back at the end."""
    before = {number: signal.signal(number, handler) for number in owned_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _descendants(pid: int) -> list[int]:
    """Every process below one, the deepest last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _outcome(parent: _Parent, folder: Path, exit_code: int) -> dict[str, Any]:
    """What the workers came to, by their status files; torchrun's exit code only says that something went wrong."""
    statuses = read_statuses(folder)
    if parent.dead:
        first = (read_json(folder / CONTROL / FAILED_FIRST) or {}).get("rank")  # torchrun ends the others itself
        ranks = ", ".join(map(str, [first] if first in parent.dead else parent.dead))
        raise TrainingFailed(f"rank {ranks} was killed or died without a word; was memory short?")
    outcome = read_json(folder / CONTROL / OUTCOME)
    if outcome is not None and all(status.state == "finished" for status in statuses):
        return dict(outcome)
    first = statuses[0] if statuses else None
    if first and first.state == "refused":
        raise Refused(first.problems)
    if first and first.state == "failed":
        if not first.traceback:
            raise TrainingFailed(first.message)
        raise WorkerBug(f"rank {first.rank} failed first:\n{first.traceback}")
    if parent.signum or any(status.state == "stopped" for status in statuses):
        signum = parent.signum or next(s.exit_code - 128 for s in statuses if s.state == "stopped")
        latest = checkpoints.existing(folder)
        raise Stopped(signum, latest[-1].path.as_posix() if latest else None)
    raise TrainingFailed(f"the workers ended without a result (exit code {exit_code})")


# --- jobs of a multirun --------------------------------------------------------------------------------------------

JOBS = ".jobs"
"""Folder in a multirun's folder with the exit code of each job."""


def run_in_fresh_process(request: Request, command: str, folder: Path) -> int:
    """Run a job in a process of its own and return its exit code.

    The processes are forked from a server that has the libraries imported, so each starts in a moment. A signal to
    this process is passed on once; jobs after it are not started.
    """
    import multiprocessing

    if _stopped_by:
        return 128 + _stopped_by[0]
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        # joblib's workers have a start method that the new process would not know
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aitrain.ml.causal"])
    process = context.Process(target=_run_job, args=(request, command, folder))
    waiting: list[int] = []

    def pass_on() -> None:
        while process.pid and waiting:
            with suppress(ProcessLookupError):
                os.kill(process.pid, waiting.pop(0))

    def received(signum: int, frame: FrameType | None) -> None:
        _stopped_by.append(signum)
        waiting.append(signum)
        pass_on()

    with handling_signals(received):
        process.start()
        pass_on()  # what came while the process was being started
        process.join()
    code = process.exitcode if process.exitcode is not None else 1
    code = 128 - code if code < 0 else code
    (folder.parent / JOBS).mkdir(parents=True, exist_ok=True)
    write_json(folder.parent / JOBS / f"{folder.name}.json", {"exit_code": code})
    return code


_stopped_by: list[int] = []


def _run_job(request: Request, command: str, folder: Path) -> None:
    """In the new process: a session of its own, so that a terminal's Ctrl-C reaches the parent alone."""
    os.setsid()
    from aitrain.cli import run_safely
    from aitrain.start import start

    def run() -> int:
        start(request, command=command, default_folder=folder)
        return 0

    sys.exit(run_safely(run, list(request.overrides)))


def read_exit_codes(folder: Path) -> dict[str, int]:
    """Exit code of each job that ended, by its folder's name."""
    return {path.stem: int(read_json(path)["exit_code"]) for path in sorted((folder / JOBS).glob("*.json"))}
