"""Rows of files to numbers to learn from: what columns mean, what is to be predicted, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aitrain.data.rows import Place, Row
from aitrain.errors import DataError, Problem
from aitrain.tabular import keys
from aitrain.tabular.schema import Schema, Wishes, find_schema, id_of, refuse_other_columns, refuse_wishes
from aitrain.tabular.table import Table, read_table, refuse
from aitrain.tabular.targets import (
    Targets,
    WantedSubTask,
    find_targets,
    without_missing,
    without_repeated,
    without_single,
)


@dataclass(frozen=True)
class Sample:
    """Rows as numbers."""

    x: NDArray[np.float64]
    """Rows x features of the schema."""
    y: NDArray[Any]
    """As `Targets.encode` gives them; every class is known."""
    ids: list[str] | None
    """From the id column, '' where there is none; None without such a column."""
    places: list[Place]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: NDArray[np.int64]) -> Sample:
        """The rows of these positions."""
        ids = None if self.ids is None else [self.ids[i] for i in rows]
        return Sample(self.x[rows], self.y[rows], ids, [self.places[i] for i in rows])


@dataclass(frozen=True)
class Dataset:
    """What there is to learn from."""

    schema: Schema
    targets: Targets
    train: Sample
    valid: Sample | None
    """The user's own validation rows, which are then the held-out rows."""
    notes: tuple[str, ...]
    """What was skipped, left out or is worth knowing, for people."""


def prepare(
    rows: Iterable[Row],
    wishes: Wishes,
    subtask: WantedSubTask = "auto",
    *,
    valid: Iterable[Row] | None = None,
    on_bad: Literal["error", "skip"] = "error",
) -> Dataset:
    """Reads all rows. `on_bad` says what becomes of rows without a target, of rows whose id another has, of rows that
    are alone in their class and of validation rows whose class training lacks; values that are none of their column's
    kind are always refused. Raises ConfigError and DataError."""
    table = read_table(rows, wishes.missing)
    refuse_wishes(table, wishes)
    table, notes = without_missing(table, wishes.targets, on_bad)
    table, again = without_repeated(table, id_of(table, wishes), on_bad)
    targets = find_targets(table, wishes, subtask)
    table, targets, more = without_single(table, targets, on_bad)
    schema = find_schema(table, wishes)
    train = Sample(schema.encode(table), targets.encode(table), ids_of(schema, table), table.places)
    held, told = (None, []) if valid is None else _validation(valid, table, schema, targets, on_bad)
    return Dataset(schema, targets, train, held, (*notes, *again, *more, *schema.notes, *told))


def ids_of(schema: Schema, table: Table) -> list[str] | None:
    """The ids of rows, '' where one is missing; None where there is no such column."""
    if schema.id is None or schema.id not in table.columns:
        return None
    return [value or "" for value in table.columns[schema.id]]


def _validation(
    rows: Iterable[Row], train: Table, schema: Schema, targets: Targets, on_bad: Literal["error", "skip"]
) -> tuple[Sample, list[str]]:
    table = read_table(rows, schema.missing)
    refuse_other_columns(train, table, schema, targets.columns)
    table, notes = without_missing(table, targets.columns, on_bad)
    table, again = without_repeated(table, schema.id, on_bad)
    table, more = _known_classes(table, targets, on_bad)
    unknown = schema.unknown_categories(table)
    told = [
        f"{count} validation rows have a category of column {name!r} that training lacks"
        for name, count in unknown.items()
    ]
    sample = Sample(schema.encode(table), targets.encode(table), ids_of(schema, table), table.places)
    return sample, [*(f"validation: {note}" for note in (*notes, *again)), *more, *told]


def _known_classes(table: Table, targets: Targets, on_bad: Literal["error", "skip"]) -> tuple[Table, list[str]]:
    """Validation rows whose class training has; a model cannot name another, and most metrics have no value for it.
    Raises DataError with the other rows unless they are to be skipped, and where no row is left."""
    if not targets.classes:
        return table, []
    known = targets.encode(table) >= 0
    if known.all():
        return table, []
    gone = np.flatnonzero(~known).tolist()
    if on_bad == "error":
        advice = "check the split, or set data.on_bad_rows=skip"
        refuse(
            [
                Problem(keys.DATA, f"training has no row of class {_value(table, targets, i)!r}", advice, where)
                for i in gone
                for where in (str(table.places[i]),)
            ]
        )
    if not known.any():
        what = f"training has no class of the validation rows, such as {_value(table, targets, gone[0])!r}"
        raise DataError(Problem(keys.DATA, what, "check the split", str(table.places[gone[0]])))
    classes = sorted({_value(table, targets, i) for i in gone})
    note = (
        f"{len(gone)} validation rows are not scored: training lacks their classes {', '.join(map(repr, classes))}; "
        f"the first is {table.places[gone[0]]}"
    )
    return table.rows(np.flatnonzero(known).tolist()), [note]


def _value(table: Table, targets: Targets, row: int) -> str:
    return table.columns[targets.columns[0]][row] or ""
