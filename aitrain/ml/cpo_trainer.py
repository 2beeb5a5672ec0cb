"""Contrastive preference optimisation and its kin: TRL's `CPOTrainer` with this project's rows, order, evaluation and
checkpoints."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from aitrain.ml.examples import EXAMPLES, Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.pairs_alone import NLL, PairsAlone, RowsAsTheyAre
from aitrain.ml.preference import predicted, prompts_to_answer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is an experiment, which may change: the version of trl is pinned
    from trl.experimental.cpo import CPOConfig, CPOTrainer


def fit_cpo(job: Job, **settings: Any) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises.

    `settings` are those of TRL's `CPOConfig`.
    """
    return fit(job, training_arguments(job, CPOConfig, **settings), CPOFit)


class CPOFit(PairsAlone, CPOTrainer):
    """TRL's loss on this project's rows."""

    weighed_by: ClassVar = {
        "rewards/chosen": EXAMPLES,
        "rewards/rejected": EXAMPLES,
        "rewards/accuracies": EXAMPLES,
        "rewards/margins": EXAMPLES,
        "logps/chosen": EXAMPLES,
        "logps/rejected": EXAMPLES,
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
        self.pad_token_id = self.pad_id
        self.prompts = prompts_to_answer(fitting)

    def nll_tokens(self, example: Example) -> int:
        """The chosen answer is learnt."""
        return predicted(example.group.rows[0])

    def recorded(self) -> dict[str, float]:
        found = super().recorded()
        if self.cpo_alpha == 0:  # TRL leaves the cross entropy out, and notes a zero
            del found["nll_loss"]
        return found
