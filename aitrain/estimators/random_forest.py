"""`trainer=random_forest`: a forest of trees, each grown on a sample of the rows (Breiman 2001,
https://doi.org/10.1023/A:1010933404324).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from aitrain.config.estimator import ALL, CLASSIFICATION, Estimator, Goal, Pick, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_estimators": Whole(50, 500, first=100, log=True),
    "max_depth": Whole(3, 30),
    "min_samples_split": Whole(2, 20, first=2),
    "min_samples_leaf": Whole(1, 20, first=1),
    "max_features": Pick(("sqrt", "log2", 0.5, 1.0)),
    "bootstrap": Pick((True, False)),
}
OF_REGRESSION = Pick((1.0, 0.5, "sqrt", "log2"))


class RandomForest(OptionSection):
    """A random forest.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["random_forest"]
    """The estimator; choose it with `trainer=random_forest`."""
    n_estimators: int | None = key(ge=1)
    """Trees of the forest."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow. null without a search: until leaves are pure."""
    min_samples_split: int | None = key(visibility="advanced", ge=2)
    """Rows a node needs to be split."""
    min_samples_leaf: int | None = key(visibility="advanced", ge=1)
    """Rows a leaf has at least."""
    max_features: Literal["sqrt", "log2"] | Annotated[float, Field(gt=0, le=1)] | None = key(visibility="advanced")
    """Share of the features looked at for a split, or a rule for it. null without a search: the square root of their
    number for classes, all for numbers."""
    bootstrap: bool | None = key(visibility="advanced")
    """Whether each tree sees a sample drawn with replacement."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `RandomForestClassifier` or `RandomForestRegressor`."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    cls = RandomForestClassifier if goal.is_classification else RandomForestRegressor
    return cls(**arguments(section, found), random_state=seed, n_jobs=threads)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    space = SPACE if goal.is_classification else {**SPACE, "max_features": OF_REGRESSION}
    return unset(section, space)


ESTIMATOR = Estimator(
    RandomForest,
    ALL,
    make=make,
    search_space=search_space,
    encoding="ordinal",
    scaler="none",
    several=True,
    threads_to_predict=1,
    only_for={"class_weight": CLASSIFICATION},
)
