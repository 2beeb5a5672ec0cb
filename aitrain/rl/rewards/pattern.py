"""Rewards by the form of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import field_validator

from aitrain.errors import Problem
from aitrain.rl.rewards.built_in import BuiltIn, Terms
from aitrain.rl.settings import option


class Regex(BuiltIn):
    """1 where the pattern is found, else 0."""

    pattern: str
    """A regular expression of Python's; `.` matches line breaks too."""
    whole: bool = False
    """The answer as a whole has to match, without white space around it."""
    ignore_case: bool = False
    """Capitals make no difference."""

    def problems(self, key: str, terms: Terms) -> Iterator[Problem]:
        try:
            re.compile(self.pattern)
        except re.error as error:
            yield Problem(f"{key}.pattern", f"'{self.pattern}' is no regular expression: {error}")

    def score(self, text: str) -> float:
        flags = re.DOTALL | (re.IGNORECASE if self.ignore_case else 0)
        found = re.fullmatch(self.pattern, text.strip(), flags) if self.whole else re.search(self.pattern, text, flags)
        return float(found is not None)


class Format(BuiltIn):
    """1 where the answer is these tags, each once and in this order, with something inside and nothing between."""

    tags: list[str] = option(["think", "answer"], min_length=1)
    """Names of the tags: `think` stands for `<think>…</think>`."""

    @field_validator("tags")
    @classmethod
    def _names(cls, tags: list[str]) -> list[str]:
        wrong = [tag for tag in tags if not re.fullmatch(r"[\w-]+", tag)]
        if wrong or len(set(tags)) < len(tags):
            raise ValueError("should be different names of tags without brackets, as [think, answer]")
        return tags

    def score(self, text: str) -> float:
        rest = text.strip()
        for tag in self.tags:
            before, opened, rest = rest.partition(f"<{tag}>")
            inside, closed, rest = rest.partition(f"</{tag}>")
            if before.strip() or not opened or not closed or not inside.strip() or f"<{tag}>" in inside:
                return 0.0
        return float(not rest.strip())
