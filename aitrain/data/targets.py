"""What is to be predicted of a row: classes by name, sets of them, or numbers. Learnt from the training rows, no torch.

The training rows are read once before anything is tokenised; what is found goes into `plan.json` and, when the run
ends, beside the model's weights, so that a prediction means the same as in training.
"""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aitrain.data.columns import kind_of, listed, read_number
from aitrain.data.rows import Row
from aitrain.errors import DataError, Problem, did_you_mean

FILE = "targets.json"
"""Beside the weights of a trained model."""
KEY = "data.columns.target"
MOST_CLASSES = 1_000
"""More different values are taken for text, unless `task.classes` names them."""


class NoTarget(ValueError):
    """A row does not say what is to be predicted of it."""


@dataclass(frozen=True)
class Classes:
    """The classes of a run, in the order of the model's outputs."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Rows of each among the training rows, before any are held out."""
    multi_label: bool
    """Whether a row has any number of classes, instead of exactly one."""
    rows: int
    numbered: tuple[str, ...] = ()
    """Names of the whole numbers that the rows hold, where the data has a class feature."""
    kind: Literal["classes"] = "classes"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def described(self) -> str:
        """In a line, with the number of rows of the first ones."""
        counted = [f"{name} {count:,}" for name, count in zip(self.names, self.counts, strict=True)]
        more = f" and {len(counted) - 8} more" if len(counted) > 8 else ""
        return f"{len(self.names)} classes: {', '.join(counted[:8])}{more}"


@dataclass(frozen=True)
class Numbers:
    """The numbers that are predicted, with what they are on average."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    """Standard deviation over the training rows."""
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    rows: int
    kind: Literal["numbers"] = "numbers"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def described(self) -> str:
        """In a line."""
        values = zip(self.names, self.mean, self.deviation, self.minimum, self.maximum, strict=True)
        return "; ".join(
            f"{name} from {low:.4g} to {high:.4g}, mean {mean:.4g} ± {deviation:.3g}"
            for name, mean, deviation, low, high in values
        )


@dataclass(frozen=True)
class Tags:
    """The tags of words, in the order of the model's outputs."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Words of each in the training rows, before any are held out."""
    scheme: str
    """How they mark spans (see `aitrain.evaluation.spans`); `plain` where they mark none."""
    rows: int
    numbered: tuple[str, ...] = ()
    """What whole numbers in the data stand for, where it has a class feature."""
    kind: Literal["tags"] = "tags"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def described(self) -> str:
        """In a line, with the number of words of the first ones."""
        counted = [f"{name} {count:,}" for name, count in zip(self.names, self.counts, strict=True)]
        more = f" and {len(counted) - 8} more" if len(counted) > 8 else ""
        return f"{len(self.names)} tags, {self.scheme}: {', '.join(counted[:8])}{more}"


@dataclass(frozen=True)
class Spans:
    """Answers that stand in a text."""

    unanswerable: bool
    """Whether a question may have none."""
    rows: int
    unanswered: int
    """Training rows without an answer, before any are held out."""
    words: int
    """Of the usual answer: the median."""
    kind: Literal["spans"] = "spans"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def names(self) -> tuple[str, ...]:
        """What the model says of each token."""
        return ("start", "end")

    @property
    def described(self) -> str:
        """In a line."""
        without = f"{self.unanswered:,} without an answer" if self.unanswerable else "each with an answer"
        usual = f"of {self.words} word{'s' * (self.words != 1)} in the middle"
        return f"a span of the context, {usual}; {self.rows:,} questions, {without}"


Targets = Classes | Numbers | Tags | Spans


def targets_from(values: Mapping[str, Any]) -> Targets:
    """The inverse of `to_dict`."""
    cls: Any = {"classes": Classes, "numbers": Numbers, "tags": Tags, "spans": Spans}[values["kind"]]
    known: Targets = cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    return known


# --- classes -------------------------------------------------------------------------------------------------------


def wrong_class(value: Any) -> str:
    """What a value is when it cannot name a class or several, else ''."""
    if isinstance(value, float) and not value.is_integer():
        return f"{kind_of(value)} with a fraction"
    return "" if isinstance(value, str | int | float | list | tuple) else kind_of(value)


