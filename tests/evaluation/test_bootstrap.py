"""The percentile bootstrap against SciPy's and against the known spread of a mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aitrain.evaluation import interval

VALUES = np.random.default_rng(0).normal(5, 2, 400)


def test_the_interval_is_scipys() -> None:
    low, high = interval(lambda rows: VALUES[rows].mean(), 400, draws=4000, level=0.9)
    wanted = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=4000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # both ends are estimates; 0.1 is the standard error of the mean
    assert low == pytest.approx(wanted.low, abs=0.015)
    assert high == pytest.approx(wanted.high, abs=0.015)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    low, high = interval(lambda rows: VALUES[rows].mean(), 400)
    half = 1.96 * VALUES.std() / math.sqrt(400)
    assert low == pytest.approx(VALUES.mean() - half, abs=0.03)
    assert high == pytest.approx(VALUES.mean() + half, abs=0.03)


def test_a_wider_level_is_wider_and_a_seed_says_it_all() -> None:
    def score(rows: np.ndarray) -> float:
        return float(np.median(VALUES[rows]))

    low, high = interval(score, 400, draws=200)
    lowest, highest = interval(score, 400, draws=200, level=0.999)
    assert lowest < low < high < highest
    assert interval(score, 400, draws=200) == (low, high)
    assert interval(score, 400, draws=200, seed=1) != (low, high)


def test_rows_are_drawn_with_replacement_from_all() -> None:
    seen: list[np.ndarray] = []

    def score(rows: np.ndarray) -> float:
        seen.append(rows)
        return 0.0

    assert interval(score, 5, draws=100) == (0, 0)
    assert {len(rows) for rows in seen} == {5}
    assert set(np.concatenate(seen).tolist()) == set(range(5))
    assert any(len(set(rows.tolist())) < 5 for rows in seen)


def test_draws_without_a_score_do_not_count() -> None:
    def score(rows: np.ndarray) -> float:
        return math.nan if rows[0] < 3 else 7.0

    assert interval(score, 5, draws=50) == (7, 7)
    with pytest.raises(ValueError, match="none of 9 draws"):
        interval(lambda rows: math.nan, 5, draws=9)


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"draws": 0}, {"level": 1.0}, {"level": 0.0}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs rows"):
        interval(lambda rows: 0.0, **({"rows": 5} | wrong))
