"""`trainer=hist_gradient_boosting`: gradient boosting over features cut into 255 bins, as LightGBM does it
(Ke et al. 2017, https://papers.nips.cc/paper/6907). Missing numbers take the side of a split that pays.
"""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import ALL, CLASSIFICATION, Estimator, Goal, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "max_iter": Whole(50, 400, first=100, log=True),
    "learning_rate": Real(0.01, 0.3, first=0.1, log=True),
    "max_leaf_nodes": Whole(7, 127, first=31, log=True),
    "min_samples_leaf": Whole(5, 60, first=20),
    "l2_regularization": Real(0.0, 10.0, first=0.0),
}


class HistGradientBoosting(OptionSection):
    """Histogram gradient boosting of scikit-learn.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["hist_gradient_boosting"]
    """The estimator; choose it with `trainer=hist_gradient_boosting`."""
    max_iter: int | None = key(ge=1)
    """Trees, one after another."""
    learning_rate: float | None = key(gt=0)
    """How much of a new tree's answer is added."""
    max_leaf_nodes: int | None = key(ge=2)
    """Leaves a tree has at most."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow. null: any depth, never searched."""
    min_samples_leaf: int | None = key(visibility="advanced", ge=1)
    """Rows a leaf has at least."""
    l2_regularization: float | None = key(visibility="advanced", ge=0)
    """Weight of the squared leaf values."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `HistGradientBoostingClassifier` or `...Regressor`, without its early stopping, whose default
    depends on the number of rows. It has no say in its threads."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    cls = HistGradientBoostingClassifier if goal.is_classification else HistGradientBoostingRegressor
    return cls(**arguments(section, found), early_stopping=False, random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    HistGradientBoosting,
    ALL,
    make=make,
    search_space=search_space,
    # Its native categories would put functions into the saved file, which then could not be read without trust.
    encoding="ordinal",
    scaler="none",
    takes_missing=True,
    only_for={"class_weight": CLASSIFICATION},
)
