"""Rewards and environments for reinforcement learning; nothing here loads torch.

from aitrain.rl import Environment, Episode, Rewards, Step, load_environment, load_reward
rewards = Rewards(["correctness", {"name": "length", "target": 40}], weights={"length": 0.1})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aitrain.rl.environment import Environment, advance, play, total
    from aitrain.rl.environments import ENVIRONMENTS, check, files, load_environment
    from aitrain.rl.environments.built_in import Asked
    from aitrain.rl.environments.custom import adopted
    from aitrain.rl.episode import Episode, Message, Step, answer_of
    from aitrain.rl.rewards import REWARDS, ModelReward, Reward, Terms
    from aitrain.rl.rewards.combine import RewardError, Rewards, load_reward, reward_files, reward_problems

__all__ = [
    "ENVIRONMENTS",
    "REWARDS",
    "Asked",
    "Environment",
    "Episode",
    "Message",
    "ModelReward",
    "Reward",
    "RewardError",
    "Rewards",
    "Step",
    "Terms",
    "adopted",
    "advance",
    "answer_of",
    "check",
    "files",
    "load_environment",
    "load_reward",
    "play",
    "reward_files",
    "reward_problems",
    "total",
]

_HOMES = {
    "Asked": "aitrain.rl.environments.built_in",
    "ENVIRONMENTS": "aitrain.rl.environments",
    "Environment": "aitrain.rl.environment",
    "Episode": "aitrain.rl.episode",
    "Message": "aitrain.rl.episode",
    "ModelReward": "aitrain.rl.rewards",
    "REWARDS": "aitrain.rl.rewards",
    "Reward": "aitrain.rl.rewards",
    "RewardError": "aitrain.rl.rewards.combine",
    "Rewards": "aitrain.rl.rewards.combine",
    "Step": "aitrain.rl.episode",
    "Terms": "aitrain.rl.rewards",
    "adopted": "aitrain.rl.environments.custom",
    "advance": "aitrain.rl.environment",
    "answer_of": "aitrain.rl.episode",
    "check": "aitrain.rl.environments",
    "files": "aitrain.rl.environments",
    "load_environment": "aitrain.rl.environments",
    "load_reward": "aitrain.rl.rewards.combine",
    "play": "aitrain.rl.environment",
    "reward_files": "aitrain.rl.rewards.combine",
    "reward_problems": "aitrain.rl.rewards.combine",
    "total": "aitrain.rl.environment",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: a run that learns from no rewards has no use for them."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'aitrain.rl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
