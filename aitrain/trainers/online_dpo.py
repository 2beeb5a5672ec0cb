"""`trainer=online_dpo`: direct preference optimisation on the model's own answers (Guo et al. 2024,
https://arxiv.org/abs/2402.04792).

The model writes two answers to each prompt; the better one by the reward is taken as chosen, the other as rejected, and
the loss of `trainer=dpo` is taken on the pair. The episodes and what rewards them are in `rl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.rewarded import LEARNING_RATES, METRICS, READS, SHAPES, TASKS, common_problems, encoder

if TYPE_CHECKING:
    from aitrain.config.run import Run


class OnlineDPO(OptionSection):
    """Direct preference optimisation on answers that the model writes itself."""

    reads: ClassVar[tuple[str, ...]] = (*(name for name in READS if name != "rl.kl_coef"), "rl.mini_batch_size")

    name: Literal["online_dpo"]
    """The trainer; choose it with `trainer=online_dpo`."""
    beta: float = key(gt=0)
    """How strongly the model is held to the reference. For `ipo` it is the paper's tau."""
    loss_type: Literal["sigmoid", "ipo"]
    """Loss of a pair: `sigmoid` (DPO, https://arxiv.org/abs/2305.18290) or `ipo` (https://arxiv.org/abs/2310.12036)."""
    num_iterations: int = key(gt=0)
    """Passes over the pairs of an update."""
    missing_eos_penalty: float | None = key(gt=0)
    """Taken off the score of an answer that did not end within `rl.max_new_tokens`. null: nothing."""
    ref_model: str | None
    """Reference model: a folder, a Hub id or a sample. null: the starting model, for an adapter by switching it off."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from common_problems(run, 2, held=True)
        size = getattr(run.rl, "mini_batch_size", 2)
        if size % 2:
            what = f"{size} answers are no whole pairs"
            yield Problem("rl.mini_batch_size", what, "give an even number", fix=f"rl.mini_batch_size={size + 1}")


def pair_size(run: Run) -> int:
    """Answers to each prompt."""
    return 2


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.online_dpo_trainer import fit_online_dpo

    return fit_online_dpo(job)


TRAINER = Trainer(
    OnlineDPO,
    tasks=TASKS,
    shapes=SHAPES,
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=1),
    answers=pair_size,
)
