"""`trainer=knn`: the vote, or the mean, of the nearest rows."""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import ALL, Estimator, Goal, Pick, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_neighbors": Whole(1, 50, first=5, log=True),
    "weights": Pick(("uniform", "distance")),
    "p": Pick((2.0, 1.0)),
}


class Knn(OptionSection):
    """Nearest neighbours; the training rows are part of the saved model.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["knn"]
    """The estimator; choose it with `trainer=knn`."""
    n_neighbors: int | None = key(ge=1)
    """Rows that are asked."""
    weights: Literal["uniform", "distance"] | None = key()
    """Whether near rows count more."""
    p: float | None = key(visibility="advanced", ge=1)
    """Power of the distance: 1 sums the differences, 2 is Euclid's."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `KNeighborsClassifier` or `KNeighborsRegressor`."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    cls = KNeighborsClassifier if goal.is_classification else KNeighborsRegressor
    return cls(**arguments(section, found), n_jobs=threads)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    Knn,
    ALL,
    make=make,
    search_space=search_space,
    several=True,
)
