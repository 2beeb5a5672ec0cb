"""`task=text_classification`: losses and measures against plain transformers, any division of the work, and its use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting import plain_logits, small, weather, write_rows
from runs import distance, events, losses, report, run_stopped_at, weights
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoTokenizer, BertConfig, BertModel

from aitrain.cli import main
from aitrain.errors import ConfigError, DataError, Refused, TrainingFailed
from aitrain.ml.sample_models import sample_model
from aitrain.ml.text_classification import balanced_draw

NAMES = ["cold", "dry", "wet"]
SKIES = ["cloud", "storm", "sun"]
SETS = {"data__columns__target": "skies"}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "valid.jsonl", weather(23, seed=1))
    return write_rows(folder / "train.jsonl", weather(37))


@pytest.fixture(scope="module")
def splits(train: Path) -> dict[str, Any]:
    """Both files as splits of their folder."""
    return {"data__valid_split": "valid", "data__train_split": "train", "data__path": train.parent}


@pytest.fixture(scope="module")
def trained(train: Path, splits: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model knows a little."""
    folder = tmp_path_factory.mktemp("trained") / "r"
    small(folder, train, train__max_steps=12, train__learning_rate=2e-3, train__logging_steps=4, **splits)
    return folder


@pytest.fixture(scope="module")
def of_sets(train: Path, splits: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with several classes a row."""
    folder = tmp_path_factory.mktemp("of-sets") / "r"
    small(folder, train, train__max_steps=12, train__learning_rate=2e-3, train__logging_steps=4, **SETS, **splits)
    return folder


def truth_of(rows: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([NAMES.index(row["label"]) for row in rows])


def sets_of(rows: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([[float(name in row["skies"]) for name in SKIES] for row in rows], dtype=torch.float64)


def test_measures_are_those_of_plain_transformers_and_scikit_learn(trained: Path) -> None:
    rows = weather(23, seed=1)
    logits, truth = plain_logits(trained / "model", rows), truth_of(rows)
    found, guess = report(trained)["metrics"]["after"], logits.argmax(-1)
    assert found["loss"] == pytest.approx(float(cross_entropy(logits, truth)), abs=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-12)
    assert found["mcc"] == pytest.approx(matthews_corrcoef(truth, guess), abs=1e-12)
    counted = report(trained)["details"]["confusion"]
    assert np.array(counted).sum() == 23
    assert np.trace(np.array(counted)) == int((guess == truth).sum())


def test_measures_of_several_classes_a_row(of_sets: Path) -> None:
    rows = weather(23, seed=1)
    logits, truth = plain_logits(of_sets / "model", rows), sets_of(rows)
    found, guess = report(of_sets)["metrics"]["after"], (logits.sigmoid() >= 0.5).double()
    assert found["loss"] == pytest.approx(float(binary_cross_entropy_with_logits(logits, truth)), abs=1e-5)
    assert found["subset_accuracy"] == pytest.approx(float((guess == truth).all(1).double().mean()), abs=1e-12)
    assert report(of_sets)["details"]["kind"] == "multi_label"


WEIGHTED: dict[str, dict[str, Any]] = {
    "plain": {},
    "balanced": {"task__class_weights": "balanced"},
    "by class": {"task__class_weights": "{wet: 3.0, dry: 0.25}"},
    "smoothed": {"task__label_smoothing": 0.2, "task__class_weights": "balanced"},
    "sets": SETS,
    "balanced sets": {**SETS, "task__class_weights": "balanced"},
}


def reference_loss(logits: torch.Tensor, rows: list[dict[str, Any]], changes: dict[str, Any]) -> float:
    """The loss of all rows in one, in float64."""
    smoothing = changes.get("task__label_smoothing", 0.0)
    if "data__columns__target" in changes:
        truth = sets_of(rows)
        there = truth.sum(0)
        weight = (len(rows) - there) / there if "task__class_weights" in changes else None
        return float(binary_cross_entropy_with_logits(logits, truth, pos_weight=weight))
    truth = truth_of(rows)
    counts = torch.bincount(truth).double()
    chosen = {"balanced": len(rows) / (3 * counts), "{wet: 3.0, dry: 0.25}": torch.tensor([1.0, 0.25, 3.0]).double()}
    weight = chosen.get(changes.get("task__class_weights", ""))
    return float(cross_entropy(logits, truth, weight=weight, label_smoothing=smoothing))


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_loss_of_a_step_is_the_mean_over_its_rows(
    name: str, trained: Path, of_sets: Path, train: Path, tmp_path: Path
) -> None:
    """37 rows in three micro-batches: no mean of means, and every row by its weight."""
    changes = WEIGHTED[name]
    start = (of_sets if "data__columns__target" in changes else trained) / "model"
    same = {"model__path": start, "data__valid_fraction": 0, "train__max_steps": 1, "train__batch_size": 16}
    small(tmp_path / "r", train, **same, train__gradient_accumulation=3, **changes)
    logits = plain_logits(start, weather(37))
    assert losses(tmp_path / "r") == [pytest.approx(reference_loss(logits, weather(37), changes), abs=1e-5)]


DIVISIONS: dict[str, dict[str, Any]] = {
    "accumulated": {"train__batch_size": 3, "train__gradient_accumulation": 4},
    "two processes": {"hardware": "cpu_x2", "train__batch_size": 6},
}


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("kind", ["balanced", "sets"])
def test_any_division_of_a_step_learns_the_same(
    division: str, kind: str, trained: Path, of_sets: Path, splits: dict[str, Any], train: Path, tmp_path: Path
) -> None:
    start = (of_sets if kind == "sets" else trained) / "model"
    words = {**WEIGHTED[kind], **splits, "model__path": start, "train__max_steps": 5, "train__learning_rate": 1e-3}
    small(tmp_path / "whole", train, **words, train__batch_size=12)
    small(tmp_path / "other", train, **words, **DIVISIONS[division])
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    for one, other in zip(events(tmp_path / "whole", "eval"), events(tmp_path / "other", "eval"), strict=True):
        del one["epoch"], other["epoch"]  # counted in micro-batches, of which the last of an epoch may be a part
        assert other == pytest.approx(one, abs=1e-5)
    assert distance(weights(tmp_path / "whole/model"), weights(tmp_path / "other/model")) < 1e-4


def test_a_stopped_run_continues_to_the_same_bits(splits: dict[str, Any], train: Path, tmp_path: Path) -> None:
    words = {"task": "text_classification", "model__path": "sample:tiny-encoder", "data__max_samples": None,
             "generate__count": None, "train__epochs": 2, "train__save_steps": 3, "task__sampling": "balanced",
             **splits}  # fmt: skip
    small(tmp_path / "whole", train, **{**words, "train__max_steps": None})
    run_stopped_at(4, tmp_path / "parts", **words)
    small(tmp_path / "parts", train, **{**words, "train__max_steps": None}, run__resume="auto")
    assert events(tmp_path / "whole") == events(tmp_path / "parts")
    assert distance(weights(tmp_path / "whole/model"), weights(tmp_path / "parts/model")) == 0.0


def test_two_texts_are_read_as_a_pair_with_token_types(tmp_path: Path) -> None:
    """BERT is told which token is of which text; a reference that is told nothing gives other numbers."""
    model = BertConfig(vocab_size=2048, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=64, pad_token_id=0, initializer_range=0.3)  # fmt: skip
    torch.manual_seed(0)
    BertModel(model).save_pretrained(tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(sample_model("tiny-encoder"))
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.save_pretrained(tmp_path / "bert")
    rows = [{**row, "text_pair": other["text"]} for row, other in zip(weather(21), weather(21, 9), strict=True)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    words = {"model__path": tmp_path / "bert", "data__valid_split": "train", "train__max_steps": 2}
    small(tmp_path / "r", data, **words)
    found, truth = report(tmp_path / "r")["metrics"]["after"], truth_of(rows)
    told = cross_entropy(plain_logits(tmp_path / "r/model", rows, pair="text_pair"), truth)
    assert found["loss"] == pytest.approx(float(told), abs=1e-5)
    assert float(cross_entropy(plain_logits(tmp_path / "r/model", rows), truth)) != pytest.approx(float(told), abs=1e-3)


def test_the_sample_is_learnt(tmp_path: Path) -> None:
    """From nothing to nine of ten of the held-out rows; the most frequent class is right in four of ten."""
    small(tmp_path / "r", Path("sample:opinions"), train__max_steps=None, train__epochs=6, train__batch_size=32,
          train__learning_rate=3e-3, train__logging_steps=50, train__eval_on_start="false")  # fmt: skip
    found = report(tmp_path / "r")["metrics"]
    assert found["after"]["f1_macro"] > 0.9
    assert found["baselines"]["majority"]["accuracy"] < 0.45


# --- heads and classes ---------------------------------------------------------------------------------------------


def notes(folder: Path) -> str:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return " ".join(line["text"] for line in lines if line["event"] == "note")


def test_a_head_for_the_same_classes_is_kept_in_its_order(trained: Path, train: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in (trained / "model").iterdir():
        (turned / path.name).write_bytes(path.read_bytes())
    config = json.loads((turned / "config.json").read_text())
    config |= {"id2label": {"0": "wet", "1": "cold", "2": "dry"}, "label2id": {"wet": 0, "cold": 1, "dry": 2}}
    (turned / "config.json").write_text(json.dumps(config))
    small(tmp_path / "r", train, model__path=turned, train__max_steps=1)
    assert json.loads((tmp_path / "r/plan.json").read_text())["targets"]["names"] == ["wet", "cold", "dry"]
    assert "drawn anew" not in notes(tmp_path / "r")


def test_a_head_for_other_classes_is_drawn_anew(trained: Path, train: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", train, model__path=trained / "model", data__columns__target="words", train__max_steps=1)
    assert "drawn anew" in notes(tmp_path / "r")
    config = json.loads((tmp_path / "r/model/config.json").read_text())
    assert list(config["id2label"].values()) == sorted({str(row["words"]) for row in weather(37)}, key=int)


def test_a_class_without_a_validation_row_is_told(train: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", weather(37))
    write_rows(data / "valid.jsonl", [row for row in weather(23, seed=1) if row["label"] != "wet"])
    small(tmp_path / "r", data, data__valid_split="valid", train__max_steps=1)
    assert "no validation row is of 1 of the 3 classes: 'wet'" in (tmp_path / "r/log.txt").read_text()
    assert "f1_macro" in report(tmp_path / "r")["metrics"]["after"]


def test_a_measure_that_the_rows_do_not_tell_ends_the_run(train: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", weather(37))
    write_rows(data / "valid.jsonl", [row for row in weather(23, seed=1) if row["label"] == "wet"])
    with pytest.raises(TrainingFailed, match="do not tell 'auc'"):
        small(tmp_path / "r", data, data__valid_split="valid", train__metric_for_best_model="auc")


def test_a_measure_of_two_classes_is_refused_for_three(train: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'f1' is not reported of these rows, which hold 3 classes"):
        small(tmp_path / "r", train, train__metric_for_best_model="f1")


def test_a_weight_for_no_class_is_refused(train: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match="'warm' is none of the"):
        small(tmp_path / "r", train, task__class_weights="{warm: 2.0}")


def test_balanced_draws_have_classes_alike_and_every_row_before_one_comes_twice() -> None:
    truth = np.array([0] * 50 + [1] * 5 + [2] * 5)
    first, second = balanced_draw(truth, 7, 0), balanced_draw(truth, 7, 1)
    assert np.bincount(truth[first]).tolist() == [20, 20, 20]
    assert len(set(first[truth[first] == 0])) == 20
    assert np.bincount(first[truth[first] == 1]).tolist()[50:] == [4] * 5
    assert sorted(first) != sorted(second)
    assert np.array_equal(first, balanced_draw(truth, 7, 0))


# --- use -----------------------------------------------------------------------------------------------------------


def test_evaluate_says_what_the_run_said(trained: Path, train: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), str(train.parent / "valid.jsonl"), "train.eval_batch_size=5"]) == 0
    kept = json.loads((trained / "evaluations/valid.json").read_text())
    after = {name: value for name, value in report(trained)["metrics"]["after"].items() if name != "loss"}
    assert kept["measures"] == pytest.approx(after, abs=1e-6)
    assert kept["details"]["confusion"] == report(trained)["details"]["confusion"]
    assert "23 rows" in capsys.readouterr().out


def test_predictions_are_those_of_plain_transformers_in_the_order_of_the_rows(trained: Path, tmp_path: Path) -> None:
    rows = weather(31, seed=5)
    data = write_rows(tmp_path / "new.jsonl", [{"text": row["text"], "number": i} for i, row in enumerate(rows)])
    assert main(["predict", str(trained / "model"), str(data), f"output={tmp_path / 'out.jsonl'}"]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = plain_logits(trained / "model", rows).softmax(-1)
    assert [row["number"] for row in found] == list(range(31))
    assert [row["prediction"] for row in found] == [NAMES[i] for i in expected.argmax(-1)]
    for row, wanted in zip(found, expected.tolist(), strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)


def test_an_adapter_is_trained_and_used(train: Path, splits: dict[str, Any], tmp_path: Path) -> None:
    small(tmp_path / "r", train, peft="lora", train__max_steps=6, train__learning_rate=3e-3, **splits)
    assert (tmp_path / "r/model/adapter_model.safetensors").is_file()
    assert losses(tmp_path / "r")[-1] < losses(tmp_path / "r")[0]
    assert main(["evaluate", str(tmp_path / "r"), str(train.parent / "valid.jsonl")]) == 0
    kept = json.loads((tmp_path / "r/evaluations/valid.json").read_text())["measures"]
    after = {name: value for name, value in report(tmp_path / "r")["metrics"]["after"].items() if name != "loss"}
    assert kept == pytest.approx(after, abs=1e-6)


def test_a_decoder_classifies_too(train: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", train, model__path="sample:tiny-qwen3", data__valid_split="train", train__max_steps=2)
    rows = weather(37)
    found = report(tmp_path / "r")["metrics"]["after"]["loss"]
    logits = plain_logits(tmp_path / "r/model", rows)
    assert found == pytest.approx(float(cross_entropy(logits, truth_of(rows))), abs=1e-5)


# --- what else a review found --------------------------------------------------------------------------------------


def test_a_row_of_weight_0_adds_nothing_wherever_it_stands(trained: Path, train: Path, tmp_path: Path) -> None:
    words = {"model__path": trained / "model", "data__valid_fraction": 0, "train__max_steps": 1,
             "task__class_weights": "{dry: 0.0}", "task__label_smoothing": 0.3}  # fmt: skip
    small(tmp_path / "whole", train, **words, train__batch_size=37)
    small(tmp_path / "parts", train, **words, train__batch_size=1, train__gradient_accumulation=37)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)


def test_class_weights_are_those_of_the_rows_trained_on(trained: Path, train: Path, tmp_path: Path) -> None:
    words = {"model__path": trained / "model", "data__valid_fraction": 0.4, "train__max_steps": 1,
             "train__batch_size": 37, "task__class_weights": "balanced"}  # fmt: skip
    small(tmp_path / "r", train, **words)
    told = json.loads((tmp_path / "r/report.json").read_text())["data"]
    from aitrain.data.splits import hold_out

    rows = weather(37)
    kept = [rows[i] for i in hold_out(37, 0.4, 42, truth_of(rows).numpy()).train]
    assert told["train_rows"] == len(kept)
    wanted = reference_loss(plain_logits(trained / "model", kept), kept, {"task__class_weights": "balanced"})
    assert losses(tmp_path / "r") == [pytest.approx(wanted, abs=1e-5)]


def test_one_batch_may_be_drawn_balanced(train: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", train, train__overfit_batch="true", task__sampling="balanced", train__batch_size=16)
    assert len(losses(tmp_path / "r")) == 3


def test_a_class_feature_is_read_by_its_names_when_used(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["wet", "dry", "cold"])})
    rows = [{"text": row["text"], "label": row["label"]} for row in weather(30)]
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    small(tmp_path / "r", tmp_path / "rows.parquet", train__max_steps=1)
    assert json.loads((tmp_path / "r/plan.json").read_text())["targets"]["names"] == ["wet", "dry", "cold"]
    assert main(["evaluate", str(tmp_path / "r"), str(tmp_path / "rows.parquet")]) == 0


def test_columns_are_those_of_the_training(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = weather(5, seed=8)
    pairs = write_rows(tmp_path / "pairs.jsonl", [{**row, "hypothesis": "sun"} for row in rows])
    assert main(["predict", str(trained), str(pairs), f"output={tmp_path / 'out.jsonl'}"]) == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    wanted = plain_logits(trained / "model", rows).softmax(-1)
    assert [row["probability"] for row in found] == pytest.approx(wanted.max(-1).values.tolist(), abs=1e-5)
    assert main(["predict", str(trained), str(pairs), "task.threshold=0.9", "data.columns.chosen=text"]) == 2
    assert "data.columns.chosen: has no effect with task=text_classification" in capsys.readouterr().err


def test_a_model_of_pairs_needs_both_texts(train: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", [{**row, "hypothesis": "sun"} for row in weather(30)])
    small(tmp_path / "r", pairs, train__max_steps=1)
    assert main(["predict", str(tmp_path / "r"), str(train)]) == 2
    assert "trained on two texts, and the rows have no column 'hypothesis'" in capsys.readouterr().err


def test_a_threshold_without_effect_is_refused(train: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="each row has exactly one class"):
        small(tmp_path / "r", train, task__threshold=0.4)


@pytest.mark.parametrize("words", [{"task": "llm", "trainer": "sft"}, {"task": "text_regression"}])
def test_balanced_rows_need_classes(words: dict[str, Any], train: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="takes as many rows of each class"):
        small(tmp_path / "r", train, **words, data__max_samples=10, data__max_samples_strategy="balanced")
