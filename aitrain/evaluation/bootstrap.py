"""How far a measure might have come out otherwise on other rows of the same kind.

Efron 1979, https://doi.org/10.1214/aos/1176344552 (the bootstrap); Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", chapter 13 (the percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def interval(
    score: Callable[[NDArray[np.int64]], float], rows: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Low and high end of the percentile interval of `score`, in the unit of the score.

    `score` takes row numbers (rows,), each between 0 and `rows` and drawn with replacement, and says what those rows
    score. A draw on which it gives NaN (an AUC whose rows are all of one class) does not count. The same `seed` gives
    the same draws, so that two scores over the same rows can be compared draw by draw.

    Raises ValueError without rows, without draws, for a level outside (0, 1), and when no draw has a score.
    """
    if rows < 1 or draws < 1 or not 0 < level < 1:
        raise ValueError(f"needs rows, draws and a level in (0, 1), not {rows=}, {draws=}, {level=}")
    random = np.random.default_rng(seed)
    # one draw at a time: all of them at once are rows x draws numbers
    scores = [float(score(random.integers(0, rows, size=rows))) for _ in range(draws)]
    defined = [value for value in scores if not math.isnan(value)]
    if not defined:
        raise ValueError(f"none of {draws} draws has a score")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
