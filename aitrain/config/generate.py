"""`generate`: the fixed prompts answered at each evaluation, shown over time in the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aitrain.config.section import Section, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


class Generate(Section):
    """Answers generated (greedily) at each evaluation."""

    count: int = key(ge=0)
    """How many prompts to answer, taken from the validation rows. 0: none."""
    prompts: list[str] | None
    """Prompts to answer instead of those of validation rows."""
    max_new_tokens: int = key(gt=0)
    """Longest answer in tokens."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.prompts is not None and "generate.count" in run.given:
            yield Problem("generate.count", "has no effect beside generate.prompts", "set one of the two")
        if self.prompts is not None and not all(text.strip() for text in self.prompts):
            yield Problem("generate.prompts", "holds an empty prompt", "leave it out")
