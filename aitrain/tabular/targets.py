"""What is to be predicted: which sub-task the target columns make, with the reason, and their values as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aitrain.config.estimator import CLASSIFICATION, SubTask
from aitrain.errors import ConfigError, DataError, Problem
from aitrain.tabular import keys
from aitrain.tabular.cells import Ambiguous, Decimals, decimal_of, is_code, likely_decimal, number, truth
from aitrain.tabular.schema import OWN_VALUES, Wishes
from aitrain.tabular.table import Table, cells, refuse

WantedSubTask = Literal["auto", "classification", "binary", "multiclass", "multilabel", "regression"]
FEW = 20
"""Whole numbers may be classes up to so many of them,"""
ROWS_A_CLASS = 10
"""and with so many rows each, on average."""
LEAST_ROWS = 2
"""Of a class: one to learn from and one to score on."""


@dataclass(frozen=True)
class Targets:
    """The columns to predict and what their values mean."""

    subtask: SubTask
    columns: tuple[str, ...]
    reason: str
    classes: tuple[str | int, ...] = ()
    """Of one target, in the order of their numbers; the last of two is the positive one. Empty for others."""
    decimals: tuple[Decimals, ...] = ()
    """Decimal sign of each column of numbers."""

    def encode(self, table: Table) -> NDArray[Any]:
        """Class numbers (rows; -1: a class that is not known), 0 and 1 (rows x labels), or numbers (rows, or rows x
        targets). Raises DataError with the row for what is no value of its column; values must not be missing."""
        if self.subtask == "multilabel":
            return np.column_stack([_labels(table, name) for name in self.columns])
        if self.subtask == "regression":
            found = [_numbers(table, name, sign) for name, sign in zip(self.columns, self.decimals, strict=True)]
            return found[0] if len(found) == 1 else np.column_stack(found)
        numbers = {label: i for i, label in enumerate(self.classes)}
        whole = all(isinstance(label, int) for label in self.classes)
        values = table.columns[self.columns[0]]
        return np.array([numbers.get(_label(value or "", whole), -1) for value in values], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Targets:
        """Raises TypeError, KeyError or ValueError for what `to_json` did not write."""
        if found["subtask"] not in get_args(SubTask):
            raise ValueError(f"there is no sub-task {found['subtask']!r}")
        lists = {name: tuple(found[name]) for name in ("columns", "classes", "decimals")}
        return cls(**{**found, **lists})


def _label(word: str, whole: bool) -> str | int:
    """A class as users name it: a whole number as int where all classes are."""
    value = number(word, ".") if whole else None
    return int(value) if value is not None and value.is_integer() else word


def _labels(table: Table, name: str) -> NDArray[np.int64]:
    values = [value or "" for value in table.columns[name]]
    said = {word: truth(word) for word in set(values)}
    odd = {word for word, yes in said.items() if yes is None}
    refuse(cells(table, name, odd, "and a label is 0 or 1", "correct the value", keys.TARGETS))
    return np.array([bool(said[word]) for word in values], dtype=np.int64)


def _numbers(table: Table, name: str, decimal: Decimals) -> NDArray[np.float64]:
    values = [value or "" for value in table.columns[name]]
    numbers = {word: number(word, decimal) for word in set(values)}
    odd = {word for word, value in numbers.items() if value is None}
    refuse(cells(table, name, odd, "which is no number to learn", "correct the value", keys.TARGETS))
    return np.array([numbers[word] for word in values], dtype=np.float64)


# --- rows that cannot be learnt from -------------------------------------------------------------------------------


def without_missing(table: Table, columns: Sequence[str], on_bad: Literal["error", "skip"]) -> tuple[Table, list[str]]:
    """The rows that have every target, and a note of how many have not. Raises DataError with their rows unless they
    are to be skipped."""
    none = [i for i in range(len(table)) if any(table.columns[name][i] is None for name in columns)]
    if not none:
        return table, []
    if on_bad == "error":
        refuse(
            [
                Problem(keys.DATA, f"column {name!r}, the target, has no value", "set data.on_bad_rows=skip", where)
                for i in none
                for where in (str(table.places[i]),)
                for name in columns
                if table.columns[name][i] is None
            ]
        )
    gone = set(none)
    left = [i for i in range(len(table)) if i not in gone]
    if not left:
        raise DataError(Problem(keys.TARGETS, f"no row has a value in {' and '.join(map(repr, columns))}"))
    return table.rows(left), [f"{len(none)} rows without a target are skipped; the first is {table.places[none[0]]}"]


def without_repeated(table: Table, name: str | None, on_bad: Literal["error", "skip"]) -> tuple[Table, list[str]]:
    """The first row of each id of column `name`, and a note of how many came again. Raises DataError with both rows
    unless the later ones are to be skipped. A row without an id stays, and so do all where there is no such column."""
    if name is None or name not in table.columns:
        return table, []
    ids = table.columns[name]
    first: dict[str, int] = {}
    again = {i: at for i, value in enumerate(ids) if value is not None and (at := first.setdefault(value, i)) != i}
    if not again:
        return table, []
    if on_bad == "error":
        advice = f"set data.on_bad_rows=skip, or list the column in {keys.IGNORED} if it names no single row"
        refuse(
            [
                Problem(keys.ID, f"id {ids[i]!r} of column {name!r} is that of {table.places[at]} too", advice, where)
                for i, at in again.items()
                for where in (str(table.places[i]),)
            ]
        )
    i, at = next(iter(again.items()))
    note = (
        f"{len(again)} rows whose id came before are skipped; the first is {table.places[i]}, "
        f"with {ids[i]!r} of {table.places[at]}"
    )
    return table.rows([i for i in range(len(table)) if i not in again]), [note]


def without_single(
    table: Table, targets: Targets, on_bad: Literal["error", "skip"]
) -> tuple[Table, Targets, list[str]]:
    """The rows whose class others have too. Raises DataError with the rows of classes that have one, unless they are
    to be skipped, and where fewer than two classes are left."""
    if not targets.classes:
        return table, targets, []
    codes = targets.encode(table)
    counts = np.bincount(codes, minlength=len(targets.classes))
    single = [i for i, code in enumerate(codes) if counts[code] < LEAST_ROWS]
    if not single:
        return table, targets, []
    if on_bad == "error":
        refuse([_single(table, targets, i, codes[i]) for i in single])
    left = [i for i in range(len(table)) if counts[codes[i]] >= LEAST_ROWS]
    classes = tuple(label for label, count in zip(targets.classes, counts, strict=True) if count >= LEAST_ROWS)
    if len(classes) < 2:
        raise DataError(
            Problem(
                keys.TARGETS, f"{len(classes)} classes of column {targets.columns[0]!r} have {LEAST_ROWS} rows or more"
            )
        )
    subtask: SubTask = "binary" if len(classes) == 2 else "multiclass"
    note = f"{len(single)} rows whose class has no other are skipped; the first is {table.places[single[0]]}"
    return table.rows(left), Targets(subtask, targets.columns, targets.reason, classes), [note]


def _single(table: Table, targets: Targets, row: int, code: int) -> Problem:
    return Problem(
        keys.DATA,
        f"column {targets.columns[0]!r}: no other row is of the class {targets.classes[code]!r}, and one is needed to "
        "learn from and one to score on",
        "add rows of it, or set data.on_bad_rows=skip",
        str(table.places[row]),
    )


# --- the sub-task --------------------------------------------------------------------------------------------------


def find_targets(table: Table, wishes: Wishes, wanted: WantedSubTask = "auto") -> Targets:
    """Which sub-task the target columns of a table make. No target may be missing.

    One column: words and yes-or-no are classes, as are a few different whole numbers; other numbers are a regression.
    Several columns: all of 0 and 1 are labels, all numbers a regression of several targets.
    Raises ConfigError where the wanted sub-task does not fit, DataError where nothing can be learnt.
    """
    refuse([problem for name in wishes.targets for problem in _constant(table, name)])
    if len(wishes.targets) == 1:
        if wanted == "multilabel":
            what = "multilabel predicts several columns of 0 and 1, and one is named"
            raise ConfigError(Problem(keys.SUBTASK, what, f"set {keys.SUBTASK}=binary, or name more columns"))
        return _one(table, wishes.targets[0], wishes, wanted)
    return _several(table, wishes, wanted)


def _constant(table: Table, name: str) -> list[Problem]:
    values = set(table.columns[name])
    if len(values) > 1:
        return []
    what = f"column {name!r} is {next(iter(values))!r} in all of {len(table)} rows, so there is nothing to predict"
    return [Problem(keys.TARGETS, what, "choose another column, or data with other values")]


def _sign(table: Table, name: str, wishes: Wishes) -> Decimals | None:
    """The decimal sign of a column of numbers, None for another column."""
    words = dict.fromkeys(value for value in table.columns[name] if value is not None)
    if all(word.isdigit() for word in words) and any(map(is_code, words)):
        return None
    try:
        return decimal_of(words, None if wishes.decimal == "auto" else wishes.decimal)
    except Ambiguous as error:
        word, one, other = error.args
        place = str(table.places[table.columns[name].index(word)])
        what = f"column {name!r}: {word!r} may be {one:g} or {other:g}, and no value of the column decides"
        raise DataError(Problem(keys.DATA, what, f"set {keys.DECIMAL} to '.' or ','", place)) from None


def _one(table: Table, name: str, wishes: Wishes, wanted: WantedSubTask) -> Targets:
    sign = _sign(table, name, wishes)
    words = Counter(value for value in table.columns[name] if value is not None)
    numbers = {number(word, sign) for word in words} if sign else set()
    are_classes, reason = _are_classes(words, numbers)
    if wanted == "regression" or (wanted == "auto" and not are_classes):
        if sign is None:
            refuse(_no_numbers(table, name, words))
        return Targets("regression", (name,), "as asked" if wanted == "regression" else reason, decimals=(sign or ".",))
    if not numbers and len(words) > OWN_VALUES and len(words) * 2 > len(table):
        what = f"column {name!r} has {len(words)} different values in {len(table)} rows: an id or free text"
        raise DataError(Problem(keys.TARGETS, what, "choose a column whose values repeat"))
    classes = _classes(words, numbers)
    subtask: SubTask = "binary" if len(classes) == 2 else "multiclass"
    if wanted not in ("auto", "classification", subtask):
        what = f"column {name!r} has {len(classes)} classes, which is no {wanted}"
        raise ConfigError(Problem(keys.SUBTASK, what, f"set {keys.SUBTASK}={subtask}"))
    return Targets(subtask, (name,), reason if wanted == "auto" else "as asked", classes)


def _are_classes(words: Counter[str], numbers: set[float | None]) -> tuple[bool, str]:
    if not numbers:
        return True, f"{len(words)} different words"
    whole = all(value is not None and value.is_integer() for value in numbers)
    few = len(numbers) == 2 or (len(numbers) <= FEW and words.total() >= ROWS_A_CLASS * len(numbers))
    if whole and few:
        other = f"set {keys.SUBTASK}=regression to predict them as numbers"
        return True, f"{len(numbers)} different whole numbers in {words.total()} rows; {other}"
    return False, f"{len(numbers)} different numbers in {words.total()} rows"


def _no_numbers(table: Table, name: str, words: Counter[str]) -> list[Problem]:
    sign, count = likely_decimal(words)
    odd = {word for word in words if number(word, sign) is None} or set(words)
    what = f"which is no number, as {count} of {len(words)} different values are"
    return cells(table, name, odd, what, f"correct the value, or set {keys.SUBTASK}=classification", keys.TARGETS)


def _classes(words: Counter[str], numbers: set[float | None]) -> tuple[str | int, ...]:
    whole = bool(numbers) and all(value is not None and value.is_integer() for value in numbers)
    if whole:
        return tuple(sorted(int(value) for value in numbers if value is not None))
    said = {word: truth(word) for word in words}
    if len(words) == 2 and set(said.values()) == {False, True}:
        return tuple(sorted(words, key=lambda word: bool(said[word])))
    return tuple(sorted(words))


def _several(table: Table, wishes: Wishes, wanted: WantedSubTask) -> Targets:
    names = wishes.targets
    labels = [name for name in names if all(truth(value or "") is not None for value in table.columns[name])]
    if wanted in ("auto", "classification", "multilabel") and len(labels) == len(names):
        refuse([problem for name in names for problem in _rare_label(table, name)])
        return Targets("multilabel", names, f"{len(names)} columns of 0 and 1" if wanted == "auto" else "as asked")
    signs = [_sign(table, name, wishes) for name in names]
    numeric = [sign for sign in signs if sign is not None]
    if wanted in ("auto", "regression") and len(numeric) == len(names):
        return Targets("regression", names, f"{len(names)} columns of numbers", decimals=tuple(numeric))
    if wanted in ("binary", "multiclass"):
        what = f"{wanted} predicts one column, and {len(names)} are named"
        raise ConfigError(Problem(keys.SUBTASK, what, f"name one in {keys.TARGETS}, or set {keys.SUBTASK}=multilabel"))
    odd = [name for name, sign in zip(names, signs, strict=True) if name not in labels or sign is None]
    if wanted in CLASSIFICATION or wanted == "classification":
        what = f"{_listed(name for name in odd if name not in labels)} is not of 0 and 1, as labels are"
    else:
        what = f"several targets are all of 0 and 1 or all numbers, and {_listed(odd)} is not as the others"
    raise DataError(Problem(keys.TARGETS, what, "name one column, or columns of one kind"))


def _listed(names: Iterable[str]) -> str:
    return "column " + " and ".join(map(repr, names))


def _rare_label(table: Table, name: str) -> list[Problem]:
    said = Counter(truth(value or "") for value in table.columns[name])
    return [
        Problem(keys.TARGETS, f"column {name!r} is {int(yes)} in one row alone", "leave the label out, or add rows")
        for yes in (False, True)
        if said[yes] < LEAST_ROWS
    ]
