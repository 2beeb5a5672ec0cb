"""From numbers to a fitted and evaluated estimator.

Rows are held out before anything is searched, and scored on once, at the end. The search and the cross-validation see
the other rows alone; so the cross-validation of searched settings is a little too good, and the held-out rows are the
ones to believe.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from aitrain.config.estimator import Estimator, Goal
from aitrain.config.section import OptionSection
from aitrain.errors import DataError, Problem, Stopped
from aitrain.tabular import keys
from aitrain.tabular.dataset import Dataset, Sample
from aitrain.tabular.importance import Importance, importance
from aitrain.tabular.metrics import OBJECTIVES, Scores, objective, objective_of, score
from aitrain.tabular.pipeline import Part, Preparation, Recipe
from aitrain.tabular.rows import refuse_settings
from aitrain.tabular.schema import Schema
from aitrain.tabular.search import Limits, Trial, best, described, digest, search
from aitrain.tabular.splits import Rows, folds, folds_that_fit, hold_out
from aitrain.tabular.targets import Targets

MANY_ROWS = 20_000
"""From so many rows to learn from, a search scores each trial on one part of them instead of on folds."""
SEARCH_FRACTION = 0.2
"""Share of the rows to learn from that this part is."""

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fit, besides the estimator's own keys. The defaults are those of the run's keys, in `conf`."""

    seed: int
    threads: int
    test_fraction: float
    """Share of the rows that is held out, if the user has no validation rows."""
    folds: int
    """Of the cross-validation; 0 for none. A search without them scores on one part."""
    num_trials: int
    """0: no search."""
    time_limit: float | None
    """Seconds of the search."""
    search_on: Literal["auto", "folds", "split"]
    """What a trial is scored on; auto: folds, if there are fewer than 20 000 rows to learn from."""
    importance_repeats: int
    """Shuffles a column; 0 for no importances."""
    preparation: Preparation


@dataclass(frozen=True)
class CrossValidated:
    """Scores over folds."""

    folds: tuple[Mapping[str, float | None], ...]
    mean: Mapping[str, float | None]
    """None where a fold has none."""
    deviation: Mapping[str, float | None]


@dataclass(frozen=True)
class Fitted:
    """What came out."""

    part: Part
    """Fitted on all training rows."""
    recipe: Recipe
    targets: Targets
    found: Mapping[str, Any]
    """Searched values; empty without a search."""
    objective: str
    """What the search made small, and importances are in."""
    trials: tuple[Trial, ...]
    cross_validation: CrossValidated | None
    scores: Scores
    """Of the held-out rows."""
    baseline: Scores
    """Of the prior or the mean, on the same rows."""
    importance: tuple[Importance, ...]
    train: Sample
    held_out: Sample
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    """Of each stage."""

    @property
    def schema(self) -> Schema:
        return self.recipe.schema

    def report(self) -> dict[str, Any]:
        """All but the model and the rows, as plain JSON."""
        return {
            "estimator": self.recipe.estimator.name,
            "settings": {**self.recipe.section.model_dump(exclude={"name"}), **self.found},
            "preparation": asdict(self.recipe.preparation.resolved(self.recipe.estimator)),
            "subtask": self.targets.subtask,
            "subtask_reason": self.targets.reason,
            "classes": list(self.targets.classes),
            "columns": [
                {"name": column.name, "kind": column.kind, "reason": column.reason} for column in self.schema.columns
            ],
            "rows": {"train": len(self.train), "held_out": len(self.held_out)},
            "objective": self.objective,
            "trials": [{**asdict(trial), "params": dict(trial.params)} for trial in self.trials],
            "cross_validation": None if self.cross_validation is None else _plain(self.cross_validation),
            "scores": dict(self.scores.values),
            "score_reasons": dict(self.scores.reasons),
            "baseline": dict(self.baseline.values),
            "importance": [asdict(each) for each in self.importance],
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }


def _plain(found: CrossValidated) -> dict[str, Any]:
    return {
        "folds": [dict(values) for values in found.folds],
        "mean": dict(found.mean),
        "deviation": dict(found.deviation),
    }


