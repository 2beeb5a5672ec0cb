"""Messages and conversations as values, and datasets of the usual forms turned into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from aitrain.data.columns import CHAT_ROLES, MessagesError, check_messages, find_columns
from aitrain.data.encoding import UnusableRow, conversation, tools_of
from aitrain.data.rendering import RenderingError
from aitrain.data.weights import joined_parts
from aitrain.errors import DataError, Problem, did_you_mean

FIRST_ROWS = 20
ROLES = tuple(dict.fromkeys(CHAT_ROLES.values()))


@dataclass(frozen=True)
class Message:
    """One turn. Raises RenderingError when the role is unknown or there is nothing said."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str | None
    """What is said; None only in a turn that calls tools."""
    tool_calls: list[dict[str, Any]] | None = None
    """Calls of an assistant turn, as {"function": {"name", "arguments"}} or {"name", "arguments"}."""
    tool_call_id: str | None = None
    """The call that a tool's result belongs to."""
    name: str | None = None
    """Who speaks, or the tool's name."""
    weight: float | None = None
    """What the turn's tokens count, times what its role counts; 0 leaves them untrained."""
    input: str | None = None
    """A further text that belongs to the question, for which Alpaca's format has a place of its own."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields that a model's own template may read, such as `reasoning_content`."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise RenderingError(f"there is no role {self.role!r}; {did_you_mean(str(self.role), ROLES)}")
        if self.content is None and not self.tool_calls:
            raise RenderingError(f"a message of the {self.role} has no content")
        if self.content is not None and not isinstance(self.content, str):
            raise RenderingError(f"the content of a message is a {type(self.content).__name__}, not text")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Message:
        """A turn of {role, content} or {from, value}; content may be a list of text parts. Raises RenderingError."""
        try:
            (turn,) = check_messages(joined_parts([dict(values)]))
        except MessagesError as error:
            raise RenderingError(str(error)) from error
        own = {name: turn[name] for name in _FIELDS if name in turn}
        return cls(**own, extra={name: value for name, value in turn.items() if name not in _FIELDS})

    def to_dict(self) -> dict[str, Any]:
        """{role, content} and what else there is, as chat templates read it."""
        found = {name: getattr(self, name) for name in _FIELDS}
        return {**{name: value for name, value in found.items() if value is not None}, **self.extra}


_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "weight", "input")


@dataclass(frozen=True)
class Conversation:
    """Turns in order, and the tools that the assistant may call. Raises RenderingError when there is no turn."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        object.__setattr__(self, "tools", tuple(self.tools) if self.tools else None)
        if not self.messages:
            raise RenderingError("a conversation needs a message")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | list[Mapping[str, Any]]) -> Conversation:
        """A conversation of {"messages": […], "tools": […]}, or of a list of turns. Raises RenderingError."""
        turns = values.get("messages", values.get("conversations")) if isinstance(values, Mapping) else values
        try:
            checked = check_messages(joined_parts(turns))
        except MessagesError as error:
            raise RenderingError(str(error)) from error
        tools = values.get("tools") if isinstance(values, Mapping) else None
        return cls(tuple(map(Message.from_dict, checked)), tuple(tools) if tools else None)

    def to_dict(self) -> dict[str, Any]:
        """{"messages": […]} and "tools" if there are any."""
        found: dict[str, Any] = {"messages": self.turns()}
        return {**found, "tools": list(self.tools)} if self.tools else found

    def turns(self, *, input_apart: bool = True) -> list[dict[str, Any]]:
        """The messages as chat templates read them; without `input_apart` a message's input stands below its text."""
        turns = [message.to_dict() for message in self.messages]
        return turns if input_apart else [_with_input_below(turn) for turn in turns]


def _with_input_below(turn: dict[str, Any]) -> dict[str, Any]:
    further = turn.pop("input", None)
    return {**turn, "content": f"{turn['content']}\n\n{further}"} if further else turn


def convert_dataset_to_conversations(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None] | None = None
) -> Iterator[Conversation]:
    """Conversations of rows in any usual form: messages, ShareGPT's {from, value} turns, Alpaca's instruction, input
    and output, or questions and answers. `columns` names columns by what they mean, as `data.columns` does.

    Raises DataError when the columns are not clear, and for a row that holds no conversation, with its number.
    """
    remaining = iter(rows)
    head = [dict(row) for row in islice(remaining, FIRST_ROWS)]
    if not head:
        return
    names = list(dict.fromkeys(name for row in head for name in row))
    choice = find_columns(names, head, columns or {}, ("messages", "prompt_completion"), "columns")
    for number, row in enumerate(chain(head, map(dict, remaining)), 1):
        try:
            messages = conversation(choice, row, input_apart=True)
            tools = tools_of(choice, row)
            yield Conversation(tuple(map(Message.from_dict, messages)), tuple(tools) if tools else None)
        except (MessagesError, UnusableRow, RenderingError) as error:
            raise DataError(Problem(f"row {number}", str(error))) from error
