"""`trainer=dpo`: direct preference optimisation (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).

The answer's reward is beta times the log of how much likelier the model makes it than a frozen reference does. The loss
is -log sigmoid(reward of the chosen answer - reward of the rejected one); other losses on the same rewards are choices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import (
    ACCURACY,
    GENERATES,
    LOGPS,
    PAIRS,
    REWARDS,
    TASKS,
    adapted_head,
    ignored,
    pair_encoder,
    reference_problems,
    unread,
)

if TYPE_CHECKING:
    from aitrain.config.run import Run

METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    **REWARDS,
    **ACCURACY,
    **LOGPS,
    "mean_token_accuracy": "max",
}
LEARNING_RATES = {"full": 1e-6, "adapter": 1e-5, "scratch": 2e-3, "taught": 1e-4}
"""What `train.learning_rate=auto` becomes. TRL's default for all weights; adapters take about ten times as much."""

Loss = Literal["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
               "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]  # fmt: skip
SMOOTHED = {"exo_pair", "robust", "aot", "aot_unpaired"}
"""Losses that read `label_smoothing`."""
SORTED = {"aot", "aot_unpaired"}
ON_DIFFERENCES = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
"""Losses of the difference of two rewards, in which an f-divergence's unknown term cancels."""


class DPO(OptionSection):
    """Direct preference optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, *GENERATES)

    name: Literal["dpo"]
    """The trainer; choose it with `trainer=dpo`."""
    beta: float = key(gt=0)
    """How strongly the model is held to the reference. For `ipo` it is the paper's tau."""
    loss_type: Loss | list[Loss]
    """Loss of a pair, or several that are summed: `sigmoid` (DPO), `hinge` (SLiC, https://arxiv.org/abs/2305.10425),
    `ipo` (https://arxiv.org/abs/2310.12036), `exo_pair` (EXO, https://arxiv.org/abs/2402.00856), `nca_pair` (NCA,
    https://arxiv.org/abs/2402.05369), `robust` (https://arxiv.org/abs/2403.00409), `bco_pair` (BCO,
    https://arxiv.org/abs/2404.04656), `sppo_hard` (SPPO, https://arxiv.org/abs/2405.00675), `aot` and `aot_unpaired`
    (https://arxiv.org/abs/2406.05882), `apo_zero` and `apo_down` (APO, https://arxiv.org/abs/2408.06266), `discopop`
    (https://arxiv.org/abs/2406.08414), `sft` (cross entropy of the chosen answer), `sigmoid_norm` (rewards per token).
    """
    loss_weights: list[float] | None = key(visibility="advanced")
    """Weight of each loss of `trainer.loss_type`, in its order. null: 1 each."""
    label_smoothing: float = key(ge=0, lt=1)
    """Share of pairs taken to be the wrong way round, for `robust`, `exo_pair` and `aot`."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = key(
        visibility="advanced"
    )
    """Divergence that holds the model to the reference (f-DPO, Wang et al. 2023, https://arxiv.org/abs/2309.16240)."""
    f_alpha_divergence_coef: float = key(visibility="advanced")
    """Alpha of `alpha_divergence`."""
    discopop_tau: float = key(gt=0, visibility="advanced")
    """Temperature of `discopop`."""
    ld_alpha: float | None = key(ge=0, le=1, visibility="advanced")
    """Weight of the tokens by which the longer answer exceeds the shorter (LD-DPO, Liu et al. 2024,
    https://arxiv.org/abs/2409.06411). null: as any token."""
    use_weighting: bool = key(visibility="advanced")
    """Weigh pairs by how likely the model itself makes them (WPO, Zhou et al. 2024, https://arxiv.org/abs/2406.11827)."""
    ref_model: str | None
    """Reference model: a folder, a Hub id or a sample. null: the starting model, for an adapter by switching it off."""
    sync_ref_model: bool = key(visibility="advanced")
    """Move the reference towards the model now and then (TR-DPO, Gorbatovski et al. 2024,
    https://arxiv.org/abs/2404.09656)."""
    ref_model_mixup_alpha: float = key(gt=0, le=1, visibility="advanced")
    """Share of the model in the new reference."""
    ref_model_sync_steps: int = key(gt=0, visibility="advanced")
    """Optimizer steps between two such moves."""
    disable_dropout: bool = key(visibility="advanced")
    """Train without dropout, so that rewards differ by what is learnt alone."""

    @property
    def losses(self) -> list[str]:
        """The losses, also where there is one."""
        return [self.loss_type] if isinstance(self.loss_type, str) else list(self.loss_type)

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)
        yield from adapted_head(run)
        yield from reference_problems(self, run)
        yield from self._of_losses(run)

    def _of_losses(self, run: Run) -> Iterator[Problem]:
        losses = self.losses
        if not losses or len(set(losses)) < len(losses):
            yield Problem("trainer.loss_type", f"{losses} should name each loss once", "name one loss or several")
            return
        if self.loss_weights is not None and len(losses) == 1:
            yield Problem("trainer.loss_weights", "has no effect with a single loss", "leave it out")
        elif self.loss_weights is not None and len(self.loss_weights) != len(losses):
            what = f"{len(self.loss_weights)} weights for {len(losses)} losses"
            yield Problem("trainer.loss_weights", what, "give one for each loss")
        named = " and ".join(losses)
        smooths = SMOOTHED.intersection(losses)
        if self.label_smoothing and not smooths:
            yield Problem("trainer.label_smoothing", f"has no effect with {named}", "use trainer.loss_type=robust")
        if "exo_pair" in losses and self.label_smoothing == 0:
            yield Problem("trainer.label_smoothing", "exo_pair needs more than 0", "the paper advises 1e-3")
        if "robust" in losses and self.label_smoothing >= 0.5:
            yield Problem("trainer.label_smoothing", "robust needs less than 0.5", "the paper advises 0.1")
        yield from unread(run, "discopop_tau", "discopop" in losses, f"loss_type={named}")
        yield from self._of_divergence(run, losses)
        if self.use_weighting and (wrong := SORTED.intersection(losses)):
            what = f"{' and '.join(sorted(wrong))} sorts the answers of a batch, which mixes up the weights of pairs"
            yield Problem("trainer.use_weighting", what, "leave one of the two out")

    def _of_divergence(self, run: Run, losses: list[str]) -> Iterator[Problem]:
        kind = self.f_divergence_type
        yield from unread(
            run, "f_alpha_divergence_coef", kind == "alpha_divergence", f"trainer.f_divergence_type={kind}"
        )
        if kind != "reverse_kl" and (wrong := set(losses) - ON_DIFFERENCES):
            what = f"{kind} holds for losses of the difference of two rewards, not for {' and '.join(sorted(wrong))}"
            yield Problem("trainer.f_divergence_type", what, "use reverse_kl, or loss_type=sigmoid")


encoder = pair_encoder


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.dpo_trainer import fit_dpo

    return fit_dpo(job)


TRAINER = Trainer(
    DPO,
    tasks=TASKS,
    shapes=("pairs",),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=2),
)
