"""`multi_objective`: several rewards with names and weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aitrain.errors import Problem
from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment, Options
from aitrain.rl.rewards.combine import Specs, Weights
from aitrain.rl.settings import option

EXAMPLE = "write {short: {name: length, target: 40}, polite: {name: keyword, keywords: [please]}}"


class MultiObjectiveOptions(Options):
    reward_components: dict[str, Any] = option({})
    """Each component's name and its reward. Empty: those of `rl.reward_fn`."""


class MultiObjective(BuiltInEnvironment):
    """The total is the weighted sum of `reward_components`; each one is logged."""

    options_class = MultiObjectiveOptions

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        if options.reward_components:
            return options.reward_components, asked.weights, f"{asked.key}.env_config.reward_components"
        return asked.reward or (), asked.weights, f"{asked.key}.reward_fn"

    @classmethod
    def own_problems(cls, options: Any, asked: Asked) -> Iterable[Problem]:
        key = f"{asked.key}.env_config.reward_components"
        if not options.reward_components and asked.reward is None:
            yield Problem(key, "holds no component", EXAMPLE)
        if options.reward_components and asked.reward is not None:
            yield Problem(f"{asked.key}.reward_fn", f"has no effect beside {key}", "remove one of them")
