"""`trainer=grpo`: group relative policy optimisation (Shao et al. 2024, https://arxiv.org/abs/2402.03300).

The model writes several answers to each prompt; what an answer is worth is how much better its reward is than those of
its group, so no value function is needed. The loss is TRL's, with the variants that followed: DAPO, Dr. GRPO, GSPO and
others. The episodes and what rewards them are in `rl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import unread
from aitrain.trainers.rewarded import (
    LEARNING_RATES,
    METRICS,
    READS,
    SHAPES,
    TASKS,
    common_problems,
    encoder,
    group_size,
)

if TYPE_CHECKING:
    from aitrain.config.run import Run

Loss = Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
CLIPPED = {"dapo", "grpo", "dr_grpo", "bnpo", "luspo"}
"""Losses that clip the ratio on both sides."""


class GRPO(OptionSection):
    """Group relative policy optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "rl.clip_range", "rl.mini_batch_size")

    name: Literal["grpo"]
    """The trainer; choose it with `trainer=grpo`."""
    num_generations: int = key(ge=2)
    """Answers to each prompt, a group. The answers of an update are whole groups."""
    num_iterations: int = key(gt=0)
    """Passes over the answers of an update."""
    loss_type: Loss
    """How the losses of tokens are put together: `dapo` (mean over the tokens of a mini-batch,
    https://arxiv.org/abs/2503.14476), `grpo` (mean over answers of the mean over tokens), `dr_grpo` (sum over tokens by
    `rl.max_new_tokens`, https://arxiv.org/abs/2503.20783), `bnpo` (mean over the tokens of a micro-batch), `cispo`
    (clipped weights on the log-probabilities, https://arxiv.org/abs/2506.13585), `sapo` (a soft gate,
    https://arxiv.org/abs/2511.20347), `luspo` (https://arxiv.org/abs/2602.05261), `vespo`
    (https://arxiv.org/abs/2602.10693)."""
    scale_rewards: Literal["group", "batch", "none"]
    """What advantages are divided by: the spread of the rewards in the group, in the update, or nothing."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = key(visibility="advanced")
    """Whether several rewards are summed before they are compared within a group, or compared one by one and then
    summed (GDPO, https://arxiv.org/abs/2601.05242)."""
    importance_sampling_level: Literal["token", "sequence"]
    """Whether the ratio of new to old probabilities is that of each token or of whole answers (GSPO,
    https://arxiv.org/abs/2507.18071; with `trainer.loss_type=grpo`)."""
    epsilon_high: float | None = key(gt=0)
    """How far a token's probability may rise, as a ratio, before it earns nothing more; `rl.clip_range` is then how far
    it may fall. null: the same for both. `cispo` clips there alone."""
    delta: float | None = key(gt=1, visibility="advanced")
    """Largest ratio that a bad answer is pushed down by (https://arxiv.org/abs/2505.07291). null: no limit."""
    mask_truncated_completions: bool
    """Learn nothing from answers that did not end within `rl.max_new_tokens`."""
    entropy_coef: float = key(ge=0)
    """Weight of a bonus for the entropy of the policy, a mean over the tokens of a micro-batch."""
    top_entropy_quantile: float = key(ge=0, le=1, visibility="advanced")
    """Learn from this share of a micro-batch's tokens, those where the policy was least sure
    (https://arxiv.org/abs/2506.01939). 1: from all."""
    off_policy_mask_threshold: float | None = key(gt=0, visibility="advanced")
    """Leave bad answers out from which the policy has gone this far, in nats a token (https://arxiv.org/abs/2512.02556).
    null: none."""
    use_bias_correction_kl: bool = key(visibility="advanced")
    """Weigh the penalty for leaving the reference by the ratio, which makes its gradient unbiased
    (https://arxiv.org/abs/2512.02556)."""
    sapo_temperature_pos: float = key(gt=0, visibility="advanced")
    """How sharply `sapo` closes for tokens of good answers."""
    sapo_temperature_neg: float = key(gt=0, visibility="advanced")
    """The same for tokens of bad answers."""
    vespo_k_pos: float = key(gt=0, visibility="advanced")
    """Power of the weight that `vespo` gives good answers: how little counts what has become unlikely."""
    vespo_lambda_pos: float = key(gt=0, visibility="advanced")
    """Decay of that weight: how little counts what has become likely."""
    vespo_k_neg: float = key(gt=0, visibility="advanced")
    """`trainer.vespo_k_pos` for bad answers."""
    vespo_lambda_neg: float = key(gt=0, visibility="advanced")
    """`trainer.vespo_lambda_pos` for bad answers."""
    ref_model: str | None
    """Reference model: a folder, a Hub id or a sample. null: the starting model, for an adapter by switching it off."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from common_problems(run, self.num_generations)
        if run.rl.name == "none":
            return
        rl: Any = run.rl
        loss = f"trainer.loss_type={self.loss_type}"
        yield from unread(run, "use_bias_correction_kl", rl.kl_coef > 0, "rl.kl_coef=0")
        yield from unread(run, "epsilon_high", self.loss_type in {*CLIPPED, "cispo"}, loss)
        yield from unread(run, "delta", self.loss_type in CLIPPED, loss)
        for kind in ("sapo", "vespo"):
            for name in type(self).model_fields:
                if name.startswith(f"{kind}_"):
                    yield from unread(run, name, self.loss_type == kind, loss)
        together = self.multi_objective_aggregation == "sum_then_normalize"
        yield from unread(
            run, "scale_rewards", together, "trainer.multi_objective_aggregation=normalize_then_sum, which scales each"
        )
        yield from unread(run, "multi_objective_aggregation", rl.multi_objective, "rl.multi_objective=false")
        yield from self._of_ratios(run)

    def _of_ratios(self, run: Run) -> Iterator[Problem]:
        low = self.loss_type in CLIPPED or (self.loss_type == "cispo" and self.epsilon_high is None)
        if not low and "rl.clip_range" in run.given:
            beside = " and trainer.epsilon_high" if self.loss_type == "cispo" else ""
            what = f"has no effect with trainer.loss_type={self.loss_type}{beside}"
            yield Problem("rl.clip_range", what, "leave it out", fix="~rl.clip_range")
        level = {"luspo": "sequence", "vespo": "token"}.get(self.loss_type, self.importance_sampling_level)
        if level != self.importance_sampling_level:
            what = f"trainer.loss_type={self.loss_type} is defined on ratios of the other kind"
            fix = f"trainer.importance_sampling_level={level}"
            yield Problem("trainer.importance_sampling_level", what, f"use {level}", fix=fix)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.grpo_trainer import fit_grpo

    return fit_grpo(job)


TRAINER = Trainer(
    GRPO,
    tasks=TASKS,
    shapes=SHAPES,
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=1),
    answers=group_size,
)
