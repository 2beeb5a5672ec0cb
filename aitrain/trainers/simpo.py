"""`trainer=simpo`: simple preference optimisation (Meng et al. 2024, https://arxiv.org/abs/2405.14734).

The reward of an answer is beta times its mean log-probability a token, and needs no reference model. The loss is
-log sigmoid(reward of the chosen answer - reward of the rejected one - gamma).
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

METRICS: dict[str, Literal["min", "max"]] = {"loss": "min", **REWARDS, **ACCURACY, **LOGPS}
LEARNING_RATES = {"full": 1e-6, "adapter": 1e-5, "scratch": 2e-3, "taught": 1e-4}
"""What `train.learning_rate=auto` becomes; the paper advises 3e-7 to 1e-6."""


class SimPO(OptionSection):
    """Simple preference optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, *GENERATES)

    name: Literal["simpo"]
    """The trainer; choose it with `trainer=simpo`."""
    beta: float = key(gt=0)
    """Scale of the mean log-probabilities; 2.0 to 2.5 in the paper."""
    simpo_gamma: float = key(ge=0)
    """Margin by which the chosen answer's reward should win."""
    label_smoothing: float = key(ge=0, lt=0.5)
    """Share of pairs taken to be the wrong way round."""
    cpo_alpha: float = key(ge=0)
    """Weight of the chosen answer's cross entropy beside it, as in CPO. 0: left out."""
    alpha: float = key(visibility="advanced")
    """Shape of the reward (1 - p^-alpha) / alpha (AlphaPO, Gupta et al. 2025, https://arxiv.org/abs/2501.03884). 0: the
    log-probability."""
    disable_dropout: bool = key(visibility="advanced")
    """Train without dropout."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)


encoder = pair_encoder


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.cpo_trainer import fit_cpo

    return fit_cpo(job, **job.run.trainer.model_dump(exclude={"name"}), loss_type="simpo")


TRAINER = Trainer(
    SimPO,
    tasks=TASKS,
    shapes=("pairs",),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=2, logits="whole"),
)
