"""`trainer=kto`: Kahneman-Tversky optimisation (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306).

Learns from answers that are wanted or not, without pairs. With r = beta log(p / p of the reference) and z the mean r of
answers under prompts that they do not belong to, the loss is 1 - sigmoid(r - z) for a wanted answer and
1 - sigmoid(z - r) for an unwanted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import (
    GENERATES,
    LOGPS,
    PAIRS,
    REWARDS,
    TASKS,
    adapted_head,
    ignored,
    reference_problems,
)

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder

METRICS: dict[str, Literal["min", "max"]] = {"loss": "min", **REWARDS, **LOGPS, "kl": "min"}
LEARNING_RATES = {"full": 1e-6, "adapter": 1e-5, "scratch": 2e-3, "taught": 2e-4}
"""What `train.learning_rate=auto` becomes."""


class KTO(OptionSection):
    """Kahneman-Tversky optimisation."""

    reads: ClassVar[tuple[str, ...]] = (*PAIRS, "data.columns.completion", "data.columns.label", *GENERATES)

    name: Literal["kto"]
    """The trainer; choose it with `trainer=kto`."""
    beta: float = key(gt=0)
    """How strongly the model is held to the reference."""
    loss_type: Literal["kto", "apo_zero_unpaired"]
    """Loss of an answer: `kto`, or `apo_zero_unpaired`, which compares with zero instead of the drift (APO,
    D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266)."""
    desirable_weight: float = key(gt=0)
    """Weight of wanted answers. The paper advises weights that make both kinds count about alike: wanted ones times
    this, between 1 and 4/3 of unwanted ones times theirs."""
    undesirable_weight: float = key(gt=0)
    """Weight of unwanted answers."""
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

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from ignored(run)
        yield from adapted_head(run)
        yield from reference_problems(self, run)
        train = run.train
        size = train.batch_size * train.gradient_accumulation * run.hardware.processes
        if size == 1 and self.loss_type == "kto":
            what = "one answer a step cannot be compared with answers to other prompts"
            yield Problem("train.batch_size", what, "raise it or train.gradient_accumulation")
        if train.metric_for_best_model == "kl" and self.loss_type != "kto":
            what = f"the drift is not measured with trainer.loss_type={self.loss_type}"
            yield Problem("train.metric_for_best_model", what, "use loss")


def encoder(run: Run) -> Encoder:
    """An answer to a row of token ids, and whether it is wanted; a pair to two of them."""
    from aitrain.data.preference_encoding import UnpairedEncoder

    return UnpairedEncoder(run)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.kto_trainer import fit_kto

    return fit_kto(job)


TRAINER = Trainer(
    KTO,
    tasks=TASKS,
    shapes=("unpaired", "pairs"),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(),
)
