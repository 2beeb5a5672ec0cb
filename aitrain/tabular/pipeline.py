"""Numbers of a schema to what an estimator wants, and the estimator, as one scikit-learn pipeline.

What `auto` means: an estimator that has an answer to missing numbers gets them as they are, any other the median; one
that measures distances or weighs features gets them scaled to deviations from the mean, trees get them as they are. A
missing category is a category of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import preprocessing
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline

from aitrain.config.estimator import Estimator, Goal
from aitrain.config.section import OptionSection
from aitrain.errors import ConfigError, DataError, Problem
from aitrain.tabular import keys
from aitrain.tabular.metrics import Predicted
from aitrain.tabular.schema import Schema

NumericalImputer = Literal["auto", "none", "mean", "median", "most_frequent"]
CategoricalImputer = Literal["auto", "missing", "most_frequent"]
Scaler = Literal["auto", "none", "standard", "minmax", "maxabs", "robust", "normal"]

MOST_COLUMNS = 100
"""One-hot columns a category column becomes at most; its rarest categories share one."""
UNKNOWN, MISSING = -1, -2
"""What a category that the fitted rows lacked, and a missing one, become among numbered categories."""

_SCALERS = {
    "standard": preprocessing.StandardScaler,
    "minmax": preprocessing.MinMaxScaler,
    "maxabs": preprocessing.MaxAbsScaler,
    "robust": preprocessing.RobustScaler,
    "normal": preprocessing.Normalizer,
}


@dataclass(frozen=True)
class Preparation:
    """What is done to features before the estimator sees them. `normal` scales each row to length 1, which
    is what AutoTrain's scaler of this name does; it mixes the units of columns and seldom helps."""

    numerical_imputer: NumericalImputer = "auto"
    categorical_imputer: CategoricalImputer = "auto"
    numeric_scaler: Scaler = "auto"

    def resolved(self, estimator: Estimator) -> Preparation:
        """Without `auto`. Raises ConfigError where numbers would stay missing and the estimator has no answer."""
        if self.numerical_imputer == "none" and not estimator.takes_missing:
            what = f"none leaves numbers missing, and {estimator.name} cannot learn from those"
            raise ConfigError(Problem("task.numerical_imputer", what, "choose mean, median or most_frequent"))
        filled: NumericalImputer = "none" if estimator.takes_missing else "median"
        return Preparation(
            filled if self.numerical_imputer == "auto" else self.numerical_imputer,
            "missing" if self.categorical_imputer == "auto" else self.categorical_imputer,
            estimator.scaler if self.numeric_scaler == "auto" else self.numeric_scaler,
        )


@dataclass(frozen=True)
class Recipe:
    """All that makes a pipeline but the searched values."""

    estimator: Estimator
    section: OptionSection
    goal: Goal
    schema: Schema
    preparation: Preparation
    seed: int
    threads: int

    def build(self, found: dict[str, Any]) -> Pipeline:
        """A pipeline that is not fitted, with the steps `columns` and `estimator`."""
        made = self.estimator.make(self.section, self.goal, self.seed, self.threads, **found)
        return joined(columns_of(self), several(made, self))

    def fit(self, found: dict[str, Any], x: NDArray[np.float64], y: NDArray[Any]) -> Part:
        """A pipeline fitted on these rows. Raises DataError where they show one value of a label."""
        classes = np.arange(0)
        if self.goal.subtask == "multilabel":
            _refuse_constant_labels(y)
        elif self.goal.is_classification:
            # Some libraries want classes numbered without gaps, and a part may lack a rare one.
            classes, y = np.unique(y, return_inverse=True)
        options = {f"estimator__{key}": value for key, value in self.estimator.fit_options(self.goal).items()}
        fitted = self.build(found).fit(x, y, **options)
        if self.estimator.threads_to_predict is not None:
            fitted.set_params(estimator__n_jobs=self.estimator.threads_to_predict)
        return Part(fitted, self.goal, classes)


