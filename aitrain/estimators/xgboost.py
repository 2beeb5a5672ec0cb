"""`trainer=xgboost`: gradient-boosted trees (Chen and Guestrin 2016, https://arxiv.org/abs/1603.02754). Categories and
missing numbers are the library's own affair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from aitrain.config.estimator import ALL, Estimator, Goal, OwnFormat, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_estimators": Whole(50, 500, first=100, log=True),
    "learning_rate": Real(0.01, 0.5, first=0.3, log=True),
    "max_depth": Whole(2, 10, first=6),
    "min_child_weight": Real(0.5, 20.0, first=1.0, log=True),
    "subsample": Real(0.5, 1.0, first=1.0),
    "colsample_bytree": Real(0.4, 1.0, first=1.0),
    "gamma": Real(0.0, 5.0, first=0.0),
    "reg_alpha": Real(0.0, 10.0, first=0.0),
    "reg_lambda": Real(1e-2, 100.0, first=1.0, log=True),
}


class XGBoost(OptionSection):
    """XGBoost.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["xgboost"]
    """The estimator; choose it with `trainer=xgboost`."""
    n_estimators: int | None = key(ge=1)
    """Trees, one after another (a tree a class where there are more than two)."""
    learning_rate: float | None = key(gt=0)
    """How much of a new tree's answer is added."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow."""
    min_child_weight: float | None = key(ge=0)
    """Weight of rows a leaf has at least."""
    subsample: float | None = key(gt=0, le=1)
    """Share of the rows each tree is fitted on."""
    colsample_bytree: float | None = key(gt=0, le=1)
    """Share of the features each tree may use."""
    gamma: float | None = key(visibility="advanced", ge=0)
    """Gain a split needs."""
    reg_alpha: float | None = key(visibility="advanced", ge=0)
    """Weight of the size of leaf values."""
    reg_lambda: float | None = key(visibility="advanced", ge=0)
    """Weight of the squared leaf values."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """The library's `XGBClassifier` or `XGBRegressor`."""
    import xgboost

    cls = xgboost.XGBClassifier if goal.is_classification else xgboost.XGBRegressor
    kinds = ["q"] * goal.numbers + ["c"] * goal.categories
    told = {"enable_categorical": True, "feature_types": kinds} if goal.categories else {}
    return cls(**arguments(section, found), **told, random_state=seed, n_jobs=threads)


def write(fitted: Any, path: Path) -> None:
    """The trees as JSON."""
    fitted.save_model(path)


def read(path: Path, goal: Goal) -> Any:
    """The estimator of the trees in a file."""
    import xgboost

    found = xgboost.XGBClassifier() if goal.is_classification else xgboost.XGBRegressor()
    found.load_model(path)
    return found


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    XGBoost,
    ALL,
    make=make,
    search_space=search_space,
    needs=("xgboost", "tabular"),
    encoding="native",
    scaler="none",
    takes_missing=True,
    own_format=OwnFormat(".json", write, read),
)
