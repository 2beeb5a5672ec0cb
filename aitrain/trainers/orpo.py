"""`trainer=orpo`: odds ratio preference optimisation (Hong et al. 2024, https://arxiv.org/abs/2403.07691).

Fine-tuning on the chosen conversation and preference in one step, without a reference model: the cross entropy of
prompt and chosen answer, plus beta times -log sigmoid(log odds of the chosen answer - log odds of the rejected one).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import ACCURACY, GENERATES, LOGPS, PAIRS, REWARDS, TASKS, ignored, pair_encoder

if TYPE_CHECKING:
    from aitrain.config.run import Run

METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    **REWARDS,
    **ACCURACY,
    **LOGPS,
    "nll_loss": "min",
    "log_odds_ratio": "max",
    "log_odds_chosen": "max",
}
LEARNING_RATES = {"full": 8e-6, "adapter": 8e-5, "scratch": 2e-3, "taught": 5e-4}
"""What `train.learning_rate=auto` becomes; 8e-6 is the paper's."""


class ORPO(OptionSection):
    """Odds ratio preference optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, *GENERATES)

    name: Literal["orpo"]
    """The trainer; choose it with `trainer=orpo`."""
    beta: float = key(gt=0)
    """Weight of the odds ratio beside the cross entropy (the paper's lambda)."""
    disable_dropout: bool = key(visibility="advanced")
    """Train without dropout."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)


encoder = pair_encoder


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.orpo_trainer import fit_orpo

    return fit_orpo(job)


TRAINER = Trainer(
    ORPO,
    tasks=TASKS,
    shapes=("pairs",),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=2, logits="whole"),
)
