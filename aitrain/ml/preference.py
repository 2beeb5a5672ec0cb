"""What the trainers on preferences have in common: TRL computes the loss of a batch, all else is this project's.

Examples are one row (an answer that is wanted or not) or two (a prompt with its chosen and its rejected answer). The
loss of a step is the mean over its examples, whatever the micro-batches, the accumulation and the number of processes:
TRL gives the mean over a micro-batch, which counts here by its share of the step's examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from aitrain.data.encoding import prompt_ids
from aitrain.data.rendering import RenderingError
from aitrain.data.tokens import TokenRow
from aitrain.errors import ConfigError, Problem
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.examples import COUNTS, EXAMPLES, Example, ExampleRows, Examples, Totals, counts_of, lengths_of
from aitrain.ml.fitting import Fitting
from aitrain.ml.generating import Prompt, prompts_of_rows
from aitrain.ml.length_groups import LengthGroupedBatches
from aitrain.ml.ordering import EvaluationBatches
from aitrain.ml.run_loop import EpochLoader, RunLoop


def padded(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and `completion_mask` (1 on trained tokens), each (rows, longest row)."""
    longest = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask, trained = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = row.ids
        mask[index, :length] = 1
        trained[index, :length] = row.trained
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "completion_mask": torch.from_numpy(trained),
    }


def predicted(row: TokenRow) -> int:
    """Trained tokens of a row that are predicted; the first one never is."""
    return int(row.trained[1:].sum())


def pair_counts(examples: Sequence[Example]) -> dict[str, float]:
    """Counts of a batch of pairs: examples, tokens, and predicted tokens of the chosen and the rejected answers."""
    chosen, rejected = (sum(predicted(example.group.rows[side]) for example in examples) for side in (0, 1))
    return counts_of(examples, chosen=chosen, rejected=rejected)


def sides(examples: Sequence[Example]) -> list[TokenRow]:
    """The chosen rows of pairs, then the rejected ones."""
    return [example.group.rows[side] for side in (0, 1) for example in examples]


@contextmanager
def of_this_rank(accelerator: Any) -> Iterator[list[Tensor]]:
    """TRL gathers its measures over ranks, micro-batch by micro-batch; here they are summed once a step instead.

    Gives what TRL would have gathered, reduced or padded for that, in its order.
    """
    names = ("gather", "gather_for_metrics", "reduce", "pad_across_processes")
    seen: list[Tensor] = []

    def as_it_is(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, Tensor):
            seen.append(value.detach())
        return value

    for name in names:
        setattr(accelerator, name, as_it_is)
    try:
        yield seen
    finally:
        for name in names:
            delattr(accelerator, name)


def right_order(chosen: Tensor, rejected: Tensor) -> float:
    """Share of pairs whose chosen answer has the higher reward.

    A tie counts as half: a model that is still its own reference prefers neither answer, which is as good as a coin.
    TRL counts it as wrong.
    """
    return float((chosen > rejected).double().mean() + (chosen == rejected).double().mean() / 2)


