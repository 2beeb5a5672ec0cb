"""A run that was stopped or killed anywhere and continued is, to the last bit, the run that was not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dying import run_until_death
from runs import assert_same_run, distance, events, report, run, run_stopped_at, weights, words

from aitrain.cli import main
from aitrain.errors import ConfigError, Refused, Stopped
from aitrain.ml import causal
from aitrain.rundir import checkpoints
from aitrain.rundir.events import forget_after, read_events

# 38 rows in micro-batches of 4: 10 an epoch, 5 steps of 2; 10 steps; evaluations after 0, 5 and 10.
PLAIN = {"train__batch_size": 4, "train__gradient_accumulation": 2, "train__epochs": 2, "train__save_steps": 3,
         "train__logging_steps": 2, "train__save_total_limit": "null"}  # fmt: skip
DROPOUT = {**PLAIN, "peft": "lora", "peft.r": 4, "peft.dropout": 0.3}
KINDS = {"plain": PLAIN, "dropout": DROPOUT}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The uninterrupted runs."""
    folders = {kind: tmp_path_factory.mktemp("whole") / kind for kind in KINDS}
    for kind, folder in folders.items():
        run(folder, **KINDS[kind])
    return folders


def assert_continued_alike(folder: Path, reference: Path) -> None:
    assert_same_run(folder, reference)
    ours, wanted = report(folder), report(reference)
    for key in ("status", "steps", "epochs", "ended_by", "metrics", "parameters"):
        assert ours[key] == wanted[key], key
    for key in ("step", "loss"):
        assert ours["best"][key] == wanted["best"][key]


# --- stopped by a signal --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "micro_step"), [
    ("plain", 1), ("plain", 10), ("plain", 13), ("plain", 20), ("dropout", 3), ("dropout", 10), ("dropout", 16),
])  # fmt: skip
def test_stopped_in_a_step(whole: dict[str, Path], tmp_path: Path, kind: str, micro_step: int) -> None:
    stopped = run_stopped_at(micro_step, tmp_path / "r", **KINDS[kind])
    step = -(-micro_step // 2)
    assert (stopped.signum, stopped.exit_code) == (signal.SIGTERM, 143)
    assert stopped.checkpoint is not None
    assert Path(stopped.checkpoint).name == f"step-{step:06d}"
    assert (report(tmp_path / "r")["status"], report(tmp_path / "r")["steps"]) == ("stopped", step)
    run(tmp_path / "r", run__resume="auto", **KINDS[kind])
    assert_continued_alike(tmp_path / "r", whole[kind])


def test_stopped_again_and_again(whole: dict[str, Path], tmp_path: Path) -> None:
    run_stopped_at(3, tmp_path / "r", **DROPOUT)
    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        stopped = run_stopped_at(4, tmp_path / "r", signum, run__resume="auto", **DROPOUT)
        assert stopped.exit_code == 128 + signum
    run(tmp_path / "r", run__resume="auto", **DROPOUT)
    assert_continued_alike(tmp_path / "r", whole["dropout"])
    assert [event["step"] for event in read_events(tmp_path / "r") if event["event"] == "resume"] == [2, 4, 6, 8]


@contextmanager
def signal_in_evaluation(number: int) -> Iterator[None]:
    """SIGTERM arrives as the number-th evaluation of this process begins."""
    original, seen = causal.evaluate_causal_lm, 0

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal, "evaluate_causal_lm", evaluate)
        yield


@pytest.mark.parametrize(("number", "step"), [(1, 0), (2, 5), (3, 10)])
def test_stopped_in_an_evaluation(whole: dict[str, Path], tmp_path: Path, number: int, step: int) -> None:
    with signal_in_evaluation(number), pytest.raises(Stopped) as stopped:
        run(tmp_path / "r", **PLAIN)
    found = stopped.value.checkpoint
    assert (found and Path(found).name) == (f"step-{step:06d}" if step else None)
    assert step not in [event["step"] for event in events(tmp_path / "r", "eval")]
    # The evaluation is made up for, and a signal can keep it from happening once more.
    with signal_in_evaluation(1), pytest.raises(Stopped):
        run(tmp_path / "r", run__resume="auto", **PLAIN)
    run(tmp_path / "r", run__resume="auto", **PLAIN)
    assert_continued_alike(tmp_path / "r", whole["plain"])


