"""How good predictions are, with scikit-learn's metrics. What has no value is None, with the reason beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from aitrain.config.estimator import Goal, SubTask

Better = Literal["min", "max"]
AVERAGES = ("macro", "micro", "weighted")
METRICS: dict[SubTask, dict[str, Better]] = {
    "binary": {
        "logloss": "min", "auc": "max", "average_precision": "max", "accuracy": "max", "f1": "max", "precision": "max",
        "recall": "max", "mcc": "max",
    },
    "multiclass": {
        "logloss": "min", "accuracy": "max", "mcc": "max",
        **{f"{name}_{average}": "max" for name in ("f1", "precision", "recall") for average in AVERAGES},
    },
    "multilabel": {"logloss": "min", "accuracy": "max", **{f"f1_{average}": "max" for average in AVERAGES}},
    "regression": {"rmse": "min", "mae": "min", "mse": "min", "r2": "max", "rmsle": "min", "explained_variance": "max"},
}  # fmt: skip
"""What each sub-task reports, and whether less or more of it is better. Accuracy of labels: rows with all right."""
OBJECTIVES: dict[SubTask, str] = {
    "binary": "logloss",
    "multiclass": "mlogloss",
    "multilabel": "logloss",
    "regression": "rmse",
}
"""What a search makes small: the metric of this name, `mlogloss` being the logloss of several classes."""
WITHOUT_PROBABILITIES = "error"
"""What it makes small for classifiers that give no probabilities: the share of rows that are wrong."""


@dataclass(frozen=True)
class Predicted:
    """What an estimator says of rows."""

    values: NDArray[Any]
    """As the targets: class numbers (rows), 0 and 1 (rows x labels), or numbers (rows, or rows x targets)."""
    probabilities: NDArray[np.float64] | None = None
    """Rows x classes, or rows x labels; None for numbers and where an estimator gives none."""


@dataclass(frozen=True)
class Scores:
    """The metrics of a sub-task."""

    values: Mapping[str, float | None]
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a value is None, or what was done to have it."""


def objective_of(goal: Goal, predicted: Predicted) -> str:
    """The name of what a search makes small."""
    return OBJECTIVES[goal.subtask] if _has_it(goal, predicted) else WITHOUT_PROBABILITIES


def objective(goal: Goal, truth: NDArray[Any], predicted: Predicted) -> float:
    """What a search makes small. Raises ValueError where it has no value."""
    if not goal.is_classification:
        return float(metrics.root_mean_squared_error(truth, predicted.values))
    if not _has_it(goal, predicted):
        return 1 - float(metrics.accuracy_score(truth, predicted.values))
    return _logloss(goal, truth, predicted)


def _has_it(goal: Goal, predicted: Predicted) -> bool:
    return not goal.is_classification or predicted.probabilities is not None


def score(goal: Goal, truth: NDArray[Any], predicted: Predicted) -> Scores:
    """All metrics of the sub-task; `truth` is of the shape of `predicted.values`, at least one row."""
    found: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name in METRICS[goal.subtask]:
        try:
            found[name] = _measured(name, goal, truth, predicted, reasons)
        except ValueError as error:
            found[name] = None
            reasons[name] = str(error)
    return Scores(found, reasons)


def _measured(name: str, goal: Goal, truth: NDArray[Any], predicted: Predicted, reasons: dict[str, str]) -> float:
    if goal.subtask == "regression":
        return _of_numbers(name, truth, predicted.values, reasons)
    if name == "logloss":
        return _logloss(goal, truth, predicted)
    if name in ("auc", "average_precision"):
        return _of_ranks(name, truth, predicted)
    return _of_classes(name, goal, truth, predicted.values, reasons)


def _logloss(goal: Goal, truth: NDArray[Any], predicted: Predicted) -> float:
    found = _probabilities(predicted)
    if goal.subtask == "multilabel":
        columns = range(truth.shape[1])
        return float(np.mean([metrics.log_loss(truth[:, i], found[:, i], labels=[0, 1]) for i in columns]))
    # Some libraries answer in single precision, whose rounding scikit-learn warns of.
    whole = found / found.sum(axis=1, keepdims=True)
    return float(metrics.log_loss(truth, whole, labels=list(range(goal.classes))))


def _probabilities(predicted: Predicted) -> NDArray[np.float64]:
    if predicted.probabilities is None:
        raise ValueError("the estimator gives no probabilities")
    return predicted.probabilities


def _of_ranks(name: str, truth: NDArray[Any], predicted: Predicted) -> float:
    positive = _probabilities(predicted)[:, 1]
    if len(np.unique(truth)) < 2:
        raise ValueError("the scored rows are all of one class")
    if name == "auc":
        return float(metrics.roc_auc_score(truth, positive))
    return float(metrics.average_precision_score(truth, positive))


_SCORES: dict[str, Callable[..., Any]] = {
    "f1": metrics.f1_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
}


def _of_classes(name: str, goal: Goal, truth: NDArray[Any], values: NDArray[Any], reasons: dict[str, str]) -> float:
    if name == "accuracy":
        return float(metrics.accuracy_score(truth, values))
    if name == "mcc":
        if len(np.unique(truth)) < 2 or len(np.unique(values)) < 2:
            raise ValueError("the scored rows, or the predictions, are all of one class")
        return float(metrics.matthews_corrcoef(truth, values))
    kind, _, average = name.partition("_")
    if goal.subtask == "binary":
        found = float(_SCORES[kind](truth, values, zero_division=np.nan))
        if np.isnan(found):
            raise ValueError("no scored row is of the positive class, or none was predicted to be")
        return found
    labels = None if goal.subtask == "multilabel" else np.union1d(truth, values)
    if labels is not None and len(labels) < goal.classes:
        reasons[name] = f"over the {len(labels)} of {goal.classes} classes that occur, in truth or predictions"
    return float(_SCORES[kind](truth, values, labels=labels, average=average, zero_division=0.0))


def _of_numbers(name: str, truth: NDArray[Any], values: NDArray[Any], reasons: dict[str, str]) -> float:
    if name in ("r2", "explained_variance"):
        if len(truth) < 2 or np.any(np.ptp(truth, axis=0) == 0):
            raise ValueError("a target of the scored rows does not vary")
        return float((metrics.r2_score if name == "r2" else metrics.explained_variance_score)(truth, values))
    if name == "rmsle":
        return _rmsle(truth, values, reasons)
    measure: dict[str, Callable[..., Any]] = {
        "rmse": metrics.root_mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "mse": metrics.mean_squared_error,
    }
    return float(measure[name](truth, values))


def _rmsle(truth: NDArray[Any], values: NDArray[Any], reasons: dict[str, str]) -> float:
    if np.any(truth < 0):
        raise ValueError("a target is below 0, and it has no logarithm")
    below = int(np.sum(values < 0))
    if below:
        reasons["rmsle"] = f"{below} predictions below 0 were taken as 0"
    return float(metrics.root_mean_squared_log_error(truth, np.maximum(values, 0)))
