"""`trainer=cpo`: contrastive preference optimisation (Xu et al. 2024, https://arxiv.org/abs/2401.08417).

DPO without a reference model, plus the cross entropy of the chosen answer: -log sigmoid(beta (log p of the chosen
answer - log p of the rejected one)) + cpo_alpha times the mean -log p of the chosen answer's tokens.
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

METRICS: dict[str, Literal["min", "max"]] = {"loss": "min", **REWARDS, **ACCURACY, **LOGPS, "nll_loss": "min"}
LEARNING_RATES = {"full": 1e-6, "adapter": 1e-5, "scratch": 2e-3, "taught": 2e-4}
"""What `train.learning_rate=auto` becomes."""


class CPO(OptionSection):
    """Contrastive preference optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, *GENERATES)

    name: Literal["cpo"]
    """The trainer; choose it with `trainer=cpo`."""
    beta: float = key(gt=0)
    """Scale of the log-probabilities. For `ipo` it is the paper's tau."""
    loss_type: Literal["sigmoid", "hinge", "ipo"]
    """Loss of a pair: `sigmoid` (the paper's), `hinge` (SLiC, https://arxiv.org/abs/2305.10425), `ipo`
    (https://arxiv.org/abs/2310.12036)."""
    label_smoothing: float = key(ge=0, lt=0.5)
    """Share of pairs taken to be the wrong way round, for `sigmoid`."""
    cpo_alpha: float = key(ge=0)
    """Weight of the chosen answer's cross entropy. 0: left out."""
    alpha: float = key(visibility="advanced")
    """Shape of the reward (1 - p^-alpha) / alpha (AlphaPO, Gupta et al. 2025, https://arxiv.org/abs/2501.03884). 0: the
    log-probability."""
    disable_dropout: bool = key(visibility="advanced")
    """Train without dropout."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)
        if self.label_smoothing and self.loss_type != "sigmoid":
            what = f"has no effect with trainer.loss_type={self.loss_type}"
            yield Problem("trainer.label_smoothing", what, "use trainer.loss_type=sigmoid")
        if self.cpo_alpha == 0 and run.train.metric_for_best_model == "nll_loss":
            what = "nll_loss is not computed with trainer.cpo_alpha=0"
            yield Problem("train.metric_for_best_model", what, "set trainer.cpo_alpha")


encoder = pair_encoder


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.cpo_trainer import fit_cpo

    return fit_cpo(job, **job.run.trainer.model_dump(exclude={"name"}))


TRAINER = Trainer(
    CPO,
    tasks=TASKS,
    shapes=("pairs",),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=2, logits="whole"),
)