@dataclass(frozen=True)
class Part:
    """A fitted pipeline with the classes it has seen."""

    pipeline: Any
    """Anything with `predict` and, where there are probabilities, `predict_proba`."""
    goal: Goal
    classes: NDArray[Any]
    """Numbers of the classes of one target, in the order of the pipeline's own; empty for other goals."""

    def predict(self, x: NDArray[np.float64]) -> Predicted:
        """What the pipeline says of rows, in terms of all classes."""
        values = np.asarray(self.pipeline.predict(x))
        if not self.goal.is_classification:
            return Predicted(_as_targets(values, self.goal).astype(np.float64))
        probabilities = self.pipeline.predict_proba(x) if hasattr(self.pipeline, "predict_proba") else None
        if self.goal.subtask == "multilabel":
            ones = (
                None if probabilities is None else np.column_stack([np.asarray(found)[:, 1] for found in probabilities])
            )
            return Predicted(_as_targets(values, self.goal).astype(np.int64), ones)
        return Predicted(self.classes[values.reshape(-1).astype(np.int64)], self._spread(probabilities))

    def _spread(self, probabilities: Any) -> NDArray[np.float64] | None:
        """Probabilities of all classes; one that was not seen has none."""
        if probabilities is None or len(self.classes) == self.goal.classes:
            return None if probabilities is None else np.asarray(probabilities, dtype=np.float64)
        spread = np.zeros((len(probabilities), self.goal.classes))
        spread[:, self.classes] = probabilities
        return spread


def _as_targets(values: NDArray[Any], goal: Goal) -> NDArray[Any]:
    """Libraries answer with a column or a row of numbers for one target."""
    return values.reshape(len(values), goal.targets) if goal.targets > 1 else values.reshape(-1)


def _refuse_constant_labels(y: NDArray[Any]) -> None:
    constant = np.flatnonzero(y.min(axis=0) == y.max(axis=0))
    if len(constant):
        what = f"label {constant[0] + 1} has one value in all rows of a part that is fitted on"
        raise DataError(Problem(keys.TARGETS, what, "leave the label out, or add rows"))


def joined(columns: Any, estimator: Any) -> Pipeline:
    """The two steps as one."""
    return Pipeline([("columns", columns), ("estimator", estimator)])


def several(made: Any, recipe: Recipe) -> Any:
    """An estimator of all targets."""
    if recipe.goal.targets == 1 or recipe.estimator.several:
        return made
    return MultiOutputClassifier(made) if recipe.goal.is_classification else MultiOutputRegressor(made)


def columns_of(recipe: Recipe) -> ColumnTransformer:
    """Numbers, then yes and no, then categories, each as the estimator wants them."""
    preparation = recipe.preparation.resolved(recipe.estimator)
    groups = [
        ("numbers", _numbers(preparation), recipe.schema.positions("numerical", "date")),
        ("booleans", _booleans(preparation), recipe.schema.positions("boolean")),
        ("categories", _categories(preparation, recipe.estimator), recipe.schema.positions("categorical")),
    ]
    made = ColumnTransformer(
        [group for group in groups if group[2]], sparse_threshold=0.0, verbose_feature_names_out=False
    )
    return made.set_output(transform="pandas") if recipe.estimator.frame else made


def _steps(*steps: Any) -> Any:
    """What these steps are together; None is no step."""
    real = [step for step in steps if step is not None]
    if not real:
        return "passthrough"
    return real[0] if len(real) == 1 else preprocessing_pipeline(real)


def preprocessing_pipeline(steps: list[Any]) -> Pipeline:
    """Steps named after their class."""
    return Pipeline([(type(step).__name__.lower(), step) for step in steps])


def _filled(strategy: str) -> SimpleImputer | None:
    # A part of the rows may have no value of a column at all; its place among the features must stay.
    return None if strategy == "none" else SimpleImputer(strategy=strategy, keep_empty_features=True)


def _numbers(preparation: Preparation) -> Any:
    scaler = _SCALERS.get(preparation.numeric_scaler)
    return _steps(_filled(preparation.numerical_imputer), scaler() if scaler else None)


def _booleans(preparation: Preparation) -> Any:
    return _steps(_filled("none" if preparation.numerical_imputer == "none" else "most_frequent"))


def _categories(preparation: Preparation, estimator: Estimator) -> Any:
    filled = "most_frequent" if preparation.categorical_imputer == "most_frequent" else "none"
    return _steps(_filled(filled), _encoder(estimator))


def _encoder(estimator: Estimator) -> Any:
    if estimator.encoding == "one_hot":
        return preprocessing.OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=MOST_COLUMNS, sparse_output=False
        )
    if estimator.encoding == "native" and not estimator.frame:
        unknown, missing = np.nan, np.nan  # as numbers, these libraries know what is missing
    else:
        unknown, missing = UNKNOWN, MISSING
    return preprocessing.OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=unknown,
        encoded_missing_value=missing,
        dtype=np.int64 if estimator.frame else np.float64,
    )
