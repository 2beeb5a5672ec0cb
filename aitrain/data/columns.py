"""What the columns of conversation and text data mean: found by name, checked against the first rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aitrain.data.names import closest
from aitrain.errors import DataError, Problem

Shape = Literal["messages", "prompt_completion", "text"]
Role = Literal["prompt", "input", "completion", "messages", "system", "text"]

NAMES: dict[Role, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query"),
    "input": ("input", "context"),
    "completion": ("completion", "response", "output", "answer"),
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat"),
    "system": ("system", "system_prompt"),
    "text": ("text", "content"),
}
"""Column names that say a role by themselves, compared in lower case and without space around them."""

_SHAPE_ROLES: dict[Shape, tuple[Role, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
}
"""Roles a shape cannot do without."""
_EXTRAS: dict[Shape, tuple[Role, ...]] = {"messages": ("system",), "prompt_completion": ("input", "system"), "text": ()}
_SHAPE_WORDS: dict[Shape, str] = {
    "messages": "a column of messages",
    "prompt_completion": "a prompt and a completion column",
    "text": "a column of text",
}

CHAT_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Who speaks, in both dialects, and the role that chat templates know."""


@dataclass(frozen=True)
class ColumnChoice:
    """Which column plays which role, and why."""

    shape: Shape
    columns: dict[Role, str]
    reason: str


class MessagesError(ValueError):
    """A value is no conversation."""


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | None],
    accepts: Sequence[Shape],
    key: str = "data.columns",
) -> ColumnChoice:
    """Decides what each column means, from the user's choice (role to name, None: find it) and the names.

    `accepts` are the shapes that the trainer takes. Raises DataError when a chosen column is not there, when names
    allow two answers or none, and when the first rows hold values of another type than the role needs.
    """
    search = _Search(tuple(names), first_rows, tuple(accepts), key)
    given = search.given(chosen)
    shape = search.shape(given)
    choice = search.choice(shape, given)
    search.check_values(choice)
    return choice