def class_name(value: Any) -> str:
    """The name of one class. Raises NoTarget for what is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    found = "nothing" if value is None or value == "" else kind_of(value)
    raise NoTarget(f"holds {found} where a class is expected")


@dataclass(frozen=True)
class ClassReader:
    """Reads the class of a row, or its classes.

    `names` stand for whole numbers where the file says so (a class feature). Several columns hold 1 for a class that is
    there and 0 for one that is not. In one column a list of classes may also stand as its text (`["a", "b"]`), or with
    `separator` between them.
    """

    columns: tuple[str, ...]
    multi_label: bool | None
    """None: by what the rows hold."""
    separator: str | None = None
    names: tuple[str, ...] = ()

    def holds_sets(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether rows have any number of classes."""
        if self.multi_label is not None:
            return self.multi_label
        return (
            len(self.columns) > 1
            or self.separator is not None
            or any(isinstance(_as_list(row.get(self.columns[0])), list) for row in rows)
        )

    def one(self, row: Mapping[str, Any]) -> str:
        """The class of a row. Raises NoTarget."""
        (column,) = self.columns
        try:
            value = row.get(column)
            if isinstance(value, list | tuple):
                raise NoTarget(f"holds {kind_of(value)} where one class is expected")
            return self._named(value)
        except NoTarget as error:
            raise NoTarget(f"column '{column}' {error}") from None

    def several(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The classes of a row, which may be none. Raises NoTarget."""
        if len(self.columns) > 1:
            return tuple(column for column in self.columns if _is_there(row.get(column), column))
        (column,) = self.columns
        value = _as_list(row.get(column), self.separator)
        if value is None:
            raise NoTarget(f"column '{column}' holds nothing where classes are expected")
        try:
            return tuple(dict.fromkeys(self._named(each) for each in (value if isinstance(value, list) else [value])))
        except NoTarget as error:
            raise NoTarget(f"column '{column}' {error}") from None

    def _named(self, value: Any) -> str:
        number = int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        if self.names and number is not None and value == number:
            if not 0 <= number < len(self.names):
                raise NoTarget(f"holds {number}, and the file names {len(self.names)} classes, from 0 on")
            return self.names[number]
        return class_name(value)


def _as_list(value: Any, separator: str | None = None) -> Any:
    """A list of classes from a list, from its text as JSON or Python write it, or from words with a separator."""
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    if separator is not None:
        return [part.strip() for part in text.split(separator) if part.strip()]
    return value


def _is_there(value: Any, column: str) -> bool:
    words = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        told = "nothing" if value is None or value == "" else kind_of(value)
        raise NoTarget(f"column '{column}' holds {told} where 1 or 0 is expected")
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Classes in a fixed order: whole numbers by their size, else by name."""
    found = set(names)
    try:
        return sorted(found, key=int)
    except ValueError:
        return sorted(found)


def learn_classes(
    reader: ClassReader, rows: Iterable[Row], first: Sequence[Mapping[str, Any]], wanted: Sequence[str] | None
) -> Classes:
    """The classes of the training rows; `wanted` names them all, in order, else they are those that occur.

    Rows without a class are left to be judged where they are encoded. Raises DataError for one class only, for so many
    that they must be something else, and for `wanted` ones of which no row tells.
    """
    sets = reader.holds_sets(first)
    counts: Counter[str] = Counter()
    total = 0
    for row in rows:
        try:
            found = reader.several(row.values) if sets else (reader.one(row.values),)
        except NoTarget:
            continue
        counts.update(found)
        total += 1
    names = list(wanted) if wanted else list(reader.columns) if len(reader.columns) > 1 else _names(reader, counts)
    _check_classes(reader, names, counts, total, wanted, sets)
    return Classes(tuple(names), tuple(counts[name] for name in names), sets, total, reader.names)


def _names(reader: ClassReader, counts: Counter[str]) -> list[str]:
    if reader.names and set(counts) <= set(reader.names):
        return list(reader.names)
    return in_order(counts)


def _check_classes(
    reader: ClassReader,
    names: Sequence[str],
    counts: Counter[str],
    total: int,
    wanted: Sequence[str] | None,
    sets: bool,
) -> None:
    told = f"column {listed(reader.columns)}"
    occurring = [name for name in names if counts[name]]
    if not total:
        raise DataError(Problem(KEY, f"{told} names a class in no row", "name another column"))
    if len(names) < 2 and not sets:
        what = f"{told} holds one class only, '{names[0]}', in {total:,} rows"
        raise DataError(Problem(KEY, what, "there is nothing to tell apart; name another column"))
    if sets and not occurring:
        raise DataError(Problem(KEY, f"no row has a class: {told} holds none", "name other columns"))
    if not wanted and (len(names) > MOST_CLASSES or (len(names) > max(20, total / 2) and not sets)):
        what = f"{told} holds {len(names):,} different values in {total:,} rows, which are hardly classes"
        advice = "name another column; for numbers choose task=text_regression; to mean it, list them in task.classes"
        raise DataError(Problem(KEY, what, advice))
    if wanted and not occurring:
        what = f"none of them occurs; {told} holds {listed(in_order(counts))}"
        raise DataError(Problem("task.classes", what, "write them as the data does, or leave it out"))


def unknown_class(name: str, classes: Classes) -> str:
    """Why a class that the map does not hold cannot be used."""
    return f"'{name}' is none of the {len(classes.names)} classes; {did_you_mean(name, classes.names)}"


# --- numbers -------------------------------------------------------------------------------------------------------


def read_numbers(columns: Sequence[str], row: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers of a row. In one column a list of them may stand. Raises NoTarget for anything else."""
    if len(columns) == 1 and isinstance(values := _as_list(row.get(columns[0])), list):
        return tuple(_finite(value, columns[0]) for value in values)
    return tuple(_finite(row.get(column), column) for column in columns)


def wrong_numbers(value: Any) -> str:
    """What a value is when it is neither a number nor a list of numbers, else ''."""
    value = _as_list(value)
    values = value if isinstance(value, list) else [value]
    return next((kind_of(each) for each in values if read_number(each) is None), "")


def _finite(value: Any, column: str) -> float:
    number = read_number(value)
    if number is None:
        told = "nothing" if value is None or value == "" else kind_of(value)
        comma = isinstance(value, str) and read_number(value.replace(",", ".")) is not None
        hint = "; write 1.5 for 1,5" if comma else ""
        raise NoTarget(f"column '{column}' holds {told} where a number is expected{hint}")
    if not math.isfinite(number):
        raise NoTarget(f"column '{column}' holds {number}, which is no finite number")
    return number


def learn_numbers(columns: Sequence[str], rows: Iterable[Row]) -> Numbers:
    """Mean, deviation and range of the targets over the training rows.

    Raises DataError for a target that is the same in every row, and where rows hold lists of different lengths.
    """
    import numpy as np

    found: list[tuple[float, ...]] = []
    for row in rows:
        try:
            found.append(read_numbers(columns, row.values))
        except NoTarget:
            continue
    if not found:
        raise DataError(Problem(KEY, f"column {listed(columns)} holds a number in no row", "name another column"))
    widths = sorted({len(values) for values in found})
    if len(widths) > 1:
        what = f"column {listed(columns)} holds lists of {widths[0]} and of {widths[-1]} numbers"
        raise DataError(Problem(KEY, what, "every row needs as many"))
    names = tuple(columns) if len(columns) == widths[0] else tuple(f"{columns[0]}[{i}]" for i in range(widths[0]))
    values = np.asarray(found, np.float64)
    deviation = values.std(axis=0)
    constant = [name for name, each in zip(names, deviation, strict=True) if not each]
    if constant:
        what = f"{listed(constant)} is the same in each of {len(found):,} rows, so there is nothing to predict"
        raise DataError(Problem(KEY, what, "name another column"))
    parts = (values.mean(axis=0), deviation, values.min(axis=0), values.max(axis=0))
    mean, spread, low, high = (tuple(float(each) for each in part) for part in parts)
    return Numbers(names, mean, spread, low, high, len(found))