def test_an_evaluation_made_up_for_can_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience ends at the evaluation that the signal interrupted."""
    original = causal.evaluate_causal_lm

    def worse(*args: Any, **kwargs: Any) -> Any:
        measures = original(*args, **kwargs)
        return {**measures, "loss": 100 - measures["loss"]}

    monkeypatch.setattr(causal, "evaluate_causal_lm", worse)
    changes = {**PLAIN, "train__eval_steps": 2, "train__early_stopping_patience": 1, "train__load_best": True}
    run(tmp_path / "whole", **changes)
    assert (report(tmp_path / "whole")["ended_by"], report(tmp_path / "whole")["steps"]) == ("early_stopping", 4)
    with signal_in_evaluation(3), pytest.raises(Stopped):
        run(tmp_path / "r", **changes)
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_continued_alike(tmp_path / "r", tmp_path / "whole")


# --- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "number"), [
    ("training", 3), ("training", 15), ("files", 1), ("files", 2), ("manifest", 2), ("rename", 2), ("published", 2),
    ("event", 4),
])  # fmt: skip
def test_killed(whole: dict[str, Path], tmp_path: Path, point: str, number: int) -> None:
    changes = {**DROPOUT, "train__save_total_limit": 1}
    run_until_death(words(tmp_path / "r", **changes), point, number)
    assert report(tmp_path / "r")["status"] == "running"
    assert all(checkpoints.fault(found.path) is None for found in checkpoints.existing(tmp_path / "r"))
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_continued_alike(tmp_path / "r", whole["dropout"])
    names = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == sorted({"step-000010", f"step-{report(tmp_path / 'r')['best']['step']:06d}"})


def test_killed_before_the_report(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["plain"], tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "model")
    text = (tmp_path / "r" / "report.json").read_text()
    (tmp_path / "r" / "report.json").write_text(text.replace('"finished"', '"running"'))
    run(tmp_path / "r", run__resume="auto", **PLAIN)
    assert_continued_alike(tmp_path / "r", whole["plain"])


# --- damaged checkpoints --------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "model.safetensors": flip,
    "optimizer.pt": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "trainer_state.json": Path.unlink,
    "manifest.json": lambda path: path.write_text('{"step": 9, "fil'),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    run_stopped_at(15, tmp_path / "r", **PLAIN)  # step 8; the one before is step 6
    DAMAGES[name](tmp_path / "r" / "checkpoints" / "step-000008" / name)
    run(tmp_path / "r", run__resume="auto", **PLAIN)
    assert_continued_alike(tmp_path / "r", whole["plain"])
    notes = [event["text"] for event in read_events(tmp_path / "r") if event["event"] == "note"]
    assert any(name in text and "step-000008" in text for text in notes)
    assert [event["step"] for event in read_events(tmp_path / "r") if event["event"] == "resume"] == [6]


def test_a_damaged_checkpoint_pushes_no_whole_one_out(whole: dict[str, Path], tmp_path: Path) -> None:
    """With a limit of 1, step 7 must outlive the damaged step 8."""
    changes = {**PLAIN, "train__save_total_limit": 1}
    run_stopped_at(12, tmp_path / "r", **changes)
    shutil.copytree(tmp_path / "r" / "checkpoints" / "step-000006", tmp_path / "kept")
    run_stopped_at(4, tmp_path / "r", run__resume="auto", **changes)
    flip(tmp_path / "r" / "checkpoints" / "step-000008" / "model.safetensors")
    shutil.copytree(tmp_path / "kept", tmp_path / "r" / "checkpoints" / "step-000006", dirs_exist_ok=True)
    stopped = run_stopped_at(2, tmp_path / "r", run__resume="auto", **changes)
    assert stopped.checkpoint is not None
    assert Path(stopped.checkpoint).name == "step-000007"
    assert Path(stopped.checkpoint).is_dir()
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_continued_alike(tmp_path / "r", whole["plain"])
    assert [event["step"] for event in read_events(tmp_path / "r") if event["event"] == "resume"] == [6, 6, 7]


def test_a_run_without_a_whole_checkpoint_begins_anew(whole: dict[str, Path], tmp_path: Path) -> None:
    run_stopped_at(3, tmp_path / "r", **PLAIN)
    flip(tmp_path / "r" / "checkpoints" / "step-000002" / "model.safetensors")
    run(tmp_path / "r", run__resume="auto", **PLAIN)
    assert_continued_alike(tmp_path / "r", whole["plain"])


# --- what is refused ------------------------------------------------------------------------------------------------


def test_another_config_is_refused_with_key_old_and_new(tmp_path: Path) -> None:
    run_stopped_at(3, tmp_path / "r", **PLAIN)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")}
    changed = {**PLAIN, "train__learning_rate": 0.5, "train__batch_size": 2, "train__logging_steps": 1}
    with pytest.raises(Refused) as refused:
        run(tmp_path / "r", run__resume="auto", **changed)
    said = {problem.key: problem.what for problem in refused.value.problems}
    assert said == {"train.learning_rate": "was 'auto', is 0.5", "train.batch_size": "was 4, is 2"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")} == before
    with pytest.raises(Refused, match="exists and is not empty"):
        run(tmp_path / "r", **PLAIN)


def test_changed_data_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(40)))
    changes = {**PLAIN, "data__path": data, "data__max_samples": None}
    run_stopped_at(3, tmp_path / "r", **changes)
    data.write_text(data.read_text().replace("c7", "changed"))
    with pytest.raises(ConfigError, match=r"the rows of .*rows.jsonl changed"):
        run(tmp_path / "r", run__resume="auto", **changes)


def test_a_finished_run_is_left_alone(whole: dict[str, Path]) -> None:
    folder = whole["plain"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(words(folder, run__resume="auto", **PLAIN)) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_named_checkpoint_starts_another_run(whole: dict[str, Path], tmp_path: Path) -> None:
    start = whole["plain"] / "checkpoints" / "step-000006"
    run(tmp_path / "r", run__resume=start, **PLAIN)
    assert distance(weights(tmp_path / "r" / "model"), weights(whole["plain"] / "model")) == 0.0
    late = [event for event in events(whole["plain"]) if event["step"] > 6]
    assert events(tmp_path / "r") == late


# --- events ---------------------------------------------------------------------------------------------------------


def test_events_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"event": "train", "step": {step}}}\n' for step in (0, 2, 4, 6)] + ['{"event": "end", "step": 2}\n']
    path.write_bytes("".join(lines).encode() + '{"event": "train", "text": "ß'.encode()[:-1])
    assert forget_after(tmp_path, 4) == 2
    assert [event["step"] for event in read_events(tmp_path)] == [0, 2, 4]
    assert forget_after(tmp_path, 0) == 3
    assert path.read_text() == ""


def test_a_run_that_began_from_a_checkpoint_keeps_to_it_when_killed_before_its_own(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    start = whole["plain"] / "checkpoints" / "step-000003"
    reference = run(tmp_path / "reference", **PLAIN, run__resume=start)
    killed = tmp_path / "killed"
    shutil.copytree(reference.folder, killed)
    for made in (*(killed / "checkpoints").iterdir(), killed / "model"):
        shutil.rmtree(made)
    (killed / "report.json").unlink()
    run(killed, **PLAIN, run__resume="auto")
    assert [event["step"] for event in events(killed, "resume")][-1] == 3
    assert distance(weights(killed / "model"), weights(reference.folder / "model")) == 0.0
