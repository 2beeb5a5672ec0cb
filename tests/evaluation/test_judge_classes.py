"""Classes and labels against values worked out by hand, against scikit-learn, and in the corners."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from sklearn import metrics

from aitrain.evaluation import (
    calibration_bins,
    calibration_error,
    details_of_classes,
    details_of_labels,
    judge_classes,
    judge_labels,
)

pytestmark = pytest.mark.filterwarnings("error")
ABC = ["a", "b", "c"]
CALM = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
"""Predicted 0 1 1 1 0; the second class's probabilities in order: 0.1 0.4 0.6 0.7 0.8."""
TRUE = np.array([0, 1, 0, 1, 1])


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something about the truth, and the truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, rows)
    logits = random.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth


def test_two_classes_by_hand() -> None:
    found = judge_classes(CALM, TRUE, ["no", "yes"])
    assert found == pytest.approx(
        {
            "accuracy": 3 / 5,
            "precision": 2 / 3,  # rows 1 2 3 are called yes, 1 and 3 are
            "recall": 2 / 3,  # rows 1 3 4 are yes, 1 and 3 are called so
            "f1": 2 / 3,
            "f1_macro": (2 / 3 + 1 / 2) / 2,  # no: 1 of 2 called, 1 of 2 found
            "auc": 5 / 6,  # of yes 0.8 0.7 0.4 against no 0.1 0.6 only 0.4 and 0.6 are the wrong way round
            "mcc": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2),  # tp 2, tn 1, fp 1, fn 1
            # confidences 0.9 0.8 0.6 0.7 0.6, right 1 1 0 1 0. Edges are k/15: 0.6 = 9/15 closes the bin of both 0.6
            "calibration_error": (abs(1 - 0.9) + abs(1 - 0.8) + abs(0 - 1.2) + abs(1 - 0.7)) / 5,
        }
    )


def test_more_classes_are_those_of_scikit_learn() -> None:
    probabilities, truth = drawn(300, 5)
    found = judge_classes(probabilities, truth, list("abcde"))
    predicted = probabilities.argmax(1)
    wanted = {"accuracy": metrics.accuracy_score(truth, predicted), "mcc": metrics.matthews_corrcoef(truth, predicted)}
    for average in ("macro", "micro", "weighted"):
        wanted[f"f1_{average}"] = metrics.f1_score(truth, predicted, average=average)
        wanted[f"precision_{average}"] = metrics.precision_score(truth, predicted, average=average)
        wanted[f"recall_{average}"] = metrics.recall_score(truth, predicted, average=average)
    wanted["auc"] = metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    wanted["calibration_error"] = found["calibration_error"]
    assert found == pytest.approx(wanted, abs=1e-12)
    assert len({round(found[f"{name}_{kind}"], 9) for name in ("f1", "recall") for kind in ("macro", "weighted")}) > 2


def test_two_classes_are_those_of_scikit_learn() -> None:
    probabilities, truth = drawn(200, 2, seed=3)
    found = judge_classes(probabilities.astype(np.float32), truth.astype(np.int32), ["no", "yes"])
    predicted = probabilities.argmax(1)
    for name, measure in (
        ("f1", metrics.f1_score), ("precision", metrics.precision_score), ("recall", metrics.recall_score),
        ("mcc", metrics.matthews_corrcoef), ("accuracy", metrics.accuracy_score),
    ):  # fmt: skip
        assert found[name] == pytest.approx(measure(truth, predicted), abs=1e-12)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth, probabilities[:, 1]), abs=1e-12)


def test_calibration_error_is_the_loop_over_bins() -> None:
    random = np.random.default_rng(1)
    probability = np.concatenate([random.random(500), [0.0, 1.0, 1 / 15, 0.2, 0.6]])
    true = random.random(len(probability)) < probability**2
    wanted, held = 0.0, 0
    for place in range(15):
        low, high = place / 15, (place + 1) / 15
        inside = [i for i, p in enumerate(probability) if low < p <= high or (place == 0 and p == 0)]
        held += len(inside)
        if inside:
            accuracy = math.fsum(float(true[i]) for i in inside) / len(inside)
            confidence = math.fsum(float(probability[i]) for i in inside) / len(inside)
            wanted += len(inside) / len(probability) * abs(accuracy - confidence)
    assert held == len(probability)
    assert calibration_error(probability, true) == pytest.approx(wanted, abs=1e-12)
    bins = calibration_bins(probability, true)
    gaps = [bin_["count"] * abs(bin_["accuracy"] - bin_["confidence"]) for bin_ in bins]
    assert sum(gaps) / len(probability) == pytest.approx(wanted, abs=1e-12)
    assert len(bins) == 15


