"""The rows of a run of `task=tabular`, and what does not go together with them; quick, without scikit-learn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, get_args

from aitrain.config.estimator import Estimator
from aitrain.config.run import Run
from aitrain.config.section import OptionSection
from aitrain.data.mixture import FoundSource
from aitrain.data.prepare import numbered_rows, refuse_many_bad
from aitrain.data.rows import BadRow, Row
from aitrain.data.sources import Source
from aitrain.errors import ConfigError, Problem
from aitrain.tabular import keys
from aitrain.tabular.dataset import Dataset, prepare
from aitrain.tabular.schema import Wishes
from aitrain.tabular.targets import Targets


def judge(run: Run, source: FoundSource, estimator: Estimator) -> None:
    """Raises DataError and ConfigError for rows that nothing can be learnt from, or not with this estimator."""
    found, _ = dataset_of(run, source)
    refuse_settings(estimator, run.trainer, found.targets, run.given)


def wishes_of(run: Run, targets: Sequence[str]) -> Wishes:
    """What the run says about columns."""
    columns = run.data.columns
    section: Any = run.task
    return Wishes(
        tuple(targets),
        id=columns.id,
        categorical=_names(columns.categorical),
        numerical=_names(columns.numerical),
        ignored=_names(columns.ignored),
        decimal=section.decimal,
        date_order=section.date_order,
    )


def _names(value: str | list[str] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def dataset_of(run: Run, source: FoundSource) -> tuple[Dataset, dict[str, int]]:
    """Everything there is to learn from, and how many rows were read and left out. Raises DataError and ConfigError."""
    assert source.choice is not None
    targets = source.choice.targets
    counts = {"read": 0, "bad": 0}

    def good(rows: Source, limit: int | None) -> Iterator[Row]:
        def kind(row: Mapping[str, Any]) -> Any:
            return tuple(str(row.get(name)) for name in targets)

        for _, item in numbered_rows(run, rows, limit, kind):
            counts["read"] += 1
            if isinstance(item, BadRow):
                counts["bad"] += 1
            else:
                yield item

    section: Any = run.task
    found = prepare(
        good(source.train, source.chosen.max_samples),
        wishes_of(run, targets),
        section.subtask,
        valid=None if source.valid is None else good(source.valid, None),
        on_bad=run.data.on_bad_rows,
    )
    counts["bad"] = counts["read"] - len(found.train) - (0 if found.valid is None else len(found.valid))
    if run.data.on_bad_rows == "skip":  # else a bad row was refused as such
        refuse_many_bad(run, counts["bad"], counts["read"])
    return found, counts


def refuse_settings(
    estimator: Estimator, section: OptionSection, targets: Targets, given: Collection[str] = ()
) -> None:
    """Raises ConfigError for an estimator that cannot do the sub-task, and for keys that have no effect there. Of keys
    that are never null, those count that are among `given`, the keys of a run that the user set."""
    if targets.subtask not in estimator.subtasks:
        can = ", ".join(estimator.subtasks)
        what = f"{estimator.name} cannot do {targets.subtask} ({targets.reason}), only {can}"
        raise ConfigError(Problem("trainer.name", what, f"choose another trainer, or set {keys.SUBTASK}"))
    problems = [
        Problem(f"trainer.{key}", f"has no effect for {targets.subtask}", "leave it out")
        for key, subtasks in estimator.only_for.items()
        if targets.subtask not in subtasks and _is_set(section, key, given)
    ]
    if problems:
        raise ConfigError(problems)


def _is_set(section: OptionSection, key: str, given: Collection[str]) -> bool:
    can_be_null = type(None) in get_args(type(section).model_fields[key].annotation)
    return getattr(section, key) is not None if can_be_null else f"trainer.{key}" in given
