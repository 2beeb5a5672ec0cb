"""Trackers: a small run's events, read back by each tracker's own reader; how a run ends; what is never written."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from aitrain.compose import Request, compose
from aitrain.config.run import Run
from aitrain.errors import ConfigError, Stopped
from aitrain.registry import TRACKERS
from aitrain.rundir.events import EventLog, read_events
from aitrain.trackers.metrics import metrics
from aitrain.trackers.tracking import tracked
from aitrain.validate import validate

PLANTED = {
    "WANDB_API_KEY": "0badc0de" * 5,
    "HF_TOKEN": "hf_planted0badc0de0badc0de",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-0badc0de",
    "SOME_SECRET": "planted-secret-0badc0de",
}
ARGUMENT = "planted-argument-0badc0de"
EVENTS: list[tuple[str, int, dict[str, Any]]] = [
    ("start", 0, {"time": "2026-01-01T00:00:00+00:00"}),
    ("eval", 0, {"split": "validation", "epoch": 0.0, "loss": 4.5, "tokens": 10}),
    ("train", 2, {"epoch": 0.5, "loss": 3.25, "learning_rate": 0.125, "grad_norm": None}),
    ("note", 2, {"text": "a note"}),
    ("generate", 4, {"samples": [{"prompt": "a", "correct": True}, {"prompt": "b", "correct": None}]}),
    ("checkpoint", 4, {"path": "checkpoints/step-000004", "bytes": 100, "best": True}),
    ("eval", 4, {"split": "validation", "epoch": 1.0, "loss": 2.5, "tokens": 10}),
]


def run_with(*overrides: str) -> Run:
    return validate(compose(Request(overrides=("run.allow_downloads=true", *overrides))))


def feed(run: Run, folder: Path, events: list[tuple[str, int, dict[str, Any]]] = EVENTS) -> None:
    (folder / "control").mkdir(parents=True, exist_ok=True)
    log = EventLog(folder, writes=True)
    with tracked(TRACKERS[run.tracking.name], run, folder, log):
        for kind, step, values in events:
            log.add(kind, step, **values)
    assert not [e for e in read_events(folder) if "failed" in e.get("text", "")]


def fed(tmp_path: Path, tracker: str, *overrides: str) -> Path:
    """Feed the events twice, as a run and its resumption, in a process of its own that has secrets around it."""
    if util.find_spec(TRACKERS[tracker].module) is None:
        pytest.skip(f"the package '{TRACKERS[tracker].module}' is not installed")
    folder = tmp_path / "run"
    environment = {
        **os.environ,
        **PLANTED,
        "HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }
    (tmp_path / "home").mkdir()
    words = [sys.executable, __file__, str(folder), f"tracking={tracker}", *overrides, f"run.name={tracker}"]
    for _ in range(2):
        done = subprocess.run(
            [*words, f"--ignored={ARGUMENT}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    return folder


def assert_no_secret(place: Path) -> None:
    files = [path for path in place.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        found = [name for name, value in [*PLANTED.items(), ("argv", ARGUMENT)] if value.encode() in content]
        assert not found, f"{path.relative_to(place)} holds {found}"


# --- each tracker ----------------------------------------------------------------------------------------------------


def test_tensorboard(tmp_path: Path) -> None:
    folder = fed(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    # The second start resumes after step 2: what the first wrote for step 4 is shown once.
    assert [(e.step, e.value) for e in read.Scalars("validation/loss")] == [(0, 4.5), (4, 2.5)]
    assert [(e.step, e.value) for e in read.Scalars("train/learning_rate")] == [(2, 0.125)]
    assert read.Scalars("generate/correct")[-1].value == 1.0
    assert "config/text_summary" in read.Tags()["tensors"]
    assert_no_secret(tmp_path)


def test_tensorboard_with_a_shared_folder_keeps_runs_apart(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = run_with("tracking=tensorboard", f"tracking.dir={tmp_path / 'all'}", "run.name=x")
    for name in ("one", "two", "two"):
        feed(run, tmp_path / name)
    assert len(list((tmp_path / "all").iterdir())) == 2


def test_wandb_offline(tmp_path: Path) -> None:
    overrides = ("tracking.mode=offline", "tracking.project=p", "tracking.group=g", "tracking.tags=[one]")
    folder = fed(tmp_path, "wandb", *overrides)
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2, [str(p) for p in folder.rglob("*")]
    assert len({path.name for path in files}) == 1, "a resumed run has the same id"
    first = read_wandb(files[0])
    rows = [{item.nested_key[0] if item.nested_key else item.key: item.value_json for item in r.history.item}
            for r in first if r.WhichOneof("record_type") == "history"]  # fmt: skip
    assert {"2", "4"} <= {row["step"] for row in rows}
    assert [float(row["validation/loss"]) for row in rows if "validation/loss" in row] == [4.5, 2.5]
    began = next(r.run for r in first if r.WhichOneof("record_type") == "run")
    assert (began.project, began.run_group, list(began.tags)) == ("p", "g", ["one"])
    assert next(r.exit for r in first if r.WhichOneof("record_type") == "exit").exit_code == 0
    assert_no_secret(tmp_path)


def read_wandb(path: Path) -> list[Any]:
    """Records of an offline run: wandb's own messages in LevelDB's log format, which wandb reads outside Python.

    A header of seven bytes, then blocks of 32 KiB of parts: checksum (4), length (2), whole, first, middle or last (1).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    raw = path.read_bytes()
    assert raw.startswith(b":W&B")
    records, at, parts = [], 7, b""
    while at + 7 <= len(raw):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(raw[at + 4 : at + 6], "little"), raw[at + 6]
        parts += raw[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_trackio(tmp_path: Path) -> None:
    place = tmp_path / "databases"
    fed(tmp_path, "trackio", "tracking.project=p", "tracking.group=g", f"tracking.dir={place}")
    script = (
        "import json, trackio\n"
        "[run] = trackio.Api().runs('p')\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "print(json.dumps([run.name, run.config['_Group'], SQLiteStorage.get_logs('p', run.name)], default=str))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(place), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    import json

    name, group, rows = json.loads(done.stdout.splitlines()[-1])
    assert name.startswith("trackio-")
    assert group == "g"
    assert {(r["step"], r["validation/loss"]) for r in rows if "validation/loss" in r} == {(0, 4.5), (4, 2.5)}
    assert {(r["step"], r["train/loss"]) for r in rows if "train/loss" in r} == {(2, 3.25)}
    assert_no_secret(tmp_path)


@pytest.mark.parametrize("place", [None, "elsewhere"])
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = [f"tracking.tracking_uri={(tmp_path / place).as_uri()}"] if place else []
    folder = fed(tmp_path, "mlflow", "tracking.experiment=e", *uri)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=((tmp_path / place) if place else folder / "mlruns").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    history = client.get_metric_history(run.info.run_id, "validation/loss")
    assert {(m.step, m.value) for m in history} == {(0, 4.5), (4, 2.5)}
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "8"
    assert_no_secret(tmp_path)


# --- how a run ends --------------------------------------------------------------------------------------------------


class Recorded:
    def __init__(self, fails: bool = False) -> None:
        self.events: list[dict[str, Any]] = []
        self.statuses: list[str] = []
        self.fails = fails

    def log(self, event: dict[str, Any]) -> None:
        if self.fails:
            raise ConnectionError("the service is down\nand more")
        self.events.append(event)

    def finish(self, status: str) -> None:
        self.statuses.append(status)


def entry(recorded: Recorded) -> Any:
    from aitrain.config.options import Tracker
    from aitrain.config.section import Unset

    return Tracker(Unset, "json", "json", lambda run, folder: recorded)


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (Stopped(15), "stopped"), (ValueError("a bug"), "failed"), (SystemExit(1), "failed")],
)
def test_a_tracker_is_told_how_the_run_ended(tmp_path: Path, error: BaseException | None, status: str) -> None:
    recorded = Recorded()

    def body() -> None:
        with tracked(entry(recorded), run_with(), tmp_path, EventLog(tmp_path, writes=True)):
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            body()
    else:
        body()
    assert recorded.statuses == [status]


