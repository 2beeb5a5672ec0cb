"""`task=tabular`: classes or numbers from the columns of a table, with estimators that are no neural networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.estimator import Estimator
from aitrain.config.options import Task, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.tasks.rows import READS

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.mixture import FoundSource

TARGETS = ("target", "label", "class", "outcome", "y")


class Tabular(OptionSection):
    """Classes or numbers from the columns of a table."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "data.columns.id", "data.columns.categorical", "data.columns.numerical",
                                      "data.columns.ignored")  # fmt: skip

    name: Literal["tabular"]
    """The task; choose it with `task=tabular`."""
    subtask: Literal["auto", "classification", "binary", "multiclass", "multilabel", "regression"]
    """What is predicted. auto: words, yes or no and a few whole numbers are classes, other numbers a regression;
    several columns of 1 and 0 are labels."""
    num_trials: int = key(ge=0)
    """Settings of the estimator that are tried; only keys of `trainer` that are null are searched. 0: no search, the
    library's own defaults."""
    time_limit: float | None = key(gt=0)
    """Seconds after which no further settings are tried. null: no limit."""
    folds: int = key(ge=0)
    """Parts of the cross-validation, whose mean and deviation are reported. 0: none."""
    search_on: Literal["auto", "folds", "split"] = key(visibility="advanced")
    """What settings are scored on: the folds, or one part held out of the training rows. auto: folds, with fewer than
    20,000 rows."""
    importance_repeats: int = key(ge=0, visibility="advanced")
    """How often each column is shuffled to see what it is worth. 0: never."""
    numerical_imputer: Literal["auto", "none", "mean", "median", "most_frequent"]
    """What fills missing numbers. auto: nothing where the estimator has an answer of its own to them, else the
    median."""
    categorical_imputer: Literal["auto", "missing", "most_frequent"]
    """What fills missing categories. auto: `missing`, a category of its own."""
    numeric_scaler: Literal["auto", "none", "standard", "minmax", "maxabs", "robust", "normal"]
    """How numbers are scaled. auto: `standard` where the estimator weighs or measures them, none for trees. `normal`
    scales each row to length 1."""
    decimal: Literal["auto", ".", ","] = key(visibility="advanced")
    """The decimal sign of numbers. auto: by each column, refused where it could be either."""
    date_order: Literal["auto", "day_first", "month_first"] = key(visibility="advanced")
    """How 03/04/2025 is read. auto: by each column, refused where it could be either."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.folds == 1:
            yield Problem("task.folds", "1 is no cross-validation", "use 0 for none, or 2 and more")
        if self.num_trials == 0:
            for name in ("time_limit", "search_on"):
                if f"task.{name}" in run.given and (name != "time_limit" or self.time_limit is not None):
                    yield Problem(f"task.{name}", "has no effect with task.num_trials=0", "leave one of them out")
        elif self.folds == 0 and self.search_on == "folds":
            yield Problem("task.search_on", "there are no folds with task.folds=0", "use split, or task.folds=5")
        if run.hardware.processes > 1:
            what = f"task=tabular runs in one process with hardware.threads threads, not in {run.hardware.processes}"
            yield Problem("hardware.processes", what, "use hardware.processes=1", fix="hardware.processes=1")
        if run.hardware.device.startswith(("cuda", "mps")):
            yield Problem("hardware.device", "task=tabular computes on the CPU", "use hardware.device=cpu")
        if run.data.valid_split is None and run.data.valid_fraction == 0:
            what, advice = "0 leaves no rows to score on", "use 0.2, or name data.valid_split"
            yield Problem("data.valid_fraction", what, advice, fix="data.valid_fraction=0.2")


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """The columns to predict; all others are features. Raises DataError."""
    from aitrain.data.columns import ColumnChoice, listed
    from aitrain.data.fields import Field, find_fields

    if not needs_target:
        return ColumnChoice("table", {}, "")
    found = find_fields(
        "table", (Field("target", TARGETS, "a class or a number", lambda value: ""),), names, first_rows, chosen, key
    )
    reason = found.reason.partition(";")[0]
    rest = [name for name in names if name not in found.targets]
    return ColumnChoice("table", {}, f"{reason}; beside it: {listed(rest)}", found.targets)


def judge(estimator: Estimator, run: Run, source: FoundSource) -> None:
    """Raises Refused for what is wrong with the rows as a whole."""
    from aitrain.tabular.rows import judge as judge_rows

    judge_rows(run, source, estimator)


def whole(estimator: Estimator, run: Run, source: FoundSource) -> tuple[int, int, dict[str, Any]]:
    """Rows to learn from, rows held out, and what there is to say of them. Raises Refused."""
    from aitrain.tabular.work import facts_of

    return facts_of(run, source, estimator)


def train(estimator: Estimator, job: Any) -> Any:
    """Search, fit and score."""
    from aitrain.tabular.work import fit_table

    return fit_table(estimator, job)


def predictor(
    estimator: Estimator, run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool
) -> Any:
    """The model in `folder`, ready for rows like these."""
    from aitrain.tabular.work import TablePredictor

    return TablePredictor(run, folder, estimator, first_rows)


def fits(run: Run) -> int:
    """Settings that are tried, at most."""
    section: Any = run.task
    return max(1, int(section.num_trials))


def trainer(estimator: Estimator) -> Trainer:
    """How an estimator is a trainer of this task."""

    def packages(run: Run) -> dict[str, str]:
        section: Any = run.task
        found = {"skops": "tabular"} | ({"optuna": "tabular"} if section.num_trials else {})
        return found | ({estimator.needs[0]: estimator.needs[1]} if estimator.needs[1] else {})

    return Trainer(
        estimator.section,
        tasks=("tabular",),
        shapes=("table",),
        metrics=METRICS,
        encoder=None,
        train=partial(train, estimator),
        pipeline="tabular-classification",
        find_columns=find_columns,
        headline=("f1_macro", "accuracy", "r2", "rmse"),
        predictor=partial(predictor, estimator),
        judge=partial(judge, estimator),
        whole=partial(whole, estimator),
        fits=fits,
        packages=packages,
    )


METRICS: dict[str, Literal["min", "max"]] = {
    "logloss": "min", "auc": "max", "average_precision": "max", "accuracy": "max", "mcc": "max",
    "f1": "max", "precision": "max", "recall": "max",
    "f1_macro": "max", "f1_micro": "max", "f1_weighted": "max",
    "precision_macro": "max", "precision_micro": "max", "precision_weighted": "max",
    "recall_macro": "max", "recall_micro": "max", "recall_weighted": "max",
    "rmse": "min", "mae": "min", "mse": "min", "r2": "max", "rmsle": "min", "explained_variance": "max",
}  # fmt: skip
"""What is reported of the held-out rows, by what is predicted."""
TASK = Task(Tabular, has_classes=True)
