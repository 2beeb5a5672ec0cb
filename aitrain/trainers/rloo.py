"""`trainer=rloo`: REINFORCE leave-one-out (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740).

The model writes several answers to each prompt; each is judged against the mean reward of the others, and the answer as
a whole is made likelier or less likely. The penalty for leaving the reference model is part of the reward. The episodes
and what rewards them are in `rl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
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


class RLOO(OptionSection):
    """REINFORCE leave-one-out."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "rl.clip_range", "rl.mini_batch_size")

    name: Literal["rloo"]
    """The trainer; choose it with `trainer=rloo`."""
    num_generations: int = key(ge=2)
    """Answers to each prompt, a group. The answers of an update are whole groups."""
    num_iterations: int = key(gt=0)
    """Passes over the answers of an update."""
    normalize_advantages: bool
    """Scale the advantages of an update to mean 0 and variance 1."""
    reward_clip_range: list[float] | None = key(visibility="advanced")
    """Smallest and largest score that counts, `[-1.0, 1.0]`. null: as it is."""
    epsilon_high: float | None = key(gt=0, visibility="advanced")
    """How far an answer's probability may rise, as a ratio, before it earns nothing more; `rl.clip_range` is then how
    far it may fall. null: the same for both."""
    ref_model: str | None
    """Reference model: a folder, a Hub id or a sample. null: the starting model, for an adapter by switching it off."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from common_problems(run, self.num_generations)
        limits = self.reward_clip_range
        if limits is not None and (len(limits) != 2 or limits[0] >= limits[1]):
            yield Problem("trainer.reward_clip_range", f"{limits} is no range", "give the smaller and the larger limit")


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.rloo_trainer import fit_rloo

    return fit_rloo(job)


TRAINER = Trainer(
    RLOO,
    tasks=TASKS,
    shapes=SHAPES,
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=1),
    answers=group_size,
)
