"""What the columns of a table mean: found once from training rows, kept as JSON, applied to all rows after.

A categorical column becomes the number of its category (-1: one that training lacked), a yes or no becomes 1 or 0, a
date its parts, and a missing value NaN. No statistics are taken here: filling and scaling belong to the pipeline,
which sees only the rows it is fitted on.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aitrain.errors import ConfigError, DataError, Problem, did_you_mean
from aitrain.tabular import keys
from aitrain.tabular.cells import (
    DATE_FORMATS,
    MISSING,
    Ambiguous,
    DateOrder,
    Decimals,
    are_booleans,
    date_format_of,
    decimal_of,
    is_code,
    likely_decimal,
    moment,
    number,
    truth,
)
from aitrain.tabular.table import Table, cells, refuse

Kind = Literal["numerical", "categorical", "date", "boolean", "id", "left_out"]
DATE_PARTS = ("year", "month", "day", "weekday", "elapsed_days")
"""Of a date: weekday from 0 for Monday, days since the start of 1970; and the hour where a column has times."""
MANY = 100
"""Categories of a column from which on it is worth a note."""
OWN_VALUES = 20
"""A column of words looks like an id only with more values than this."""


@dataclass(frozen=True)
class Wishes:
    """What the user says about the columns."""

    targets: tuple[str, ...]
    id: str | None = None
    """None: a column named `id` in any case, if there is one."""
    categorical: tuple[str, ...] = ()
    numerical: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    decimal: Literal["auto", ".", ","] = "auto"
    date_order: DateOrder = "auto"
    missing: tuple[str, ...] = MISSING


@dataclass(frozen=True)
class Column:
    """One column of the file and what it means."""

    name: str
    kind: Kind
    reason: str
    """Why it is of this kind, for people."""
    decimal: Decimals = "."
    date_format: str = ""
    clock: bool = False
    """Whether dates carry a time of day."""
    categories: tuple[str, ...] = ()
    """Sorted; a category's number is its position."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its features."""
        if self.kind in ("id", "left_out"):
            return ()
        if self.kind == "date":
            parts = (*DATE_PARTS, "hour") if self.clock else DATE_PARTS
            return tuple(f"{self.name}.{part}" for part in parts)
        return (self.name,)


