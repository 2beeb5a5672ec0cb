"""Reward by words that an answer should hold."""

from __future__ import annotations

import re
from typing import Literal

from aitrain.rl.rewards.built_in import BuiltIn
from aitrain.rl.settings import option


class Keyword(BuiltIn):
    """The share of the keywords that occur."""

    keywords: list[str] = option(..., min_length=1)
    """What is looked for."""
    count: Literal["share", "number", "any", "all"] = "share"
    """`share` of them, their `number`, or 1 where `any` or `all` of them occur."""
    whole_words: bool = True
    """`cat` is not found in `concatenate`."""
    ignore_case: bool = True
    """Capitals make no difference."""

    def score(self, text: str) -> float:
        edge = r"(?<!\w)", r"(?!\w)"
        left, right = edge if self.whole_words else ("", "")
        flags = re.IGNORECASE if self.ignore_case else 0
        found = sum(re.search(left + re.escape(word) + right, text, flags) is not None for word in self.keywords)
        by = {
            "share": found / len(self.keywords),
            "number": found,
            "any": found > 0,
            "all": found == len(self.keywords),
        }
        return float(by[self.count])