def test_a_failing_tracker_is_noted_once_and_the_run_goes_on(tmp_path: Path) -> None:
    recorded = Recorded(fails=True)
    log = EventLog(tmp_path, writes=True)
    with tracked(entry(recorded), run_with(), tmp_path, log):
        log.add("train", 3, loss=1.0)
        log.add("train", 4, loss=1.0)
    kinds = [(event["event"], event["step"]) for event in read_events(tmp_path)]
    assert kinds == [("train", 3), ("note", 3), ("train", 4)]
    assert next(e["text"] for e in read_events(tmp_path) if "text" in e).endswith(
        "the run goes on: the service is down"
    )
    assert recorded.statuses == ["finished"]


def test_other_ranks_start_no_tracker(tmp_path: Path) -> None:
    recorded = Recorded()
    log = EventLog(tmp_path, writes=False)
    with tracked(entry(recorded), run_with(), tmp_path, log):
        log.add("train", 1, loss=1.0)
    assert not recorded.events
    assert not recorded.statuses


def test_only_numbers_are_metrics() -> None:
    event = {"event": "checkpoint", "step": 4, "path": "x", "bytes": 10, "best": True}
    assert metrics(event) == {"checkpoint/bytes": 10.0}


# --- refused before training -----------------------------------------------------------------------------------------


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(compose(Request(overrides=overrides)))
    return str(caught.value)