class PreferenceLoop(RunLoop):
    """One of TRL's trainers on preferences with this project's rows, order, evaluation and measures.

    Comes before TRL's trainer, whose `compute_loss` must be the mean over the examples of a batch.
    """

    weighed_by: ClassVar[Mapping[str, str]]
    """The measures of TRL that are reported, and which count of a batch weighs each."""
    accuracy: ClassVar[str | None] = "rewards/accuracies"
    """The one of them that says how many pairs are in the right order; None where there are no pairs."""
    _metrics: Any

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """A batch as TRL's own collator makes it, and its `counts`."""
        raise NotImplementedError

    def begin_preferences(self, fitting: Fitting) -> None:
        """Take over TRL's trainer that was just made."""
        self.begin_run(fitting.job, fitting.tokenizer, fitting.rows, fitting.valid)
        self.train_dataset = Examples(fitting.rows)
        self.step_totals = Totals(self.weighed_by)
        self.frozen = [p for p in self.model.parameters() if not p.requires_grad]

    # --- what TRL would do besides ---

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The rows are token ids already."""
        return dataset

    def _send_telemetry(self) -> None:
        """Tells nobody of this run."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is this project's."""

    # --- rows ---

    def order(self) -> Sampler[Any]:
        """The examples of this rank's micro-batches, by number."""
        return LengthGroupedBatches(
            lengths_of(self.rows),
            batch_size=self.args.per_device_train_batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            rank=self.job.rank,
            world=self.job.world,
            seed=self.args.seed,
        )

    def order_of_evaluation(self) -> Sampler[Any]:
        """The validation examples that this rank judges the model by, by number."""
        size = self.job.run.train.eval_batch_size or self.job.run.train.batch_size
        return EvaluationBatches(lengths_of(self.valid), batch_size=size, rank=self.job.rank, world=self.job.world)

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this rank, in the order that seed and epoch give."""
        return EpochLoader(
            self.train_dataset, batch_sampler=self.order(), collate_fn=self.collate, generator=torch.Generator()
        )

    # --- a step ---

    def look_ahead(self, batches: Iterable[dict[str, Any]]) -> None:
        """Find what the loss needs to know of all of a step's micro-batches on this rank, or of an evaluation's.

        Collective.
        """

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        seen = torch.tensor(
            [[batch[COUNTS][EXAMPLES], batch[COUNTS]["tokens"]] for batch in batch_samples], dtype=torch.float64
        ).sum(0)
        if self.job.world > 1:
            seen = seen.to(device)
            dist.all_reduce(seen)
        self.books.take_step(int(seen[1]))
        self.look_ahead(batch_samples)
        return seen[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """This micro-batch's part of the step's mean loss over examples, times the number of ranks.

        The ranks' gradients are averaged, which divides by it again.
        """
        counts = inputs.pop(COUNTS)
        loss = self.mean_of_batch(model, inputs, counts)
        self.note_measures(self.step_totals, counts)
        return loss * (counts[EXAMPLES] / float(num_items_in_batch) * self.job.world)

    def mean_of_batch(self, model: Any, inputs: Any, counts: Mapping[str, float]) -> Tensor:
        """TRL's loss of a micro-batch."""
        trl: Any = super()
        with of_this_rank(self.accelerator) as seen:
            loss: Tensor = trl.compute_loss(model, inputs)
        self.gathered = seen
        for parameter in self.frozen:  # switching an adapter off and on unfreezes all of it
            parameter.requires_grad_(False)
        return loss

    def recorded(self) -> dict[str, float]:
        """What TRL noted of the micro-batch just computed, and forgets with that."""
        found: dict[str, float] = {}
        for metrics in self._metrics.values():
            found |= {name: values[-1] for name, values in metrics.items() if values}
            metrics.clear()
        return found

    def rewards_of_pairs(self) -> tuple[Tensor, Tensor]:
        """Rewards of the chosen and of the rejected answers of the micro-batch just computed: the first two vectors
        that TRL gathers."""
        chosen, rejected = [value for value in self.gathered if value.ndim == 1][:2]
        return chosen, rejected

    def note_measures(self, totals: Totals, counts: Mapping[str, float]) -> None:
        """Add what was noted of a micro-batch to the totals."""
        found = self.recorded()
        if self.accuracy is not None:
            found[self.accuracy] = right_order(*self.rewards_of_pairs())
        for name, value in found.items():
            if name in self.weighed_by:
                totals.add(name, value, counts[self.weighed_by[name]])

    def mean_step_loss(self) -> float:
        for name, (total, weight) in self.step_totals.take(self.job.world, self.args.device).items():
            if weight:
                self.books.take_measures({name: total / weight}, weight)
        return super().mean_step_loss()

    # --- evaluation ---

    def measure(self) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                found = self._judge(model)
        finally:
            model.train(was_training)
        return self.derived({name: total / weight for name, (total, weight) in found.items() if weight})

    def _judge(self, model: Any) -> dict[str, tuple[float, float]]:
        loader = DataLoader(
            Examples(self.valid),
            batch_sampler=self.order_of_evaluation(),
            collate_fn=self.collate,
            generator=torch.Generator(),
        )
        totals = Totals(("loss", *self.weighed_by))
        self.look_ahead(self._until_stopped(loader))
        for batch in self._until_stopped(loader):
            inputs = self._prepare_inputs(batch)  # type: ignore[attr-defined]
            counts = inputs.pop(COUNTS)
            totals.add("loss", self.mean_of_batch(model, inputs, counts).item(), counts[EXAMPLES])
            self.note_measures(totals, counts)
        found = totals.take(self.job.world, self.args.device)
        if self._agreed_signal():
            raise EvaluationInterrupted
        return found

    def _until_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            if self.job.stop.requested():
                return
            yield batch


