"""Direct preference optimisation: TRL's `DPOTrainer` with this project's rows, order, evaluation and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from aitrain.ml.examples import COUNTS, EXAMPLES, Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.preference import (
    HeldToReference,
    drop_copied_adapter,
    padded,
    pair_counts,
    prompts_to_answer,
    reference_model,
    sides,
    without_adapter_on_head,
)

SETTINGS = ("beta", "label_smoothing", "loss_weights", "f_divergence_type", "f_alpha_divergence_coef", "discopop_tau",
            "ld_alpha", "use_weighting", "disable_dropout", "sync_ref_model", "ref_model_mixup_alpha",
            "ref_model_sync_steps")  # fmt: skip
"""Keys of the section that TRL knows under the same name."""


def fit_dpo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    settings = {name: getattr(section, name) for name in SETTINGS}
    losses = [section.loss_type] if isinstance(section.loss_type, str) else list(section.loss_type)
    return fit(job, training_arguments(job, DPOConfig, loss_type=losses, **settings), DPOFit)


class DPOFit(HeldToReference, DPOTrainer):
    """TRL's loss on this project's rows."""

    weighed_by: ClassVar = {
        "rewards/chosen": EXAMPLES,
        "rewards/rejected": EXAMPLES,
        "rewards/accuracies": EXAMPLES,
        "rewards/margins": EXAMPLES,
        "logps/chosen": EXAMPLES,
        "logps/rejected": EXAMPLES,
        "mean_token_accuracy": "chosen",
    }

    def __init__(self, fitting: Fitting) -> None:
        section: Any = fitting.job.run.trainer
        model = without_adapter_on_head(fitting.model())
        super().__init__(
            model=model,
            ref_model=reference_model(fitting, section.ref_model, model),
            args=fitting.args,
            data_collator=self.collate,
            train_dataset=Dataset.from_dict({"prompt_ids": [[0]], "chosen_ids": [[0]], "rejected_ids": [[0]]}),
            processing_class=fitting.tokenizer,
        )
        drop_copied_adapter(self.model)
        self.begin_preferences(fitting)
        self.prompts = prompts_to_answer(fitting)

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Chosen rows, then rejected ones; as TRL's `DataCollatorForPreference`."""
        return {**padded(sides(examples), self.pad_id), COUNTS: pair_counts(examples)}
