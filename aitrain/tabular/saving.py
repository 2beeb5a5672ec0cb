"""A fitted pipeline in files, from which nothing is run: rows of the user's file go in, predictions come out.

    schema.json       columns, targets, classes, estimator and versions
    pipeline.skops    what is done to features, and the estimator unless its library has a format of its own
    target-N.json …   the estimator of each target in its library's own format

skops rebuilds objects by their type's name (https://skops.readthedocs.io/en/stable/persistence.html). Types it does not
trust by itself are taken from `TRUSTED` alone, whatever a file names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor

from aitrain.config.estimator import Estimator, Goal
from aitrain.data.rows import Row
from aitrain.errors import DataError, MachineError, Problem
from aitrain.tabular.dataset import ids_of
from aitrain.tabular.fitting import Fitted
from aitrain.tabular.metrics import Predicted
from aitrain.tabular.pipeline import Part
from aitrain.tabular.schema import Schema
from aitrain.tabular.table import Table, read_table
from aitrain.tabular.targets import Targets

FORMAT = 1
"""Of `schema.json`; another is refused."""
SCHEMA = "schema.json"
PIPELINE = "pipeline.skops"
TRUSTED = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.tree._tree.Tree",
    }
)
"""Types of the estimators' insides, which skops does not know; they hold numbers and run nothing."""


@dataclass(frozen=True)
class Model:
    """A saved estimator, ready for rows of the user's file."""

    part: Part
    schema: Schema
    targets: Targets
    estimator: str
    notes: tuple[str, ...] = ()
    """What differs from the machine it was made on."""

    def predict(self, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """One object a row, in their order: `prediction` (a class, a number, or an object of them by target),
        `probabilities` by class or label where there are any, and `id` if the rows have that column. Columns that are
        not known are not looked at. Raises DataError as `Schema.encode` does."""
        return self.predict_table(read_table(rows, self.schema.missing))

    def predict_table(self, table: Table) -> list[dict[str, Any]]:
        """The same for a table."""
        predicted = self.part.predict(self.schema.encode(table))
        ids = ids_of(self.schema, table)
        found = [self._row(predicted, i) for i in range(len(table))]
        return found if ids is None else [{"id": name, **row} for name, row in zip(ids, found, strict=True)]

    def _row(self, predicted: Predicted, i: int) -> dict[str, Any]:
        value = predicted.values[i]
        if self.targets.subtask == "regression":
            return {"prediction": _by_target(self.targets, value, float)}
        shares = None if predicted.probabilities is None else predicted.probabilities[i].tolist()
        if self.targets.subtask == "multilabel":
            return _with(_by_target(self.targets, value, int), self.targets.columns, shares)
        names = [str(label) for label in self.targets.classes]
        return _with(self.targets.classes[int(value)], names, shares)


def _by_target(targets: Targets, value: Any, kind: type) -> Any:
    if len(targets.columns) == 1:
        return kind(np.asarray(value).reshape(-1)[0])
    return {name: kind(each) for name, each in zip(targets.columns, value, strict=True)}


def _with(prediction: Any, names: Iterable[str], shares: list[float] | None) -> dict[str, Any]:
    if shares is None:
        return {"prediction": prediction}
    return {"prediction": prediction, "probabilities": dict(zip(names, shares, strict=True))}


def model_of(fitted: Fitted) -> Model:
    """What was fitted, without a way over files."""
    return Model(fitted.part, fitted.schema, fitted.targets, fitted.recipe.estimator.name)


# --- to files ------------------------------------------------------------------------------------------------------


def save(folder: Path, fitted: Fitted) -> None:
    """Writes the files that the top of this module lists; the folder may exist."""
    import skops.io

    folder.mkdir(parents=True, exist_ok=True)
    estimator = fitted.recipe.estimator
    columns = fitted.part.pipeline.named_steps["columns"]
    if estimator.own_format is None:
        skops.io.dump(fitted.part.pipeline, folder / PIPELINE)
    else:
        skops.io.dump(columns, folder / PIPELINE)
        for i, each in enumerate(_each_target(fitted.part)):
            estimator.own_format.write(each, folder / f"target-{i}{estimator.own_format.suffix}")
    text = json.dumps(_described(fitted), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SCHEMA).write_text(text + "\n", encoding="utf-8")


def _each_target(part: Part) -> list[Any]:
    made = part.pipeline.named_steps["estimator"]
    return list(made.estimators_) if isinstance(made, MultiOutputClassifier | MultiOutputRegressor) else [made]


def _described(fitted: Fitted) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "estimator": fitted.recipe.estimator.name,
        "goal": asdict(fitted.part.goal),
        "seen_classes": fitted.part.classes.tolist(),
        "schema": fitted.schema.to_json(),
        "targets": fitted.targets.to_json(),
        "versions": versions(fitted.recipe.estimator),
    }


