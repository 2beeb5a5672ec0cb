"""`math`: problems with a result that can be checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aitrain.errors import Problem
from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment, Options, no_reward
from aitrain.rl.rewards.combine import Specs, Weights, by_name
from aitrain.rl.settings import option

MARKED = r"####\s*\S|\\boxed\s*\{|\banswer(\s+is)?\s*[:=]|\banswer\s+is\b"


class MathOptions(Options):
    answer: str = "answer"
    """The column of right answers."""
    tolerance: float = option(1e-6, ge=0, lt=1)
    """How far off a number may be, as a share of the right one."""
    format: str = MARKED
    """A regular expression for answers that say what their result is: `#### 4`, `\\boxed{4}`, `Answer: 4`."""


class Math(BuiltInEnvironment):
    """`correct` counts 1, `format` 0.1, so that a model learns first to say its result, and then the right one."""

    options_class = MathOptions

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        rewards = {
            "correct": {"name": "correctness", "answer": options.answer, "tolerance": options.tolerance},
            "format": {"name": "regex", "pattern": options.format, "ignore_case": True},
        }
        return (
            rewards,
            {"correct": 1.0, "format": 0.1, **by_name(asked.weights, list(rewards))},
            f"{asked.key}.env_config",
        )

    @classmethod
    def own_problems(cls, options: Any, asked: Asked) -> Iterable[Problem]:
        return no_reward("math", asked, "choose rl=text_generation with it, or rl=multi_objective for several")
