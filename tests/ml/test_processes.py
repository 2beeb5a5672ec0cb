"""Two processes on a CPU: they train as one does, stop when asked, and leave nothing behind however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from runs import assert_same_run, distance, events, losses, report, run, weights, words

from aitrain import plan
from aitrain.errors import Refused
from aitrain.launch import WorkerBug
from aitrain.rundir import checkpoints

# 34 rows in steps of 8: in each last step of an epoch the second process has no row, only a stand-in.
TWO = {"hardware": "cpu_x2", "data__max_samples": 36, "train__batch_size": 4, "train__max_steps": 80,
       "train__learning_rate": 5e-4, "train__save_steps": 30, "train__eval_steps": 40}  # fmt: skip
ONE = {**TWO, "hardware": "cpu", "train__batch_size": 8}

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "r"
    run(folder, **TWO)
    return folder


def processes_of(folder: Path) -> list[int]:
    """Every live process whose command names the folder of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in command:
                found.append(int(entry.name))
    return found


def worker(folder: Path, rank: int) -> int:
    """The process of a rank."""
    for pid in processes_of(folder):
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
            return pid
    raise AssertionError(f"no process of rank {rank}")


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} not within {seconds} s"
        time.sleep(0.02)


@contextmanager
def launched(folder: Path, **changes: Any) -> Iterator[subprocess.Popen[str]]:
    """The command line in a process of its own, seen to be training."""
    command = [sys.executable, "-m", "aitrain", *words(folder, **{**TWO, **changes})]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: process.poll() is not None or events(folder, "train"), 120, "a training step")
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        for pid in [process.pid, *processes_of(folder)]:
            if process.poll() is None or pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_two_processes_train_as_one_does(two: Path, tmp_path: Path) -> None:
    run(tmp_path / "one", **ONE)
    ours, wanted = losses(two), losses(tmp_path / "one")
    assert len(ours) == len(wanted) == 80
    assert max(abs(a - b) for a, b in zip(ours, wanted, strict=True)) <= 1e-5
    assert distance(weights(two / "model"), weights(tmp_path / "one" / "model")) <= 1e-4
    for mine, theirs in zip(events(two), events(tmp_path / "one"), strict=True):
        assert (mine["event"], mine["step"], mine["epoch"]) == (theirs["event"], theirs["step"], theirs["epoch"])
        assert mine["tokens"] == theirs["tokens"], "stand-ins are no tokens"
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    assert report(two)["processes"] == 2
    assert not processes_of(two)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_after_a_checkpoint(two: Path, tmp_path: Path, signum: int) -> None:
    folder = tmp_path / "r"
    with launched(folder) as process:
        process.send_signal(signum)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 128 + signum, said
        assert "Traceback" not in said
        assert f"stopped by signal {signum}; state saved in {folder}" in said
        until(lambda: not processes_of(folder), 3, "an end of every process")
    (saved,) = checkpoints.existing(folder)[-1:]
    assert checkpoints.fault(saved.path) is None
    assert 0 < saved.step < 80
    assert (report(folder)["status"], report(folder)["steps"]) == ("stopped", saved.step)
    if signum == signal.SIGTERM:
        run(folder, run__resume="auto", **TWO)
        assert_same_run(folder, two)


def test_a_killed_launcher_leaves_no_worker(tmp_path: Path) -> None:
    with launched(tmp_path / "r") as process:
        assert len(processes_of(tmp_path / "r")) >= 4
        process.kill()
        process.wait()
        until(lambda: not processes_of(tmp_path / "r"), 3, "an end of every process")


def test_a_killed_worker_ends_the_run_with_a_message(tmp_path: Path) -> None:
    with launched(tmp_path / "r") as process:
        os.kill(worker(tmp_path / "r", 1), signal.SIGKILL)
        said = process.communicate(timeout=15)[0]
        assert process.returncode == 1, said
        assert "failed: rank 1 was killed or died without a word" in said, said
        until(lambda: not processes_of(tmp_path / "r"), 3, "an end of every process")
    assert report(tmp_path / "r")["status"] == "failed"


def workers_run(monkeypatch: pytest.MonkeyPatch, program: Path, count: int = 2) -> None:
    """Let the launcher start another program than the worker, or another number of them."""

    def argv(processes: int, folder: Path) -> tuple[str, ...]:
        torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        return (sys.executable, *torchrun, str(program), str(folder))

    monkeypatch.setattr(plan, "_argv", argv)


WORKER = "import sys\nfrom aitrain.worker import main\n{}\nsys.exit(main())\n"
BUG = """
import os
from aitrain.ml.causal import CausalTrainer
original = CausalTrainer.training_step
def training_step(self, *args, **kwargs):
    if os.environ["RANK"] == "1" and self.state.global_step == 2:
        raise RuntimeError("a bug of ours")
    return original(self, *args, **kwargs)
CausalTrainer.training_step = training_step
"""


def test_a_worker_that_raises_ends_the_run_with_its_traceback_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "worker.py").write_text(WORKER.format(BUG))
    workers_run(monkeypatch, tmp_path / "worker.py")
    with pytest.raises(WorkerBug) as failed:
        run(tmp_path / "r", **TWO)
    assert str(failed.value).startswith("rank 1 failed first:\nTraceback")
    assert str(failed.value).count("RuntimeError: a bug of ours") == 1
    assert "a bug of ours" not in "".join(capfd.readouterr()), "the caller prints it, and nobody else"
    assert not processes_of(tmp_path / "r")
    assert report(tmp_path / "r")["status"] == "failed"


def test_a_launch_that_falls_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text(WORKER.format(""))
    workers_run(monkeypatch, tmp_path / "worker.py", count=1)
    with pytest.raises(Refused, match="asked for 2, but the workers got 1"):
        run(tmp_path / "r", **TWO)
    assert not (tmp_path / "r").exists()
    assert not processes_of(tmp_path / "r")
