"""A run of `task=tabular`: its rows, the fit, what is saved and reported, and the saved model's use."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from aitrain.config.estimator import Estimator
from aitrain.config.run import Run
from aitrain.data.encoding import Unusable
from aitrain.data.mixture import FoundSource
from aitrain.data.rows import Place, Row
from aitrain.errors import DataError
from aitrain.evaluation.classification import details_of_classes, details_of_labels
from aitrain.evaluation.regression import details_of_numbers
from aitrain.rundir.folder import MODEL
from aitrain.tabular.dataset import Sample
from aitrain.tabular.fitting import Fitted, Settings, baseline, fit, goal_of, looked_at
from aitrain.tabular.metrics import Predicted, score
from aitrain.tabular.pipeline import Preparation
from aitrain.tabular.rows import dataset_of, refuse_settings
from aitrain.tabular.saving import load, save
from aitrain.tabular.table import Table, read_table
from aitrain.tabular.targets import Targets

JOURNAL = "search.journal"
"""File of a run directory in which the trials of its search are kept."""


# --- rows ------------------------------------------------------------------------------------------------------------


def _section(run: Run) -> Any:
    return run.task


def settings_of(run: Run, threads: int) -> Settings:
    """How to fit, by the run's keys."""
    section = _section(run)
    preparation = Preparation(section.numerical_imputer, section.categorical_imputer, section.numeric_scaler)
    return Settings(
        seed=run.run.seed,
        threads=threads,
        test_fraction=run.data.valid_fraction,
        folds=section.folds,
        num_trials=section.num_trials,
        time_limit=section.time_limit,
        search_on=section.search_on,
        importance_repeats=section.importance_repeats,
        preparation=preparation,
    )


def facts_of(run: Run, source: FoundSource, estimator: Estimator) -> tuple[int, int, dict[str, Any]]:
    """Rows to learn from, rows held out, and what a run says of its data. Raises DataError and ConfigError for what
    does not go together, before anything is fitted."""
    found, counts = dataset_of(run, source)
    refuse_settings(estimator, run.trainer, found.targets, run.given)
    held = looked_at(estimator, run.trainer, found, settings_of(run, 1))
    assert source.choice is not None
    return len(found.train) + (0 if found.valid is None else len(found.valid)) - held, held, {
        "train": {**counts, "kept": len(found.train), "fingerprint": source.train.fingerprint()},
        "valid": None if source.valid is None else {"fingerprint": source.valid.fingerprint()},
        "columns": source.columns,
        "reason": source.choice.reason,
        "rendering": described(found.targets),
        "notes": list(found.notes),
    }  # fmt: skip


def described(targets: Targets) -> str:
    """What is predicted, in a line."""
    return f"{targets.subtask} ({targets.reason})"


# --- a run ---------------------------------------------------------------------------------------------------------


def fit_table(estimator: Estimator, job: Any) -> Any:
    """Search, cross-validate, fit, score and save; returns what `aitrain.ml.fitting` would.

    Raises Stopped when a signal asked for it; trials that were made are kept, and a run that is continued goes on from
    them.
    """
    from aitrain.ml.job import Outcome

    (source,) = job.sources
    dataset, _ = dataset_of(job.run, source)
    step = 0

    def tell(event: Mapping[str, Any]) -> None:
        nonlocal step
        kind, values = event["event"], {name: value for name, value in event.items() if name != "event"}
        if kind == "trial":
            step = event["number"] + 1
            job.events.add("trial", step, **values)
        elif kind == "scores":
            job.events.add("eval", job.plan.steps, **{k: v for k, v in values.items() if v is not None})

    fitted = fit(
        estimator,
        job.run.trainer,
        dataset,
        settings_of(job.run, job.plan.threads),
        journal=job.folder / JOURNAL if job.plan.steps > 1 else None,
        on_event=tell,
        stop=job.stop.requested,
    )
    for note in fitted.notes[len(dataset.notes) :]:
        job.events.add("note", job.plan.steps, text=note)
    _save(fitted, job.folder)
    simple = baseline(goal_of(dataset.targets), fitted.train, fitted.held_out)
    return Outcome(
        steps=max(1, len(fitted.trials)),
        epochs=0.0,
        before=None,
        after={name: value for name, value in fitted.scores.values.items() if value is not None},
        baselines={"simple": {name: value for name, value in simple.values.items() if value is not None}},
        best=None,
        parameters={"total": 0, "trainable": 0},
        weights_step=job.plan.steps,
        ended_by="steps",
        ended_because=None,
        tokens=0,
        peak_device_memory_bytes=None,
        details=details_of(fitted),
        stream_counts=None,
    )


def _save(fitted: Fitted, folder: Path) -> None:
    """The model's files, written aside and renamed."""
    partial = folder / f".{MODEL}"
    shutil.rmtree(partial, ignore_errors=True)
    save(partial, fitted)
    shutil.rmtree(folder / MODEL, ignore_errors=True)
    partial.rename(folder / MODEL)


