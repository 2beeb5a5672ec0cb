"""The search for good settings: Optuna's tree-structured Parzen estimator, with every trial kept on disk.

Trial n is drawn from the seed and n alone, given the trials before it. So a search that was interrupted and goes on
makes the trials it would have made. Trial 0 is the library's own defaults: keys whose default is no value of the range
are left out of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.config.estimator import Pick, Real, Space, Whole
from aitrain.errors import AitrainError, ConfigError, Problem, TrainingFailed

if TYPE_CHECKING:
    import optuna

STUDY = "search"


@dataclass(frozen=True)
class Trial:
    """One set of values that was tried."""

    number: int
    params: Mapping[str, Any]
    value: float | None
    """What the search makes small, None if the trial failed."""
    seconds: float
    error: str = ""
    """`Class: message` of a failed trial."""


@dataclass(frozen=True)
class Limits:
    """How long to search: the first that is reached ends it, but one trial is always made."""

    trials: int
    seconds: float | None = None
    """Over all processes that worked on the search; a trial that has begun is ended."""


def search(
    space: Mapping[str, Space],
    evaluate: Callable[[dict[str, Any]], float],
    limits: Limits,
    *,
    seed: int,
    journal: Path | None = None,
    made_of: Mapping[str, Any] | None = None,
    on_trial: Callable[[Trial, Sequence[Trial]], None] = lambda trial, made: None,
    before: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Makes `evaluate` small over the space, and returns all trials, those that `journal` held already among them.

    `made_of` says what the value of a trial depends on: a journal of something else is refused with ConfigError.
    `on_trial` is given each new trial, and all that were made so far, those of the journal among them. `before` is
    called before each trial and may raise to end the search. Raises TrainingFailed if no trial succeeded.
    """
    study = _opened(journal, made_of or {})
    trials = _kept(study)
    begun = time.monotonic()
    spent = sum(trial.seconds for trial in trials)
    while len(trials) < limits.trials and not (trials and _is_over(limits, spent + time.monotonic() - begun)):
        before()
        trials.append(_next(study, space, evaluate, seed, len(trials)))
        on_trial(trials[-1], trials)
    if all(trial.value is None for trial in trials):
        raise TrainingFailed(f"all {len(trials)} trials failed; the first with {trials[0].error}")
    return trials


def best(trials: list[Trial]) -> Trial:
    """The trial of the smallest value, the earliest of equals."""
    return min((trial for trial in trials if trial.value is not None), key=lambda trial: (trial.value, trial.number))


def digest(*parts: bytes) -> str:
    """A fingerprint of rows, for `made_of`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def described(space: Mapping[str, Space]) -> dict[str, Any]:
    """A search space as plain JSON."""
    return {key: {"kind": type(values).__name__, **asdict(values)} for key, values in space.items()}


def _is_over(limits: Limits, seconds: float) -> bool:
    return limits.seconds is not None and seconds >= limits.seconds


def _opened(journal: Path | None, made_of: Mapping[str, Any]) -> optuna.Study:
    """The study of a journal, or one in memory."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if journal is not None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, study_name=STUDY, direction="minimize", load_if_exists=True)
    wanted = json.dumps(made_of, sort_keys=True, default=str)
    kept = study.user_attrs.get("made_of")
    if kept is not None and kept != wanted:
        what = f"the trials in {journal} are of other rows or settings"
        raise ConfigError(Problem("run.resume", what, "go on with what they were made of, or take a fresh run folder"))
    study.set_user_attr("made_of", wanted)
    return study


def _kept(study: optuna.Study) -> list[Trial]:
    """The finished trials of a study. One that was interrupted is closed, and made again."""
    from optuna.trial import TrialState

    kept: list[Trial] = []
    for trial in study.get_trials(deepcopy=False):
        said = trial.user_attrs
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        # A failed trial without an error is one that was interrupted.
        if trial.state == TrialState.COMPLETE or "error" in said:
            kept.append(Trial(len(kept), trial.params, trial.value, said.get("seconds", 0.0), said.get("error", "")))
    return kept


def _next(
    study: optuna.Study,
    space: Mapping[str, Space],
    evaluate: Callable[[dict[str, Any]], float],
    seed: int,
    number: int,
) -> Trial:
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=int(digest(f"{seed} {number}".encode())[:8], 16))
    if number == 0:
        space = {key: values for key, values in space.items() if _has_first(values)}
        study.enqueue_trial({key: values.first for key, values in space.items()})
    trial = study.ask()
    params = {key: _suggested(trial, key, values) for key, values in space.items()}
    begun = time.monotonic()
    value, error = _evaluated(evaluate, params)
    seconds = time.monotonic() - begun
    trial.set_user_attr("seconds", seconds)
    if value is None:
        trial.set_user_attr("error", error)
    study.tell(trial, value, state=optuna.trial.TrialState.FAIL if value is None else None)
    return Trial(number, params, value, seconds, error)


def _has_first(values: Space) -> bool:
    return isinstance(values, Pick) or values.first is not None


def _suggested(trial: optuna.Trial, key: str, values: Space) -> Any:
    if isinstance(values, Real):
        return trial.suggest_float(key, values.low, values.high, log=values.log)
    if isinstance(values, Whole):
        return trial.suggest_int(key, values.low, values.high, log=values.log)
    return trial.suggest_categorical(key, values.choices)


def _evaluated(evaluate: Callable[[dict[str, Any]], float], params: dict[str, Any]) -> tuple[float | None, str]:
    """The value of a trial, or the error of one that failed. What ends a run is no failure of a trial."""
    try:
        value = evaluate(params)
    except AitrainError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    return (value, "") if math.isfinite(value) else (None, f"ValueError: the value is {value}")
