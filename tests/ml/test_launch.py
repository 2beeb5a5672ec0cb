"""What surrounds the training: signals while processes start, views that are closed, and nothing left changed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import run, run_stopped_at
from transformers.utils import logging as transformers_logging

from aitrain import launch, progress, worker
from aitrain.compose import Request
from aitrain.config.run import Run
from aitrain.errors import Stopped, TrainingFailed
from aitrain.plan import Machine, Plan, Rows, plan
from aitrain.rundir.folder import CONTROL

OBEDIENT = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\n"


def planned(run_of: Callable[..., Run], folder: Path, program: str, *words: str) -> tuple[Run, Plan]:
    made = run_of("hardware=cpu_x2", *words)
    argv = (sys.executable, "-c", program, str(folder / CONTROL / "stop.json"))
    return made, replace(plan(made, Rows(100, 10), Machine(2, ()), folder), argv=argv)


def test_a_signal_while_torchrun_starts_stops_it(
    run_of: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        started.append(original(*args, **kwargs))
        return started[0]

    original = subprocess.Popen
    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    (tmp_path / CONTROL).mkdir()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        launch.launch(*planned(run_of, tmp_path, OBEDIENT), tmp_path, SimpleNamespace())  # type: ignore[arg-type]
    assert stopped.value.signum == signal.SIGTERM
    assert started[0].returncode == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_error_of_the_parent_leaves_no_process(
    run_of: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> Any:
        raise RuntimeError("a bug of ours")

    (tmp_path / CONTROL).mkdir()
    found: list[subprocess.Popen[bytes]] = []
    original = launch._end
    monkeypatch.setattr(launch, "_end", lambda process: (found.append(process), original(process)))
    monkeypatch.setattr(launch, "read_statuses", fails)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        launch.launch(*planned(run_of, tmp_path, OBEDIENT), tmp_path, SimpleNamespace())  # type: ignore[arg-type]
    assert found[0].poll() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["before the process", "after the process"])
def test_a_signal_while_a_job_starts_is_passed_on_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Process:
        """A process that sleeps, with the interface of multiprocessing's."""

        pid: int | None = None
        exitcode: int | None = None

        def start(self) -> None:
            if moment == "before the process":
                os.kill(os.getpid(), signal.SIGTERM)
            self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            self.pid = self.child.pid
            if moment == "after the process":
                os.kill(os.getpid(), signal.SIGTERM)

        def join(self) -> None:
            self.exitcode = self.child.wait(20)

    sent: list[int] = []
    kill = os.kill

    def recorded(pid: int, signum: int) -> None:
        if pid != os.getpid():
            sent.append(pid)
        kill(pid, signum)

    process = Process()
    context = SimpleNamespace(set_forkserver_preload=lambda names: None, Process=lambda **kwargs: process)
    monkeypatch.setattr("multiprocessing.get_context", lambda method: context)
    monkeypatch.setattr(os, "kill", recorded)
    monkeypatch.setattr(launch, "_stopped_by", [])
    began = time.monotonic()
    try:
        assert launch.run_in_fresh_process(Request(()), "", tmp_path / "0") == 128 + signal.SIGTERM
    finally:
        with suppress(ProcessLookupError):
            kill(process.child.pid, signal.SIGKILL)
    assert sent == [process.pid]
    assert time.monotonic() - began < 15
    assert launch.run_in_fresh_process(Request(()), "", tmp_path / "1") == 128 + signal.SIGTERM, "no further job"


# --- views ----------------------------------------------------------------------------------------------------------


class View:
    """A view that remembers whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def log(self, event: dict[str, Any]) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("ending", ["finished", "stopped", "failed"])
def test_the_view_is_closed_however_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    view = View()
    monkeypatch.setattr(launch, "progress_view", lambda *args: view)
    if ending == "finished":
        run(tmp_path / "r", train__max_steps=1)
    elif ending == "stopped":
        run_stopped_at(1, tmp_path / "r", train__max_steps=2)
    else:
        with pytest.raises(TrainingFailed):
            run(tmp_path / "r", train__max_steps=3, train__learning_rate=1e30, train__warmup_ratio=0.0)
    assert view.closed == 1


def test_a_worker_closes_its_view_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise TrainingFailed("the loss is nan")

    view = View()
    monkeypatch.setattr(progress, "progress_view", lambda *args: view)
    for name, value in {
        "_end_with_owner": lambda folder: None, "read_run": lambda folder: None, "GRACE": 0.0, "work": fails,
        "Plan": SimpleNamespace(from_dict=lambda values: None),
    }.items():  # fmt: skip
        monkeypatch.setattr(worker, name, value)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / CONTROL).mkdir()
    assert worker.main([str(tmp_path)]) == 1
    assert view.closed == 1


def test_the_bar_is_gone_when_the_view_is_closed(run_of: Callable[..., Run], tmp_path: Path) -> None:
    made = run_of("run.progress=rich")
    view = progress.progress_view(made, plan(made, Rows(100, 10), Machine(2, ()), tmp_path), tmp_path)
    assert isinstance(view, progress.RichView)
    assert view.progress.live.is_started
    view.close()
    assert not view.progress.live.is_started


# --- in this process ------------------------------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """What a run changes in its process."""
    names = (*worker.QUIET, "OMP_NUM_THREADS", "ACCELERATE_USE_CPU")
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "disabled": logging.root.manager.disable,
        "environment": {name: os.environ.get(name) for name in names},
    }


def test_a_run_leaves_torch_as_it_was(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    before = settings()
    try:
        run(tmp_path / "r", train__max_steps=1, train__deterministic=True, hardware__threads=1)
        after = settings()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    after["environment"] |= {name: before["environment"][name] for name in worker.QUIET}  # set while tokenising too
    assert after == before


def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in worker.QUIET:
        monkeypatch.delenv(name, raising=False)
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_info()
    transformers_logging.enable_progress_bar()
    before, filters = settings(), list(warnings.filters)
    try:
        with worker.quiet(rank=1):
            assert transformers_logging.get_verbosity() == logging.ERROR
            assert logging.root.manager.disable == logging.WARNING
            assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
            assert warnings.filters != filters
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
        assert settings() == before
        assert warnings.filters == filters
    finally:
        transformers_logging.set_verbosity(verbosity)
