"""The arithmetic of proximal policy optimisation on whole tensors; nothing here knows a model.

Rows are episodes and columns the tokens that the policy wrote, in order; `mask` is 1 on those and 0 after the last.
Schulman et al. 2017, https://arxiv.org/abs/1707.06347 (the clipped losses) and 2015, https://arxiv.org/abs/1506.02438
(generalised advantage estimation); Ziegler et al. 2019, https://arxiv.org/abs/1909.08593 (the penalty in the reward and
its controller); Schulman 2020, http://joschu.net/blog/kl-approx.html (the estimators k1, k2, k3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

KL_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda difference: difference,
    "k2": lambda difference: difference.square() / 2,
    "k3": lambda difference: torch.exp(-difference) - 1 + difference,
}
"""From log pi - log pi_ref of a token that pi drew to an estimate of KL(pi || pi_ref) there."""


def token_rewards(scores: Tensor, penalties: Tensor, mask: Tensor) -> Tensor:
    """The score of an episode (rows,) at its last token, less the penalty of each token (rows, tokens)."""
    rewards = -penalties * mask
    last = mask.sum(-1).long() - 1
    written = last >= 0
    rows = torch.arange(len(mask), device=mask.device)[written]
    rewards[rows, last[written]] += scores[written]
    return rewards


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, each (rows, tokens), 0 where the mask is. The value after the last token is 0.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  R_t = A_t + V_t.
    """
    values = values * mask
    later_value = torch.zeros_like(values[:, 0])
    later = torch.zeros_like(later_value)
    found = torch.zeros_like(values)
    for place in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, place] + gamma * later_value - values[:, place]
        later = (delta + gamma * gae_lambda * later) * mask[:, place]
        found[:, place] = later
        later_value = values[:, place]
    return found, (found + values) * mask


@dataclass(frozen=True)
class Spread:
    """Count, sum and sum of squares of some numbers; those of several ranks are added up."""

    count: float
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Their mean; 0 of none."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Their variance with Bessel's correction; 0 of fewer than two."""
        if self.count < 2:
            return 0.0
        return max(0.0, (self.squares - self.total * self.mean) / (self.count - 1))


def whiten(values: Tensor, spread: Spread, *, shift_mean: bool = True) -> Tensor:
    """`values` with variance 1, and mean 0 if `shift_mean`; `spread` is that of the whole mini-batch of all ranks."""
    scaled = (values - spread.mean) * (spread.variance + 1e-8) ** -0.5
    return scaled if shift_mean else scaled + spread.mean


def policy_losses(logps: Tensor, old_logps: Tensor, advantages: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """max(-A r, -A clip(r, 1 - c, 1 + c)) of each token, r = exp(log pi - log pi_old), and whether it was clipped."""
    ratio = (logps - old_logps).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(plain, clipped), clipped > plain


def value_losses(
    values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error of each value, and whether it was clipped: the larger one of the value as it is and of the
    value held within `clip_range` of the old one. None: not clipped."""
    plain = (values - returns).square()
    if clip_range is None:
        return plain / 2, torch.zeros_like(plain, dtype=torch.bool)
    held = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped = (held - returns).square()
    beyond = (values - old_values).abs() > clip_range  # within it the two differ by rounding
    return torch.maximum(plain, clipped) / 2, beyond & (clipped > plain)


@dataclass(frozen=True)
class AdaptiveKL:
    """Moves the coefficient of the penalty so that the KL divergence of an episode comes near `target`.

    coefficient *= 1 + clip(KL / target - 1, -0.2, 0.2) * episodes / horizon  (Ziegler et al. 2019, section 2.2).
    """

    target: float
    horizon: int

    def next(self, coefficient: float, kl: float, episodes: int) -> float:
        """The coefficient of the next update, after one of so many episodes with this mean KL divergence."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return coefficient * (1 + error * episodes / self.horizon)
