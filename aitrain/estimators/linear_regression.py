"""`trainer=linear_regression`: least squares."""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import REGRESSION, Estimator, Goal, Space, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {}


class LinearRegression(OptionSection):
    """Ordinary least squares; regression only, and nothing to search.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["linear_regression"]
    """The estimator; choose it with `trainer=linear_regression`."""
    fit_intercept: bool | None = key(visibility="advanced")
    """Whether there is a constant term; null: there is, never searched."""
    positive: bool | None = key(visibility="advanced")
    """Whether coefficients must not be negative; null: they may be, never searched."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `LinearRegression`."""
    from sklearn.linear_model import LinearRegression as Linear

    return Linear(**arguments(section, found), n_jobs=threads)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    LinearRegression,
    REGRESSION,
    make=make,
    search_space=search_space,
    several=True,
)
