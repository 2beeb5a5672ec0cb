"""`trainer=decision_tree`: one tree of yes-or-no questions (Breiman et al. 1984)."""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import ALL, CLASSIFICATION, Estimator, Goal, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "max_depth": Whole(2, 30),
    "min_samples_split": Whole(2, 20, first=2),
    "min_samples_leaf": Whole(1, 20, first=1),
    "ccp_alpha": Real(0.0, 0.02, first=0.0),
}


class DecisionTree(OptionSection):
    """A decision tree.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["decision_tree"]
    """The estimator; choose it with `trainer=decision_tree`."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow. null without a search: until leaves are pure."""
    min_samples_split: int | None = key(visibility="advanced", ge=2)
    """Rows a node needs to be split."""
    min_samples_leaf: int | None = key(visibility="advanced", ge=1)
    """Rows a leaf has at least."""
    max_leaf_nodes: int | None = key(visibility="advanced", ge=2)
    """Leaves the tree has at most; null: any number, never searched."""
    ccp_alpha: float | None = key(visibility="advanced", ge=0)
    """Price of a leaf when the grown tree is pruned."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `DecisionTreeClassifier` or `DecisionTreeRegressor`."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    cls = DecisionTreeClassifier if goal.is_classification else DecisionTreeRegressor
    return cls(**arguments(section, found), random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    DecisionTree,
    ALL,
    make=make,
    search_space=search_space,
    encoding="ordinal",
    scaler="none",
    several=True,
    only_for={"class_weight": CLASSIFICATION},
)
