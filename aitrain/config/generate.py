"""`generate`: the fixed prompts answered at each evaluation, shown over time in the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aitrain.config.section import Section, key
from aitrain.config.train import no_evaluation
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
        if none := no_evaluation(run):
            for name in type(self).model_fields:
                if none.wastes(run, f"generate.{name}") and getattr(self, name):  # count=0 asks for nothing
                    yield Problem(f"generate.{name}", f"has no effect: {none.why}", none.cure)
        elif self._answers_nothing() and run.strength("generate.max_new_tokens") >= max(
            1, run.strength("generate.count"), run.strength("generate.prompts")
        ):
            yield Problem("generate.max_new_tokens", "has no effect, no prompt is answered", "set generate.count")

    def _answers_nothing(self) -> bool:
        return self.prompts == [] or (self.prompts is None and self.count == 0)