def test_calibration_by_hand() -> None:
    probability, true = np.array([0.95, 0.97, 0.5, 0.52, 0.0]), np.array([1, 0, 1, 1, 0])
    # bins (14/15, 1]: mean 0.96, share 1/2; (7/15, 8/15]: mean 0.51, share 1; [0, 1/15]: 0 and 0
    assert calibration_error(probability, true) == pytest.approx((2 * (0.96 - 0.5) + 2 * (1 - 0.51) + 0) / 5)
    bins = calibration_bins(probability, true)
    assert [bin_["count"] for bin_ in bins] == [1, 2, 2]
    assert bins[1] == pytest.approx({"from": 7 / 15, "to": 8 / 15, "confidence": 0.51, "accuracy": 1.0, "count": 2})


def test_a_probability_on_an_edge_belongs_below_it() -> None:
    bins = calibration_bins(np.array([0.0, 0.2, 1.0]), np.array([0, 0, 1]))
    assert [(bin_["from"], bin_["to"]) for bin_ in bins] == [(0, 1 / 15), (2 / 15, 3 / 15), (14 / 15, 1)]


def test_a_class_that_nothing_names_takes_no_part_in_macro_averages() -> None:
    probabilities, truth = drawn(100, 3)
    padded = np.hstack([probabilities, np.zeros((100, 2))])
    assert judge_classes(padded, truth, list("abcde")) == pytest.approx(judge_classes(probabilities, truth, ABC))


def test_a_class_in_predictions_alone_counts_zero() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 2]]
    found = judge_classes(probabilities, np.array([0, 0, 1, 1]), ABC)
    # a: 1; b: precision 1, recall 1/2, f1 2/3; c: 0
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["recall_macro"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["f1_weighted"] == pytest.approx((1 + 2 / 3) / 2)


def test_auc_is_over_classes_that_some_rows_have() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.6, 0.1, 0.3], [0.2, 0.7, 0.1], [0.55, 0.4, 0.05]])
    found = judge_classes(probabilities, np.array([0, 0, 1, 1]), ABC)
    # a: 0.5 0.6 against 0.2 0.55, 3 of 4 pairs; b: 0.7 0.4 against 0.3 0.1, all; c: no row
    assert found["auc"] == pytest.approx((3 / 4 + 1) / 2)


@pytest.mark.parametrize("classes", [["no", "yes"], ABC])
def test_one_row_and_one_class_have_no_auc(classes: list[str]) -> None:
    found = judge_classes(np.eye(len(classes))[[1]], np.array([1]), classes)
    assert "auc" not in found
    assert found["accuracy"] == 1
    assert found["mcc"] == 0
    assert found["calibration_error"] == 0
    assert all(math.isfinite(value) for value in found.values())
    assert judge_classes(np.eye(len(classes))[[0, 0]], np.array([1, 1]), classes)["f1_macro"] == 0


