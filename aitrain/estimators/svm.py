"""`trainer=svm`: a border with a wide margin, in the space of a kernel (Cortes and Vapnik 1995,
https://doi.org/10.1007/BF00994018). Its time grows with the square of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from aitrain.config.estimator import (
    ALL,
    CLASSIFICATION,
    REGRESSION,
    Estimator,
    Goal,
    Pick,
    Real,
    Space,
    arguments,
    unset,
)
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.estimators.calibration import calibrated

if TYPE_CHECKING:
    from aitrain.config.run import Run

SPACE: dict[str, Space] = {
    "C": Real(1e-2, 1e3, first=1.0, log=True),
    "kernel": Pick(("rbf", "linear")),
    "gamma": Real(1e-4, 1.0, log=True),
}
EPSILON = Real(1e-3, 1.0, first=0.1, log=True)


class Svm(OptionSection):
    """A support vector machine.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["svm"]
    """The estimator; choose it with `trainer=svm`."""
    C: float | None = key(gt=0)
    """Price of rows on the wrong side of the margin."""
    kernel: Literal["rbf", "linear", "poly", "sigmoid"] | None = key()
    """How rows are compared; `linear` and `rbf` are searched."""
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0)] | None = key()
    """How near rows must be to matter, for all kernels but the linear."""
    degree: int | None = key(visibility="advanced", ge=1)
    """Degree of the kernel poly; null: 3, never searched."""
    epsilon: float | None = key(visibility="advanced", ge=0)
    """Regression: error that costs nothing, in deviations of the target if that is scaled; searched."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""
    probabilities: bool = key(visibility="advanced")
    """Classification: learn probabilities from the distances to the border (Platt 1999) on five held-out parts, which
    costs six fits. false: classes alone, and the search counts errors."""
    scale_target: bool = key(visibility="advanced")
    """Regression: learn the target less its mean in units of its deviation, since `C` and `epsilon` are in its
    units."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.gamma is not None and self.kernel == "linear":
            yield Problem("trainer.gamma", "has no effect with trainer.kernel=linear", "leave one of them out")
        if self.degree is not None and self.kernel != "poly":
            yield Problem("trainer.degree", "is of the kernel poly alone", "set trainer.kernel=poly, or leave it out")


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `SVC`, calibrated where probabilities are wanted, or `SVR` on the scaled target."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    given = arguments(section, found, without=("probabilities", "scale_target"))
    if goal.is_classification:
        return calibrated(SVC(**given), goal) if section.probabilities else SVC(**given)
    return (
        TransformedTargetRegressor(SVR(**given), transformer=StandardScaler()) if section.scale_target else SVR(**given)
    )


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null and act, with their ranges."""
    space = SPACE if goal.is_classification else {**SPACE, "epsilon": EPSILON}
    return {
        key: values for key, values in unset(section, space).items() if key != "gamma" or section.kernel != "linear"
    }


ESTIMATOR = Estimator(
    Svm,
    ALL,
    make=make,
    search_space=search_space,
    only_for={
        "class_weight": CLASSIFICATION,
        "probabilities": CLASSIFICATION,
        "epsilon": REGRESSION,
        "scale_target": REGRESSION,
    },
)
