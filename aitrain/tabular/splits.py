"""Which rows are held out, and the folds of the rest. All are drawn from the seed, and keep the share of classes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from aitrain.config.estimator import Goal
from aitrain.errors import DataError, Problem
from aitrain.tabular import keys

LEAST = 4
"""Rows from which something can be learnt and held out, twice over."""

Rows = NDArray[np.int64]


def groups(goal: Goal, y: NDArray[Any]) -> Rows:
    """The group of each row that splits keep the share of: its class, its rarest label, or 0 for numbers."""
    if goal.subtask == "multilabel":
        order = np.argsort(y.sum(axis=0), kind="stable")
        rarest = np.argmax(y[:, order], axis=1)  # the first of the labels that a row has
        return np.where(y.any(axis=1), rarest + 1, 0)
    return y if goal.is_classification else np.zeros(len(y), dtype=np.int64)


def hold_out(goal: Goal, y: NDArray[Any], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to score on. Of every group of two rows or more, both get one at least.

    Raises DataError where there are fewer than 4 rows.
    """
    if len(y) < LEAST:
        raise DataError(Problem(keys.DATA, f"{len(y)} rows are too few to learn from", f"bring {LEAST} or more"))
    drawn = np.random.default_rng(seed)
    of = groups(goal, y)
    held: list[int] = []
    for group in np.unique(of):
        rows = drawn.permutation(np.flatnonzero(of == group))
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        held += rows[:count].tolist()
    test = np.sort(np.array(held, dtype=np.int64))
    return np.setdiff1d(np.arange(len(y)), test), test


def folds_that_fit(goal: Goal, y: NDArray[Any], wanted: int) -> int:
    """How many folds there are rows for: not more than the rarest group has, but 2."""
    counts = np.unique(groups(goal, y), return_counts=True)[1]
    return max(2, min(wanted, int(counts.min())))


def folds(goal: Goal, y: NDArray[Any], count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Pairs of rows to learn from and to score on; each row is scored on in one of them."""
    if goal.is_classification:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class with fewer rows than folds, which the caller tells of
            return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(y, groups(goal, y)))
    return list(KFold(count, shuffle=True, random_state=seed).split(y))