def test_details_of_classes_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.7, 0.2], [0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    details = details_of_classes(probabilities, np.array([0, 0, 0, 1, 1]), ABC)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["kind"] == "classification"
    assert details["confusion"] == [[1, 2, 0], [1, 0, 1], [0, 0, 0]]
    assert details["per_class"][0] == pytest.approx(
        {"class": "a", "precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "support": 3}
    )
    assert details["per_class"][2] == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert details["wrong"][0] == {"row": 3, "truth": "b", "prediction": "a", "probability": 0.9}
    assert [entry["row"] for entry in details["wrong"]] == [3, 2, 1, 4]
    assert details["confused"] == [
        {"truth": "a", "prediction": "b", "count": 2},
        {"truth": "b", "prediction": "a", "count": 1},
        {"truth": "b", "prediction": "c", "count": 1},
    ]
    assert sum(bin_["count"] for bin_ in details["calibration"]) == 5


def test_details_stay_small() -> None:
    probabilities, truth = drawn(900, 201, seed=2)
    details = details_of_classes(probabilities, truth, [str(place) for place in range(201)])
    assert "confusion" not in details
    assert len(details["wrong"]) == len(details["confused"]) == 20
    matrix = metrics.confusion_matrix(truth, probabilities.argmax(1), labels=range(201))
    np.fill_diagonal(matrix, 0)
    assert [pair["count"] for pair in details["confused"]] == sorted(matrix.ravel().tolist(), reverse=True)[:20]
    assert all(matrix[int(pair["truth"]), int(pair["prediction"])] == pair["count"] for pair in details["confused"])
    confidences = [entry["probability"] for entry in details["wrong"]]
    assert confidences == sorted(confidences, reverse=True)
    assert "confusion" in details_of_classes(*drawn(9, 200), [str(place) for place in range(200)])


def set_probability(value: float) -> np.ndarray:
    changed = CALM.copy()
    changed[2, 0] = value
    return changed


@pytest.mark.parametrize(
    ("probabilities", "truth", "classes", "words"),
    [
        (set_probability(math.nan), TRUE, ["no", "yes"], "row 2 are not finite"),
        (set_probability(math.inf), TRUE, ["no", "yes"], "row 2 are not finite"),
        (set_probability(3.5), TRUE, ["no", "yes"], r"not in \[0, 1\]"),
        (set_probability(0.9), TRUE, ["no", "yes"], "row 2 add up to 1.5"),
        (CALM, TRUE, ABC, "3 classes"),
        (CALM, TRUE[:4], ["no", "yes"], "does not fit"),
        (CALM, TRUE + 1, ["no", "yes"], "2 classes"),
        (CALM, TRUE - 1, ["no", "yes"], "between -1"),
        (CALM, TRUE * 1.0, ["no", "yes"], "integers"),
        (CALM[:0], TRUE[:0], ["no", "yes"], "rows"),
        (np.ones((5, 1)), TRUE * 0, ["only"], "two classes"),
    ],
)
def test_what_cannot_be_judged_is_refused(probabilities: object, truth: object, classes: list[str], words: str) -> None:
    for judge in (judge_classes, details_of_classes):
        with pytest.raises(ValueError, match=words):
            judge(probabilities, truth, classes)


SETS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
BELIEFS = np.array([[0.9, 0.2, 0.6], [0.3, 0.8, 0.7], [0.4, 0.5, 0.1], [0.1, 0.0, 0.2]])
"""At 0.5 the labels {a c} {b c} {b} {}."""


def test_labels_by_hand() -> None:
    found = judge_labels(BELIEFS, SETS, ABC)
    assert found["subset_accuracy"] == 2 / 4
    assert found["hamming_loss"] == pytest.approx(2 / 12)
    # a: tp 1 fn 1, b: tp 2, c: tp 1 fp 1
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert found["precision_micro"] == pytest.approx(4 / 5)
    assert found["recall_micro"] == pytest.approx(4 / 5)
    assert found["f1_micro"] == pytest.approx(4 / 5)
    assert found["f1_weighted"] == pytest.approx((2 * 2 / 3 + 2 * 1 + 1 * 2 / 3) / 5)
    assert found["f1_samples"] == pytest.approx((1 + 2 / 3 + 2 / 3 + 1) / 4)
    # a: 0.9 0.4 against 0.3 0.1; b: 0.8 0.5 against 0.2 0; c: 0.6 against 0.7 0.1 0.2
    assert found["auc"] == pytest.approx((1 + 1 + 2 / 3) / 3)


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_labels_are_those_of_scikit_learn(threshold: float) -> None:
    random = np.random.default_rng(5)
    truth = (random.random((80, 6)) < 0.4).astype(int)
    probabilities = np.clip(0.5 * truth + random.random((80, 6)) * 0.6, 0, 1)
    found = judge_labels(probabilities, truth, list("abcdef"), threshold)
    predicted = (probabilities >= threshold).astype(int)
    wanted = {
        "subset_accuracy": metrics.accuracy_score(truth, predicted),
        "hamming_loss": metrics.hamming_loss(truth, predicted),
        "auc": metrics.roc_auc_score(truth, probabilities, average="macro"),
        "calibration_error": calibration_error(probabilities.ravel(), truth.ravel()),
    }
    for average in ("macro", "micro", "weighted", "samples"):
        wanted[f"f1_{average}"] = metrics.f1_score(truth, predicted, average=average, zero_division=0)
    for average in ("macro", "micro"):
        wanted[f"precision_{average}"] = metrics.precision_score(truth, predicted, average=average)
        wanted[f"recall_{average}"] = metrics.recall_score(truth, predicted, average=average)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_label_that_no_row_has_takes_no_part() -> None:
    padded_beliefs = np.hstack([BELIEFS, np.zeros((4, 1))])
    padded_sets = np.hstack([SETS, np.zeros((4, 1), dtype=int)])
    found, wanted = judge_labels(padded_beliefs, padded_sets, list("abcd")), judge_labels(BELIEFS, SETS, ABC)
    for name in ("f1_macro", "f1_samples", "f1_weighted", "precision_macro", "auc", "subset_accuracy"):
        assert found[name] == pytest.approx(wanted[name])
    assert judge_labels(np.zeros((3, 2)), np.zeros((3, 2), dtype=int), ["a", "b"]) == {
        "subset_accuracy": 1.0,
        "calibration_error": 0.0,
        "hamming_loss": 0.0,
    }


def test_one_label_alone_is_judged_as_a_label() -> None:
    beliefs, sets = BELIEFS[:, :1], SETS[:, :1]
    found = judge_labels(beliefs, sets, ["a"])
    assert found["f1_macro"] == found["f1_micro"] == pytest.approx(2 / 3)
    assert found["f1_samples"] == 3 / 4
    assert found["hamming_loss"] == 1 / 4
    assert [len(details_of_labels(beliefs, sets, ["a"])["per_class"])] == [1]


def test_details_of_labels_by_hand() -> None:
    details = details_of_labels(BELIEFS, SETS, ABC)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["kind"] == "multi_label"
    first = details["per_class"][0]
    assert {name: first[name] for name in ("tp", "fp", "fn", "tn", "support")} == {
        "tp": 1, "fp": 0, "fn": 1, "tn": 2, "support": 2,
    }  # fmt: skip
    assert [entry["best_threshold"] for entry in details["per_class"]] == [0.4, 0.5, 0.6]
    assert details["wrong"] == [
        {"row": 1, "truth": ["b"], "prediction": ["b", "c"], "class": "c", "probability": 0.7},
        {"row": 2, "truth": ["a", "b"], "prediction": ["b"], "class": "a", "probability": 0.6},
    ]
    assert sum(bin_["count"] for bin_ in details["calibration"]) == 12


def test_the_best_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(8)
    for _ in range(20):
        truth = (random.random((30, 2)) < 0.3).astype(int)
        probabilities = random.integers(0, 12, (30, 2)) / 11
        for place, entry in enumerate(details_of_labels(probabilities, truth, ["a", "b"])["per_class"]):
            column, sets = probabilities[:, place], truth[:, place]
            if not sets.any():
                assert entry["best_threshold"] is None
                continue
            scores = {t: metrics.f1_score(sets, column >= t, zero_division=0) for t in np.unique(column)}
            best = [t for t, score in scores.items() if score > max(scores.values()) - 1e-12]
            assert entry["best_threshold"] == min(best, key=lambda t: abs(t - 0.5))


@pytest.mark.parametrize(
    ("probabilities", "truth", "words"),
    [
        (np.where(BELIEFS == 0.4, math.nan, BELIEFS), SETS, "row 2 are not finite"),
        (BELIEFS, SETS * 2, "0 or 1, not 2"),
        (BELIEFS, SETS[:, :2], "does not fit"),
        (BELIEFS[:0], SETS[:0], "rows"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(probabilities: np.ndarray, truth: np.ndarray, words: str) -> None:
    for judge in (judge_labels, details_of_labels):
        with pytest.raises(ValueError, match=words):
            judge(probabilities, truth, ABC)


def test_nothing_warns_on_random_odd_inputs() -> None:
    random = np.random.default_rng(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(25):
            rows, classes = int(random.integers(1, 5)), int(random.integers(2, 6))
            probabilities = random.dirichlet(np.ones(classes) * 0.2, rows)
            truth = random.integers(0, classes, rows)
            names = [str(place) for place in range(classes)]
            sets = (random.random((rows, classes)) < 0.3).astype(int)
            for found in (judge_classes(probabilities, truth, names), judge_labels(probabilities, sets, names)):
                assert all(type(value) is float and math.isfinite(value) for value in found.values())
            json.dumps(details_of_classes(probabilities, truth, names), allow_nan=False)
            json.dumps(details_of_labels(probabilities, sets, names), allow_nan=False)
