"""Rewards and environments for reinforcement learning; nothing here loads torch.

from aitrain.rl import Environment, Episode, Rewards, Step, load_environment, load_reward
rewards = Rewards(["correctness", {"name": "length", "target": 40}], weights={"length": 0.1})
"""

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
