"""`trainer=adaboost`: small trees, each heeding the rows the former ones got wrong (Freund and Schapire 1997,
https://doi.org/10.1006/jcss.1997.1504; Drucker 1997 for numbers).
"""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import ALL, REGRESSION, Estimator, Goal, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_estimators": Whole(25, 300, first=50, log=True),
    "learning_rate": Real(0.01, 2.0, first=1.0, log=True),
    "max_depth": Whole(1, 6),
}


class AdaBoost(OptionSection):
    """AdaBoost over decision trees.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["adaboost"]
    """The estimator; choose it with `trainer=adaboost`."""
    n_estimators: int | None = key(ge=1)
    """Trees, one after another."""
    learning_rate: float | None = key(gt=0)
    """Weight of each tree's vote."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow. null without a search: 1 for classes, 3 for numbers."""
    loss: Literal["linear", "square", "exponential"] | None = key(visibility="advanced")
    """How an error becomes a row's weight. Regression only; null: linear, never searched."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `AdaBoostClassifier` or `AdaBoostRegressor`, over trees of its own choice or of `max_depth`."""
    from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    given = arguments(section, found)
    boosted, tree = (
        (AdaBoostClassifier, DecisionTreeClassifier)
        if goal.is_classification
        else (AdaBoostRegressor, DecisionTreeRegressor)
    )
    depth = given.pop("max_depth", None)
    if depth is not None:
        given["estimator"] = tree(max_depth=depth)
    return boosted(**given, random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    AdaBoost,
    ALL,
    make=make,
    search_space=search_space,
    encoding="ordinal",
    scaler="none",
    only_for={"loss": REGRESSION},
)
