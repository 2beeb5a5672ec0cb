"""Group relative policy optimisation: TRL's losses on this project's episodes (see `aitrain.ml.groups`).

The advantage of an answer is its reward less the mean of its group, by the spread of the group or of the update. Shao
et al. 2024, https://arxiv.org/abs/2402.03300.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from aitrain.ml.compared import Compared, written
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.groups import ANSWERS, SMALL, TOKENS, GroupLoop, Learnable, settings_of, spread
from aitrain.ml.job import Job, Outcome

SETTINGS = ("loss_type", "scale_rewards", "multi_objective_aggregation", "importance_sampling_level", "epsilon_high",
            "delta", "mask_truncated_completions", "entropy_coef", "top_entropy_quantile", "off_policy_mask_threshold",
            "use_bias_correction_kl", "sapo_temperature_pos", "sapo_temperature_neg", "vespo_k_pos", "vespo_lambda_pos",
            "vespo_k_neg", "vespo_lambda_neg")  # fmt: skip
"""Keys of the section that TRL knows under the same name."""
RATIOS = ("clip_ratio/region_mean", "clip_ratio/low_mean", "clip_ratio/high_mean", "cispo_clip_ratio")


def fit_grpo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    settings = settings_of(job, **{name: getattr(section, name) for name in SETTINGS})
    return fit(job, training_arguments(job, GRPOConfig, **settings), GRPOFit)


class GRPOFit(GroupLoop, GRPOTrainer):
    """TRL's losses on this project's episodes."""

    def __init__(self, fitting: Fitting) -> None:
        super().__init__(fitting)
        self.beta = self.kl_coef  # set here, for TRL loads a reference of its own where it is told of it
        of_ratios = TOKENS if self.importance_sampling_level == "token" else ANSWERS
        self.weighed_by = {"entropy": TOKENS, "vespo/phi_seq_mean": ANSWERS, **dict.fromkeys(RATIOS, of_ratios)}

    def advantages(self, answers: Sequence[Compared]) -> tuple[Tensor, dict[str, float]]:
        weights = self.player.environment.weights
        scores = torch.tensor([answer.score for answer in answers], dtype=torch.float64)
        section: Any = self.job.run.trainer
        alike = float((spread(scores.view(-1, self.answers)) == 0).double().mean())
        if section.multi_objective_aggregation == "normalize_then_sum":
            names = dict.fromkeys(name for answer in answers for name in answer.components)
            parts = [
                torch.tensor([a.components.get(name, 0.0) for a in answers], dtype=torch.float64) for name in names
            ]
            scaled = [
                weights.get(name, 1.0) * self._against_group(p, "group") for name, p in zip(names, parts, strict=True)
            ]
            found = torch.stack(scaled).sum(0)
            found = (found - found.mean()) / (spread(found[None]) + SMALL)
        else:
            found = self._against_group(scores, section.scale_rewards)
        return found, {"groups_alike": alike}

    def _against_group(self, rewards: Tensor, scale: str) -> Tensor:
        groups = rewards.view(-1, self.answers)
        centered = groups - groups.mean(1, keepdim=True)
        if scale != "none":
            centered = centered / (spread(groups if scale == "group" else rewards[None])[:, None] + SMALL)
        return centered.flatten()

    def counted(self, item: Learnable) -> bool:
        return item.answer.ended or not self.mask_truncated_completions

    def group_loss(self, model: Any, given: dict[str, Any], share: float, batch: Sequence[Learnable]) -> Tensor:
        # TRL divides by the number of micro-batches, or scales the tokens of an update to those of a mini-batch.
        self.current_gradient_accumulation_steps = self.args.steps_per_generation = 1 / share
        tokens = sum(written(item.answer.row) for item in batch if self.counted(item))
        given["num_items_in_batch"] = torch.tensor(float(tokens), device=self.args.device)
        loss: Tensor = self._compute_loss(model, given)
        return loss
