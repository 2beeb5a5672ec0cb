"""Rewards by how long an answer is."""

from __future__ import annotations

from typing import Literal

from aitrain.rl.rewards.built_in import BuiltIn
from aitrain.rl.settings import option

Unit = Literal["words", "characters"]


def measured(text: str, unit: Unit) -> int:
    """Words between white space, or characters."""
    return len(text.split()) if unit == "words" else len(text)


class Default(BuiltIn):
    """A hundredth for each word, 1 at most: something to see training move with, no measure of quality."""

    words: int = option(100, gt=0)
    """Words that earn 1."""

    def score(self, text: str) -> float:
        return min(1.0, measured(text, "words") / self.words)


class Length(BuiltIn):
    """With a target: 1 at the target, falling evenly to 0 at nothing and at twice the target. Without: as `default`."""

    target: int | None = option(None, gt=0)
    """The length that earns 1."""
    per: int = option(100, gt=0)
    """Without a target: the length that earns 1."""
    cap: float = option(1.0, gt=0)
    """Without a target: the most that can be earned."""
    unit: Unit = "words"
    """What is counted."""

    def score(self, text: str) -> float:
        length = measured(text, self.unit)
        if self.target is None:
            return min(self.cap, length / self.per)
        return max(0.0, 1.0 - abs(length - self.target) / self.target)


class LengthPenalty(BuiltIn):
    """0 up to the limit, then falling evenly to -1 at twice the limit."""

    limit: int = option(100, gt=0)
    """The longest answer that costs nothing."""
    unit: Unit = "words"
    """What is counted."""

    def score(self, text: str) -> float:
        return -min(1.0, max(0, measured(text, self.unit) - self.limit) / self.limit)