def versions(estimator: Estimator) -> dict[str, str]:
    """Of what the files depend on, by import name."""
    names = dict.fromkeys(["aitrain", "sklearn", "skops", "numpy", estimator.needs[0]])
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    if name == "aitrain":
        return importlib.metadata.version(name)
    return str(importlib.import_module(name).__version__)


# --- from files ----------------------------------------------------------------------------------------------------


def load(folder: Path, estimator: Estimator) -> Model:
    """The model of a folder, whose estimator is `estimator`. Another minor version of a library than the one the files
    were written with is told in `notes`.

    Raises DataError for files that are missing, not ours or that name types beyond `TRUSTED`, MachineError where the
    versions of libraries keep them from being read.
    """
    found = _read(folder)
    if found.get("estimator") != estimator.name:
        raise _broken(folder, f"holds {found.get('estimator')!r}, not {estimator.name}")
    try:
        schema, targets = Schema.from_json(found["schema"]), Targets.from_json(found["targets"])
        goal = Goal(**found["goal"])
        classes = np.array(found["seen_classes"], dtype=np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(folder, f"cannot be read ({error})") from error
    differing = _differing(found.get("versions", {}), versions(estimator))
    pipeline = _pipeline(folder, estimator, goal, differing)
    return Model(Part(pipeline, goal, classes), schema, targets, estimator.name, tuple(differing))


def _read(folder: Path) -> dict[str, Any]:
    path = folder / SCHEMA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _broken(folder, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _broken(folder, f"is no JSON ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _broken(folder, f"is not of format {FORMAT}")
    return found


def _broken(folder: Path, what: str, name: str = SCHEMA) -> DataError:
    return DataError(Problem("model.path", f"{folder / name} {what}", "name the model folder of a tabular run"))


def _differing(theirs: dict[str, str], ours: dict[str, str]) -> list[str]:
    return [
        f"saved with {name} {theirs[name]}, this is {version}"
        for name, version in ours.items()
        if name in theirs and theirs[name].split(".")[:2] != version.split(".")[:2]
    ]


def _pipeline(folder: Path, estimator: Estimator, goal: Goal, differing: list[str]) -> Any:
    try:
        first = _trusted(folder / PIPELINE)
        if estimator.own_format is None:
            return first
        form = estimator.own_format
        made = [form.read(folder / f"target-{i}{form.suffix}", goal) for i in range(_files(estimator, goal))]
    except DataError:
        raise
    except Exception as error:
        if not differing:
            raise _broken(folder, f"cannot be read ({type(error).__name__}: {error})", PIPELINE) from error
        what = f"{folder} cannot be read ({type(error).__name__}: {error}): {'; '.join(differing)}"
        raise MachineError(Problem("model.path", what, "install the versions it was saved with")) from error
    return _FromFilesOfClasses(first, made) if goal.is_classification else _FromFiles(first, made)


def _files(estimator: Estimator, goal: Goal) -> int:
    return 1 if estimator.several else goal.targets


class _FromFiles:
    """A transformer and the estimator of each target, which predict as the pipeline that was saved."""

    def __init__(self, columns: Any, made: list[Any]) -> None:
        self.columns = columns
        self.made = made

    def predict(self, rows: Any) -> NDArray[Any]:
        features = self.columns.transform(rows)
        return np.column_stack([np.asarray(each.predict(features)).reshape(-1) for each in self.made])


class _FromFilesOfClasses(_FromFiles):
    def predict_proba(self, rows: Any) -> Any:
        features = self.columns.transform(rows)
        found = [each.predict_proba(features) for each in self.made]
        return found[0] if len(found) == 1 else found


def _trusted(path: Path) -> Any:
    """The object of a skops file. Raises DataError for types beyond the list, before anything is built of them."""
    import skops.io

    if not path.is_file() or not zipfile.is_zipfile(path):
        raise _broken(path.parent, "is missing or no skops file", path.name)
    named = skops.io.get_untrusted_types(file=path)
    foreign = sorted(set(named) - TRUSTED)
    if foreign:
        raise DataError(
            Problem(
                "model.path",
                f"{path} names {', '.join(foreign)}, which no pipeline of ours holds, and nothing of it was loaded",
                "do not use the file",
            )
        )
    return skops.io.load(path, trusted=named)
