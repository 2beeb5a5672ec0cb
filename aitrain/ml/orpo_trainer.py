"""Odds ratio preference optimisation: TRL's `ORPOTrainer` with this project's rows, order, evaluation and
checkpoints."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from aitrain.ml.examples import EXAMPLES, Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.pairs_alone import NLL, PairsAlone, RowsAsTheyAre
from aitrain.ml.preference import prompts_to_answer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is an experiment, which may change: the version of trl is pinned
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer


def fit_orpo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    args = training_arguments(job, ORPOConfig, beta=section.beta, disable_dropout=section.disable_dropout)
    return fit(job, args, ORPOFit)


class ORPOFit(PairsAlone, ORPOTrainer):
    """TRL's loss on this project's rows."""

    weighed_by: ClassVar = {
        "rewards/chosen": EXAMPLES,
        "rewards/rejected": EXAMPLES,
        "rewards/accuracies": EXAMPLES,
        "rewards/margins": EXAMPLES,
        "logps/chosen": EXAMPLES,
        "logps/rejected": EXAMPLES,
        "log_odds_ratio": EXAMPLES,
        "log_odds_chosen": EXAMPLES,
        "nll_loss": NLL,
    }

    def __init__(self, fitting: Fitting) -> None:
        super().__init__(
            model=fitting.model(),
            args=fitting.args,
            data_collator=self.collate,
            train_dataset=RowsAsTheyAre(),
            processing_class=fitting.tokenizer,
        )
        self.begin_preferences(fitting)
        self.padding_value = self.pad_id
        self.prompts = prompts_to_answer(fitting)

    def nll_tokens(self, example: Example) -> int:
        """The whole conversation is learnt, not the answer alone."""
        return len(example.group.rows[0].ids) - 1
