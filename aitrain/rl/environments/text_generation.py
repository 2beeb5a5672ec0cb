"""`text_generation`: the data's prompts, scored by the reward that was chosen."""

from __future__ import annotations

from typing import Any

from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment
from aitrain.rl.rewards.combine import Specs, Weights


class TextGeneration(BuiltInEnvironment):
    """Answers are scored by `rl.reward_fn`; without one by the reward `default`."""

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        return "default" if asked.reward is None else asked.reward, asked.weights, f"{asked.key}.reward_fn"
