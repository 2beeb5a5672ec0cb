"""`trainer=catboost`: gradient-boosted symmetric trees with statistics of categories (Prokhorenkova et al. 2018,
https://arxiv.org/abs/1706.09516). Categories and missing numbers are the library's own affair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from aitrain.config.estimator import ALL, Estimator, Goal, OwnFormat, Real, Space, Whole, arguments, unset
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "iterations": Whole(100, 1000, first=1000, log=True),
    "learning_rate": Real(0.01, 0.3, log=True),
    "depth": Whole(3, 9, first=6),
    # Set to its own default, the next turns the automatic learning rate off, and the last changes the bootstrap.
    "l2_leaf_reg": Real(0.5, 30.0, log=True),
    "random_strength": Real(0.0, 3.0, first=1.0),
    "bagging_temperature": Real(0.0, 2.0),
}


class CatBoost(OptionSection):
    """CatBoost.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["catboost"]
    """The estimator; choose it with `trainer=catboost`."""
    iterations: int | None = key(ge=1)
    """Trees, one after another. null without a search: 1000."""
    learning_rate: float | None = key(gt=0)
    """How much of a new tree's answer is added. null without a search: by the number of rows and trees."""
    depth: int | None = key(ge=1, le=16)
    """Depth of every tree."""
    l2_leaf_reg: float | None = key(ge=0)
    """Weight of the squared leaf values."""
    random_strength: float | None = key(visibility="advanced", ge=0)
    """How much chance there is in the choice of splits."""
    bagging_temperature: float | None = key(visibility="advanced", ge=0)
    """How uneven the random weights of rows are; 0 gives all the same."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """The library's `CatBoostClassifier` or `CatBoostRegressor`, which writes no folder of its own."""
    import catboost

    cls = catboost.CatBoostClassifier if goal.is_classification else catboost.CatBoostRegressor
    given = arguments(section, found)
    if "bagging_temperature" in given:
        given["bootstrap_type"] = "Bayesian"  # the only one that has a temperature, and not always the default
    return cls(**given, random_seed=seed, thread_count=threads, verbose=False, allow_writing_files=False)


def fit_options(goal: Goal) -> dict[str, Any]:
    """Which features are categories; told to the constructor, scikit-learn could not copy it."""
    return {"cat_features": goal.categorical} if goal.categories else {}


def write(fitted: Any, path: Path) -> None:
    """The trees in the library's binary format, which holds no code."""
    fitted.save_model(str(path), format="cbm")


def read(path: Path, goal: Goal) -> Any:
    """The estimator of the trees in a file."""
    import catboost

    found = catboost.CatBoostClassifier() if goal.is_classification else catboost.CatBoostRegressor()
    return found.load_model(str(path), format="cbm")


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    CatBoost,
    ALL,
    make=make,
    search_space=search_space,
    needs=("catboost", "tabular"),
    encoding="native",
    scaler="none",
    takes_missing=True,
    frame=True,
    fit_options=fit_options,
    own_format=OwnFormat(".cbm", write, read),
)