@dataclass(frozen=True)
class _Search:
    names: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    accepts: tuple[Shape, ...]
    key: str

    def given(self, chosen: Mapping[str, str | None]) -> dict[Role, str]:
        """The columns that the user named, by role."""
        given: dict[Role, str] = {}
        problems = []
        for role in NAMES:
            wanted = chosen.get(role)
            if wanted is None:
                continue
            same = [name for name in self.names if name == wanted] or self._named((wanted,))
            if len(same) == 1:
                given[role] = same[0]
            elif same:
                problems.append(self._problem(role, f"'{wanted}' may be {_listed(same)}", "write it as the file does"))
            else:
                problems.append(self._missing(role, wanted))
        twice = {name for name in given.values() if list(given.values()).count(name) > 1}
        for name in sorted(twice):
            roles = [role for role, column in given.items() if column == name]
            problems.append(
                self._problem(roles[1], f"'{name}' is {self.key}.{roles[0]} already", "name another column")
            )
        if problems:
            raise DataError(problems)
        return given

    def shape(self, given: Mapping[Role, str]) -> Shape:
        """The shape that the given columns ask for, or the only one that the names allow."""
        asked = [shape for shape in _SHAPE_ROLES if any(role in given for role in _SHAPE_ROLES[shape])]
        if not asked and "input" in given:
            asked = ["prompt_completion"]
        if len(asked) > 1:
            first, second = (next(role for role in _SHAPE_ROLES[shape] if role in given) for shape in asked[:2])
            what = f"cannot be set beside {self.key}.{first}: a row is either {_either(asked)}"
            raise DataError(self._problem(second, what, "set one of the two"))
        if asked:
            self._check_accepted(asked[0], given)
            return asked[0]
        possible = [shape for shape in self.accepts if self._is_possible(shape)]
        if len(possible) > 1:
            raise DataError(self._two_shapes(possible))
        if not possible:
            raise DataError(self._none_found())
        return possible[0]

    def choice(self, shape: Shape, given: Mapping[Role, str]) -> ColumnChoice:
        columns: dict[Role, str] = {}
        problems = []
        for role in _SHAPE_ROLES[shape] + _EXTRAS[shape]:
            found = [given[role]] if role in given else self._candidates(role, {*given.values(), *columns.values()})
            if len(found) > 1:
                problems.append(self._two_columns(role, found))
            elif found:
                columns[role] = found[0]
            elif role in _SHAPE_ROLES[shape]:
                problems.append(self._not_found(role))
        for role in given:
            if role not in _SHAPE_ROLES[shape] + _EXTRAS[shape]:
                what = f"has no effect: a row is {_SHAPE_WORDS[shape]}"
                problems.append(self._problem(role, what, "leave it out"))
        if problems:
            raise DataError(problems)
        return ColumnChoice(shape, columns, self._reason(columns, given))

    def check_values(self, choice: ColumnChoice) -> None:
        """Looks at the first rows: a column of another type than its role needs is no matter of single rows."""
        problems = []
        for role, column in choice.columns.items():
            for number, row in enumerate(self.rows, 1):
                value = row.get(column)
                wrong = "" if value is None else _messages_type(value) if role == "messages" else _text_type(value)
                if wrong:
                    wanted = "a list of messages" if role == "messages" else "text"
                    what = f"column '{column}' holds {wrong} in row {number}, where {wanted} is expected"
                    problems.append(self._problem(role, what, self._other_columns(role, column)))
                    break
            required = role in _SHAPE_ROLES[choice.shape]
            if required and self.rows and all(row.get(column) is None for row in self.rows):
                what = f"column '{column}' is null in each of the first {len(self.rows)} rows"
                problems.append(self._problem(role, what, self._other_columns(role, column)))
        if problems:
            raise DataError(problems)

    def _named(self, wanted: Sequence[str]) -> list[str]:
        known = {name.strip().lower() for name in wanted}
        return [name for name in self.names if name.strip().lower() in known]

    def _candidates(self, role: Role, taken: set[str]) -> list[str]:
        found = [name for name in self._named(NAMES[role]) if name not in taken]
        if role == "prompt" and not found:
            # Without an instruction of its own the input is what the model is asked.
            found = [name for name in self._named(("input",)) if name not in taken]
        elif role == "messages":
            found = [name for name in found if self._holds_messages(name)] or found
        return found

    def _holds_messages(self, name: str) -> bool:
        return any(row.get(name) is not None and not _messages_type(row[name]) for row in self.rows)

    def _is_possible(self, shape: Shape) -> bool:
        if shape == "messages":
            found = self._named(NAMES["messages"])
            return any(self._holds_messages(name) or not self.rows for name in found)
        return all(self._candidates(role, set()) for role in _SHAPE_ROLES[shape])

    def _reason(self, columns: Mapping[Role, str], given: Mapping[Role, str]) -> str:
        parts = [f"{role} is '{name}' ({'set' if role in given else 'by its name'})" for role, name in columns.items()]
        used = {*columns.values(), *(self._named(("tools",)) if "messages" in columns else [])}
        unused = [name for name in self.names if name not in used]
        return ", ".join(parts) + (f"; not used: {_listed(unused)}" if unused else "")

    def _problem(self, role: str, what: str, advice: str, fix: str = "") -> Problem:
        return Problem(f"{self.key}.{role}", what, advice, fix=fix)

    def _missing(self, role: Role, wanted: str) -> Problem:
        near = closest(wanted.strip(), self.names)
        fix = f"{self.key}.{role}={near}" if near else ""
        advice = f"did you mean '{near}'?" if near else "set it to one of them, or leave it out to find it by name"
        return self._problem(role, f"no column '{wanted}'; there is {_listed(self.names)}", advice, fix)

    def _not_found(self, role: Role) -> Problem:
        what = f"no column found for it; there is {_listed(self.names)}"
        return self._problem(role, what, f"set {self.key}.{role} to one of them{self._near(role)}")

    def _near(self, role: Role) -> str:
        known = [name for names in NAMES.values() for name in names]
        close = [name for name in self.names if closest(name.strip(), known) in NAMES[role]]
        return f" ({_listed(close)}?)" if close else ""

    def _two_columns(self, role: Role, found: Sequence[str]) -> Problem:
        settings = " or ".join(f"{self.key}.{role}={name}" for name in found)
        return self._problem(role, f"may be {_listed(found)}", f"set {settings}")

    def _two_shapes(self, shapes: Sequence[Shape]) -> Problem:
        found = {shape: [self._candidates(role, set())[0] for role in _SHAPE_ROLES[shape]] for shape in shapes}
        what = "the columns allow two answers: " + " or ".join(_listed(names) for names in found.values())
        roles = [(_SHAPE_ROLES[shape][0], names[0]) for shape, names in found.items()]
        settings = " or ".join(f"{self.key}.{role}={name}" for role, name in roles)
        return Problem(self.key, what, f"set {settings}")

    def _none_found(self) -> Problem:
        if "prompt_completion" in self.accepts:
            missing = [role for role in _SHAPE_ROLES["prompt_completion"] if not self._candidates(role, set())]
            if len(missing) == 1:
                return self._not_found(missing[0])
        wanted = _either(self.accepts)
        others = [shape for shape in _SHAPE_ROLES if shape not in self.accepts and self._is_possible(shape)]
        what = f"no column says what it is; there is {_listed(self.names)}"
        if others:
            what = f"the rows hold {_either(others)}, and this trainer takes {wanted}; there is {_listed(self.names)}"
        hints = []
        for shape in self.accepts:
            hints.append(" and ".join(f"{self.key}.{role}{self._near(role)}" for role in _SHAPE_ROLES[shape]))
        for name in self._named(NAMES["messages"]) if "messages" in self.accepts else ():
            value = next((row[name] for row in self.rows if row.get(name) is not None), None)
            what += f"; '{name}' holds {_messages_type(value) if value is not None else 'nothing'}, not messages"
        return Problem(self.key, what, "set " + ", or ".join(hints))

    def _check_accepted(self, shape: Shape, given: Mapping[Role, str]) -> None:
        if shape in self.accepts:
            return
        role = next(role for role in (*_SHAPE_ROLES[shape], "input") if role in given)
        what = f"this trainer takes {_either(self.accepts)}, not {_SHAPE_WORDS[shape]}"
        hints = " and ".join(f"{self.key}.{other}" for other in _SHAPE_ROLES[self.accepts[0]])
        raise DataError(self._problem(role, what, f"set {hints}, or another trainer"))

    def _other_columns(self, role: Role, column: str) -> str:
        fitting = _messages_type if role == "messages" else _text_type
        first = self.rows[0]
        others = [n for n in self.names if n != column and first.get(n) is not None and not fitting(first[n])]
        return f"set {self.key}.{role} to another column ({_listed(others)})" if others else "convert the column"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:20]) or "none"
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _either(shapes: Sequence[Shape]) -> str:
    return " or ".join(_SHAPE_WORDS[shape] for shape in shapes)


