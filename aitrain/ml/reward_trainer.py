"""A reward model: TRL's `RewardTrainer` with this project's rows, order, evaluation and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from trl import RewardConfig, RewardTrainer

from aitrain.errors import ConfigError, Problem
from aitrain.ml.examples import COUNTS, EXAMPLES, Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import HEAD_IS_NEW, load_scorer
from aitrain.ml.preference import PreferenceLoop, padded, pair_counts, sides


def fit_reward(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    args = training_arguments(
        job,
        RewardConfig,
        center_rewards_coefficient=section.center_rewards_coefficient,
        disable_dropout=section.disable_dropout,
    )
    return fit(job, args, RewardFit)


class RewardFit(PreferenceLoop, RewardTrainer):
    """TRL's loss on this project's rows."""

    weighed_by: ClassVar = {"accuracy": EXAMPLES, "margin": EXAMPLES, "mean_reward": EXAMPLES}
    accuracy = "accuracy"

    def __init__(self, fitting: Fitting) -> None:
        _refuse_without_padding(fitting)
        super().__init__(
            model=fitting.model(load_scorer),
            args=fitting.args,
            data_collator=self.collate,
            train_dataset=Dataset.from_dict({"chosen_ids": [[0]], "rejected_ids": [[0]]}),
            processing_class=fitting.tokenizer,
        )
        self.begin_preferences(fitting)
        self._say_what_is_new()

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Chosen rows, then rejected ones, and margins if there are any; as TRL's `DataCollatorForPreference`."""
        batch: dict[str, Any] = padded(sides(examples), self.pad_id)
        del batch["completion_mask"]
        margins = [example.group.value for example in examples]
        if margins[0] is not None:
            batch["margin"] = torch.tensor(margins)
        return {**batch, COUNTS: pair_counts(examples)}

    def rewards_of_pairs(self) -> tuple[Tensor, Tensor]:
        """The scores, which TRL gathers with the chosen answers' first."""
        scores = next(value for value in self.gathered if value.ndim == 2)
        chosen, rejected = scores.squeeze(-1).chunk(2)
        return chosen, rejected

    def _say_what_is_new(self) -> None:
        model = self.accelerator.unwrap_model(self.model)
        if self.job.resume_from is None and getattr(model, HEAD_IS_NEW, False):
            self.job.events.add("note", 0, text="the head that gives a score is new")


def _refuse_without_padding(fitting: Fitting) -> None:
    """The score is read at the last token that is no padding, which needs a token for padding."""
    tokenizer = fitting.tokenizer
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        what = "its tokenizer has neither a token for padding nor one for the end"
        raise ConfigError(Problem("model.path", what, "name a model that has one of the two"))
