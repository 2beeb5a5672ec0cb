"""REINFORCE leave-one-out: TRL's loss of whole answers on this project's episodes (see `aitrain.ml.groups`).

The advantage of an answer is its reward, less the penalty for leaving the reference model, less the mean of the same of
the others of its group. Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from aitrain.ml.compared import Compared
from aitrain.ml.fitting import fit, training_arguments
from aitrain.ml.groups import ANSWERS, SMALL, TOKENS, GroupLoop, Learnable, settings_of, spread
from aitrain.ml.job import Job, Outcome


def fit_rloo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    return fit(job, training_arguments(job, RLOOConfig, **settings_of(job, epsilon_high=section.epsilon_high)), RLOOFit)


class RLOOFit(GroupLoop, RLOOTrainer):
    """TRL's loss on this project's episodes."""

    weighed_by: Mapping[str, str] = {
        "entropy": TOKENS,
        "clip_ratio/region_mean": ANSWERS,
        "clip_ratio/low_mean": ANSWERS,
        "clip_ratio/high_mean": ANSWERS,
    }

    def looks_back(self) -> bool:
        """The penalty is that of the policy that wrote, and TRL's loss asks for its log-probabilities always."""
        return True

    def advantages(self, answers: Sequence[Compared]) -> tuple[Tensor, dict[str, float]]:
        section: Any = self.job.run.trainer
        rewards = torch.tensor([answer.score for answer in answers], dtype=torch.float64)
        if section.reward_clip_range is not None:
            rewards = rewards.clamp(*section.reward_clip_range)
        apart = [
            (a.logps - a.ref_logps).double().sum() for a in answers if a.logps is not None and a.ref_logps is not None
        ]
        if apart:
            rewards = rewards - self.kl_coef * torch.stack(apart)
        groups = rewards.view(-1, self.answers)
        others = (groups.sum(1, keepdim=True) - groups) / (self.answers - 1)
        found = (groups - others).flatten()
        if section.normalize_advantages:
            found = (found - found.mean()) / (spread(found[None]) + SMALL)
        return found, {"objective": float(rewards.mean()), "groups_alike": float((spread(groups) == 0).double().mean())}

    def group_loss(self, model: Any, given: dict[str, Any], share: float, batch: Sequence[Learnable]) -> Tensor:
        given["old_logps"] = given["old_per_token_logps"].sum(1)
        loss: Tensor = self._compute_loss(model, given)
        return loss * share
