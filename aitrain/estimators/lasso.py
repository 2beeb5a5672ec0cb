"""`trainer=lasso`: least squares with a price on the size of coefficients, which makes many of them zero (Tibshirani
1996, https://doi.org/10.1111/j.2517-6161.1996.tb02080.x).
"""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import REGRESSION, Estimator, Goal, Real, Space, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "alpha": Real(1e-4, 1e3, first=1.0, log=True),
}


class Lasso(OptionSection):
    """The lasso; regression only.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["lasso"]
    """The estimator; choose it with `trainer=lasso`."""
    alpha: float | None = key(gt=0)
    """Price of the coefficients, in units of the target."""
    max_iter: int = key(visibility="advanced", ge=1)
    """Rounds over the features at most."""
    tol: float | None = key(visibility="advanced", gt=0)
    """Duality gap below which the solver stops; null: the library's default, never searched."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `Lasso`."""
    from sklearn.linear_model import Lasso as Linear

    return Linear(**arguments(section, found), random_state=seed)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    Lasso,
    REGRESSION,
    make=make,
    search_space=search_space,
    several=True,
)
