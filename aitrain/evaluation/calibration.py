"""Whether a probability of 0.8 comes true four times in five.

Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3: rows are put into bins of equal width by their
probability, and the error is the mean over rows of | share that came true - mean probability | of their bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""As in the paper's tables."""


@dataclass(frozen=True)
class _Binned:
    """Sums over the rows of each bin, each (BINS,); a bin holds what lies above its lower edge, up to its upper one."""

    edges: NDArray[np.float64]
    count: NDArray[np.float64]
    probability: NDArray[np.float64]
    true: NDArray[np.float64]


def _binned(probability: NDArray[Any], true: NDArray[Any]) -> _Binned:
    edges = np.arange(BINS + 1) / BINS
    # only inner edges: a probability of exactly 0 falls into the first bin
    place = np.digitize(probability, edges[1:-1], right=True)
    count, total, right = (
        np.bincount(place, weights, minlength=BINS).astype(np.float64) for weights in (None, probability, true)
    )
    return _Binned(edges, count, total, right)


def calibration_error(probability: NDArray[Any], true: NDArray[Any]) -> float:
    """Expected calibration error in [0, 1] of probabilities (n,) that came `true` (n,), 0 or 1, with 15 bins.

    Over rows i and their bins B: sum_B |B| / n * | mean_{i in B} true_i - mean_{i in B} probability_i |.
    """
    found = _binned(probability, true)
    return float(np.abs(found.true - found.probability).sum() / found.count.sum())


def calibration_bins(probability: NDArray[Any], true: NDArray[Any]) -> list[dict[str, float]]:
    """The bins that hold any row, lowest first: `from`, `to`, mean `confidence`, share true (`accuracy`), `count`."""
    found = _binned(probability, true)
    return [
        {
            "from": float(found.edges[place]),
            "to": float(found.edges[place + 1]),
            "confidence": float(found.probability[place] / found.count[place]),
            "accuracy": float(found.true[place] / found.count[place]),
            "count": int(found.count[place]),
        }
        for place in np.flatnonzero(found.count)
    ]
