"""`task=tabular` as a run: its folder, its report, a stopped search that goes on, and the saved model's use."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import aitrain
from aitrain.cli import main
from aitrain.data.encoding import Unusable
from aitrain.errors import DataError, Refused, Stopped
from aitrain.estimators.decision_tree import ESTIMATOR as DECISION_TREE
from aitrain.registry import TRAINERS
from aitrain.rundir.events import EventLog, read_events
from aitrain.tabular.work import TablePredictor
from aitrain.worker import read_run

WORDS = ("task=tabular", "hardware.threads=1", "run.progress=none", "task.importance_repeats=1")
FOLDS = "task.folds=2"


def rows(count: int = 90, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        size, colour = float(rng.normal()), str(rng.choice(["red", "blue", "green"]))
        kind = "large" if size + (colour == "red") > 0.4 else "small"
        found.append({"id": number, "size": round(size, 3), "colour": colour, "kind": kind})
    return found


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def run(folder: Path, data: Path, *words: str) -> dict[str, Any]:
    report = aitrain.train(*WORDS, f"run.dir={folder}", f"data.path={data}", "data.columns.target=kind", *words)
    return dict(report.values)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write(folder / "valid.csv", rows(40, seed=1))
    return write(folder / "train.csv", rows())


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "r"
    run(folder, data.parent, "data.valid_split=valid", "trainer=decision_tree", "task.num_trials=3", FOLDS)
    return folder


def test_a_run_leaves_what_every_run_leaves(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "plan.json", "lock.json", "log.txt", "metrics.jsonl", "model", "report.json"} <= names
    report = json.loads((trained / "report.json").read_text())
    assert report["status"] == "finished"
    assert report["metrics"]["after"]["accuracy"] > report["metrics"]["baselines"]["simple"]["accuracy"] + 0.1
    assert [trial["number"] for trial in report["details"]["trials"]] == [0, 1, 2]
    assert {entry["column"] for entry in report["details"]["importance"]} == {"size", "colour"}
    assert sum(map(sum, report["details"]["confusion"])) == 40
    page = (trained / "report.html").read_text()
    assert "large" in page
    assert "Trials" in page


def test_evaluate_says_what_the_run_said_and_what_scikit_learn_says(trained: Path, data: Path, tmp_path: Path) -> None:
    valid = data.parent / "valid.csv"
    assert main(["evaluate", str(trained), str(valid)]) == 0
    kept = json.loads((trained / "evaluations/valid.json").read_text())
    report = json.loads((trained / "report.json").read_text())
    assert kept["measures"] == pytest.approx(report["metrics"]["after"], abs=1e-12)
    assert main(["predict", str(trained), str(valid), f"output={tmp_path / 'out.jsonl'}"]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [str(row["id"]) for row in rows(40, seed=1)]
    truth, guess = [row["kind"] for row in found], [row["prediction"] for row in found]
    assert kept["measures"]["f1"] == pytest.approx(f1_score(truth, guess, pos_label="small"), abs=1e-12)


def test_predicting_needs_no_target(trained: Path, tmp_path: Path) -> None:
    bare = [{"colour": row["colour"], "size": row["size"]} for row in rows(5, seed=2)]
    assert main(["predict", str(trained), str(write(tmp_path / "bare.csv", bare)), f"output={tmp_path / 'o.csv'}"]) == 0
    lines = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [line["prediction"] in ("large", "small") for line in lines] == [True] * 5


def test_a_file_without_a_column_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "less.csv", [{"size": 1.0}])
    assert main(["predict", str(trained), str(file)]) == 2
    assert "'colour'" in capsys.readouterr().err


def test_a_row_of_a_class_that_training_lacks_cannot_be_judged(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "other.csv", [*rows(3), {**rows(1)[0], "kind": "huge"}])
    assert main(["evaluate", str(trained), str(file)]) == 2
    assert "training knew no class 'huge'" in capsys.readouterr().err
    assert main(["evaluate", str(trained), str(file), "data.on_bad_rows=skip"]) == 0
    assert "3 rows, 1 left out as bad" in capsys.readouterr().out


def test_a_target_that_is_missing_cannot_be_judged(trained: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "gaps.csv", [*rows(3), {**rows(1)[0], "kind": "NA"}])
    assert main(["evaluate", str(trained), str(file), "data.on_bad_rows=skip"]) == 0
    assert json.loads((trained / "evaluations/gaps.json").read_text())["rows"] == 3


def test_targets_that_are_missing_words_are_no_truth(tmp_path: Path) -> None:
    for name, words, odd in (
        ("numbers", {"a": 1.5, "b": 2.5}, ["NA", float("nan"), " ? "]),
        ("labels", {"a": 1, "b": 0}, ["NA", None, ""]),
    ):
        found = [{"x": i % 7, **({"a": i % 2, "b": i % 3 // 2} if name == "labels" else {"a": i / 7, "b": i / 9})}
                 for i in range(60)]  # fmt: skip
        file = write(tmp_path / f"{name}.csv", found)
        aitrain.train(*WORDS, "trainer=decision_tree", "task.num_trials=0", "task.folds=0", f"data.path={file}",
                      "data.columns.target=[a,b]", f"run.dir={tmp_path / name}")  # fmt: skip
        predictor = predictor_of(tmp_path / name)
        assert not isinstance(predictor.truth({"x": 1, **words}), Unusable)
        for word in odd:
            told = predictor.truth({"x": 1, **words, "b": word})
            assert isinstance(told, Unusable)
            assert "'b', the target, has no value" in told.reason


def predictor_of(folder: Path) -> TablePredictor:
    run = read_run(folder)
    return TablePredictor(run, folder / "model", DECISION_TREE)


def test_rows_of_a_later_chunk_may_leave_columns_out(trained: Path) -> None:
    predictor = predictor_of(trained)
    with pytest.raises(DataError, match="no column 'colour'"):
        predictor.predict([{"size": 1.0}])
    assert len(predictor.predict([{"size": 1.0, " colour ": "red"}, {"colour": "red"}])) == 2
    (sparse,) = predictor.predict([{"size": 1.0}])
    assert predictor.predict([{"size": 1.0, "colour": None}]) == [sparse]
    resumed = TablePredictor(read_run(trained), trained / "model", DECISION_TREE, [{"size": 1.0, "colour": "red"}])
    assert resumed.predict([{"size": 1.0}]) == [sparse]


def test_a_bad_cell_spoils_its_row_alone(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = rows(3, seed=4)
    file = write(tmp_path / "cells.csv", [good[0], {**good[1], "size": "wide"}, good[2]])
    assert main(["predict", str(trained), str(file), f"output={tmp_path / 'none.jsonl'}"]) == 2
    error = capsys.readouterr().err
    assert "cells.csv:3" in error
    assert "column 'size' has 'wide'" in error
    assert main(["predict", str(trained), str(file), f"output={tmp_path / 'o.jsonl'}", "data.on_bad_rows=skip"]) == 0
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert ["prediction" in row for row in found] == [True, False, True]
    assert "column 'size' has 'wide'" in found[1]["not_predicted"]
    plain = predictor_of(trained).predict([good[0], good[2]])
    assert [found[0]["prediction"], found[2]["prediction"]] == [row["prediction"] for row in plain]


def trials(folder: Path) -> list[tuple[Any, ...]]:
    return [(e["number"], e["value"], e["params"]) for e in read_events(folder) if e["event"] == "trial"]


def test_a_stopped_search_goes_on_to_the_same_trials(data: Path, tmp_path: Path) -> None:
    words = ("trainer=decision_tree", "task.num_trials=6", FOLDS)
    run(tmp_path / "whole", data, *words)
    with pytest.MonkeyPatch.context() as patch:
        original = EventLog.add

        def add(self: EventLog, kind: str, *args: Any, **fields: Any) -> Any:
            if kind == "trial" and fields["number"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, kind, *args, **fields)

        patch.setattr(EventLog, "add", add)
        with pytest.raises(Stopped):
            run(tmp_path / "parts", data, *words)
    before = trials(tmp_path / "parts")
    report = run(tmp_path / "parts", data, *words, "run.resume=auto")
    assert [number for number, _, _ in before] == [0, 1, 2]
    assert trials(tmp_path / "parts")[-3:] == trials(tmp_path / "whole")[-3:]
    whole = json.loads((tmp_path / "whole/report.json").read_text())
    assert report["metrics"] == whole["metrics"]
    assert [t["value"] for t in report["details"]["trials"]] == [t["value"] for t in whole["details"]["trials"]]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.epochs=3", "it acts with tasks that train a model of tokens"),
        ("peft=lora", "it acts with tasks that train a model of tokens"),
        ("hardware=cpu_x2", "runs in one process"),
        ("data.valid_fraction=0", "leaves no rows to score on"),
        ("trainer=lasso", "lasso cannot do binary"),
        ("data.columns.ignored=[colour,szie]", "no column 'szie'; did you mean 'size'?"),
        ("data.chat_format=chatml", "has no effect with task=tabular"),
        ("task.folds=1", "no cross-validation"),
        ("task.num_trials=2 task.folds=0 task.search_on=folds", "there are no folds with task.folds=0"),
        ("trainer=svm trainer.kernel=linear trainer.gamma=0.5", "has no effect with trainer.kernel=linear"),
        ("trainer=svm trainer.degree=2", "is of the kernel poly alone"),
        ("trainer=svm trainer.scale_target=false", "has no effect for binary"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_starts(
    word: str, told: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=told.replace("?", r"\?")):
        run(tmp_path / "r", data, *([] if "num_trials" in word else ["task.num_trials=0"]), *word.split())
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("trainer", sorted(name for name, found in TRAINERS.items() if found.tasks == ("tabular",)))
def test_the_samples_are_learnt(trainer: str, tmp_path: Path) -> None:
    """Nine of ten where an estimator can; a plain one has to beat the simple answer by far."""
    numbers = trainer in ("lasso", "linear_regression")
    words = (*WORDS, f"run.dir={tmp_path / 'r'}", f"trainer={trainer}", "task.num_trials=0", "task.folds=0",
             f"data.path=sample:{'rents' if numbers else 'flats'}")  # fmt: skip
    found = aitrain.train(*words).metrics
    simple, after = found["baselines"], found["after"]
    if numbers:
        assert after["r2"] > 0.9
    else:
        weak = trainer in ("adaboost", "naive_bayes", "knn", "ridge")
        assert after["f1_macro"] > (0.5 if weak else 0.85)
        assert simple["simple"]["f1_macro"] < 0.3