def fit(
    estimator: Estimator,
    section: OptionSection,
    dataset: Dataset,
    settings: Settings,
    *,
    journal: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], int] = lambda: 0,
) -> Fitted:
    """Searches, cross-validates, fits and scores.

    `journal` is where trials are kept; a search found there goes on. `on_event` gets one object for each trial, fold
    and stage. `stop` is asked between fits and returns the signal that ends the run, or 0; then Stopped is raised with
    the journal. Raises ConfigError and DataError for what does not go together, before anything is fitted, and
    TrainingFailed if every trial failed.
    """
    refuse_settings(estimator, section, dataset.targets)
    work = _Work(estimator, section, dataset, settings, journal, on_event, stop)
    # Some estimators have no say in their threads, and take all of the machine's.
    with _warnings_kept() as warned, threadpool_limits(settings.threads):
        fitted = work.run()
    return Fitted(**{**fitted, "notes": (*dataset.notes, *work.notes, *_told(warned))})


class _Work:
    """One call of `fit`, stage by stage in the order of `run`."""

    def __init__(
        self,
        estimator: Estimator,
        section: OptionSection,
        dataset: Dataset,
        settings: Settings,
        journal: Path | None,
        on_event: Callable[[Event], None],
        stop: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.journal = journal
        self.on_event = on_event
        self.stop = stop
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        goal = goal_of(dataset.targets)
        self.train, self.held_out = _held_out(dataset, goal, settings)
        self.pairs = self._pairs(goal)
        smallest = self._smallest_class(goal)
        if goal.subtask == "multilabel" and not smallest:
            raise DataError(_too_rare(dataset.targets, self.train))
        goal = goal_of(dataset.targets, dataset.schema, estimator, smallest)
        self.recipe = Recipe(
            estimator, section, goal, dataset.schema, settings.preparation, settings.seed, settings.threads
        )
        settings.preparation.resolved(estimator)  # refuses before anything is fitted

    def _pairs(self, goal: Goal) -> list[tuple[Rows, Rows]]:
        wanted = self.settings.folds
        if not wanted:
            return []
        count = folds_that_fit(goal, self.train.y, wanted)
        if count < wanted:
            self.notes.append(f"{count} folds instead of {wanted}: the rarest class has no more rows to learn from")
        return folds(goal, self.train.y, count, self.settings.seed)

    def _smallest_class(self, goal: Goal) -> int:
        if not goal.is_classification:
            return 0
        searched = self._search_pairs(goal) if self.settings.num_trials else []
        parts = [rows for rows, _ in [*self.pairs, *searched]]
        return min(_rarest(goal, self.train.y[rows]) for rows in [np.arange(len(self.train)), *parts])

    def _search_pairs(self, goal: Goal) -> list[tuple[Rows, Rows]]:
        """What trials are scored on."""
        chosen = self.settings.search_on
        many = len(self.train) >= MANY_ROWS
        if not self.pairs or chosen == "split" or (chosen == "auto" and many):
            return [hold_out(goal, self.train.y, SEARCH_FRACTION, self.settings.seed + 1)]
        return self.pairs

    def run(self) -> dict[str, Any]:
        """The fields of `Fitted`."""
        trials = self._timed("search", self._search)
        found = dict(best(trials).params) if trials else {}
        validated = self._timed("cross_validation", lambda: self._cross_validated(found))
        part = self._timed("fit", lambda: self.recipe.fit(found, self.train.x, self.train.y))
        predicted = self._timed("predict", lambda: part.predict(self.held_out.x))
        scores = score(part.goal, self.held_out.y, predicted)
        self.on_event({"event": "scores", "split": "held-out rows", **scores.values})
        return {
            "part": part,
            "recipe": self.recipe,
            "targets": self.dataset.targets,
            "found": found,
            "objective": objective_of(part.goal, predicted),
            "trials": tuple(trials),
            "cross_validation": validated,
            "scores": scores,
            "baseline": baseline(part.goal, self.train, self.held_out),
            "importance": tuple(self._timed("importance", lambda: self._importance(part))),
            "train": self.train,
            "held_out": self.held_out,
            "seconds": self.seconds,
        }

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        self._ask()
        begun = time.monotonic()
        done = work()
        self.seconds[stage] = time.monotonic() - begun
        self.on_event({"event": "stage", "stage": stage, "seconds": self.seconds[stage]})
        return done

    def _ask(self) -> None:
        signum = self.stop()
        if signum:
            raise Stopped(signum, None if self.journal is None else str(self.journal))

    def _search(self) -> list[Trial]:
        space = self.recipe.estimator.search_space(self.recipe.section, self.recipe.goal)
        if not self.settings.num_trials:
            return []
        if not space:
            self.notes.append(f"nothing was searched: no key of {self.recipe.estimator.name} that is null has a range")
            return []
        pairs = self._search_pairs(self.recipe.goal)
        trials = search(
            space,
            lambda found: self._value(found, pairs),
            Limits(self.settings.num_trials, self.settings.time_limit),
            seed=self.settings.seed,
            journal=self.journal,
            made_of=self._made_of(described(space)),
            on_trial=self._tell_trial,
            before=self._ask,
        )
        failed = [trial for trial in trials if trial.error]
        if failed:
            self.notes.append(f"{len(failed)} of {len(trials)} trials failed; the first with {failed[0].error}")
        if len(trials) < self.settings.num_trials:
            self.notes.append(f"the time limit ended the search after {len(trials)} trials")
        return trials

    def _value(self, found: dict[str, Any], pairs: list[tuple[Rows, Rows]]) -> float:
        """The mean of the objective over the pairs."""
        values = []
        for learn, check in pairs:
            self._ask()
            part = self.recipe.fit(found, self.train.x[learn], self.train.y[learn])
            values.append(objective(part.goal, self.train.y[check], part.predict(self.train.x[check])))
        return float(np.mean(values))

    def _tell_trial(self, trial: Trial, made: Sequence[Trial]) -> None:
        values = [each.value for each in made if each.value is not None]
        self.on_event(
            {
                "event": "trial",
                "number": trial.number,
                "objective": OBJECTIVES[self.recipe.goal.subtask],
                "value": trial.value,
                "best": min(values, default=None),
                "params": dict(trial.params),
                "seconds": trial.seconds,
                "error": trial.error,
            }
        )

    def _made_of(self, space: dict[str, Any]) -> dict[str, Any]:
        settings = self.settings
        return {
            "rows": digest(self.train.x.tobytes(), np.ascontiguousarray(self.train.y).tobytes()),
            "features": list(self.dataset.schema.features),
            "trainer": self.recipe.section.model_dump(),
            "space": space,
            "preparation": asdict(settings.preparation),
            "seed": settings.seed,
            "folds": settings.folds,
            "search_on": settings.search_on,
        }

    def _cross_validated(self, found: dict[str, Any]) -> CrossValidated | None:
        if not self.pairs:
            return None
        scored = []
        for number, (learn, check) in enumerate(self.pairs):
            self._ask()
            part = self.recipe.fit(found, self.train.x[learn], self.train.y[learn])
            values = score(part.goal, self.train.y[check], part.predict(self.train.x[check])).values
            self.on_event({"event": "fold", "number": number, "of": len(self.pairs), **values})
            scored.append(values)
        return summed_up(scored)

    def _importance(self, part: Part) -> list[Importance]:
        if not self.settings.importance_repeats:
            return []
        return importance(
            part,
            self.dataset.schema.blocks(),
            self.held_out.x,
            self.held_out.y,
            repeats=self.settings.importance_repeats,
            seed=self.settings.seed,
            before=self._ask,
        )


# --- parts ---------------------------------------------------------------------------------------------------------


def goal_of(
    targets: Targets, schema: Schema | None = None, estimator: Estimator | None = None, smallest_class: int = 0
) -> Goal:
    """What is to be learnt; without a schema and an estimator, only of the targets."""
    classes = 2 if targets.subtask == "multilabel" else len(targets.classes)
    if schema is None or estimator is None:
        return Goal(targets.subtask, len(targets.columns), classes, smallest_class)
    numbers = len(schema.positions("numerical", "date", "boolean"))
    categories = 0 if estimator.encoding == "one_hot" else len(schema.positions("categorical"))
    return Goal(targets.subtask, len(targets.columns), classes, smallest_class, numbers, categories)


def _held_out(dataset: Dataset, goal: Goal, settings: Settings) -> tuple[Sample, Sample]:
    if dataset.valid is not None:
        return dataset.train, dataset.valid
    learn, check = hold_out(goal, dataset.train.y, settings.test_fraction, settings.seed)
    return dataset.train.take(learn), dataset.train.take(check)


def looked_at(estimator: Estimator, section: OptionSection, dataset: Dataset, settings: Settings) -> int:
    """How many rows are held out of a dataset, or are the user's own. Raises ConfigError and DataError for what `fit`
    would refuse before it fits anything."""
    work = _Work(estimator, section, dataset, settings, None, lambda event: None, lambda: 0)
    return len(work.held_out)


def _too_rare(targets: Targets, train: Sample) -> Problem:
    """The words for a label that has one value in all rows of a part to learn from."""
    ones = train.y.sum(axis=0)
    rarer = np.minimum(ones, len(train) - ones)
    rarest = int(rarer.argmin())
    value = int(ones[rarest] * 2 <= len(train))
    what = (
        f"label {targets.columns[rarest]!r} is {value} in {rarer[rarest]} of the rows to learn from, "
        "and in none of a part of them that would be fitted on"
    )
    return Problem(keys.TARGETS, what, "leave the label out, add rows, or set task.folds=0 task.num_trials=0")


def _rarest(goal: Goal, y: NDArray[Any]) -> int:
    """Rows of the rarest class, or of the rarer value of any label."""
    if goal.subtask == "multilabel":
        ones = y.sum(axis=0)
        return int(np.minimum(ones, len(y) - ones).min())
    counts = np.bincount(y, minlength=goal.classes)
    return int(counts[counts > 0].min())


def baseline(goal: Goal, train: Sample, held_out: Sample) -> Scores:
    """Scores of an answer that looks at no column: the shares of the classes, or the mean."""
    dummy = DummyClassifier(strategy="prior") if goal.is_classification else DummyRegressor()
    classes = np.unique(train.y) if goal.is_classification and goal.targets == 1 else np.arange(0)
    nothing = np.zeros((len(train), 1))
    known = np.searchsorted(classes, train.y) if len(classes) else train.y
    part = Part(dummy.fit(nothing, known), goal, classes)
    return score(goal, held_out.y, part.predict(np.zeros((len(held_out), 1))))


def summed_up(scored: list[Mapping[str, float | None]]) -> CrossValidated:
    """Means and deviations (of the population of folds) of each metric."""
    mean: dict[str, float | None] = {}
    deviation: dict[str, float | None] = {}
    for name in scored[0]:
        values = [values[name] for values in scored]
        whole = [value for value in values if value is not None]
        has_all = len(whole) == len(values)
        mean[name] = float(np.mean(whole)) if has_all else None
        deviation[name] = float(np.std(whole)) if has_all else None
    return CrossValidated(tuple(scored), mean, deviation)


@contextmanager
def _warnings_kept() -> Iterator[list[warnings.WarningMessage]]:
    """Warnings of libraries as notes instead of lines on the terminal."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield warned


def _told(warned: list[warnings.WarningMessage]) -> Iterator[str]:
    """One note for each different warning, with how often it came. A library's plans for its next version are no
    matter of a run."""
    plans = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
    said = Counter(
        f"{each.category.__name__}: {str(each.message).splitlines()[0]}"
        for each in warned
        if not issubclass(each.category, plans) and str(each.message).strip()
    )
    for text, times in said.items():
        yield text if times == 1 else f"{text} ({times} times)"
