"""The run directory: files that are whole or old, one owner at a time, events, statuses, and being asked to stop."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aitrain.errors import ConfigError, MachineError, Problem, Stopped, TrainingFailed
from aitrain.rundir.events import EventLog, forget_after, read_events
from aitrain.rundir.folder import CONTROL, METRICS, acquire, read_json, write_json, write_text
from aitrain.rundir.status import clear, read_statuses, state_of, write_status
from aitrain.rundir.stop import StopRequest, request_stop

ROOT = Path(__file__).resolve().parents[2]


def python(script: str, *words: object, **options: Any) -> subprocess.Popen[str]:
    """Another process that runs a few lines with the package at hand."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old")

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    write_text(path, "neu: ü")
    assert path.read_text(encoding="utf-8") == "neu: ü"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"n": 0, "text": "0" * 5000})
    script = (
        "import sys\nfrom pathlib import Path\nfrom aitrain.rundir.folder import write_json\n"
        "for n in range(60): write_json(Path(sys.argv[1]), {'n': n, 'text': str(n % 10) * 5000})"
    )
    writer = python(script, path)
    while writer.poll() is None:
        value = json.loads(path.read_text())
        assert value["text"] == str(value["n"] % 10) * 5000
    assert writer.wait() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_is_strict(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"loss": value})
    with pytest.raises(ValueError):
        EventLog(tmp_path, writes=True).add("train", 1, loss=value)
    assert not (tmp_path / "x.json").exists()
    assert list(read_events(tmp_path)) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": "\xc3'])
def test_a_file_that_is_no_json_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path / "gone.json") is None


# --- one owner -----------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from aitrain.rundir.folder import acquire
held = acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_and_free_after_kill_9(tmp_path: Path) -> None:
    owner = python(HOLD, tmp_path / "run")
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(MachineError) as caught:
            acquire(tmp_path / "run")
        assert f"is in use by process {owner.pid} on " in str(caught.value)
        assert caught.value.exit_code == 2
    finally:
        owner.kill()
        owner.wait()
    held = acquire(tmp_path / "run")
    assert read_json(tmp_path / "run" / CONTROL / "owner.json")["pid"] == os.getpid()
    held.release()
    acquire(tmp_path / "run").release()


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = acquire(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        held.release()
        acquire(tmp_path).release()
    finally:
        child.kill()
        child.wait()


# --- events --------------------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def log(self, event: dict[str, Any]) -> None:
        self.events.append(event)


def test_events_are_written_in_order_and_passed_on(tmp_path: Path) -> None:
    heard = Heard()
    log = EventLog(tmp_path, writes=True, listeners=(heard,))
    log.add("train", 1, loss=0.5)
    log.add("note", 1, text="Zürich\nnext line \u2028")
    assert list(read_events(tmp_path)) == heard.events
    assert len((tmp_path / METRICS).read_bytes().splitlines()) == 2
    EventLog(tmp_path, writes=False, listeners=(heard,)).add("train", 2, loss=0.1)
    assert len(heard.events) == 2


def test_a_half_written_last_line_is_left_out_wherever_it_was_cut(tmp_path: Path) -> None:
    log = EventLog(tmp_path, writes=True)
    log.add("train", 1, loss=0.5)
    whole = (tmp_path / METRICS).read_bytes()
    log.add("eval", 2, text="Zürich 你")
    full = (tmp_path / METRICS).read_bytes()
    for end in range(len(whole), len(full) - 1):
        (tmp_path / METRICS).write_bytes(full[:end])
        assert [event["step"] for event in read_events(tmp_path)] == [1], full[:end]


def test_what_comes_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    log = EventLog(tmp_path, writes=True)
    for event, step in [("start", 0), ("train", 5), ("save", 5), ("train", 6), ("eval", 10), ("end", 5)]:
        log.add(event, step)
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'{"event": "train", "st')
    assert forget_after(tmp_path, 5) == 3
    assert [(e["event"], e["step"]) for e in read_events(tmp_path)] == [("start", 0), ("train", 5), ("save", 5)]
    log.add("train", 6)
    assert len(list(read_events(tmp_path))) == 4  # the half line does not swallow the next one


# --- statuses ------------------------------------------------------------------------------------------------------


def test_the_first_failure_comes_first_and_a_users_mistake_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / CONTROL).mkdir()
    write_status(tmp_path, 0, "running")
    write_status(tmp_path, 1, "refused", ConfigError(Problem("a.b", "is wrong")))
    time.sleep(0.01)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        write_status(tmp_path, 2, state_of(error), error)
    found = read_statuses(tmp_path)
    assert [(s.rank, s.state, s.exit_code) for s in found] == [(1, "refused", 2), (2, "failed", 1), (0, "running", 0)]
    assert found[0].traceback == ""
    assert found[1].message == "ZeroDivisionError"
    assert "Traceback" in found[1].traceback
    request_stop(tmp_path, 15)
    clear(tmp_path)
    assert read_statuses(tmp_path) == []
    assert StopRequest(tmp_path).requested() == 0


def test_the_state_an_exception_leaves() -> None:
    assert state_of(Stopped(15)) == "stopped"
    assert state_of(MachineError(Problem("a", "b"))) == "refused"
    assert state_of(TrainingFailed("x")) == "failed"
    assert state_of(KeyError("x")) == "failed"


# --- being asked to stop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_outside_training_stops_at_once(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    stop = StopRequest()

    def work() -> None:
        with stop.listening():
            os.kill(os.getpid(), signum)
            time.sleep(1)

    with pytest.raises(Stopped) as caught:
        work()
    assert caught.value.exit_code == 128 + signum
    assert signal.getsignal(signum) == before


def test_a_signal_during_training_is_only_noted() -> None:
    with StopRequest().listening() as stop:
        with stop.training():
            assert stop.requested() == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested() == signal.SIGTERM
        assert stop.requested() == signal.SIGTERM


SECOND = """
import os, signal, sys, time
from aitrain.rundir.stop import StopRequest
with StopRequest().listening() as stop, stop.training():
    os.kill(os.getpid(), signal.SIGTERM)
    print("noted", flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(5)
    print("alive", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_second_signal_ends_the_process(name: str) -> None:
    out, _ = (process := python(SECOND, name)).communicate(timeout=60)
    assert out == "noted\n"
    assert process.returncode == -getattr(signal, name)


def test_a_run_under_nohup_goes_on_after_a_hangup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop, stop.training():
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested() == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_request_reaches_other_processes_by_a_file(tmp_path: Path) -> None:
    (tmp_path / CONTROL).mkdir()
    stop = StopRequest(tmp_path)
    assert stop.requested() == 0
    request_stop(tmp_path, signal.SIGUSR1)
    assert stop.requested() == signal.SIGUSR1
