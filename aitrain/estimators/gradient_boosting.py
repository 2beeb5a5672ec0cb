"""`trainer=gradient_boosting`: trees, each fitted to what the former ones left over (Friedman 2001,
https://doi.org/10.1214/aos/1013203451).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from aitrain.config.estimator import ALL, Estimator, Goal, Pick, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_estimators": Whole(50, 400, first=100, log=True),
    "learning_rate": Real(0.01, 0.3, first=0.1, log=True),
    "max_depth": Whole(2, 8, first=3),
    "subsample": Real(0.5, 1.0, first=1.0),
    "min_samples_split": Whole(2, 20, first=2),
    "min_samples_leaf": Whole(1, 20, first=1),
    "max_features": Pick((None, "sqrt", 0.5)),
}


class GradientBoosting(OptionSection):
    """Gradient boosting; `hist_gradient_boosting` is much faster on many rows.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["gradient_boosting"]
    """The estimator; choose it with `trainer=gradient_boosting`."""
    n_estimators: int | None = key(ge=1)
    """Trees, one after another."""
    learning_rate: float | None = key(gt=0)
    """How much of a new tree's answer is added."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow."""
    subsample: float | None = key(gt=0, le=1)
    """Share of the rows each tree is fitted on."""
    min_samples_split: int | None = key(visibility="advanced", ge=2)
    """Rows a node needs to be split."""
    min_samples_leaf: int | None = key(visibility="advanced", ge=1)
    """Rows a leaf has at least."""
    max_features: Literal["sqrt", "log2"] | Annotated[float, Field(gt=0, le=1)] | None = key(visibility="advanced")
    """Share of the features looked at for a split, or a rule for it. null without a search: all."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `GradientBoostingClassifier` or `GradientBoostingRegressor`."""
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    cls = GradientBoostingClassifier if goal.is_classification else GradientBoostingRegressor
    return cls(**arguments(section, found), random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    GradientBoosting,
    ALL,
    make=make,
    search_space=search_space,
    encoding="ordinal",
    scaler="none",
)
