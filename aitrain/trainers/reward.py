"""`trainer=reward`: a model that gives a conversation a score (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).

Bradley and Terry's model of pairs: the loss is -log sigmoid(score of the chosen answer - score of the rejected one),
less the row's margin inside the sigmoid where the data has one (Touvron et al. 2023, https://arxiv.org/abs/2307.09288).
The score is the single output of a sequence classifier, read at the last token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import PAIRS, TASKS, ignored

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder

METRICS: dict[str, Literal["min", "max"]] = {"loss": "min", "accuracy": "max", "margin": "max"}
LEARNING_RATES = {"full": 1e-5, "adapter": 1e-4, "scratch": 2e-3, "taught": 5e-4}
"""What `train.learning_rate=auto` becomes."""


class Reward(OptionSection):
    """A reward model."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, "data.columns.margin")

    name: Literal["reward"]
    """The trainer; choose it with `trainer=reward`."""
    center_rewards_coefficient: float | None = key(gt=0)
    """Weight of the squared sum of a pair's scores, which keeps scores around zero (Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, eq. 2; they use 0.01). null: left out."""
    disable_dropout: bool = key(visibility="advanced")
    """Train without dropout."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)


def encoder(run: Run) -> Encoder:
    """A pair to two rows of token ids, with its margin if the data has one."""
    from aitrain.data.preference_encoding import PairEncoder

    return PairEncoder(run)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.reward_trainer import fit_reward

    return fit_reward(job)


TRAINER = Trainer(
    Reward,
    tasks=TASKS,
    shapes=("pairs",),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    pipeline="text-classification",
    load=Load(rows=2, logits="none"),
    scores=True,
)