@pytest.fixture
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_wandb_online_needs_a_login(no_login: Path) -> None:
    text = refusal("tracking=wandb", "run.allow_downloads=true")
    assert "tracking.mode" in text
    assert "wandb login" in text
    assert "tracking.mode=offline" in text


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_wandb_takes_a_login_from_netrc(no_login: Path, host: str) -> None:
    (no_login / ".netrc").write_text(f"machine {host} login user password 0badc0de\n")
    (no_login / ".netrc").chmod(0o600)
    assert run_with("tracking=wandb").tracking.mode == "online"


def test_a_login_for_another_server_is_none(no_login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_login / ".netrc").write_text("machine api.wandb.ai login user password 0badc0de\n")
    (no_login / ".netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert "needs a login" in refusal("tracking=wandb", "run.allow_downloads=true")


def test_wandb_takes_a_login_from_the_environment(no_login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED["WANDB_API_KEY"])
    assert run_with("tracking=wandb").tracking.mode == "online"


def test_what_needs_the_network_is_refused_without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED["WANDB_API_KEY"])
    offline = "run.allow_downloads=false"
    assert "tracking.mode" in refusal("tracking=wandb", offline)
    server = "tracking.tracking_uri=http://localhost:5000"
    assert "tracking.tracking_uri" in refusal("tracking=mlflow", server, offline)
    validate(compose(Request(overrides=("tracking=wandb", "tracking.mode=offline", offline))))


def test_mlflow_refuses_a_password_in_the_config() -> None:
    text = refusal(
        "tracking=mlflow", "tracking.tracking_uri=http://me:0badc0de@localhost:5000", "run.allow_downloads=true"
    )
    assert "MLFLOW_TRACKING_PASSWORD" in text
    assert "0badc0de" not in text


def test_trackio_refuses_to_leave_the_machine_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    assert "TRACKIO_SPACE_ID" in refusal("tracking=trackio")


if __name__ == "__main__":
    place, *words = sys.argv[1:]
    again = (Path(place) / "metrics.jsonl").exists()
    feed(
        run_with(*(word for word in words if not word.startswith("--"))),
        Path(place),
        [("resume", 2, {"time": "2026-01-01T00:01:00+00:00"}), *EVENTS[4:]] if again else EVENTS,
    )