# --- prompts to answer ---------------------------------------------------------------------------------------------


class _FirstRows:
    """The first row of each example."""

    def __init__(self, rows: ExampleRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TokenRow:
        return self.rows[index].rows[0]


def prompts_to_answer(fitting: Fitting) -> list[Prompt]:
    """Prompts of the validation examples, or those of `generate.prompts`. No answer is the one right answer."""
    job, tokenizer = fitting.job, fitting.tokenizer
    if job.rank != 0 or fitting.valid is None:
        return []
    texts = job.run.generate.prompts
    if texts is None:
        found = prompts_of_rows(_FirstRows(fitting.valid), tokenizer, job.run.generate.count)
        return [Prompt(prompt.ids, prompt.text, None) for prompt in found]
    try:
        ids = prompt_ids(tokenizer, texts, job.encoder, "messages")
    except RenderingError as error:
        raise ConfigError(Problem("generate.prompts", str(error), "leave it out for prompts of the data")) from error
    return [Prompt(row, text, None) for row, text in zip(ids, texts, strict=True)]


# --- models --------------------------------------------------------------------------------------------------------


def without_adapter_on_head(model: Any) -> Any:
    """The model, unless its head has an adapter: TRL multiplies by the head's own weights, past any adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        what = "an adapter on the output head would never be trained"
        raise ConfigError(Problem("peft.target_modules", what, "leave the head out of it"))
    return model


def reference_model(fitting: Fitting, ref_model: str | None, model: Any) -> Any:
    """What the policy `model` is held to: `ref_model`, or the starting model anew, never what a checkpoint holds; None
    for an adapter, which is switched off instead."""
    if ref_model is None and fitting.job.adapt is not None:
        return None
    try:
        found = fitting.frozen_model(ref_model)
    except ConfigError as error:  # the same words would name model.path
        key = "trainer.ref_model" if ref_model else "model.path"
        raise ConfigError(replace(problem, key=key) for problem in error.problems) from error
    ours, theirs = (m.get_input_embeddings().num_embeddings for m in (model, found))
    if ours != theirs:
        what = f"{ref_model} has {theirs} tokens and the model {ours}: they read different token ids"
        raise ConfigError(Problem("trainer.ref_model", what, "name a model with the same tokenizer"))
    section: Any = fitting.job.run.trainer
    if section.sync_ref_model and [p.shape for p in model.parameters()] != [p.shape for p in found.parameters()]:
        what = f"{ref_model} has other weights than the model, so it cannot move towards it"
        raise ConfigError(Problem("trainer.sync_ref_model", what, "leave it out, or name a model of the same kind"))
    return found


REFERENCE = "reference.safetensors"
"""File in a checkpoint that holds a reference model which moves."""


class HeldToReference(PreferenceLoop):
    """A trainer with a reference model, which `trainer.sync_ref_model` moves towards the policy."""

    ref_model: Any

    def save_more(self, folder: Path) -> None:
        if self.args.sync_ref_model:
            weights = {name: weight.detach().cpu() for name, weight in self.ref_model.named_parameters()}
            save_file(weights, folder / REFERENCE)

    def restore_books(self, checkpoint: Path) -> None:
        super().restore_books(checkpoint)
        if self.args.sync_ref_model:
            saved = load_file(checkpoint / REFERENCE)
            for name, weight in self.ref_model.named_parameters():
                weight.data.copy_(saved[name])


def drop_copied_adapter(model: Any) -> None:
    """TRL copies an adapter that it finds, to hold the policy to where that began. The base model is what a run holds
    it to, so the copy goes."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
