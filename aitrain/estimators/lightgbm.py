"""`trainer=lightgbm`: gradient-boosted trees grown leaf by leaf (Ke et al. 2017, https://papers.nips.cc/paper/6907).
Categories and missing numbers are the library's own affair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from aitrain.config.estimator import (
    ALL,
    CLASSIFICATION,
    Estimator,
    Goal,
    OwnFormat,
    Real,
    Space,
    Whole,
    arguments,
    unset,
)
from aitrain.config.section import OptionSection, key

SPACE: dict[str, Space] = {
    "n_estimators": Whole(50, 500, first=100, log=True),
    "learning_rate": Real(0.01, 0.3, first=0.1, log=True),
    "num_leaves": Whole(7, 127, first=31, log=True),
    "min_child_samples": Whole(3, 60, first=20, log=True),
    "subsample": Real(0.5, 1.0, first=1.0),
    "colsample_bytree": Real(0.4, 1.0, first=1.0),
    "reg_alpha": Real(0.0, 10.0, first=0.0),
    "reg_lambda": Real(0.0, 10.0, first=0.0),
}


class LightGBM(OptionSection):
    """LightGBM.

    Keys that are null are searched, and are the library's defaults where nothing is.
    """

    name: Literal["lightgbm"]
    """The estimator; choose it with `trainer=lightgbm`."""
    n_estimators: int | None = key(ge=1)
    """Trees, one after another (a tree a class where there are more than two)."""
    learning_rate: float | None = key(gt=0)
    """How much of a new tree's answer is added."""
    num_leaves: int | None = key(ge=2)
    """Leaves a tree has at most."""
    max_depth: int | None = key(ge=1)
    """Deepest a tree may grow; null: any depth, never searched."""
    min_child_samples: int | None = key(ge=1)
    """Rows a leaf has at least."""
    subsample: float | None = key(gt=0, le=1)
    """Share of the rows each tree is fitted on."""
    colsample_bytree: float | None = key(gt=0, le=1)
    """Share of the features each tree may use."""
    reg_alpha: float | None = key(visibility="advanced", ge=0)
    """Weight of the size of leaf values."""
    reg_lambda: float | None = key(visibility="advanced", ge=0)
    """Weight of the squared leaf values."""
    class_weight: Literal["balanced"] | None = key(visibility="advanced")
    """`balanced`: rows weigh as much as their class is rare. null: all the same; never searched. Classification
    only."""


def make(section: Any, goal: Goal, seed: int, threads: int, **found: Any) -> Any:
    """The library's `LGBMClassifier` or `LGBMRegressor`, in its deterministic mode."""
    import lightgbm

    cls = lightgbm.LGBMClassifier if goal.is_classification else lightgbm.LGBMRegressor
    given = arguments(section, found)
    if given.get("subsample", 1.0) < 1.0:
        given["subsample_freq"] = 1  # the library draws no sample without it
    return cls(**given, random_state=seed, n_jobs=threads, deterministic=True, force_row_wise=True, verbose=-1)


def fit_options(goal: Goal) -> dict[str, Any]:
    """Which features are categories; the constructor would ignore it."""
    return {"categorical_feature": goal.categorical} if goal.categories else {}


def write(fitted: Any, path: Path) -> None:
    """The trees as text."""
    fitted.booster_.save_model(path)


class Trees:
    """Predictions from the trees in a file: the library's classifier cannot be made of them."""

    def __init__(self, path: Path, goal: Goal) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_file=path)
        self.goal = goal

    def predict_proba(self, rows: Any) -> Any:
        """A probability a row and class."""
        import numpy as np

        found = np.asarray(self.booster.predict(rows))
        return found if found.ndim == 2 else np.column_stack([1 - found, found])

    def predict(self, rows: Any) -> Any:
        """The number of the likeliest class, or the target."""
        return self.predict_proba(rows).argmax(axis=1) if self.goal.is_classification else self.booster.predict(rows)


def search_space(section: Any, goal: Goal) -> dict[str, Space]:
    """The keys that are null, with their ranges."""
    return unset(section, SPACE)


ESTIMATOR = Estimator(
    LightGBM,
    ALL,
    make=make,
    search_space=search_space,
    needs=("lightgbm", "tabular"),
    encoding="native",
    scaler="none",
    takes_missing=True,
    only_for={"class_weight": CLASSIFICATION},
    fit_options=fit_options,
    own_format=OwnFormat(".txt", write, Trees),
)
