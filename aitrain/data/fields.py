"""Columns of tasks that are no conversations: found by their names, else because only one is left that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aitrain.data.columns import ColumnChoice, Shape, kind_of, listed
from aitrain.data.names import closest
from aitrain.errors import DataError, Problem

TARGET = "target"
"""The role of what is to be predicted, the only one that several columns may have."""


@dataclass(frozen=True)
class Field:
    """What a task wants of a row."""

    role: str
    """The last word of its key: `data.columns.ROLE`."""
    names: tuple[str, ...]
    """Column names that say the role by themselves, in lower case."""
    holds: str
    """What its values are, in words: `text`, `a class`."""
    wrong: Callable[[Any], str]
    """What a value is where it is of another kind, else ''."""
    required: bool = True


def wrong_text(value: Any) -> str:
    """What a value is when it is no text, else ''."""
    return "" if isinstance(value, str) else kind_of(value)


def find_fields(
    shape: Shape,
    fields: Sequence[Field],
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
) -> ColumnChoice:
    """Which column has which role: what the user chose, what the names say, or the only column that is left.

    Raises DataError where a chosen column is not there, where names allow two answers or none, and where the first rows
    hold values of another kind than the role needs.
    """
    search = _Search(tuple(names), first_rows, key)
    given = search.given(fields, chosen)
    found, reasons, problems = dict(given), dict.fromkeys(given, "set"), []
    for field in fields:
        if field.role in found:
            continue
        candidates = search.by_name(field, found)
        reason = "by its name"
        if not candidates and field.required:
            candidates, reason = search.left_over(field, fields, found), "the only column that could be it"
        if len(candidates) > 1:
            settings = " or ".join(f"{key}.{field.role}={name}" for name in candidates)
            problems.append(Problem(f"{key}.{field.role}", f"may be {listed(candidates)}", f"set {settings}"))
        elif candidates:
            found[field.role], reasons[field.role] = (candidates[0],), reason
        elif field.required:
            problems.append(search.not_found(field, fields, found))
    if not problems:
        problems = [problem for field in fields for problem in search.wrong_values(field, found)]
    if problems:
        raise DataError(problems)
    return _choice(shape, names, found, reasons)


def _choice(
    shape: Shape, names: Sequence[str], found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]
) -> ColumnChoice:
    parts = [f"{role} is {listed(columns)} ({reasons[role]})" for role, columns in found.items()]
    used = {name for columns in found.values() for name in columns}
    unused = [name for name in names if name not in used]
    reason = ", ".join(parts) + (f"; not used: {listed(unused)}" if unused else "")
    columns: Any = {role: columns[0] for role, columns in found.items() if role != TARGET}
    return ColumnChoice(shape, columns, reason, found.get(TARGET, ()))


@dataclass(frozen=True)
class _Search:
    names: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    key: str

    def given(
        self, fields: Sequence[Field], chosen: Mapping[str, str | list[str] | None]
    ) -> dict[str, tuple[str, ...]]:
        """The columns that the user named, by role."""
        given: dict[str, tuple[str, ...]] = {}
        taken: dict[str, str] = {}
        problems = []
        for field in fields:
            wanted = chosen.get(field.role)
            if wanted is None:
                continue
            columns = []
            for name in [wanted] if isinstance(wanted, str) else wanted:
                real = self._named(name)
                if real is None:
                    problems.append(self._missing(field, name))
                elif real in taken:
                    what = f"'{real}' is {self.key}.{taken[real]} already"
                    problems.append(Problem(f"{self.key}.{field.role}", what, "name another column"))
                else:
                    taken[real] = field.role
                    columns.append(real)
            given[field.role] = tuple(columns)
            if not columns and not problems:
                problems.append(
                    Problem(f"{self.key}.{field.role}", "names no column", f"there is {listed(self.names)}")
                )
        if problems:
            raise DataError(problems)
        return given

    def by_name(self, field: Field, taken: Mapping[str, tuple[str, ...]]) -> list[str]:
        """The columns that are called as the field is, those called by its first names before others."""
        free = self._free(taken)
        for name in field.names:
            same = [column for column in free if column.strip().lower() == name]
            if same and name == field.role:
                return same
        found = [column for column in free if column.strip().lower() in field.names]
        fitting = [column for column in found if not self._first_wrong(field, column)]
        return fitting if len(found) > 1 and fitting else found

    def left_over(self, field: Field, fields: Sequence[Field], taken: Mapping[str, tuple[str, ...]]) -> list[str]:
        """The columns that no other field claims and whose values would do, if that is one."""
        others = {name for other in fields if other.role != field.role for name in other.names}
        left = [
            name
            for name in self._free(taken)
            if name.strip().lower() not in others
            and name.strip().lower() != "id"
            and not self._first_wrong(field, name)
        ]
        return left if len(left) == 1 else []

    def not_found(self, field: Field, fields: Sequence[Field], taken: Mapping[str, tuple[str, ...]]) -> Problem:
        others = {name for other in fields if other.role != field.role for name in other.names}
        free = [name for name in self._free(taken) if name.strip().lower() not in others]
        near = [name for name in free if closest(name.strip(), field.names)]
        hint = f" ({listed(near)}?)" if near else ""
        what = f"no column found for it; there is {listed(self.names)}"
        return Problem(
            f"{self.key}.{field.role}", what, f"set {self.key}.{field.role} to the column with {field.holds}{hint}"
        )

    def wrong_values(self, field: Field, found: Mapping[str, tuple[str, ...]]) -> list[Problem]:
        """What the first rows have against a column; that is no matter of single rows."""
        problems = []
        for name in found.get(field.role, ()):
            values = [row.get(name) for row in self.rows]
            if self.rows and field.required and all(value is None for value in values):
                what = f"column '{name}' is null in each of the first {len(self.rows)} rows"
                problems.append(Problem(f"{self.key}.{field.role}", what, "name another column"))
            elif wrong := self._first_wrong(field, name):
                number, kind = wrong
                what = f"column '{name}' holds {kind} in row {number}, where {field.holds} is expected"
                problems.append(Problem(f"{self.key}.{field.role}", what, "name another column, or repair it"))
        return problems

    def _first_wrong(self, field: Field, name: str) -> tuple[int, str] | None:
        for number, row in enumerate(self.rows, 1):
            value = row.get(name)
            if value is not None and (kind := field.wrong(value)):
                return number, kind
        return None

    def _free(self, taken: Mapping[str, tuple[str, ...]]) -> list[str]:
        used = {name for columns in taken.values() for name in columns}
        return [name for name in self.names if name not in used]

    def _named(self, wanted: str) -> str | None:
        if wanted in self.names:
            return wanted
        same = [name for name in self.names if name.strip().lower() == wanted.strip().lower()]
        return same[0] if len(same) == 1 else None

    def _missing(self, field: Field, wanted: str) -> Problem:
        near = closest(wanted.strip(), self.names)
        dotted = f"{self.key}.{field.role}"
        advice = f"did you mean '{near}'?" if near else "set it to one of them, or leave it out to find it by name"
        fix = f"{dotted}={near}" if near else ""
        return Problem(dotted, f"no column '{wanted}'; there is {listed(self.names)}", advice, fix=fix)
