"""Reward for an answer that is better than a reference answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import model_validator

from aitrain.errors import Problem
from aitrain.rl.episode import Text
from aitrain.rl.rewards.built_in import BuiltIn, Reward, Terms, column


class Preference(BuiltIn):
    """How likely the answer is better than the reference, 0 to 1.

    Either a `reward` scores both and the logistic function of the difference counts (Bradley and Terry), or a function
    of the user's compares them itself.
    """

    reward: Any = None
    """What scores both answers: a reward model's path, a built-in reward, or `file.py:function`."""
    compare: str | None = None
    """`file.py:function` with `(prompts, completions, references, **columns) -> list[float]`, values from 0 to 1."""
    reference: str = "reference"
    """The column of reference answers."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Preference:
        if (self.reward is None) == (self.compare is None):
            raise ValueError(
                "needs either reward (what scores both answers) or compare (a function that compares them)"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.reference,)

    def problems(self, key: str, terms: Terms) -> Iterator[Problem]:
        from aitrain.rl.rewards.combine import reward_problems
        from aitrain.rl.rewards.custom import Custom

        if self.reward is not None:
            yield from reward_problems(self.reward, f"{key}.reward", terms)
        if self.compare is not None:
            yield from Custom(function=self.compare).problems(f"{key}.compare", terms)

    def load(self, terms: Terms) -> Reward:
        from aitrain.rl.rewards.combine import load_reward, values_of
        from aitrain.rl.rewards.custom import Custom

        if self.compare is not None:
            compare = Custom(function=self.compare).load(terms)

            def compared(prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
                references = _like(completions, column(columns, self.reference))
                found = values_of(compare, prompts, completions, {**columns, "references": references})
                return [value if 0 <= value <= 1 else math.nan for value in found]

            return compared
        scorer = load_reward(self.reward, terms)

        def preferred(prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
            references = _like(completions, column(columns, self.reference))
            others = {name: list(values) * 2 for name, values in columns.items()}
            scores = values_of(scorer, prompts * 2, completions + references, others)
            half = len(completions)
            return [_logistic(mine - theirs) for mine, theirs in zip(scores[:half], scores[half:], strict=True)]

        return preferred

    def files(self) -> dict[str, str]:
        from aitrain.rl.rewards.combine import reward_files
        from aitrain.rl.rewards.custom import Custom

        return Custom(function=self.compare).files() if self.compare is not None else reward_files(self.reward)


def _like(completions: list[Text], references: list[Any]) -> list[Text]:
    """References in the form of the completions: texts, or lists with one turn of the assistant."""
    return [
        [{"role": "assistant", "content": reference}]
        if isinstance(reference, str) and not isinstance(completion, str)
        else reference
        for completion, reference in zip(completions, references, strict=True)
    ]


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
