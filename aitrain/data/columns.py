"""What the columns of conversation and text data mean: found by name, checked against the first rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from aitrain.data.names import closest
from aitrain.data.transcripts import transcript
from aitrain.errors import DataError, Problem

Shape = Literal["messages", "prompt_completion", "text", "pairs", "unpaired", "prompts",
                "text_target", "word_tags", "table"]  # fmt: skip
"""What rows are. `text_target`: a text and what is to be predicted of it; `word_tags`: words with a tag each, or a text
with spans; such tasks have fields of their own."""
Role = Literal["prompt", "input", "completion", "messages", "system", "text", "chosen", "rejected", "label", "margin",
               "text_pair", "tokens", "tags", "context", "question", "answers", "id"]  # fmt: skip

NAMES: dict[Role, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query"),
    "input": ("input", "context"),
    "completion": ("completion", "response", "output", "answer"),
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat"),
    "system": ("system", "system_prompt"),
    "text": ("text", "content"),
    "chosen": ("chosen", "preferred", "chosen_response"),
    "rejected": ("rejected", "dispreferred", "rejected_response"),
    "label": ("label", "desirable", "is_chosen", "kto_tag"),
    "margin": ("margin",),
}
"""Column names that say a role by themselves, compared in lower case and without space around them."""

_SHAPE_ROLES: dict[Shape, tuple[Role, ...]] = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "text": ("text",),
    "pairs": ("chosen", "rejected"),
    "unpaired": ("completion", "label"),
    "prompts": ("prompt",),
}
"""Roles a shape cannot do without."""
_EXTRAS: dict[Shape, tuple[Role, ...]] = {
    "messages": ("system",),
    "prompt_completion": ("input", "system"),
    "text": (),
    "pairs": ("prompt", "input", "system", "margin"),
    "unpaired": ("prompt", "input", "system"),
    "prompts": ("input", "system"),
}
_TELLING: dict[Shape, tuple[Role, ...]] = {
    "messages": ("messages",),
    "text": ("text",),
    "pairs": ("chosen", "rejected", "margin"),
    "unpaired": ("label",),
}
"""Roles that say by themselves which shape is meant; a prompt and a completion are part of several."""
_PREFERENCES: tuple[Shape, ...] = ("pairs", "unpaired")
"""Shapes whose prompt and answers may be text, messages or transcripts."""
_SAID: tuple[Shape, ...] = (*_PREFERENCES, "prompt_completion", "prompts")
"""Shapes whose prompt and answers may be text or messages."""
_SHAPE_WORDS: dict[Shape, str] = {
    "messages": "a column of messages",
    "prompt_completion": "a prompt and a completion column",
    "text": "a column of text",
    "pairs": "a chosen and a rejected column",
    "unpaired": "a completion and a label column",
    "prompts": "a prompt column",
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
    targets: tuple[str, ...] = ()
    """Columns with what is to be predicted, of a task that predicts something of a row."""

    @property
    def described(self) -> str:
        """The columns by role, as they are printed."""
        parts = [f"{role}={name}" for role, name in self.columns.items()]
        return ", ".join([*parts, f"target={','.join(self.targets)}"] if self.targets else parts)


class MessagesError(ValueError):
    """A value is no conversation."""


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | None],
    accepts: Sequence[Shape],
    key: str = "data.columns",
    key_of: Mapping[str, str] | None = None,
    takers: Mapping[Shape, Sequence[str]] | None = None,
) -> ColumnChoice:
    """Decides what each column means, from the user's choice (role to name, None: find it) and the names.

    `accepts` are the shapes that the trainer takes; `key_of` has the keys of roles that were not chosen under `key`,
    and `takers` the words that choose a trainer of other shapes (`trainer=dpo`), the most usual first. Raises DataError
    when a chosen column is not there, when names allow two answers or none, and when the first rows hold values of
    another type than the role needs.
    """
    search = _Search(tuple(names), first_rows, tuple(accepts), key, key_of or {}, takers or {})
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
    key_of: Mapping[str, str]
    takers: Mapping[Shape, Sequence[str]]

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
                problems.append(self._problem(role, f"'{wanted}' may be {listed(same)}", "write it as the file does"))
            else:
                problems.append(self._missing(role, wanted))
        twice = {name for name in given.values() if list(given.values()).count(name) > 1}
        for name in sorted(twice):
            roles = [role for role, column in given.items() if column == name]
            problems.append(
                self._problem(roles[1], f"'{name}' is {self._key(roles[0])} already", "name another column")
            )
        if problems:
            raise DataError(problems)
        return given

    def shape(self, given: Mapping[Role, str]) -> Shape:
        """The shape that the given columns ask for, or the only one that the names allow."""
        asked, accepts = self._asked(given)
        if len(asked) > 1:
            first, second = (next(role for role in _roles(shape) if role in given) for shape in asked[:2])
            what = f"cannot be set beside {self._key(first)}: a row is either {_either(asked)}"
            raise DataError(self._problem(second, what, "set one of the two"))
        if asked:
            self._check_accepted(asked[0], given)
            return asked[0]
        possible = [shape for shape in accepts if self._is_possible(shape)]
        if len(possible) > 1:
            raise DataError(self._two_shapes(possible))
        if not possible:
            raise DataError(self._none_found())
        return possible[0]

    def _asked(self, given: Mapping[Role, str]) -> tuple[list[Shape], tuple[Shape, ...]]:
        """The shapes that the given columns ask for, and those among which the names decide where none is."""
        asked = [shape for shape, roles in _TELLING.items() if any(role in given for role in roles)]
        shared = {role for role in ("prompt", "completion") if role in given}
        if not asked and "input" in given:
            shared = shared or {"input"}
        if not shared or any(shared <= {*_roles(shape)} for shape in asked):
            return asked, self.accepts
        fitting = tuple(shape for shape in self.accepts if shared <= {*_roles(shape)})
        if not asked and len(fitting) > 1:
            return [], fitting
        wanted = {*asked, *(fitting if not asked and fitting else ("prompt_completion",))}
        return [shape for shape in _SHAPE_ROLES if shape in wanted], self.accepts

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
        if "input" in columns and "prompt" not in columns and "prompt" not in _SHAPE_ROLES[shape]:
            if "input" in given:
                problems.append(self._problem("input", "has no effect without a prompt", f"set {self.key}.prompt too"))
            del columns["input"]
        if problems:
            raise DataError(problems)
        return ColumnChoice(shape, columns, self._reason(shape, columns, given))

    def check_values(self, choice: ColumnChoice) -> None:
        """Looks at the first rows: a column of another type than its role needs is no matter of single rows."""
        problems = []
        for role, column in choice.columns.items():
            wrong_type, wanted = _expected(role, choice.shape)
            for number, row in enumerate(self.rows, 1):
                value = row.get(column)
                wrong = "" if value is None else wrong_type(value)
                if wrong:
                    what = f"column '{column}' holds {wrong} in row {number}, where {wanted} is expected"
                    problems.append(self._problem(role, what, self._cure(choice, role, wrong_type)))
                    break
            required = role in _SHAPE_ROLES[choice.shape]
            if required and self.rows and all(row.get(column) is None for row in self.rows):
                what = f"column '{column}' is null in each of the first {len(self.rows)} rows"
                problems.append(self._problem(role, what, self._cure(choice, role, wrong_type)))
        if problems:
            raise DataError(problems)
        self._check_prompt(choice)

    def _check_prompt(self, choice: ColumnChoice) -> None:
        """Answers that are plain text do not say what they answer; that is no matter of single rows either."""
        if choice.shape not in _PREFERENCES or "prompt" in choice.columns or not self.rows:
            return
        columns = [choice.columns[role] for role in _SHAPE_ROLES[choice.shape] if role != "label"]
        values = [value for row in self.rows for column in columns if (value := row.get(column)) is not None]
        if any(not isinstance(value, str) or not _messages_type(value) or transcript(value) for value in values):
            return
        holds = "hold" if len(columns) > 1 else "holds"
        what = f"no column found for it, and {listed(columns)} {holds} plain text, which does not say what it answers"
        others = [name for name in self.names if name not in choice.columns.values()]
        where = f"set {self.key}.prompt to one of {listed(others)}" if others else "add a column with the prompts"
        raise DataError(self._problem("prompt", what, where + self._near("prompt")))

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

    def _reason(self, shape: Shape, columns: Mapping[Role, str], given: Mapping[Role, str]) -> str:
        parts = [f"{role} is '{name}' ({'set' if role in given else 'by its name'})" for role, name in columns.items()]
        turns = [columns[role] for role in ("prompt", "completion") if role in columns]
        has_tools = any(role in columns for role in ("messages", "chosen", "label")) or any(
            isinstance(row.get(name), list | dict) for row in self.rows for name in turns
        )
        used = {*columns.values(), *(self._named(("tools",)) if has_tools else [])}
        unused = [name for name in self.names if name not in used]
        rest = "for rewards" if shape == "prompts" else "not used"
        return ", ".join(parts) + (f"; {rest}: {listed(unused)}" if unused else "")

    def _key(self, role: str) -> str:
        return self.key_of.get(role, f"{self.key}.{role}")

    def _problem(self, role: str, what: str, advice: str, fix: str = "") -> Problem:
        return Problem(self._key(role), what, advice, fix=fix)

    def _missing(self, role: Role, wanted: str) -> Problem:
        near = closest(wanted.strip(), self.names)
        fix = f"{self._key(role)}={near}" if near else ""
        advice = f"did you mean '{near}'?" if near else "set it to one of them, or leave it out to find it by name"
        where = ""
        if role in self.key_of:  # said for all sources; this one has a place to say it for itself
            where, one = f" in {self.key.rpartition('.')[0]}", f"'{near}'" if near else "one of them"
            advice = f"name {one} in {self.key}.{role} for this source alone"
        return self._problem(role, f"no column '{wanted}'{where}; there is {listed(self.names)}", advice, fix)

    def _not_found(self, role: Role) -> Problem:
        what = f"no column found for it; there is {listed(self.names)}"
        return self._problem(role, what, f"set {self.key}.{role} to one of them{self._near(role)}")

    def _near(self, role: Role) -> str:
        known = [name for names in NAMES.values() for name in names]
        close = [name for name in self.names if closest(name.strip(), known) in NAMES[role]]
        return f" ({listed(close)}?)" if close else ""

    def _two_columns(self, role: Role, found: Sequence[str]) -> Problem:
        settings = " or ".join(f"{self.key}.{role}={name}" for name in found)
        return self._problem(role, f"may be {listed(found)}", f"set {settings}")

    def _two_shapes(self, shapes: Sequence[Shape]) -> Problem:
        found = {shape: [self._candidates(role, set())[0] for role in _SHAPE_ROLES[shape]] for shape in shapes}
        what = "the columns allow two answers: " + " or ".join(listed(names) for names in found.values())
        roles = [(_SHAPE_ROLES[shape][0], names[0]) for shape, names in found.items()]
        settings = " or ".join(f"{self.key}.{role}={name}" for role, name in roles)
        return Problem(self.key, what, f"set {settings}")

    def _none_found(self) -> Problem:
        others = self._other_shapes()
        advice, fix = self._other_trainer(others)
        for shape in self.accepts:
            missing = [role for role in _SHAPE_ROLES[shape] if not self._candidates(role, set())]
            # One of two columns is there; but rows that are whole in another way are meant in that way.
            if 0 < len(missing) < len(_SHAPE_ROLES[shape]) and not any(other in _PREFERENCES for other in others):
                found = self._not_found(missing[0])
                return replace(found, advice=f"{found.advice}, or {advice}", fix=fix) if advice else found
        wanted = _either(self.accepts)
        what = f"no column says what it is; there is {listed(self.names)}"
        if others:
            what = f"the rows hold {_either(others)}, and this trainer takes {wanted}; there is {listed(self.names)}"
        hints = []
        for shape in self.accepts:
            hints.append(" and ".join(f"{self.key}.{role}{self._near(role)}" for role in _SHAPE_ROLES[shape]))
        for name in self._named(NAMES["messages"]) if "messages" in self.accepts else ():
            value = next((row[name] for row in self.rows if row.get(name) is not None), None)
            what += f"; '{name}' holds {_messages_type(value) if value is not None else 'nothing'}, not messages"
        settings = "set " + ", or ".join(hints)
        return Problem(self.key, what, f"{advice}, or {settings}" if advice else settings, fix=fix)

    def _other_shapes(self) -> list[Shape]:
        """Shapes that the rows have and the trainer does not take, those that say what they are first; none that is
        but a part of another."""
        found = [shape for shape in _SHAPE_ROLES if shape not in self.accepts and self._is_possible(shape)]
        whole = [s for s in found if not any({*_SHAPE_ROLES[s]} < {*_roles(o)} for o in found if o != s)]
        return sorted(whole, key=lambda shape: shape not in _TELLING)

    def _other_trainer(self, shapes: Sequence[Shape]) -> tuple[str, str]:
        """What to do so that the rows fit the trainer, and the word for it; '' where no trainer takes them."""
        words = list(dict.fromkeys(word for shape in shapes for word in self.takers.get(shape, ())))
        if not words:
            return "", ""
        more = f" (or {', '.join(word.partition('=')[2] for word in words[1:])})" if len(words) > 1 else ""
        return f"choose {words[0]}{more}", words[0]

    def _check_accepted(self, shape: Shape, given: Mapping[Role, str]) -> None:
        if shape in self.accepts:
            return
        role = next(role for role in _roles(shape) if role in given)
        what = f"this trainer takes {_either(self.accepts)}, not {_SHAPE_WORDS[shape]}"
        hints = " and ".join(f"{self.key}.{other}" for other in _SHAPE_ROLES[self.accepts[0]])
        advice, fix = self._other_trainer([shape])
        raise DataError(self._problem(role, what, f"{advice or 'choose another trainer'}, or set {hints}", fix))

    def _cure(self, choice: ColumnChoice, role: Role, wrong_type: Callable[[Any], str]) -> str:
        """What to do about a column of a wrong type: other values in it, or another column that has no role yet."""
        first, taken = self.rows[0], choice.columns.values()
        others = [n for n in self.names if n not in taken and first.get(n) is not None and not wrong_type(first[n])]
        another = f"set {self.key}.{role} to another column ({listed(others)})" if others else ""
        if role == "label":
            return "write true or false (or 1 or 0) in it" + (f", or {another}" if another else "")
        return another or "convert the column"


def _roles(shape: Shape) -> tuple[Role, ...]:
    return _SHAPE_ROLES[shape] + _EXTRAS[shape]


def _expected(role: Role, shape: Shape) -> tuple[Callable[[Any], str], str]:
    """What tells a value that a role cannot hold, and what it should hold in words."""
    if role == "messages":
        return _messages_type, "a list of messages"
    if role == "label":
        return _label_type, LABELS
    if role == "margin":
        return _number_type, "a number"
    if shape in _SAID and role in ("prompt", "completion", "chosen", "rejected"):
        return _said_type, "text or messages"
    return _text_type, "text"


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first twenty of many."""
    shown = ", ".join(f"'{name}'" for name in names[:20]) or "none"
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _either(shapes: Sequence[Shape]) -> str:
    return " or ".join(_SHAPE_WORDS[shape] for shape in shapes)


