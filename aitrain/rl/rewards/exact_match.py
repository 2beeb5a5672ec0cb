"""Reward for the very text of a column."""

from __future__ import annotations

from typing import Any

from aitrain.rl.episode import Text, answer_of
from aitrain.rl.rewards.built_in import BuiltIn, column


class ExactMatch(BuiltIn):
    """1 where the answer is the text of a column, without white space around either, else 0."""

    answer: str = "answer"
    """The column of right answers. An entry that is a list holds several."""
    ignore_case: bool = False
    """Capitals make no difference."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.answer,)

    def _plain(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()

    def __call__(self, prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
        wanted = column(columns, self.answer)
        return [
            float(self._plain(answer_of(given)) in {self._plain(str(one)) for one in _several(right)})
            for given, right in zip(completions, wanted, strict=True)
        ]


def _several(right: Any) -> list[Any]:
    return list(right) if isinstance(right, list | tuple) else [right]