def details_of(fitted: Fitted) -> dict[str, Any]:
    """What the report shows: predictions of the held-out rows, trials, folds, columns and what they are worth."""
    report = fitted.report()
    predicted = fitted.part.predict(fitted.held_out.x)
    validated = report["cross_validation"]
    folds = {} if validated is None else {
        name: {"mean": mean, "deviation": validated["deviation"][name], "folds": [f[name] for f in validated["folds"]]}
        for name, mean in validated["mean"].items()
        if mean is not None
    }  # fmt: skip
    return {
        **_predictions(fitted.targets, fitted.held_out, predicted),
        "split": "held-out rows",
        "rows": len(fitted.held_out),
        "estimator": report["estimator"],
        "settings": report["settings"],
        "preparation": report["preparation"],
        "objective": report["objective"],
        "trials": [
            {
                "number": trial["number"],
                "value": trial["value"],
                "seconds": trial["seconds"],
                "state": trial["error"] or "complete",
                "parameters": trial["params"],
            }
            for trial in report["trials"]
        ],
        "cross_validation": folds,
        "undefined": report["score_reasons"],
        "importance": report["importance"],
        "columns": report["columns"],
        "seconds": report["seconds"],
    }


def _predictions(targets: Targets, rows: Sample, predicted: Predicted) -> dict[str, Any]:
    """The kind of details that the report draws; nothing of classes without probabilities."""
    if targets.subtask == "regression":
        shape = (len(rows), len(targets.columns))
        numbers = np.asarray(predicted.values, np.float64).reshape(shape)
        return details_of_numbers(numbers, np.asarray(rows.y, np.float64).reshape(shape), targets.columns)
    if predicted.probabilities is None:
        return {}
    if targets.subtask == "multilabel":
        return details_of_labels(predicted.probabilities, rows.y, targets.columns)
    return details_of_classes(predicted.probabilities, rows.y, [str(name) for name in targets.classes])


# --- use -----------------------------------------------------------------------------------------------------------


class TablePredictor:
    """A saved model of a table."""

    def __init__(
        self, run: Run, folder: Path, estimator: Estimator, first_rows: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.model = load(folder, estimator)
        self.threads = run.hardware.threads
        self.known = _names(first_rows)
        """Columns that the file was seen to have; rows may leave them out, as rows of JSON do."""

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """For each row its class or number with what goes with it, or Unusable. Raises DataError where neither the
        rows nor any before them have a column that the model needs."""
        if not rows:
            return []
        self.known |= _names(rows)
        self.model.schema.require(sorted(self.known))
        try:
            return self._predicted(rows)
        except DataError:
            faults = [self._fault(row) for row in rows]
        made = iter(self._predicted([row for row, fault in zip(rows, faults, strict=True) if fault is None]))
        return [next(made) if fault is None else Unusable(fault) for fault in faults]

    def _predicted(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        # Some estimators have no say in their threads, and take all of the machine's.
        with threadpool_limits(self.threads):
            return self.model.predict_table(self._table(rows)) if rows else []

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Rows with all columns of the model. Raises DataError as `read_table`; its places mean nothing, since the
        caller knows where rows stand."""
        read = [Row(dict(row), Place("rows", number, "row")) for number, row in enumerate(rows, 1)]
        table = read_table(read, self.model.schema.missing)
        return table.with_columns(column.name for column in self.model.schema.used)

    def _fault(self, row: Mapping[str, Any]) -> str | None:
        """Why there is no prediction of a row."""
        try:
            self.model.schema.encode(self._table([row]))
        except DataError as error:
            return "; ".join(problem.what for problem in error.problems)
        return None

    def shown(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that a prediction adds."""
        return {name: value for name, value in prediction.items() if name != "id"}

    def truth(self, row: Mapping[str, Any]) -> Any:
        """The row itself, if it says what is to be predicted and training knew of it."""
        targets = self.model.targets
        try:
            table = self._table([row]).with_columns(targets.columns)
            missing = [name for name in targets.columns if table.columns[name][0] is None]
            if missing:
                return Unusable(f"column {missing[0]!r}, the target, has no value")
            code = targets.encode(table)
        except DataError as error:
            return Unusable("; ".join(problem.what for problem in error.problems))
        if targets.classes and int(code[0]) < 0:
            return Unusable(f"training knew no class {table.columns[targets.columns[0]][0]!r}")
        return dict(row), code[0]

    def judge(self, predictions: Sequence[Any], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures and details; the rows are predicted once more, all together."""
        table = self._table([row for row, _ in truths])
        x, y = self.model.schema.encode(table), np.stack([code for _, code in truths])
        with threadpool_limits(self.threads):
            predicted = self.model.part.predict(x)
        scores = score(self.model.part.goal, y, predicted)
        sample = Sample(x, y, None, table.places)
        found = {name: value for name, value in scores.values.items() if value is not None}
        return found, _predictions(self.model.targets, sample, predicted)


def _names(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Columns of rows as `read_table` names them."""
    return {name.strip() for row in rows for name in row}