def kind_of(value: Any) -> str:
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
    return "" if isinstance(value, str) else kind_of(value)


def _messages_type(value: Any) -> str:
    """What a value is when it does not look like messages, else ''. The turns themselves are checked row by row."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return kind_of(value)
        if not isinstance(value, list):
            return f"JSON text of {kind_of(value)}"
    if not isinstance(value, list):
        return kind_of(value)
    strange = next((turn for turn in value if not isinstance(turn, dict)), None)
    return "" if strange is None else f"a list with {kind_of(strange)} in it"


def _said_type(value: Any) -> str:
    """What a value is when it is neither text nor a message nor a list of them, else ''."""
    if isinstance(value, str | dict):
        return ""
    return _messages_type(value)


def _label_type(value: Any) -> str:
    return "" if read_label(value) is not None else kind_of(value)


def _number_type(value: Any) -> str:
    return "" if read_number(value) is not None else kind_of(value)


LABELS = "true or false, or 1 or 0,"
"""The labels that `read_label` knows, in the words of an error."""


def read_label(value: Any) -> bool | None:
    """A label as true or false, from these or 1 and 0, or their text where a file holds nothing but text, as CSV does.

    None for anything else: words such as 'good', a rating and a score say nothing about where wanted begins.
    """
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def read_number(value: Any) -> float | None:
    """A number, or its text where a file holds nothing but text, as CSV does; None for anything else.

    It may be infinite or no number (NaN), which JSON and CSV can both hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


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
            raise MessagesError(f"{kind_of(value)} where a list of messages is expected") from None
    if not isinstance(value, list):
        raise MessagesError(f"{kind_of(value)} where a list of messages is expected")
    if not value:
        raise MessagesError("an empty list of messages")
    return value


def _turn(turn: Any, number: int) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise MessagesError(f"message {number} is {kind_of(turn)}, not an object with role and content")
    # Columnar files give every turn all fields of both dialects, null where it has none.
    speaker, content = ("role", "content") if turn.get("role") is not None else ("from", "value")
    if turn.get(speaker) is None:
        raise MessagesError(f"message {number} has neither 'role' nor 'from'; it has {listed(list(turn))}")
    role = turn[speaker]
    known = CHAT_ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise MessagesError(f"message {number} has the unknown role {role!r}; there is {', '.join(CHAT_ROLES)}")
    text = turn.get(content)
    if text is None and not turn.get("tool_calls"):
        raise MessagesError(f"message {number} has no '{content}'; it has {listed(list(turn))}")
    if text is not None and not isinstance(text, str):
        raise MessagesError(f"message {number} has {kind_of(text)} as its '{content}', where text is expected")
    fields = {name: field for name, field in turn.items() if name not in (speaker, content) and field is not None}
    return {"role": known, "content": text, **fields}
