"""Run directories are read whole or in pieces, listed, compared and shown as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aitrain.errors import DataError
from aitrain.report_read import (
    BARS,
    Difference,
    RunRecord,
    bytes_text,
    curve_text,
    diff_runs,
    diff_table,
    duration_text,
    flatten,
    list_runs,
    lower_is_better,
    number,
    number_text,
    number_texts,
    read_run,
    result_sentence,
    right_share,
    table,
)

EVENTS: list[dict[str, Any]] = [
    {"event": "start", "step": 0, "time": "2026-11-20T10:00:00+00:00"},
    {"event": "eval", "step": 0, "split": "validation", "loss": 7.62, "perplexity": 2038.5, "tokens": 9000},
    {"event": "train", "step": 10, "loss": 7.0, "learning_rate": 0.001, "seconds": 3.5},
    {"event": "train", "step": 20, "loss": 5.0, "learning_rate": 0.0005, "seconds": 7.0},
    {"event": "eval", "step": 20, "split": "validation", "loss": 5.2, "perplexity": 181.3, "tokens": 9000},
]


def write_run(folder: Path, events: list[dict[str, Any]] | None = None, **report: Any) -> Path:
    """A run directory; `report` becomes report.json, which is left out when empty."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("run: {name: small, dir: outputs/small}\ntrain: {learning_rate: 0.001}\n")
    (folder / "plan.json").write_text(json.dumps({"steps": 40, "device": "cpu"}))
    (folder / "lock.json").write_text(json.dumps({"versions": {"torch": "2.13.0"}, "git": {"commit": "ebe711c"}}))
    lines = [json.dumps(event) for event in (EVENTS if events is None else events)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if report:
        (folder / "report.json").write_text(json.dumps(report))
    return folder


def finished(name: str = "small", **more: Any) -> dict[str, Any]:
    metrics = {"before": {"loss": 7.62}, "after": {"loss": 3.1}, "baselines": {"unigram": 5.4}}
    return {
        "status": "finished",
        "name": name,
        "task": "llm",
        "trainer": "sft",
        "seconds": 73.2,
        "metrics": metrics,
        **more,
    }


def test_a_whole_run_has_no_gaps(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", **finished(steps=40)))
    assert run.gaps == []
    assert (run.name, run.status, run.task, run.trainer) == ("small", "finished", "llm", "sft")
    assert (run.steps, run.planned_steps, run.seconds) == (40, 40, 73.2)
    assert run.before == {"loss": 7.62}
    assert run.after == {"loss": 3.1}
    assert run.baselines == {"unigram": {"loss": 5.4}}
    assert result_sentence(run) == "validation loss 7.62 → 3.10 in 73 s; unigram baseline 5.40, beaten"


def test_without_a_report_the_events_tell(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run.status == "unfinished"
    assert (run.name, run.steps, run.seconds) == ("small", 20, 7.0)
    assert run.before == {"loss": 7.62, "perplexity": 2038.5}
    assert run.after == {"loss": 5.2, "perplexity": 181.3}
    assert result_sentence(run) == "unfinished at step 20 of 40; validation loss 7.62 → 5.20 in 7.0 s"
    assert run.gaps == ["report.json is missing: the run is still going, or was killed before it could write one"]


def test_a_report_that_was_only_begun_is_filled_from_the_events(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {"before": None, "after": None, "baselines": {}}
    begun: dict[str, Any] = {"status": "running", "steps": 0, "seconds": None, "metrics": metrics}
    run = read_run(write_run(tmp_path / "run", **begun))
    assert result_sentence(run) == "running at step 20 of 40; validation loss 7.62 → 5.20 in 7.0 s"
    assert run.gaps == ["report.json was begun and not completed: the run is still going, or was killed"]


def test_a_first_evaluation_after_step_0_is_not_before(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", EVENTS[4:]))
    assert run.before == {}
    assert result_sentence(run) == "unfinished at step 20 of 40; validation loss 5.20"


def test_a_half_written_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **finished())
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 30, "lo')
    run = read_run(folder)
    assert len(run.events) == len(EVENTS)
    assert run.gaps == ["metrics.jsonl: line 6, the last, is half-written and left out"]


def test_a_last_line_without_its_line_end_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **finished())
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    run = read_run(folder)
    assert len(run.events) == len(EVENTS)
    assert run.gaps == []


@pytest.mark.parametrize(
    "line",
    ["[1, 2]", "not json", '{"event": "train", "loss": 1}', '{"event": "note", "step": -1}', "[" * 5000, "\udcff"],
)
def test_damaged_lines_are_counted(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "run", **finished())
    path = folder / "metrics.jsonl"
    path.write_bytes(f"{line}\n".encode("utf-8", "surrogateescape") + path.read_bytes())
    run = read_run(folder)
    assert len(run.events) == len(EVENTS)
    assert run.gaps == ["metrics.jsonl: 1 damaged line(s) left out (1)"]


@pytest.mark.parametrize("name", ["config.yaml", "plan.json", "lock.json", "report.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_file_is_said(tmp_path: Path, name: str, content: str) -> None:
    folder = write_run(tmp_path / "run", **finished())
    (folder / name).write_text(content)
    gaps = read_run(folder).gaps
    assert len(gaps) == 1
    assert gaps[0].startswith(f"{name} is damaged or half-written")


def test_a_config_that_contains_itself_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **finished())
    (folder / "config.yaml").write_text("train: &loop\n  again: *loop\n")
    assert len(flatten(read_run(folder).config)) == 1


def test_nan_is_no_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", **finished())
    (folder / "metrics.jsonl").write_text('{"event": "train", "step": 1, "loss": NaN, "grad_norm": 1e999}\n')
    (event,) = read_run(folder).of("train")
    assert number(event["loss"]) is None
    assert number(event["grad_norm"]) is None


def test_a_resume_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    again = [{"event": "resume", "step": 10}, {"event": "train", "step": 20, "loss": 4.5}]
    run = read_run(write_run(tmp_path / "run", [*EVENTS, *again], **finished()))
    assert [(event["step"], event["loss"]) for event in run.of("train")] == [(10, 7.0), (20, 4.5)]
    assert [event["step"] for event in run.of("eval")] == [0]
    assert run.gaps == ["2 event(s) after step 10 were run again by a resume: left out"]


def test_the_later_record_of_a_step_counts(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [*EVENTS, {**EVENTS[4], "loss": 5.1}], **finished()))
    assert [event["loss"] for event in run.evaluations] == [7.62, 5.1]


def test_the_run_is_judged_by_validation(tmp_path: Path) -> None:
    other = {"event": "eval", "step": 20, "split": "test", "loss": 9.9}
    assert read_run(write_run(tmp_path / "both", [other, *EVENTS])).after["loss"] == 5.2
    run = read_run(write_run(tmp_path / "test", [other]))
    assert (run.split, run.after["loss"]) == ("test", 9.9)


def test_baselines_of_other_metrics(tmp_path: Path) -> None:
    metrics = {"after": {"accuracy": 0.4}, "baselines": {"majority": {"accuracy": 0.6}, "broken": "x"}}
    run = read_run(write_run(tmp_path / "run", [], **finished() | {"metrics": metrics}))
    assert result_sentence(run) == "validation accuracy 0.40 in 73 s; majority baseline 0.60, not reached"


def test_no_run_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write_run(tmp_path / "outputs" / "dolly" / "1")
    with pytest.raises(DataError, match=r"no such folder; did you mean '.*dolly'"):
        read_run(tmp_path / "outputs" / "doly")
    with pytest.raises(DataError, match=r"no run in this folder; there is one below it, .*1"):
        read_run(tmp_path / "outputs" / "dolly")
    with pytest.raises(DataError, match="no such folder"):
        list_runs(tmp_path / "nowhere" / "else")


def test_runs_are_found_below_a_folder_oldest_first(tmp_path: Path) -> None:
    write_run(tmp_path / "b", **finished("late", started="2026-11-20T12:00:00"))
    write_run(tmp_path / "sweep" / "trial-1", **finished("early", started="2026-11-20T09:00:00"))
    write_run(tmp_path / "killed")
    write_run(tmp_path / "b" / "checkpoints" / "step-000010", **finished("inside"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-plan").mkdir()
    (tmp_path / "only-plan" / "plan.json").write_text("{}")
    (tmp_path / "latest").symlink_to(tmp_path / "b")
    assert [run.folder.name for run in list_runs(tmp_path)] == ["trial-1", "killed", "b"]
    assert [run.folder.name for run in list_runs(tmp_path / "b")] == ["b"]


def test_differences_are_sorted_by_cause(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", **finished(data={"train_rows": 1000}))
    b = write_run(
        tmp_path / "b",
        **finished(data={"train_rows": 900}) | {"metrics": {"before": {"loss": 7.62}, "after": {"loss": 2.9}}},
    )
    (b / "config.yaml").write_text("run: {name: small, dir: elsewhere}\ntrain: {learning_rate: 0.01, epochs: 3}\n")
    autos = [{"key": "train.precision", "value": "bfloat16", "reason": "the device has it"}]
    (b / "plan.json").write_text(json.dumps({"steps": 80, "autos": autos}))
    (b / "lock.json").write_text(
        json.dumps({"versions": {"torch": "2.14.0"}, "git": {"commit": "1234567"}, "seed": 1, "made": "today"})
    )
    assert diff_runs(read_run(a), read_run(b)) == [
        Difference("config", "train.learning_rate", 0.001, 0.01),
        Difference("config", "plan.steps", 40, 80),
        Difference("config", "train.epochs", None, 3),
        Difference("config", "train.precision (chosen)", None, "bfloat16"),
        Difference("config", "lock.seed", None, 1),
        Difference("data", "data.train_rows", 1000, 900),
        Difference("code", "lock.git.commit", "ebe711c", "1234567"),
        Difference("environment", "lock.versions.torch", "2.13.0", "2.14.0"),
        Difference("metrics", "after.loss", 3.1, 2.9),
        Difference("metrics", "baselines.unigram.loss", 5.4, None),
    ]


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", **finished()))
    assert diff_runs(run, run) == []
    assert diff_table([]) == "no differences"


def test_a_pipe_gets_columns_of_fixed_width(tmp_path: Path) -> None:
    write_run(tmp_path / "a", **finished("日本語", started="2026-11-20T10:00:00+00:00", steps=40))
    write_run(tmp_path / "b")
    lines = table(list_runs(tmp_path), terminal=False).splitlines()
    assert [line.rstrip() for line in lines] == [
        "name    folder  status      kind     steps       result  right   time  started",
        "日本語  a       finished    llm/sft  40/40  7.62 → 3.10      –   73 s  2026-11-20 10:00",
        "small   b       unfinished           20/40  7.62 → 5.20      –  7.0 s  2026-11-20 10:00",
    ]


def test_a_narrow_terminal_keeps_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    write_run(tmp_path / "a-folder-with-a-long-name", **finished("a-run-with-a-name-that-is-too-long-for-this"))
    text = table(list_runs(tmp_path), terminal=True)
    assert "\x1b[32mfinished" in text
    assert "7.62 → 3.10" in text
    assert "73 s" in text
    assert "started" not in text


def test_what_a_run_recorded_does_not_steer_the_terminal(tmp_path: Path) -> None:
    write_run(tmp_path / "a", **finished("[red]x[/red]\x1b]0;title\x07\n"))
    runs = list_runs(tmp_path)
    assert "\x1b" not in table(runs, terminal=False)
    assert "[red]x[/red]" in table(runs, terminal=False)
    assert "\x1b]" not in table(runs, terminal=True)
    assert "\x07" not in table(runs, terminal=True)
    assert table([]) == "no runs"


def test_the_curve_falls_from_the_highest_to_the_lowest_bar() -> None:
    train = [{"event": "train", "step": step, "loss": 10.0 - step} for step in range(1, 10)]
    run = RunRecord(Path("run"), events=[{"event": "eval", "step": 0, "loss": 10.0}, *train])
    head, first, second = curve_text(run, width=9).splitlines()
    assert head == "loss from 1 to 10, steps 0 to 9"
    assert first == "train        ▇▆▆▅▄▃▃▁  9 → 1"
    assert second.startswith("validation  █ ")
    assert set(first.split()[1]) <= set(BARS)


def test_a_curve_needs_a_loss(tmp_path: Path) -> None:
    assert curve_text(RunRecord(tmp_path)) == "no loss was recorded"
    one = RunRecord(tmp_path, events=[{"event": "eval", "step": 0, "loss": 3.0}])
    assert curve_text(one, width=4).splitlines()[1] == "validation  ▁     3 → 3"


def test_right_share_counts_only_what_can_be_judged() -> None:
    listed = [{"correct": True}, {"correct": False}, {"correct": None}, {}, "x"]
    assert right_share({"samples": listed}) == (1, 2)
    assert right_share({"samples": None}) == (0, 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (3.0, "3"),
        (12345, "12,345"),
        (7.62, "7.620"),
        (2038.5, "2,038"),
        (0.411, "0.411"),
        (0.001, "0.001"),
        (0.000624321, "0.0006243"),
        (2e-5, "2e-5"),
        (1.25e-7, "1.25e-7"),
        (-0.5, "-0.500"),
        (3.21e18, "3.21e18"),
    ],
)
def test_numbers_for_eyes(value: float | None, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.4966, 0.4951], ["0.497", "0.495"]),
        ([0.69312, 0.69314, None], ["0.69312", "0.69314", "–"]),
        ([0.5, 0.5], ["0.50", "0.50"]),
        ([7.62, 3.1, 5.4], ["7.62", "3.10", "5.40"]),
        ([1.0, 1.0 + 1e-12], ["1", "1.00"]),
        ([None, None], ["–", "–"]),
    ],
)
def test_numbers_side_by_side_differ_where_their_values_do(values: list[float | None], texts: list[str]) -> None:
    assert number_texts(values, 3) == texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.234, "0.2 s"), (73.2, "73 s"), (125, "2 min 5 s"), (3599.6, "1 h 0 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (512, "512 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (2**60, "1048576.0 TiB")],
)
def test_sizes(size: float | None, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("loss", True),
        ("eval_loss", True),
        ("wer", True),
        ("token_accuracy", False),
        ("rewards/margins", False),
        ("rewards/rejected", True),
        ("logps/chosen", False),
        ("nll_loss", True),
        ("temperature", None),
        ("mean_reward", None),
    ],
)
def test_which_way_a_metric_improves(metric: str, lower: bool | None) -> None:
    assert lower_is_better(metric) is lower


def test_what_the_run_recorded_says_which_way_a_metric_improves() -> None:
    run = RunRecord(Path("run"), report={"aims": {"loss": "min", "temperature": "max"}})
    found = {metric: run.lower_is_better(metric) for metric in ("loss", "temperature", "mean_reward", "accuracy")}
    assert found == {"loss": True, "temperature": False, "mean_reward": None, "accuracy": None}
    assert RunRecord(Path("run")).lower_is_better("accuracy") is False


def test_a_result_that_moved_reads_so_everywhere(tmp_path: Path) -> None:
    metrics = {"before": {"loss": 0.4966}, "after": {"loss": 0.4951}, "baselines": {}}
    folder = write_run(tmp_path / "run", **{**finished(), "metrics": metrics})
    run = read_run(folder)
    assert result_sentence(run) == "validation loss 0.497 → 0.495 in 73 s"
    assert "0.497 → 0.495" in table([run], terminal=False)
    losses = [{"event": "train", "step": step, "loss": loss} for step, loss in ((1, 0.69314), (2, 0.69312))]
    head, line = curve_text(RunRecord(folder, events=losses)).splitlines()
    assert head.startswith("loss from 0.69312 to 0.69314,")
    assert line.endswith("0.69314 → 0.69312")
