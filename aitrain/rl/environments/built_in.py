"""What the built-in environments share: typed options, and a score made of rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aitrain.errors import ConfigError, Problem
from aitrain.rl.environment import Environment
from aitrain.rl.episode import Episode
from aitrain.rl.reference import fingerprint, is_reference, load_reference, reference_problems
from aitrain.rl.rewards.built_in import Terms
from aitrain.rl.rewards.combine import Rewards, Specs, Weights, reward_files, reward_problems
from aitrain.rl.settings import Settings, made, option

ELSEWHERE = {
    "stop_sequences": "stop_strings",
    "max_length": "max_new_tokens",
    "max_new_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "reward_fn": "reward_fn",
    "reward_weights": "reward_weights",
}
"""What looks like an option of an environment and has its home beside it."""


@dataclass(frozen=True)
class Asked:
    """What the user chose beside the environment: `rl.reward_fn`, `rl.reward_weights`, and the terms."""

    reward: Specs | None = None
    weights: Weights = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    key: str = "rl"


class Options(Settings):
    """Options that every built-in environment has."""

    max_turns: int = option(1, ge=1, le=1000)
    """Turns of the model in an episode at most."""
    tools: list[str] = option([])
    """Functions that the model may call, as `file.py:function`. They need `max_turns` of 2 or more."""


class BuiltInEnvironment(Environment):
    """An environment that is chosen by its name: its options say which rewards make up the score."""

    options_class: ClassVar[type[Options]] = Options

    def __init__(self, options: Options, asked: Asked) -> None:
        self.options = options
        self.max_turns = options.max_turns
        self.tools = [load_reference(text, f"{asked.key}.env_config.tools") for text in options.tools]
        specs, weights, key = self.parts(options, asked)
        self.rewards = Rewards(specs, weights, terms=asked.terms, key=key)
        self.weights = self.rewards.weights
        self.faults, self.first_faults = self.rewards.faults, self.rewards.first_faults

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        """Its rewards, their weights, and the key that they stand under."""
        raise NotImplementedError

    @classmethod
    def own_problems(cls, options: Any, asked: Asked) -> Iterable[Problem]:
        """What is wrong besides types and rewards."""
        return ()

    def score(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        return self.rewards(episodes)

    @classmethod
    def problems(cls, config: Mapping[str, Any], asked: Asked, columns: Iterable[str] | None) -> list[Problem]:
        """Everything wrong with its options, tools, rewards and weights."""
        key = f"{asked.key}.env_config"
        moved = {name: place for name, place in ELSEWHERE.items() if name in config}
        problems = [
            Problem(f"{key}.{name}", "is no option of an environment", f"set {asked.key}.{place}")
            for name, place in moved.items()
        ]
        options = made(cls.options_class, {name: value for name, value in config.items() if name not in moved}, key)
        if not isinstance(options, Options):
            return [*problems, *options]
        problems += [
            problem
            for text in options.tools
            for problem in (
                reference_problems(text, f"{key}.tools")
                if is_reference(text)
                else [Problem(f"{key}.tools", f"'{text}' names no function", "write FILE.py:FUNCTION")]
            )
        ]
        if options.tools and options.max_turns == 1:
            what = "the model would never see a tool's answer in one turn"
            problems.append(Problem(f"{key}.max_turns", what, "set it to 2 or more"))
        problems += cls.own_problems(options, asked)
        if problems:
            return problems
        specs, weights, place = cls.parts(options, asked)
        return reward_problems(specs, place, asked.terms, weights=weights, columns=columns)

    @classmethod
    def build(cls, config: Mapping[str, Any], asked: Asked) -> Environment:
        """The environment. Raises ConfigError with all that is wrong."""
        problems = cls.problems(config, asked, None)
        if problems:
            raise ConfigError(problems)
        return cls(cls.options_class(**config), asked)

    @classmethod
    def files(cls, config: Mapping[str, Any], asked: Asked) -> dict[str, str]:
        """The user's files that it stands on, with their sha256."""
        options = cls.options_class(**config)
        found = reward_files(cls.parts(options, asked)[0])
        for text in options.tools:
            found |= fingerprint(text)
        return found


def no_reward(name: str, asked: Asked, instead: str) -> list[Problem]:
    """The environment brings its own score."""
    if asked.reward is None:
        return []
    return [Problem(f"{asked.key}.reward_fn", f"has no effect, {name} scores by itself", instead)]
