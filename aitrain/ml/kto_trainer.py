"""Kahneman-Tversky optimisation: TRL's `KTOTrainer` with this project's rows, order, evaluation and checkpoints.

The loss compares each answer's reward with an estimate of how far the model has drifted from the reference: the mean
reward of answers under prompts that they do not belong to, which nothing is learnt from. TRL takes it over each
micro-batch. Here it is taken over all examples of the optimizer step before the first of its micro-batches, so that the
step is the same however it is divided; in an evaluation over all validation examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler
from trl import KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from aitrain.data.tokens import Group, TokenRow
from aitrain.errors import ConfigError, Problem
from aitrain.ml.examples import COUNTS, EXAMPLES, Example, counts_of, lengths_of
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.length_groups import LengthGroupedBatches, grouped_order
from aitrain.ml.ordering import EvaluationBatches
from aitrain.ml.preference import (
    HeldToReference,
    drop_copied_adapter,
    padded,
    prompts_to_answer,
    reference_model,
    without_adapter_on_head,
)

SETTINGS = ("beta", "loss_type", "desirable_weight", "undesirable_weight", "disable_dropout", "sync_ref_model",
            "ref_model_mixup_alpha", "ref_model_sync_steps")  # fmt: skip
"""Keys of the section that TRL knows under the same name."""


def fit_kto(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    args = training_arguments(job, KTOConfig, **{name: getattr(section, name) for name in SETTINGS})
    return fit(job, args, KTOFit)


class Partnered(Sampler[list[tuple[int, int]]]):
    """Batches of examples, each with the number of another one whose answer goes under its prompt.

    `order` lists every example; the partner is the one before it there.
    """

    def __init__(
        self, batches: LengthGroupedBatches | EvaluationBatches, order: NDArray[np.int64] | None = None
    ) -> None:
        self.batches = batches
        self.order = order

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        assert isinstance(self.batches, LengthGroupedBatches)
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order()
        partners = np.empty_like(order)
        partners[order] = np.roll(order, 1)
        for batch in self.batches:
            yield [(number, int(partners[number])) for number in batch]

    def _order(self) -> NDArray[np.int64]:
        if self.order is not None:
            return self.order
        of = self.batches
        assert isinstance(of, LengthGroupedBatches)
        return grouped_order(of.lengths, global_batch=of.global_batch, seed=of.seed, epoch=of.epoch)


class KTOFit(HeldToReference, KTOTrainer):
    """TRL's loss on this project's rows."""

    weighed_by: ClassVar = {
        "rewards/chosen": "wanted",
        "rewards/rejected": "unwanted",
        "logps/chosen": "wanted",
        "logps/rejected": "unwanted",
        "kl": EXAMPLES,
    }
    accuracy = None

    def __init__(self, fitting: Fitting) -> None:
        section: Any = fitting.job.run.trainer
        model = without_adapter_on_head(fitting.model())
        with several_at_once(fitting.args):
            super().__init__(
                model=model,
                ref_model=reference_model(fitting, section.ref_model, model),
                args=fitting.args,
                data_collator=self.collate,
                train_dataset=Dataset.from_dict({"prompt_ids": [[0]], "completion_ids": [[0]], "label": [True]}),
                processing_class=fitting.tokenizer,
            )
        self._train_batch_size = fitting.args.train_batch_size
        drop_copied_adapter(self.model)
        self.begin_preferences(fitting)
        self.prompts = prompts_to_answer(fitting)
        _refuse_one_sided(fitting)

    # --- rows ---

    def order(self) -> Sampler[Any]:
        batches = super().order()
        assert isinstance(batches, LengthGroupedBatches)
        return Partnered(batches)

    def order_of_evaluation(self) -> Sampler[Any]:
        batches = super().order_of_evaluation()
        assert isinstance(batches, EvaluationBatches)
        return Partnered(batches, np.argsort(-lengths_of(self.valid), kind="stable"))

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Answers, whether they are wanted, and under the prefix `KL_` answers under prompts that they do not belong
        to; as TRL's `DataCollatorForUnpairedPreference`."""
        wanted = [bool(example.group.value) for example in examples]
        rows = [example.group.rows[0] for example in examples]
        batch: dict[str, Any] = {**padded(rows, self.pad_id), "label": torch.tensor(wanted)}
        if self.calculate_KL:
            mismatched = padded([put_under(example.group, example.partner) for example in examples], self.pad_id)
            batch |= {f"KL_{name}": value for name, value in mismatched.items()}
        counts = counts_of(examples, wanted=sum(wanted), unwanted=len(wanted) - sum(wanted))
        return {**batch, COUNTS: counts}

    # --- how far the model has drifted ---

    def look_ahead(self, batches: Iterable[dict[str, Any]]) -> None:
        if not self.calculate_KL:
            return
        sums = torch.zeros(2, dtype=torch.float64)
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        with torch.no_grad(), self.accelerator.autocast():
            for batch in batches:
                if batch[COUNTS][EXAMPLES]:
                    mismatched = {name: value for name, value in batch.items() if name.startswith("KL_")}
                    inputs = self._prepare_inputs(mismatched)
                    sums[0] += float(self._rewards_without_beta(model, inputs).double().sum())
                    sums[1] += batch[COUNTS][EXAMPLES]
        model.train(was_training)
        if self.job.world > 1:
            sums = sums.to(self.args.device)
            dist.all_reduce(sums)
        self.drift = float(sums[0]) / max(float(sums[1]), 1)

    def _rewards_without_beta(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Log-probability of the mismatched answers by the model less that by the reference, one a row."""
        policy = super()._compute_kl_logps(model, inputs)
        if self.ref_model is not None:
            return policy - super()._compute_kl_logps(self.ref_model, inputs)
        with use_adapter(model, None):
            return policy - super()._compute_kl_logps(model, inputs)

    def _compute_kl_logps(self, model: Any, batch: Any) -> Tensor | None:
        """TRL asks twice and takes the model's less the reference's: here the drift, which is known, and 0."""
        if not self.calculate_KL:
            return None
        self.asked = not getattr(self, "asked", False)
        return torch.full((1,), self.drift if self.asked else 0.0, device=self.args.device)

    def derived(self, measures: dict[str, float]) -> dict[str, float]:
        if "rewards/chosen" in measures and "rewards/rejected" in measures:
            measures["rewards/margins"] = measures["rewards/chosen"] - measures["rewards/rejected"]
        return measures


@contextmanager
def several_at_once(args: KTOConfig) -> Iterator[None]:
    """TRL refuses micro-batches of one answer, whose drift would be its own reward. Here a step's answers are many."""
    size = args.per_device_train_batch_size
    args.per_device_train_batch_size = max(size, 2)
    try:
        yield
    finally:
        args.per_device_train_batch_size = size


def _refuse_one_sided(fitting: Fitting) -> None:
    """Rewards of wanted or unwanted answers cannot choose the best where no validation row is of that kind."""
    metric = fitting.job.run.train.metric_for_best_model
    if fitting.valid is None or metric in ("loss", "kl"):
        return
    kinds = {bool(fitting.valid[index].value) for index in range(len(fitting.valid))}
    if len(kinds) < 2:
        what = f"{metric} needs wanted and unwanted answers, and the validation rows are all of one kind"
        raise ConfigError(Problem("train.metric_for_best_model", what, "use loss, or raise data.valid_fraction"))


def put_under(prompt: Group, answer: Group | None) -> TokenRow:
    """The answer of one example under the prompt of another."""
    assert answer is not None
    ours, theirs = prompt.rows[0], answer.rows[0]
    end, start = _prompt_length(ours), _prompt_length(theirs)
    return TokenRow(
        np.concatenate([ours.ids[:end], theirs.ids[start:]]),
        np.concatenate([np.zeros(end, np.uint8), theirs.trained[start:]]),
    )


def _prompt_length(row: TokenRow) -> int:
    return int(np.argmax(row.trained))
