"""From the section `rl` of a run to its environment, and to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aitrain.config.rl import RL
from aitrain.errors import ConfigError, Problem
from aitrain.rl.environment import Environment
from aitrain.rl.environments import ENVIRONMENTS, check, files, load_environment, tools_of
from aitrain.rl.environments.built_in import Asked
from aitrain.rl.rewards.built_in import ModelReward, Terms
from aitrain.rl.rewards.combine import models_in
from aitrain.rl.tools import schemas, tool_name

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
        advice, fix = "let them count together", "rl.multi_objective=true"
        if section.reward_model_path is not None and len(rewards) == 2:
            advice, fix = f"set it to null for the reward model alone, or {advice}: {fix}", "rl.reward_fn=null"
        yield Problem("rl.reward_fn", what, advice, fix=fix)
    if isinstance(weights, list) and len(weights) != len(rewards):
        yield Problem("rl.reward_weights", f"{len(weights)} weights for {len(rewards)} rewards", "give one for each")
        return
    yield from check(section.env_type, section.env_config, asked_of(section), columns=columns)


def reward_models(section: RL) -> list[tuple[str, str]]:
    """The reward models that are named, each with its key."""
    found = [("rl.reward_model_path", section.reward_model_path)] if section.reward_model_path is not None else []
    found += [] if section.reward_fn is None else models_in(section.reward_fn, "rl.reward_fn")
    scorer = section.env_config.get("preference_model")
    return found + ([] if scorer is None else models_in(scorer, "rl.env_config.preference_model"))


def make_environment(section: RL, load_model: Callable[[str], ModelReward] | None = None) -> Environment:
    """The environment of a run. Raises ConfigError with all that is wrong with it."""
    return load_environment(section.env_type, section.env_config, asked_of(section, load_model))


def tool_schemas(section: Any) -> list[dict[str, Any]]:
    """What a chat template shows the model of the environment's tools. Runs the user's code where there are any.

    Raises ConfigError for a tool that cannot be described.
    """
    if not isinstance(section, RL):
        return []
    key = "rl.env_config.tools" if section.env_type in ENVIRONMENTS else "rl.env_type"
    found = []
    for tool in tools_of(section.env_type, section.env_config, asked_of(section)):
        try:
            found += schemas([tool])
        except Exception as error:  # transformers has several kinds
            what = f"the tool '{tool_name(tool)}' cannot be described: {str(error).strip().splitlines()[0]}"
            raise ConfigError(Problem(key, what, "give it types and a docstring with Args:")) from error
    return found


def user_files(section: RL) -> dict[str, str]:
    """`{file: sha256}` of the user's files that environment and rewards stand on."""
    return files(section.env_type, section.env_config, asked_of(section))
