"""What every built-in reward is: a frozen object made of its options, called like any reward.

A reward is a function `(prompts, completions, **columns) -> list[float]`, TRL's convention: a completion is a text
where the prompt is one, else the list of messages that followed; further columns of the rows come as lists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aitrain.errors import Problem
from aitrain.rl.episode import Text, answer_of
from aitrain.rl.settings import Settings

Scores = Sequence[float]
Reward = Callable[..., Scores | Awaitable[Scores]]


class ModelReward(Protocol):
    """A reward model as a reward: scores whole conversations, several at a time. Supplied by what loads models."""

    def __call__(self, prompts: list[Text], completions: list[Text], **columns: Any) -> Scores: ...


@dataclass(frozen=True)
class Terms:
    """Under which terms rewards are loaded, and what happens when one of them fails."""

    allow_code_execution: bool = False
    """Programs that a model wrote may be run on this machine."""
    load_model: Callable[[str], ModelReward] | None = None
    """Makes a reward of a reward model's path."""
    on_error: Literal["raise", "penalty"] = "raise"
    """What a faulty reward leads to: the end of the run, or a counted penalty in its place."""
    penalty: float = -1.0
    """The value that stands in for a faulty one."""


class BuiltIn(Settings):
    """A reward that is chosen by its name. Most score one answer after another: they only define `score`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the rows that it reads."""
        return ()

    def problems(self, key: str, terms: Terms) -> Iterator[Problem]:
        """What stands against it, besides options of a wrong type."""
        return iter(())

    def load(self, terms: Terms) -> Reward:
        """The reward itself."""
        return self

    def files(self) -> dict[str, str]:
        """The user's files that it stands on, with their sha256."""
        return {}

    def score(self, text: str) -> float:
        """The value of one answer."""
        raise NotImplementedError

    def __call__(
        self, prompts: list[Text], completions: list[Text], **columns: Any
    ) -> list[float] | Awaitable[list[float]]:
        return [self.score(answer_of(completion)) for completion in completions]


def column(columns: Mapping[str, Any], name: str) -> list[Any]:
    """A column by its name; a missing one is said in words."""
    if name not in columns:
        there = ", ".join(sorted(columns)) or "none"
        raise LookupError(f"needs the column '{name}'; the rows have {there}")
    return list(columns[name])
