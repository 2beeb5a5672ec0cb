"""`trainer=standard`: one row of token ids an example, and a loss that the task states.

The loss of a step is the mean over what its examples count, whatever the micro-batches, the accumulation and the number
of processes; predictions of a validation are put back into the order of its rows before they are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from aitrain.data.target_encoding import values_of
from aitrain.data.tokens import TokenRow
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.examples import COUNTS, Example, Examples, lengths_of
from aitrain.ml.fitting import Fitting
from aitrain.ml.length_groups import Draw, LengthGroupedBatches
from aitrain.ml.loading import new_modules, set_padding
from aitrain.ml.ordering import EvaluationBatches
from aitrain.ml.run_loop import EpochLoader, RunLoop

AMOUNT = "amount"
"""What a batch counts in the mean of a step: its examples, each by its weight."""
TARGETS = "targets"
LONGEST_TEXT = 300
"""Characters of a row that the report shows."""


class StandardFit(RunLoop, Trainer):
    """transformers' Trainer with this project's rows, order, loss of a step and evaluation."""

    def __init__(self, fitting: Fitting, load: Callable[..., Any]) -> None:
        model = fitting.model(load)
        set_padding(model, fitting.tokenizer)
        super().__init__(
            model=model,
            args=fitting.args,
            data_collator=self.collate,
            train_dataset=Examples(fitting.rows),
            processing_class=fitting.tokenizer,
        )
        self.begin_run(fitting.job, fitting.tokenizer, fitting.rows, fitting.valid)
        if self.job.resume_from is None and (new := new_modules(self.trained_model())):
            text = f"drawn anew, since {fitting.job.run.model.path} has none: {', '.join(new)}"
            self.job.events.add("note", 0, text=text)

    # --- what a task states ---

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        """What is to be predicted of the examples, whatever shape the loss takes it in."""
        raise NotImplementedError

    def amount(self, targets: Tensor) -> float:
        """What these examples count in the mean of a step."""
        raise NotImplementedError

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The sum over the examples of each one's loss, times what it counts."""
        raise NotImplementedError

    def predicted(self, outputs: Any) -> Tensor:
        """The prediction of each example: (examples, width)."""
        raise NotImplementedError

    def predicted_of(self, outputs: Any, targets: Tensor) -> Tensor:
        """The same, where it takes what is known of the examples."""
        return self.predicted(outputs)

    @property
    def width(self) -> int:
        """Numbers that a prediction has."""
        raise NotImplementedError

    def room(self, rows: Any) -> Tensor:
        """Zeros in place of the predictions of all rows: (rows, width), or more lines where a row has several."""
        return torch.zeros(len(rows), self.width, dtype=torch.float64)

    def take(self, found: Tensor, numbers: Sequence[int], outputs: Any, targets: Tensor) -> None:
        """Put the predictions of the rows of these numbers into the room for all of them."""
        found[list(numbers)] = self.predicted_of(outputs, targets).double().cpu()

    def judge(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        """What the predictions of the validation rows, (rows, width) in their order, are worth."""
        raise NotImplementedError

    def details(self, predictions: NDArray[np.float64]) -> dict[str, Any]:
        """The same in more than numbers, for the pictures of the report. Rows by their number."""
        raise NotImplementedError

    def drawn(self) -> Draw | None:
        """Which examples an epoch has, where that is not each of them once."""
        return None

    def lengths(self, rows: Any) -> NDArray[np.int64]:
        """What a row costs, by which rows are put together into batches."""
        return lengths_of(rows)

    # --- rows ---

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """A batch padded on the right to its longest row."""
        targets = self.targets_of(examples)
        counted = examples[0].counts
        tokens = sum(len(example.group.rows[0].ids) for example in examples)
        counts = {"tokens": tokens if counted else 0, AMOUNT: self.amount(targets) if counted else 0.0}
        rows = [example.group.rows[0] for example in examples]
        return {**padded(rows, self.pad_id), TARGETS: targets, COUNTS: counts}

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this rank, in the order that seed and epoch give."""
        order = LengthGroupedBatches(
            self.lengths(self.rows),
            batch_size=self.args.per_device_train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            rank=self.job.rank,
            world=self.job.world,
            seed=self.args.seed,
            draw=self.drawn(),
        )
        return EpochLoader(
            self.train_dataset, batch_sampler=order, collate_fn=self.collate, generator=torch.Generator()
        )

    # --- a step ---

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        seen = torch.tensor(
            [[batch[COUNTS][AMOUNT], batch[COUNTS]["tokens"]] for batch in batch_samples], dtype=torch.float64
        ).sum(0)
        if self.job.world > 1:
            seen = seen.to(device)
            dist.all_reduce(seen)
        self.books.take_step(int(seen[1]))
        return seen[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This micro-batch's part of the step's mean loss, times the number of ranks, by whose mean of gradients it is
        divided again."""
        counts, targets = inputs.pop(COUNTS), inputs.pop(TARGETS)
        outputs = model(**inputs)
        loss = self.summed_loss(outputs, targets)
        if not counts[AMOUNT]:  # a stand-in, or a batch of examples that count nothing
            return loss * 0.0
        return loss * (self.job.world / float(num_items_in_batch))

    # --- evaluation ---

    def measure(self) -> dict[str, float]:
        predictions, loss = self.predict_rows(self.valid)
        if not math.isfinite(loss):  # the run ends because of it; there is nothing to judge
            return {"loss": loss}
        return {"loss": loss, **self.judge(predictions)}

    def described(self) -> dict[str, Any] | None:
        if self.valid is None or self.books.after is None:
            return None
        try:
            with self.accelerator.autocast():
                return self.details(self.predict_rows(self.valid)[0])
        except EvaluationInterrupted:  # the run is over; its report lacks the pictures
            return None

    def with_texts(self, details: dict[str, Any], *lists: str) -> dict[str, Any]:
        """Details whose rows have the text that the model read, of the given lists."""
        for entry in (entry for name in lists for entry in details[name]):
            ids = self.valid[entry["row"]].rows[0].ids
            entry["text"] = self.processing_class.decode(ids, skip_special_tokens=True)[:LONGEST_TEXT]
        return details

    def predict_rows(self, rows: Any) -> tuple[NDArray[np.float64], float]:
        """Predictions of all rows, (rows, width) in their order, and the mean loss; the same on every rank.

        Raises EvaluationInterrupted on every rank once any of them sees a stop request.
        """
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                found, sums = self._predict(model, rows)
        finally:
            model.train(was_training)
        if self.job.world > 1:
            both = torch.cat([found.reshape(-1), sums]).to(self.args.device)
            dist.all_reduce(both)
            found, sums = both[:-2].reshape(found.shape).cpu(), both[-2:].cpu()
        if self._agreed_signal():
            raise EvaluationInterrupted
        return found.numpy(), float(sums[0] / sums[1]) if sums[1] else 0.0

    def _predict(self, model: Any, rows: Any) -> tuple[Tensor, Tensor]:
        """This rank's predictions, 0 elsewhere, and its sums of losses and of what they count."""
        found = self.room(rows)
        sums = torch.zeros(2, dtype=torch.float64)
        order = self._order_of_evaluation(rows)
        loader = DataLoader(Examples(rows), batch_sampler=order, collate_fn=self.collate, generator=torch.Generator())
        for numbers, batch in zip(order, self._until_stopped(loader), strict=False):
            inputs = self._prepare_inputs(batch)
            counts, targets = inputs.pop(COUNTS), inputs.pop(TARGETS)
            outputs = model(**inputs)
            sums += torch.tensor([float(self.summed_loss(outputs, targets)), counts[AMOUNT]], dtype=torch.float64)
            self.take(found, numbers, outputs, targets)
        return found, sums

    def _order_of_evaluation(self, rows: Any) -> Sampler[list[int]]:
        size = self.job.run.train.eval_batch_size or self.job.run.train.batch_size
        return EvaluationBatches(self.lengths(rows), batch_size=size, rank=self.job.rank, world=self.job.world)

    def _until_stopped(self, batches: DataLoader) -> Iterator[Any]:
        for batch in batches:
            if self.job.stop.requested():
                return
            yield batch


def padded(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and, where rows tell two texts apart, `token_type_ids`; each (rows, longest)."""
    longest = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask, types = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        mask[index, : len(row.ids)] = 1
        if row.types is not None:
            types[index, : len(row.ids)] = row.types
    found = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return {**found, "token_type_ids": torch.from_numpy(types)} if rows[0].types is not None else found


def values_in(rows: Any) -> NDArray[np.float64]:
    """The numbers of all examples to train on, in their order, also where they are the one batch of
    `train.overfit_batch`."""
    if isinstance(rows, list):
        return np.asarray([row.value for row in rows], np.float64)
    return values_of(rows)
