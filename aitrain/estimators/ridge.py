"""`trainer=ridge`: least squares with a price on squared coefficients (Hoerl and Kennard 1970,
https://doi.org/10.1080/00401706.1970.10488634); for classes, on targets of -1 and 1.
"""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import ALL, CLASSIFICATION, Estimator, Goal, Real, Space, arguments, unset
from aitrain.config.section import OptionSection, key
from aitrain.estimators.calibration import calibrated

SPACE: dict[str, Space] = {
    "alpha": Real(1e-4, 1e4, first=1.0, log=True),
}


class Ridge(OptionSection):
    """Ridge regression, for numbers and classes.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["ridge"]
    """The estimator; choose it with `trainer=ridge`."""
    alpha: float | None = key(ge=0)
    """Price of the squared coefficients."""
    tol: float | None = key(visibility="advanced", gt=0)
    """Precision of the solution; null: the library's default, never searched."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""
    probabilities: bool = key(visibility="advanced")
    """Classification: learn probabilities from the distances to the border (Platt 1999) on five held-out parts, which
    costs six fits. false: classes alone, and the search counts errors."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `Ridge`, or `RidgeClassifier`, calibrated where probabilities are wanted."""
    from sklearn.linear_model import Ridge as Linear
    from sklearn.linear_model import RidgeClassifier

    given = arguments(section, found, without=("probabilities",))
    if not goal.is_classification:
        return Linear(**given, random_state=seed)
    classifier = RidgeClassifier(**given, random_state=seed)
    return calibrated(classifier, goal) if section.probabilities else classifier


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    Ridge,
    ALL,
    make=make,
    search_space=search_space,
    only_for={"class_weight": CLASSIFICATION, "probabilities": CLASSIFICATION},
)
