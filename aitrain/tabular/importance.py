"""How much worse predictions become when one column of the file is shuffled (Breiman 2001,
https://doi.org/10.1023/A:1010933404324, section 10). All features of a date are shuffled together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aitrain.tabular.metrics import objective
from aitrain.tabular.pipeline import Part

MOST_ROWS = 5000
"""Rows that are shuffled; more say little more, and slow estimators need long for them."""


@dataclass(frozen=True)
class Importance:
    """Of one column."""

    column: str
    mean: float
    """How much the objective grew, in its units; about 0 where a column is of no use."""
    deviation: float
    """Over the repeats."""


def importance(
    part: Part,
    blocks: Mapping[str, list[int]],
    x: NDArray[np.float64],
    y: NDArray[Any],
    *,
    repeats: int,
    seed: int,
    before: Callable[[], None] = lambda: None,
) -> list[Importance]:
    """Of each column, the greatest first. `before` is called before each column and may raise."""
    drawn = np.random.default_rng(seed)
    if len(y) > MOST_ROWS:
        some = np.sort(drawn.choice(len(y), MOST_ROWS, replace=False))
        x, y = x[some], y[some]
    whole = objective(part.goal, y, part.predict(x))
    found = []
    for column, block in blocks.items():
        before()
        losses = [_shuffled(part, block, x, y, drawn) - whole for _ in range(repeats)]
        found.append(Importance(column, float(np.mean(losses)), float(np.std(losses))))
    return sorted(found, key=lambda each: -each.mean)


def _shuffled(
    part: Part, block: list[int], x: NDArray[np.float64], y: NDArray[Any], drawn: np.random.Generator
) -> float:
    other = x.copy()
    other[:, block] = x[drawn.permutation(len(x))][:, block]
    return objective(part.goal, y, part.predict(other))
