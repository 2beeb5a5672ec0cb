"""What an update learns from: episodes with their log-probabilities, values, rewards, advantages and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from aitrain.data.tokens import TokenRow
from aitrain.ml.advantages import KL_ESTIMATORS, Spread, estimate_advantages, token_rewards, whiten


@dataclass(frozen=True)
class Settings:
    """How rewards become advantages; see the keys of the same names."""

    gamma: float
    gae_lambda: float
    kl_estimator: str
    whiten_rewards: bool
    missing_eos_penalty: float | None


@dataclass(frozen=True)
class Scored:
    """An episode and what it is worth."""

    number: int
    """Its place among all of the run."""
    row: TokenRow
    score: float
    components: dict[str, float]
    ended: bool


@dataclass(frozen=True)
class Valued(Scored):
    """An episode as the old policy saw it. Sequences have an entry for each token that the policy wrote."""

    logps: Tensor
    entropies: Tensor
    values: Tensor
    ref_logps: Tensor | None


Episodes = TypeVar("Episodes", bound=Scored)


@dataclass(frozen=True)
class Experience:
    """An episode that is ready to learn from."""

    row: TokenRow
    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


def gathered(own: Sequence[Episodes], world: int) -> list[Episodes]:
    """The episodes of all ranks, in the order of their numbers. Collective."""
    if world == 1:
        return sorted(own, key=lambda episode: episode.number)
    everyone: list[Any] = [None] * world
    dist.all_gather_object(everyone, list(own))
    return sorted((episode for part in everyone for episode in part), key=lambda episode: episode.number)


def learn_from(
    episodes: Sequence[Valued], settings: Settings, kl_coef: float
) -> tuple[list[Experience], dict[str, float]]:
    """Advantages and returns of whole episodes, and what to report of them.

    The measures are means over episodes (`objective`, `kl`) or over tokens (`entropy`).
    """
    mask = _padded([torch.ones_like(episode.logps) for episode in episodes])
    logps = _padded([episode.logps for episode in episodes])
    values = _padded([episode.values for episode in episodes])
    scores = torch.tensor([episode.score for episode in episodes], dtype=logps.dtype)
    if settings.missing_eos_penalty is not None:
        scores -= settings.missing_eos_penalty * torch.tensor([float(not e.ended) for e in episodes])
    penalties, measures = torch.zeros_like(logps), {}
    if all(episode.ref_logps is not None for episode in episodes):
        difference = logps - _padded([e.ref_logps for e in episodes if e.ref_logps is not None])
        penalties = kl_coef * KL_ESTIMATORS[settings.kl_estimator](difference)
        measures = {"kl": float((difference * mask).sum(-1).mean()), "kl_coef": kl_coef}
    rewards = token_rewards(scores, penalties, mask)
    if settings.whiten_rewards:
        rewards = whiten(rewards, spread_of(rewards, mask), shift_mean=False) * mask
    advantages, returns = estimate_advantages(
        rewards, values, mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    measures |= _of_values(values, returns, mask)
    measures["objective"] = float((rewards * mask).sum(-1).mean())
    measures["entropy"] = float(torch.cat([episode.entropies for episode in episodes]).mean())
    found = []
    for number, episode in enumerate(episodes):
        size = len(episode.logps)
        found.append(
            Experience(episode.row, episode.logps, episode.values, advantages[number, :size], returns[number, :size])
        )
    return found, measures


def spread_of(values: Tensor, mask: Tensor | None = None) -> Spread:
    """Count, sum and sum of squares of the values where `mask` is 1."""
    kept = (values if mask is None else values[mask.bool()]).double()
    return Spread(float(kept.numel()), float(kept.sum()), float(kept.square().sum()))


def measures_of(episodes: Sequence[Scored]) -> dict[str, float]:
    """What to report of episodes whatever is learnt from them: means, and the spread of the scores."""
    names = dict.fromkeys(name for episode in episodes for name in episode.components)
    parts = {f"reward/{name}": [e.components[name] for e in episodes if name in e.components] for name in names}
    scores = np.array([episode.score for episode in episodes])
    return {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std(ddof=1)) if len(scores) > 1 else 0.0,
        **({name: float(np.mean(values)) for name, values in parts.items()} if len(parts) > 1 else {}),
        "length": float(np.mean([episode.row.trained.sum() for episode in episodes])),
        "ended": float(np.mean([episode.ended for episode in episodes])),
    }


def _of_values(values: Tensor, returns: Tensor, mask: Tensor) -> dict[str, float]:
    """The share of the returns' variance that the values explain: 1 for all, 0 for none, below 0 for worse."""
    residual, whole = spread_of(returns - values, mask).variance, spread_of(returns, mask).variance
    return {"explained_variance": 1 - residual / whole} if whole else {}


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
