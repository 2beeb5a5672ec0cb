"""How far numbers are from the true ones, for one target or several.

Errors, R² and explained variance are scikit-learn's, https://scikit-learn.org/stable/modules/model_evaluation.html;
the correlations of Pearson and of Spearman are SciPy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import explained_variance_score, mean_absolute_error, mean_squared_error, r2_score

MEASURES = ("mse", "mae", "rmse", "r2", "explained_variance", "pearson", "spearman")
OF_EACH_TARGET = ("rmse", "r2", "pearson")
"""Measures that are told of each target too, when there are several."""
POINTS = 500
WORST = 20
BINS = 20

Floats = NDArray[np.float64]


def judge_numbers(predicted: NDArray[Any], truth: NDArray[Any], targets: Sequence[str]) -> dict[str, float]:
    """Measures of numbers `predicted` (n, k) against `truth` (n, k), a column for each of `targets` (k,).

    `mse` is in the target's unit squared, `mae` and `rmse` in its unit; `r2` and `explained_variance` are at most 1,
    `pearson` and `spearman` in [-1, 1]. Each is the mean over the targets that have it: `rmse` is the mean of the
    targets' roots, as scikit-learn's, and not the root of the mean. With several targets `rmse_NAME`, `r2_NAME` and
    `pearson_NAME` are those of each.

    A constant truth (a single row is one) has no r2, explained_variance, pearson and spearman, and a constant
    prediction no pearson and spearman: what no target has is left out. Raises ValueError for no rows, shapes that do
    not fit, targets of the same name, and numbers that are not finite.
    """
    columns = _columns(predicted, truth, targets)
    measured = {name: _measures(*column) for name, column in columns.items()}
    found = {}
    for measure in MEASURES:
        values = [of_target[measure] for of_target in measured.values() if measure in of_target]
        if values:
            found[measure] = float(np.mean(values))
    if len(targets) > 1:
        for measure in OF_EACH_TARGET:
            found |= {f"{measure}_{name}": own[measure] for name, own in measured.items() if measure in own}
    return found


def details_of_numbers(predicted: NDArray[Any], truth: NDArray[Any], targets: Sequence[str]) -> dict[str, Any]:
    """What a report shows of predicted numbers; arguments and errors as of `judge_numbers`.

    `kind` ("regression") · `targets` · `per_target` [{target, mse, mae, rmse, r2, pearson, spearman, mean, deviation}],
    None where undefined; mean and deviation are the truth's, so a model that always says the mean has an rmse of the
    deviation · `points` {target: [[truth, predicted]]}, at most 500, evenly spaced by row · `worst` [{row, target,
    truth, predicted}], the 20 largest errors, each measured in deviations of its target · `residuals` {target: {edges,
    counts}}, a histogram of predicted - truth; it has one bin where all residuals are the same, and 20 else.
    """
    columns = _columns(predicted, truth, targets)
    return {
        "kind": "regression",
        "targets": list(targets),
        "per_target": [{"target": name} | _of_target(*column) for name, column in columns.items()],
        "points": {name: _points(*column) for name, column in columns.items()},
        "worst": _worst(columns),
        "residuals": {name: _histogram(guess - true) for name, (guess, true) in columns.items()},
    }


def _measures(predicted: Floats, truth: Floats) -> dict[str, float]:
    """The measures of one target (n,) that are defined."""
    mse = mean_squared_error(truth, predicted)
    found = {"mse": mse, "mae": mean_absolute_error(truth, predicted), "rmse": math.sqrt(mse)}
    if not _is_constant(truth):
        found["r2"] = r2_score(truth, predicted)
        found["explained_variance"] = explained_variance_score(truth, predicted)
        if not _is_constant(predicted):
            found["pearson"] = pearsonr(truth, predicted).statistic
            found["spearman"] = spearmanr(truth, predicted).statistic
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _is_constant(values: Floats) -> bool:
    """Whether values differ by no more than rounding does, which no correlation can be told from."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _of_target(predicted: Floats, truth: Floats) -> dict[str, float | None]:
    found = _measures(predicted, truth)
    shown: dict[str, float | None] = {
        name: found.get(name) for name in ("mse", "mae", "rmse", "r2", "pearson", "spearman")
    }
    return shown | {"mean": float(truth.mean()), "deviation": float(truth.std())}


def _points(predicted: Floats, truth: Floats) -> list[list[float]]:
    shown = min(len(truth), POINTS)
    rows = np.arange(shown) * len(truth) // shown
    return np.stack([truth[rows], predicted[rows]], axis=1).tolist()


def _worst(columns: dict[str, tuple[Floats, Floats]]) -> list[dict[str, Any]]:
    """The largest errors. In plain units those of a target in the thousands would hide those of one below 1."""
    units = [1.0 if _is_constant(true) else true.std() for _, true in columns.values()]
    errors = np.stack([np.abs(guess - true) for guess, true in columns.values()], axis=1) / units
    names = list(columns)
    found = []
    for place in np.argsort(-errors.ravel(), kind="stable")[:WORST]:
        row, column = divmod(int(place), len(names))
        guess, true = columns[names[column]]
        if guess[row] != true[row]:
            found.append(
                {"row": row, "target": names[column], "truth": float(true[row]), "predicted": float(guess[row])}
            )
    return found


def _histogram(residuals: Floats) -> dict[str, Any]:
    # twenty edges do not fit between neighbouring floats
    if _is_constant(residuals):
        middle, half = float(residuals.mean()), max(0.5, 1e-6 * float(np.abs(residuals).max()))
        return {"edges": [middle - half, middle + half], "counts": [len(residuals)]}
    counts, edges = np.histogram(residuals, bins=BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _columns(predicted: Any, truth: Any, targets: Sequence[str]) -> dict[str, tuple[Floats, Floats]]:
    """Predicted and true numbers (n,) of each target, once they are known to be what `judge_numbers` takes."""
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if len(set(targets)) != len(targets):
        raise ValueError(f"two targets have the same name in {list(targets)}")
    for name, array in (("predictions", predicted), ("truth", truth)):
        if array.ndim != 2 or array.shape[1] != len(targets) or not array.size:
            raise ValueError(f"{name} of shape {array.shape}, where (rows, {len(targets)} targets) is needed")
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
            raise ValueError(f"{name} of row {row} are not finite")
    if predicted.shape != truth.shape:
        raise ValueError(f"{len(predicted)} predictions do not fit {len(truth)} rows of truth")
    return {name: (predicted[:, place], truth[:, place]) for place, name in enumerate(targets)}
