"""Rows to columns of text, with the place of each row; what a column means is decided in `schema`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aitrain.data.rows import Place, Row, strip_names
from aitrain.errors import DataError, Problem
from aitrain.tabular import keys
from aitrain.tabular.cells import MISSING, text_of

SHOWN = 5
"""Problems of one kind that are listed; the rest are counted."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length, in the order of the file; None is a missing value."""

    columns: dict[str, list[str | None]]
    places: list[Place]

    def __len__(self) -> int:
        return len(self.places)

    def rows(self, keep: Sequence[int]) -> Table:
        """The rows of these positions."""
        columns = {name: [values[i] for i in keep] for name, values in self.columns.items()}
        return Table(columns, [self.places[i] for i in keep])

    def with_columns(self, names: Iterable[str]) -> Table:
        """The same rows, without a value in those of these columns that are not there."""
        more: dict[str, list[str | None]] = {name: [None] * len(self) for name in names if name not in self.columns}
        return Table({**self.columns, **more}, self.places)


def read_table(rows: Iterable[Row], missing: Collection[str] = MISSING) -> Table:
    """All rows in memory. A row without a column that others have has no value there.

    Raises DataError where there is no row, where names repeat, and with row and column for lists, objects, bytes and
    infinite numbers.
    """
    columns: dict[str, list[str | None]] = {}
    places: list[Place] = []
    problems: list[Problem] = []
    for values, place in rows:
        if len(values) != len(columns) or any(name not in columns for name in values):
            values = _renamed(values, place)
            for name in values:
                columns.setdefault(name, [None] * len(places))
        for name, column in columns.items():
            try:
                column.append(text_of(values.get(name), missing))
            except ValueError as error:
                column.append(None)
                problems.append(Problem(keys.DATA, f"column {name!r}: {error}", where=str(place)))
        places.append(place)
    refuse(problems)
    if not places:
        raise DataError(Problem(keys.DATA, "there is no row"))
    return Table(columns, places)


def _renamed(values: dict[str, Any], place: Place) -> dict[str, Any]:
    try:
        return dict(zip(strip_names(tuple(values)), values.values(), strict=True))
    except ValueError as error:
        raise DataError(Problem(keys.DATA, str(error), "rename one of them", str(place))) from None


def refuse(problems: Sequence[Problem]) -> None:
    """Raises DataError with the first problems and the number of the others, if there is any."""
    if len(problems) > SHOWN:
        rest = Problem(keys.DATA, f"and {len(problems) - SHOWN} more of the kind")
        problems = [*problems[:SHOWN], rest]
    if problems:
        raise DataError(problems)


def cells(
    table: Table, name: str, words: Collection[str], what: str, advice: str, key: str = keys.DATA
) -> list[Problem]:
    """A problem for each row whose value of a column is among `words`."""
    found = []
    for value, place in zip(table.columns[name], table.places, strict=True):
        if value is not None and value in words:
            found.append(Problem(key, f"column {name!r} has {value!r}, {what}", advice, str(place)))
    return found
