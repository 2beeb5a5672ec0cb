"""From the section `rl` of a run to its environment, and to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aitrain.config.rl import RL
from aitrain.errors import Problem
from aitrain.rl.environment import Environment
from aitrain.rl.environments import check, files, load_environment
from aitrain.rl.environments.built_in import Asked
from aitrain.rl.rewards.built_in import ModelReward, Terms

REWARD_MODEL = "reward_model"
"""The name of the component that `rl.reward_model_path` gives."""


def asked_of(section: RL, load_model: Callable[[str], ModelReward] | None = None) -> Asked:
    """Rewards, weights and terms as environments take them."""
    rewards = _rewards(section)
    terms = Terms(
        allow_code_execution=section.allow_code_execution,
        load_model=load_model,
        on_error=section.on_reward_error,
        penalty=section.reward_error_penalty,
    )
    return Asked(rewards or None, _weights(section, rewards), terms)


def _rewards(section: RL) -> list[Any]:
    named = section.reward_fn
    rewards = [] if named is None else list(named) if isinstance(named, list) else [named]
    if section.reward_model_path is not None:
        rewards.append({"name": "model", "path": section.reward_model_path, "as": REWARD_MODEL})
    return rewards


def _weights(section: RL, rewards: list[Any]) -> dict[str, float]:
    """Weights by the names of the components; a list gives them in the order of the rewards."""
    weights = section.reward_weights
    if not isinstance(weights, list):
        return dict(weights or {})
    from aitrain.rl.rewards.combine import component_names

    return dict(zip(component_names(rewards), weights, strict=False))


def environment_problems(section: RL, columns: Iterable[str] | None = None) -> Iterator[Problem]:
    """Everything wrong with environment, rewards and weights, without loading any; `columns` of the rows if known."""
    rewards = _rewards(section)
    weights = section.reward_weights
    if len(rewards) > 1 and not section.multi_objective:
        what = f"{len(rewards)} rewards are named, and rl.multi_objective is false"
        yield Problem("rl.reward_fn", what, "let them count together", fix="rl.multi_objective=true")
    if isinstance(weights, list) and len(weights) != len(rewards):
        yield Problem("rl.reward_weights", f"{len(weights)} weights for {len(rewards)} rewards", "give one for each")
        return
    yield from check(section.env_type, section.env_config, asked_of(section), columns=columns)


def make_environment(section: RL, load_model: Callable[[str], ModelReward] | None = None) -> Environment:
    """The environment of a run. Raises ConfigError with all that is wrong with it."""
    return load_environment(section.env_type, section.env_config, asked_of(section, load_model))


def user_files(section: RL) -> dict[str, str]:
    """`{file: sha256}` of the user's files that environment and rewards stand on."""
    return files(section.env_type, section.env_config, asked_of(section))
