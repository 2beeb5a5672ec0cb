"""`trainer=logistic_regression`: the log odds of a class as a weighted sum of the features."""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import CLASSIFICATION, Estimator, Goal, Real, Space, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "C": Real(1e-3, 1e3, first=1.0, log=True),
}


class LogisticRegression(OptionSection):
    """Logistic regression; classification only.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["logistic_regression"]
    """The estimator; choose it with `trainer=logistic_regression`."""
    C: float | None = key(gt=0)
    """Inverse weight of the squared coefficients: smaller holds them closer to zero."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""
    max_iter: int = key(visibility="advanced", ge=1)
    """Steps of the solver at most."""
    tol: float | None = key(visibility="advanced", gt=0)
    """Change below which the solver stops; null: the library's default, never searched."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `LogisticRegression` with its solver lbfgs, in which nothing is random."""
    from sklearn.linear_model import LogisticRegression as Linear

    return Linear(**arguments(section, found), random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    LogisticRegression,
    CLASSIFICATION,
    make=make,
    search_space=search_space,
)
