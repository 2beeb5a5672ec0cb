"""How well rows were sorted into classes: one class a row, or any number of labels a row.

Precision, recall, F1, AUC and MCC are scikit-learn's, https://scikit-learn.org/stable/modules/model_evaluation.html;
the calibration error is in `aitrain.evaluation.calibration`.

A macro average is over the classes that occur in the truth or in the predictions, as scikit-learn averages by default:
a class of the map that no row has and no prediction names takes no part. A class that occurs in only one of the two
counts with F1 0. A ratio without anything to divide by (the precision of a class that is never predicted) is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

from aitrain.evaluation.calibration import calibration_bins, calibration_error

LARGEST_CONFUSION = 200
"""Classes up to which the whole confusion matrix is told; beyond, only its largest entries can be read."""
SHOWN = 20
"""Wrong rows, and pairs of confused classes, that the details hold."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def judge_classes(probabilities: NDArray[Any], truth: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """Measures of one class a row. All but `mcc`, which is in [-1, 1], are in [0, 1]; only an error is better small.

    `probabilities` is (n, c), each row adding up to 1; `truth` is (n,), places in `classes` (c,). A row's prediction is
    its most probable class, the first of equals.

    Of two classes: `accuracy`, `f1`, `precision` and `recall` of the second class, `f1_macro`, `auc` of the second
    class's probability. Of more: `accuracy`, `f1`, `precision` and `recall` each as `_macro`, `_micro` (over all rows
    at once, which is the accuracy) and `_weighted` (by the rows of each class), and `auc`, the mean over classes of
    one against the rest. Of both: `mcc` (Matthews 1975; 0 when all rows, or all predictions, are of one class) and
    `calibration_error`.

    `auc` counts classes that some rows have and some have not, and is left out when there is none. Raises ValueError
    for no rows, shapes that do not fit, a class outside the map, and what is no probability.
    """
    probabilities, truth = _class_rows(probabilities, truth, classes)
    predicted = probabilities.argmax(1)
    occurring = np.union1d(truth, predicted)
    found = {"accuracy": float(np.mean(predicted == truth))}
    if len(classes) == 2:
        found |= _scores(truth, predicted, [1], "macro", suffix="")
        found |= {"f1_macro": _scores(truth, predicted, occurring, "macro")["f1_macro"]}
        found |= _auc(truth[:, None] == 1, probabilities[:, 1:])
    else:
        for average in ("macro", "micro", "weighted"):
            found |= _scores(truth, predicted, occurring, average)
        found |= _auc(truth[:, None] == np.arange(len(classes)), probabilities)
    # with one class in all, scikit-learn gives 0 too, and warns
    found["mcc"] = float(matthews_corrcoef(truth, predicted)) if len(occurring) > 1 else 0.0
    found["calibration_error"] = calibration_error(probabilities.max(1), predicted == truth)
    return found


def judge_labels(
    probabilities: NDArray[Any], truth: NDArray[Any], classes: Sequence[str], threshold: float = 0.5
) -> dict[str, float]:
    """Measures of any number of labels a row, all in [0, 1]; the loss and the error are better small.

    `probabilities` and `truth`, 0 or 1, are (n, c). A label is predicted from `threshold` on.

    `subset_accuracy` is the share of rows whose labels are all right and `hamming_loss` the share of (row, label) that
    are wrong. `f1`, `precision` and `recall` come as `_macro` and `_micro`, `f1` also as `_weighted` and `_samples`
    (the mean over rows, where a row without labels in truth and prediction counts 1). `auc` is the mean over labels
    that some rows have and some have not. `calibration_error` pools all (row, label): the label's probability against
    how often the label is there.

    F1, precision and recall are left out when no label is there or predicted in any row, `auc` when no label has both
    values. Raises ValueError for no rows, shapes that do not fit, and what is no probability, or neither 0 nor 1.
    """
    probabilities, truth = _label_rows(probabilities, truth, classes)
    predicted = (probabilities >= threshold).astype(np.int64)
    occurring = np.flatnonzero((truth | predicted).any(0))
    found = {"subset_accuracy": float(np.mean((predicted == truth).all(1)))}
    if len(occurring):
        sets = _indicators(truth), _indicators(predicted)
        found |= _scores(*sets, occurring, "macro") | _scores(*sets, occurring, "micro")
        for average in ("weighted", "samples"):
            nothing = 1 if average == "samples" else 0  # a row without labels, of which none is predicted, is right
            found[f"f1_{average}"] = float(f1_score(*sets, labels=occurring, average=average, zero_division=nothing))
    found |= _auc(truth == 1, probabilities)
    found["calibration_error"] = calibration_error(probabilities.ravel(), truth.ravel())
    found["hamming_loss"] = float(np.mean(predicted != truth))
    return found


def details_of_classes(probabilities: NDArray[Any], truth: NDArray[Any], classes: Sequence[str]) -> dict[str, Any]:
    """What a report shows of one class a row; arguments and errors as of `judge_classes`.

    `kind` ("classification") · `classes` · `confusion` [[rows]], a line for each true class and a column for each
    predicted one, absent for more than 200 classes · `per_class` [{class, precision, recall, f1, support}] for every
    class of the map · `calibration` as `calibration_bins` of the predicted classes' probabilities · `wrong` [{row,
    truth, prediction, probability}], the 20 wrong rows whose prediction was most probable · `confused` [{truth,
    prediction, count}], the 20 pairs of classes most often taken for each other.
    """
    probabilities, truth = _class_rows(probabilities, truth, classes)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    details: dict[str, Any] = {"kind": "classification", "classes": list(classes)}
    if len(classes) <= LARGEST_CONFUSION:
        flat = np.bincount(truth * len(classes) + predicted, minlength=len(classes) ** 2)
        details["confusion"] = flat.reshape(len(classes), len(classes)).tolist()
    details["per_class"] = _per_class(truth, predicted, classes)
    details["calibration"] = calibration_bins(confidence, predicted == truth)
    wrong = np.flatnonzero(predicted != truth)
    details["wrong"] = [
        {
            "row": int(row),
            "truth": classes[truth[row]],
            "prediction": classes[predicted[row]],
            "probability": float(confidence[row]),
        }
        for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    ]
    details["confused"] = _confused(truth[wrong], predicted[wrong], classes)
    return details


def details_of_labels(
    probabilities: NDArray[Any], truth: NDArray[Any], classes: Sequence[str], threshold: float = 0.5
) -> dict[str, Any]:
    """What a report shows of any number of labels a row; arguments and errors as of `judge_labels`.

    `kind` ("multi_label") · `classes` · `threshold` · `per_class` [{class, precision, recall, f1, support,
    best_threshold, tp, fp, fn, tn}], where `best_threshold` has the best F1 on these very rows (of equals the one
    nearest 0.5; None for a label that no row has) · `calibration` over all (row, label) · `wrong` [{row, truth,
    prediction, class, probability}], the 20 wrong rows with the most probable mistake: the labels of the row and those
    predicted, the label most wrongly judged, and the probability that the model gave this judgement.
    """
    probabilities, truth = _label_rows(probabilities, truth, classes)
    predicted = (probabilities >= threshold).astype(np.int64)
    return {
        "kind": "multi_label",
        "classes": list(classes),
        "threshold": float(threshold),
        "per_class": [
            scores | {"best_threshold": _best_threshold(probabilities[:, place], truth[:, place])} | counts
            for place, (scores, counts) in enumerate(
                zip(_per_class(truth, predicted, classes), _outcomes(truth, predicted), strict=True)
            )
        ],
        "calibration": calibration_bins(probabilities.ravel(), truth.ravel()),
        "wrong": _wrong_sets(probabilities, truth, predicted, classes),
    }


def _scores(
    truth: Integers, predicted: Integers, labels: Any, average: str, suffix: str | None = None
) -> dict[str, float]:
    """Precision, recall and F1 over `labels`, named after the average unless a suffix is given."""
    suffix = f"_{average}" if suffix is None else suffix
    found = precision_recall_fscore_support(truth, predicted, labels=labels, average=average, zero_division=0)
    return {name + suffix: float(value) for name, value in zip(("precision", "recall", "f1"), found[:3], strict=True)}


def _auc(truth: NDArray[np.bool_], probabilities: Floats) -> dict[str, float]:
    """The mean AUC over the columns (n, c) that hold both values, or nothing."""
    both = np.flatnonzero(truth.any(0) & ~truth.all(0))
    if not len(both):
        return {}
    return {"auc": float(np.mean([roc_auc_score(truth[:, place], probabilities[:, place]) for place in both]))}


def _per_class(truth: Integers, predicted: Integers, classes: Sequence[str]) -> list[dict[str, Any]]:
    if truth.ndim == 2:
        truth, predicted = _indicators(truth), _indicators(predicted)
    found = precision_recall_fscore_support(truth, predicted, labels=range(len(classes)), average=None, zero_division=0)
    return [
        {"class": name, "precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(rows)}
        for name, precision, recall, f1, rows in zip(classes, *found, strict=True)
    ]


def _confused(truth: Integers, predicted: Integers, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent pairs of wrong rows; of equals the one that comes first in the map."""
    # counted without the matrix, which for a hundred thousand classes no memory holds
    pairs, counts = np.unique(truth * len(classes) + predicted, return_counts=True)
    return [
        {
            "truth": classes[int(pairs[place]) // len(classes)],
            "prediction": classes[int(pairs[place]) % len(classes)],
            "count": int(counts[place]),
        }
        for place in np.argsort(-counts, kind="stable")[:SHOWN]
    ]


def _outcomes(truth: Integers, predicted: Integers) -> list[dict[str, int]]:
    """True and false positives and negatives of each label."""
    counts = [(predicted == guess) & (truth == is_there) for guess, is_there in ((1, 1), (1, 0), (0, 1), (0, 0))]
    columns = np.stack([count.sum(0) for count in counts], axis=1)
    return [dict(zip(("tp", "fp", "fn", "tn"), map(int, column), strict=True)) for column in columns]


def _best_threshold(probability: Floats, truth: Integers) -> float | None:
    """Of the probabilities of these rows the one from which on predicting the label gives the best F1."""
    if not truth.any():
        return None
    precision, recall, thresholds = precision_recall_curve(truth, probability)
    # the curve's last point, precision 1 and recall 0, belongs to no threshold
    f1 = 2 * precision[:-1] * recall[:-1] / np.maximum(precision[:-1] + recall[:-1], np.finfo(float).tiny)
    best = thresholds[np.isclose(f1, f1.max(), rtol=1e-12, atol=0)]
    return float(best[np.abs(best - 0.5).argmin()])


def _wrong_sets(
    probabilities: Floats, truth: Integers, predicted: Integers, classes: Sequence[str]
) -> list[dict[str, Any]]:
    mistaken = predicted != truth
    belief = np.where(mistaken, np.where(predicted == 1, probabilities, 1 - probabilities), -1.0)
    worst, strength = belief.argmax(1), belief.max(1)
    wrong = np.flatnonzero(mistaken.any(1))
    return [
        {
            "row": int(row),
            "truth": [classes[place] for place in np.flatnonzero(truth[row]).tolist()],
            "prediction": [classes[place] for place in np.flatnonzero(predicted[row]).tolist()],
            "class": classes[worst[row]],
            "probability": float(strength[row]),
        }
        for row in wrong[np.argsort(-strength[wrong], kind="stable")][:SHOWN]
    ]


def _indicators(values: Integers) -> Integers:
    """Labels (n, c) as scikit-learn takes them: it reads one column as a problem of two classes, so that gets a mate.

    The mate is 0 everywhere and no class of the map, so no average counts it.
    """
    return values if values.shape[1] > 1 else np.hstack([values, np.zeros_like(values)])


def _class_rows(probabilities: Any, truth: Any, classes: Sequence[str]) -> tuple[Floats, Integers]:
    """The arguments of `judge_classes` in float64 and int64, once they are known to be what it takes."""
    probabilities, truth = _probabilities(probabilities, classes), _integers(truth)
    if len(classes) < 2:
        raise ValueError(f"needs at least two classes, not {list(classes)}")
    if truth.shape != probabilities.shape[:1]:
        raise ValueError(f"truth of shape {truth.shape} does not fit probabilities of shape {probabilities.shape}")
    if truth.min() < 0 or truth.max() >= len(classes):
        raise ValueError(f"truth lies between {truth.min()} and {truth.max()}, but there are {len(classes)} classes")
    total = probabilities.sum(1)
    # a softmax in bfloat16 is off by up to 2 ** -8 of each probability
    if np.abs(total - 1).max() > 0.01:
        row = int(np.abs(total - 1).argmax())
        raise ValueError(f"probabilities of row {row} add up to {total[row]:g}, not to 1")
    return probabilities, truth


def _label_rows(probabilities: Any, truth: Any, classes: Sequence[str]) -> tuple[Floats, Integers]:
    """The arguments of `judge_labels` in float64 and int64, once they are known to be what it takes."""
    probabilities, truth = _probabilities(probabilities, classes), _integers(truth)
    if truth.shape != probabilities.shape:
        raise ValueError(f"truth of shape {truth.shape} does not fit probabilities of shape {probabilities.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"truth of a label is 0 or 1, not {truth[~np.isin(truth, (0, 1))][0]}")
    return probabilities, truth


def _probabilities(values: Any, classes: Sequence[str]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != len(classes) or not array.size:
        raise ValueError(f"probabilities of shape {array.shape}, where (rows, {len(classes)} classes) is needed")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise ValueError(f"probabilities of row {row} are not finite")
    if array.min() < -1e-6 or array.max() > 1 + 1e-6:
        raise ValueError(f"probabilities lie between {array.min():g} and {array.max():g}, not in [0, 1]")
    return array


def _integers(values: Any) -> Integers:
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise ValueError(f"truth holds {array.dtype}, where integers are needed")
    return array.astype(np.int64)
