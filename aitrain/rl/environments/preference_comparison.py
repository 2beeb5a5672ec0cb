"""`preference_comparison`: answers have to be better than a reference answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aitrain.errors import Problem
from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment, Options
from aitrain.rl.rewards.combine import Specs, Weights


class PreferenceComparisonOptions(Options):
    preference_model: Any = None
    """What scores both answers: a reward model's path, a built-in reward or `file.py:function`. null: `reward_fn`."""
    compare: str | None = None
    """`file.py:function` that compares them itself; see the reward `preference`."""
    reference: str = "reference"
    """The column of reference answers."""


class PreferenceComparison(BuiltInEnvironment):
    """The score is how likely the answer is better than the row's reference."""

    options_class = PreferenceComparisonOptions

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        scorer = options.preference_model if options.preference_model is not None else asked.reward
        spec: dict[str, Any] = {"name": "preference", "reference": options.reference}
        spec |= {"compare": options.compare} if options.compare is not None else {"reward": scorer}
        return {"preference": spec}, asked.weights, f"{asked.key}.env_config"

    @classmethod
    def own_problems(cls, options: Any, asked: Asked) -> Iterable[Problem]:
        given = {"preference_model": options.preference_model, "compare": options.compare, "reward_fn": asked.reward}
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) != 1:
            what = f"{' and '.join(chosen)} are both set" if chosen else "nothing compares the answers"
            advice = "set one of preference_model (a reward model's path), compare (FILE.py:FUNCTION), rl.reward_fn"
            yield Problem(f"{asked.key}.env_config.preference_model", what, advice)
