"""`trainer=naive_bayes`: each feature normal within a class, and independent of the others."""

from __future__ import annotations

from typing import Any, Literal

from aitrain.config.estimator import CLASSIFICATION, Estimator, Goal, Real, Space, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "var_smoothing": Real(1e-12, 1.0, first=1e-9, log=True),
}


class NaiveBayes(OptionSection):
    """Gaussian naive Bayes; classification only.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["naive_bayes"]
    """The estimator; choose it with `trainer=naive_bayes`."""
    var_smoothing: float | None = key(gt=0)
    """Share of the largest variance that is added to all."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """scikit-learn's `GaussianNB`; nothing in it is random."""
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(**arguments(section, found))


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    NaiveBayes,
    CLASSIFICATION,
    make=make,
    search_space=search_space,
)