@dataclass(frozen=True)
class Schema:
    """The columns in the order of the training file, without the targets."""

    columns: tuple[Column, ...]
    missing: tuple[str, ...] = MISSING
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was found on the way and a user should know."""

    @property
    def used(self) -> tuple[Column, ...]:
        """Columns that give features."""
        return tuple(column for column in self.columns if column.parts)

    @property
    def id(self) -> str | None:
        return next((column.name for column in self.columns if column.kind == "id"), None)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the numbers a row becomes, in their order."""
        return tuple(part for column in self.used for part in column.parts)

    def positions(self, *kinds: Kind) -> list[int]:
        """Positions of the features of these kinds."""
        found = [column.kind for column in self.used for _ in column.parts]
        return [i for i, kind in enumerate(found) if kind in kinds]

    def blocks(self) -> dict[str, list[int]]:
        """Positions of the features of each used column."""
        blocks: dict[str, list[int]] = {}
        position = 0
        for column in self.used:
            blocks[column.name] = list(range(position, position + len(column.parts)))
            position += len(column.parts)
        return blocks

    def encode(self, table: Table) -> NDArray[np.float64]:
        """Rows of a table as numbers, in the order of `features`. Raises DataError for a column that is not there and,
        with its row, for a value that is none of its column's kind."""
        self.require(table.columns)
        found = np.empty((len(table), len(self.features)))
        problems: list[Problem] = []
        position = 0
        for column in self.used:
            block, wrong = _encoded(column, table)
            found[:, position : position + len(column.parts)] = block
            position += len(column.parts)
            problems += wrong
        refuse(problems)
        return found

    def require(self, names: Collection[str]) -> None:
        """Raises DataError where a column that gives features is not among these."""
        lacking = [column.name for column in self.used if column.name not in names]
        if lacking:
            there = ", ".join(names)
            problems = [
                Problem(keys.DATA, f"there is no column {name!r}, which the model needs", did_you_mean(name, names))
                for name in lacking
            ]
            raise DataError([*problems, Problem(keys.DATA, f"the columns are {there}")])

    def surplus(self, table: Table, targets: Collection[str] = ()) -> list[str]:
        """Columns of a table that are not known; they are not looked at."""
        known = {column.name for column in self.columns} | set(targets)
        return [name for name in table.columns if name not in known]

    def unknown_categories(self, table: Table) -> dict[str, int]:
        """Rows a column that hold a category which training lacked; columns without such rows are left out."""
        found = {}
        for column in self.used:
            if column.kind == "categorical":
                known = {*column.categories, None}
                rows = sum(value not in known for value in table.columns[column.name])
                if rows:
                    found[column.name] = rows
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for `from_json`."""
        return {"columns": [asdict(column) for column in self.columns], "missing": list(self.missing)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Schema:
        """Raises ValueError, KeyError or TypeError for what `to_json` did not write."""
        return cls(tuple(_column(entry) for entry in found["columns"]), tuple(found["missing"]))


def _column(entry: dict[str, Any]) -> Column:
    column = Column(**{**entry, "categories": tuple(entry["categories"])})
    if column.kind not in Kind.__args__ or (column.kind == "date" and column.date_format not in DATE_FORMATS):  # type: ignore[attr-defined]
        raise ValueError(f"column {column.name!r} is of a kind or format that does not exist")
    return column


# --- values to numbers ---------------------------------------------------------------------------------------------


def _encoded(column: Column, table: Table) -> tuple[NDArray[np.float64], list[Problem]]:
    """The features of a column, and a problem for each row that has no number."""
    values = table.columns[column.name]
    numbers = _meanings(column, {value for value in values if value is not None})
    width = len(column.parts)
    wrong = {word for word, found in numbers.items() if found is None}
    nothing = (np.nan,) * width
    rows = [nothing if value is None else numbers[value] or nothing for value in values]
    block = np.array(rows, dtype=np.float64).reshape(len(values), width)
    advice = "correct the value or, where it stands for none, empty it"
    problems = cells(table, column.name, wrong, f"and the column is {_described(column)}", advice) if wrong else []
    return block, problems


def _described(column: Column) -> str:
    if column.kind == "numerical":
        return f"numerical with the decimal sign {column.decimal!r}"
    if column.kind == "date":
        return f"a date written as {column.date_format}"
    if column.kind == "boolean":
        return "a yes or a no"
    return column.kind


def _meanings(column: Column, words: set[str]) -> dict[str, tuple[float, ...] | None]:
    """The numbers of each word; None where it has none."""
    if column.kind == "numerical":
        found = {word: number(word, column.decimal) for word in words}
        return {word: None if value is None else (value,) for word, value in found.items()}
    if column.kind == "boolean":
        said = {word: truth(word) for word in words}
        return {word: None if yes is None else (float(yes),) for word, yes in said.items()}
    if column.kind == "date":
        form = DATE_FORMATS[column.date_format]
        moments = {word: moment(word, form) for word in words}
        return {word: None if when is None else _date_parts(when, column.clock) for word, when in moments.items()}
    codes = {category: float(i) for i, category in enumerate(column.categories)}
    return {word: (codes.get(word, -1.0),) for word in words}


def _date_parts(when: datetime, clock: bool) -> tuple[float, ...]:
    elapsed = (when - datetime(1970, 1, 1)).total_seconds() / 86400
    parts = (float(when.year), float(when.month), float(when.day), float(when.weekday()), elapsed)
    return (*parts, when.hour + when.minute / 60) if clock else parts


# --- finding the kinds ---------------------------------------------------------------------------------------------


def find_schema(table: Table, wishes: Wishes) -> Schema:
    """The meaning of every column. Raises ConfigError where a wish names no column or two wishes name one, and
    DataError, with all problems, where a column has no clear meaning or none is left to learn from."""
    refuse_wishes(table, wishes)
    name = id_of(table, wishes)
    columns: list[Column] = []
    problems: list[Problem] = []
    for column in table.columns:
        if column in wishes.targets:
            continue
        found = _Finder(table, column, wishes).column(is_id=column == name)
        if isinstance(found, Column):
            columns.append(found)
        else:
            problems += found
    refuse(problems)
    schema = Schema(tuple(columns), wishes.missing, tuple(_notes(table, columns)))
    if not schema.used:
        why = "; ".join(f"{column.name}: {column.reason}" for column in columns)
        raise DataError(
            Problem(keys.DATA, f"no column is left to learn from ({why})", f"name some in {keys.CATEGORICAL}")
        )
    return schema


def refuse_wishes(table: Table, wishes: Wishes) -> None:
    """Raises ConfigError for names that are no columns, and for columns that are named twice."""
    named = [
        *((keys.TARGETS, name) for name in wishes.targets),
        *((keys.ID, name) for name in (wishes.id,) if name is not None),
        *((keys.CATEGORICAL, name) for name in wishes.categorical),
        *((keys.NUMERICAL, name) for name in wishes.numerical),
        *((keys.IGNORED, name) for name in wishes.ignored),
    ]
    problems = [
        Problem(key, f"there is no column {name!r}", did_you_mean(name, table.columns))
        for key, name in named
        if name not in table.columns
    ]
    first: dict[str, str] = {}
    for key, name in named:
        if name in first:
            again = "twice" if first[name] == key else f"in {first[name]} already"
            problems.append(Problem(key, f"{name!r} is named {again}", "name a column once"))
        first.setdefault(name, key)
    if not wishes.targets:
        problems.append(Problem(keys.TARGETS, "no column is named", "name the column to predict"))
    if problems:
        raise ConfigError(problems)


def id_of(table: Table, wishes: Wishes) -> str | None:
    """The column of ids: the one that is named, or one named id; None if there is none."""
    if wishes.id is not None:
        return wishes.id
    wanted = {*wishes.targets, *wishes.categorical, *wishes.numerical, *wishes.ignored}
    return next((name for name in table.columns if name.casefold() == "id" and name not in wanted), None)


class _Finder:
    """The meaning of one column."""

    def __init__(self, table: Table, name: str, wishes: Wishes) -> None:
        self.table = table
        self.name = name
        self.wishes = wishes
        self.values = table.columns[name]
        self.words = {value: None for value in self.values if value is not None}
        """The different values, in the order in which they come."""
        self.present = sum(value is not None for value in self.values)
        self.told: Decimals | None = None if wishes.decimal == "auto" else wishes.decimal

    def column(self, is_id: bool) -> Column | list[Problem]:
        if is_id:
            why = "named as the id" if self.wishes.id else "named id"
            return Column(self.name, "id", why)
        if self.name in self.wishes.ignored:
            return Column(self.name, "left_out", f"listed in {keys.IGNORED}")
        if not self.words:
            return self._empty()
        try:
            return self._wished() or self._constant() or self._found()
        except Ambiguous as error:
            return [self._ambiguous(error)]

    def _empty(self) -> Column | list[Problem]:
        for key, names in ((keys.CATEGORICAL, self.wishes.categorical), (keys.NUMERICAL, self.wishes.numerical)):
            if self.name in names:
                return [Problem(key, f"column {self.name!r} has no value in any row", "leave it out of the list")]
        return Column(self.name, "left_out", "no row has a value")

    def _constant(self) -> Column | None:
        if len(self.words) > 1:
            return None
        return Column(self.name, "left_out", f"every value is {next(iter(self.words))!r}")

    def _wished(self) -> Column | list[Problem] | None:
        if self.name in self.wishes.categorical:
            return self._categorical(f"listed in {keys.CATEGORICAL}")
        if self.name not in self.wishes.numerical:
            return None
        decimal = decimal_of(self.words, self.told)
        if decimal is not None:
            return Column(self.name, "numerical", f"listed in {keys.NUMERICAL}", decimal)
        return self._odd_numbers(f"which is no number, and {keys.NUMERICAL} lists the column", keys.NUMERICAL)

    def _found(self) -> Column | list[Problem]:
        if are_booleans(self.words):
            return Column(self.name, "boolean", "every value is " + " or ".join(repr(w) for w in sorted(self.words)))
        if any(map(is_code, self.words)) and all(word.isdigit() for word in self.words):
            return self._words("digits with zeros before them, as in postal codes")
        decimal = decimal_of(self.words, self.told)
        if decimal is not None:
            return self._numerical(decimal)
        return self._date() or self._mixed() or self._words("words")

    def _numerical(self, decimal: Decimals) -> Column:
        if self._counts_rows(decimal):
            advice = f"list it in {keys.NUMERICAL} to use it"
            return Column(self.name, "left_out", f"it counts the rows, as an id does; {advice}", decimal)
        sign = " with decimal commas" if decimal == "," else ""
        return Column(self.name, "numerical", f"all of {self.present} values are numbers{sign}", decimal)

    def _counts_rows(self, decimal: Decimals) -> bool:
        """Whether each row has one more than the row before it."""
        if not len(self.words) == len(self.values) > OWN_VALUES:
            return False
        numbers = (number(value, decimal) or 0.0 for value in self.words)
        return all(after - before == 1 for before, after in itertools.pairwise(numbers))

    def _date(self) -> Column | list[Problem] | None:
        form, count = date_format_of(self.words, self.wishes.date_order)
        if form is None or count * 2 < len(self.words):
            return None
        if count < len(self.words):
            odd = {word for word in self.words if moment(word, form) is None}
            what = f"which is no date written as {form.name}, as {count} of {len(self.words)} different values are"
            return cells(self.table, self.name, odd, what, self._advice("write all dates in one way"))
        moments = [moment(word, form) for word in self.words]
        clock = any(when is not None and (when.hour or when.minute) for when in moments)
        return Column(self.name, "date", f"all values are dates ({form.name})", date_format=form.name, clock=clock)

    def _mixed(self) -> list[Problem] | None:
        _, count = likely_decimal(self.words)
        if count * 2 < len(self.words):
            return None
        return self._odd_numbers(f"where {count} of {len(self.words)} different values are numbers")

    def _odd_numbers(self, what: str, key: str = keys.DATA) -> list[Problem]:
        decimal, _ = likely_decimal(self.words)
        odd = {word for word in self.words if number(word, decimal) is None}
        return cells(self.table, self.name, odd, what, self._advice("correct or empty the value"), key)

    def _advice(self, first: str) -> str:
        return f"{first}, or list the column in {keys.CATEGORICAL} or {keys.IGNORED}"

    def _words(self, why: str) -> Column:
        if len(self.words) > OWN_VALUES and len(self.words) * 2 > self.present:
            return Column(
                self.name,
                "left_out",
                f"{len(self.words)} different values in {self.present} rows: an id or free text; "
                f"list it in {keys.CATEGORICAL} to use it",
            )
        return self._categorical(f"{why}, {len(self.words)} different")

    def _categorical(self, why: str) -> Column:
        return Column(self.name, "categorical", why, categories=tuple(sorted(self.words)))

    def _ambiguous(self, error: Ambiguous) -> Problem:
        word, one, other = error.args
        place = self.table.places[self.values.index(word)]
        if isinstance(one, datetime):
            what = f"may be {one:%d %B %Y} or {other:%d %B %Y}, and no value of the column decides"
            advice = f"set {keys.DATE_ORDER}=day_first or month_first"
        else:
            what = f"may be {one:g} or {other:g}, and no value of the column decides"
            advice = f"set {keys.DECIMAL} to '.' or ','"
        return Problem(keys.DATA, f"column {self.name!r}: {word!r} {what}", advice, str(place))


def _notes(table: Table, columns: list[Column]) -> Iterator[str]:
    for column in columns:
        if column.kind == "left_out":
            yield f"column {column.name!r} is left out: {column.reason}"
        none = table.columns[column.name].count(None)
        if column.kind == "id" and none:
            yield f"{none} rows have no id; the first is {table.places[table.columns[column.name].index(None)]}"
        if len(column.categories) > MANY:
            yield f"column {column.name!r} has {len(column.categories)} categories"


def refuse_other_columns(train: Table, valid: Table, schema: Schema, targets: tuple[str, ...]) -> None:
    """Raises DataError where validation rows do not have the columns of the training rows; the id may be lacking, and
    columns that are left out may be too."""
    needed = {column.name for column in schema.used} | set(targets)
    known = {column.name for column in schema.columns} | set(targets)
    lacking = [name for name in train.columns if name in needed and name not in valid.columns]
    surplus = [name for name in valid.columns if name not in known]
    if not lacking and not surplus:
        return
    problems = [
        Problem(keys.DATA, f"validation rows have no column {name!r}", did_you_mean(name, valid.columns))
        for name in lacking
    ] + [
        Problem(keys.DATA, f"validation rows have a column {name!r} that training rows lack", did_you_mean(name, known))
        for name in surplus
    ]
    lists = f"training: {', '.join(train.columns)}; validation: {', '.join(valid.columns)}"
    raise DataError([*problems, Problem(keys.DATA, f"the columns differ ({lists})")])