def _kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"true or false ({value})"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, str):
        return f"text ({value[:40]!r})"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def _text_type(value: Any) -> str:
    """What a value is when it is no text, else ''."""
    return "" if isinstance(value, str) else _kind(value)


def _messages_type(value: Any) -> str:
    """What a value is when it does not look like messages, else ''. The turns themselves are checked row by row."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _kind(value)
        if not isinstance(value, list):
            return f"JSON text of {_kind(value)}"
    if not isinstance(value, list):
        return _kind(value)
    strange = next((turn for turn in value if not isinstance(turn, dict)), None)
    return "" if strange is None else f"a list with {_kind(strange)} in it"


def check_messages(value: Any, place: object = None) -> list[dict[str, Any]]:
    """A conversation as [{"role", "content", ...}], from {role, content} or {from, value} turns, or JSON text of them.

    Roles become system, user, assistant and tool; content is text, or None in a turn with `tool_calls`. Other fields
    of a turn are kept unless they are null, which is how columnar files write fields that a turn lacks.
    Raises MessagesError with the turn, what was found, and `place` if given.
    """
    try:
        return [_turn(turn, number) for number, turn in enumerate(_turns(value), 1)]
    except MessagesError as error:
        raise (MessagesError(f"{place}: {error}") if place is not None else error) from None


def _turns(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise MessagesError(f"{_kind(value)} where a list of messages is expected") from None
    if not isinstance(value, list):
        raise MessagesError(f"{_kind(value)} where a list of messages is expected")
    if not value:
        raise MessagesError("an empty list of messages")
    return value


def _turn(turn: Any, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise MessagesError(f"message {number} is {_kind(turn)}, not an object with role and content")
    # Columnar files give every turn all fields of both dialects, null where it has none.
    speaker, content = ("role", "content") if turn.get("role") is not None else ("from", "value")
    if turn.get(speaker) is None:
        raise MessagesError(f"message {number} has neither 'role' nor 'from'; it has {_listed(list(turn))}")
    role = turn[speaker]
    known = CHAT_ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise MessagesError(f"message {number} has the unknown role {role!r}; there is {', '.join(CHAT_ROLES)}")
    text = turn.get(content)
    if text is None and not turn.get("tool_calls"):
        raise MessagesError(f"message {number} has no '{content}'; it has {_listed(list(turn))}")
    if text is not None and not isinstance(text, str):
        raise MessagesError(f"message {number} has {_kind(text)} as its '{content}', where text is expected")
    fields = {name: field for name, field in turn.items() if name not in (speaker, content) and field is not None}
    return {"role": known, "content": text, **fields}
