"""Regression against values worked out by hand, against scikit-learn and SciPy, and in the corners."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from aitrain.evaluation import details_of_numbers, judge_numbers

pytestmark = pytest.mark.filterwarnings("error")


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def drawn(rows: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.normal(size=(rows, targets)) * 10.0 ** np.arange(targets)
    return truth + random.normal(size=truth.shape) * 3, truth


def test_one_target_by_hand() -> None:
    found = judge_numbers(column(2, 2, 5), column(1, 2, 3), ["size"])
    # errors 1 0 2; truth has mean 2 and squares around it 1 0 1; predictions mean 3, -1 -1 2
    assert found == pytest.approx(
        {
            "mse": 5 / 3,
            "mae": 1,
            "rmse": math.sqrt(5 / 3),
            "r2": 1 - 5 / 2,
            "explained_variance": 1 - ((1 - 1) ** 2 + (0 - 1) ** 2 + (2 - 1) ** 2) / 2,
            "pearson": (1 + 0 + 2) / math.sqrt(2 * 6),
            "spearman": 1.5 / math.sqrt(2 * 1.5),  # ranks 1 2 3 against 1.5 1.5 3
        }
    )


def test_several_targets_are_means_and_each_its_own() -> None:
    predicted, truth = drawn(50, 3)
    found = judge_numbers(predicted, truth, ["x", "y", "z"])
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(truth, predicted))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, predicted))
    assert found["rmse"] != pytest.approx(math.sqrt(found["mse"]), rel=1e-3)
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, predicted))
    assert found["explained_variance"] == pytest.approx(metrics.explained_variance_score(truth, predicted))
    correlations = [stats.pearsonr(truth[:, place], predicted[:, place]).statistic for place in range(3)]
    assert [found[f"pearson_{name}"] for name in "xyz"] == pytest.approx(correlations)
    assert found["pearson"] == pytest.approx(sum(correlations) / 3)
    ranks = [np.corrcoef(stats.rankdata(truth[:, i]), stats.rankdata(predicted[:, i]))[0, 1] for i in range(3)]
    assert found["spearman"] == pytest.approx(sum(ranks) / 3)
    assert found["r2_z"] == pytest.approx(metrics.r2_score(truth[:, 2], predicted[:, 2]))
    assert {name for name in found if name.endswith("_x")} == {"rmse_x", "r2_x", "pearson_x"}


def test_what_is_undefined_is_left_out() -> None:
    errors = {"mse", "mae", "rmse"}
    assert set(judge_numbers(column(1, 2), column(3, 3), ["x"])) == errors
    assert set(judge_numbers(column(0.1, 0.1, 0.1), column(1, 2, 4), ["x"])) == errors | {"r2", "explained_variance"}
    assert judge_numbers(column(4), column(1), ["x"]) == {"mse": 9, "mae": 3, "rmse": 3}
    assert set(judge_numbers(column(1, 2), column(3, 4), ["x"])) >= {"r2", "pearson", "spearman"}
    both = judge_numbers(np.hstack([column(1, 2, 4)] * 2), np.hstack([column(7, 7, 7), column(1, 3, 4)]), ["x", "y"])
    assert both["r2"] == both["r2_y"]
    assert "r2_x" not in both
    assert "rmse_x" in both


def test_details_of_numbers_by_hand() -> None:
    truth = np.hstack([column(1, 2, 3), column(1000, 2000, 3000)])
    details = details_of_numbers(truth + np.array([[0, 100], [3, 0], [0, 0]]), truth, ["small", "big"])
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["kind"] == "regression"
    assert details["points"]["small"] == [[1, 1], [2, 5], [3, 3]]
    # 3 is 3.7 deviations of the small one, 100 an eighth of the big one's; the four right ones are no errors
    assert details["worst"] == [
        {"row": 1, "target": "small", "truth": 2, "predicted": 5},
        {"row": 0, "target": "big", "truth": 1000, "predicted": 1100},
    ]
    assert details["per_target"][0]["deviation"] == pytest.approx(math.sqrt(2 / 3))
    assert details["per_target"][1]["mean"] == 2000
    assert details["residuals"]["small"]["edges"][0] == 0
    assert details["residuals"]["small"]["edges"][-1] == 3
    assert details["residuals"]["small"]["counts"] == [2, *[0] * 18, 1]


def test_details_stay_small() -> None:
    predicted, truth = drawn(1203, 2)
    details = details_of_numbers(predicted, truth, ["x", "y"])
    assert [len(points) for points in details["points"].values()] == [500, 500]
    assert len({tuple(point) for point in details["points"]["x"]}) == 500
    assert details["points"]["x"][250] == [truth[601, 0], predicted[601, 0]]
    assert len(details["worst"]) == 20
    assert [sum(held["counts"]) for held in details["residuals"].values()] == [1203, 1203]


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [(column(1), column(2)), (column(0.1, 0.1, 0.1), column(0.1, 0.1, 0.1)), (column(1, 1 + 2**-52), column(0, 0))],
)
def test_details_of_constants(predicted: np.ndarray, truth: np.ndarray) -> None:
    details = details_of_numbers(predicted, truth, ["x"])
    json.dumps(details, allow_nan=False)
    assert details["per_target"][0]["r2"] is None
    assert details["residuals"]["x"]["counts"] == [len(truth)]
    low, high = details["residuals"]["x"]["edges"]
    assert low < (predicted - truth).min() <= (predicted - truth).max() < high
    assert len(details["worst"]) == int((predicted != truth).sum())


@pytest.mark.parametrize(
    ("predicted", "truth", "targets", "words"),
    [
        (column(1, math.nan), column(1, 2), ["x"], "predictions of row 1 are not finite"),
        (column(1, 2), column(math.inf, 2), ["x"], "truth of row 0 are not finite"),
        (column(1, 2)[:, 0], column(1, 2), ["x"], "shape"),
        (column(1, 2), column(1, 2, 3), ["x"], "2 predictions do not fit 3"),
        (column(1, 2), column(1, 2), ["x", "y"], "2 targets"),
        (np.ones((2, 2)), np.ones((2, 2)), ["x", "x"], "same name"),
        (np.ones((0, 1)), np.ones((0, 1)), ["x"], "rows"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    predicted: np.ndarray, truth: np.ndarray, targets: list[str], words: str
) -> None:
    for judge in (judge_numbers, details_of_numbers):
        with pytest.raises(ValueError, match=words):
            judge(predicted, truth, targets)
