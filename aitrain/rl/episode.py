"""What happened between a prompt and its score: one object an answer, which holds all state of an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""`{"role": ..., "content": ...}`, as chat templates take it."""
Text = str | list[Message]
"""A plain text, or a conversation."""


@dataclass
class Episode:
    """One prompt and all that followed. An environment serves many of these at once and keeps nothing itself."""

    prompt: Text
    """As the data have it: text or conversation."""
    columns: Mapping[str, Any]
    """The other columns of the row."""
    turns: list[Message] = field(default_factory=list)
    """What followed: turns of the assistant and, between them, of the environment."""
    ended: bool = True
    """The last answer ended by itself (end of sequence or a stop string), not at the limit of new tokens."""
    state: dict[str, Any] = field(default_factory=dict)
    """What an environment wants to remember between two turns of this episode."""
    tool_calls: int = 0
    """Calls of tools so far."""
    tool_errors: int = 0
    """How many of them were answered with an error."""

    @property
    def completion(self) -> str:
        """The text of the last turn of the assistant, or an empty text."""
        return answer_of(self.turns)

    @property
    def answers(self) -> int:
        """How many turns the assistant took."""
        return sum(turn.get("role") == "assistant" for turn in self.turns)


@dataclass(frozen=True)
class Step:
    """What an environment says to an answer."""

    messages: Sequence[Message] = ()
    """Shown to the model (role user, tool, …), never trained on."""
    done: bool = True
    """The episode is over."""


def answer_of(completion: str | Sequence[Message]) -> str:
    """The text of an answer: itself, or that of the assistant's last turn."""
    if isinstance(completion, str):
        return completion
    return next((text_of(turn) for turn in reversed(completion) if turn.get("role") == "assistant"), "")


def text_of(message: Message) -> str:
    """The text of a message whose content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or () if isinstance(part, Mapping))


def question_of(prompt: str | Sequence[Message]) -> str:
    """A prompt as one text: itself, or what its last message says."""
    if isinstance(prompt, str):
        return prompt
    return text_of(prompt[-1]) if prompt else ""
