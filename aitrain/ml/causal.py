"""Causal language models on token rows: transformers' Trainer with our own order of rows, loss and evaluation.

Every token weighs the same whatever the batches, the accumulation and the number of processes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer

from aitrain.data.columns import Shape
from aitrain.data.encoding import prompt_ids
from aitrain.data.rendering import RenderingError
from aitrain.errors import ConfigError, Problem
from aitrain.ml.collating import TokenDataset, TokenRows, amount
from aitrain.ml.evaluating import evaluate_causal_lm, unigram_baseline
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.generating import Prompt, prompts_of_rows
from aitrain.ml.heads import add_summed_loss
from aitrain.ml.job import Job, Outcome
from aitrain.ml.layout import choose_layout
from aitrain.ml.ordering import RankBatches
from aitrain.ml.run_loop import EpochLoader, RunLoop
from aitrain.ml.streaming import StreamBatches
from aitrain.rundir.folder import REPORT, read_json

MINIMUM = 1e-12
"""Keeps a step without anything to learn, whose loss is zero, from dividing by zero."""


def fit_causal_lm(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), _trainer, _baselines)


def _trainer(fitting: Fitting) -> CausalTrainer:
    trainer = CausalTrainer(fitting)
    if fitting.job.rank == 0 and fitting.valid is not None:
        trainer.prompts = _prompts(fitting.job, fitting.tokenizer, fitting.valid)
    return trainer


def _baselines(fitting: Fitting) -> dict[str, float]:
    if fitting.valid is None or isinstance(fitting.rows, StreamBatches):
        return {}
    return {"unigram": unigram_baseline(fitting.rows, fitting.valid, len(fitting.tokenizer))}


def _prompts(job: Job, tokenizer: Any, valid: TokenRows) -> list[Prompt]:
    texts = job.run.generate.prompts
    if texts is None:
        return prompts_of_rows(valid, tokenizer, job.run.generate.count)
    # The opening of the report names the column of plain texts, which are no conversations: neither is a prompt then.
    columns = str((read_json(job.folder / REPORT) or {}).get("data", {}).get("columns"))
    shape: Shape = "text" if columns.startswith("text=") else "messages"
    try:
        ids = prompt_ids(tokenizer, texts, job.encoder, shape)
    except RenderingError as error:
        raise ConfigError(Problem("generate.prompts", str(error), "leave it out for prompts of the data")) from error
    return [Prompt(row, text, None) for row, text in zip(ids, texts, strict=True)]


class CausalTrainer(RunLoop, Trainer):
    """The Trainer with this project's rows, loss and evaluation."""

    def __init__(self, fitting: Fitting) -> None:
        rows = fitting.rows
        dataset = rows if isinstance(rows, StreamBatches) else TokenDataset(rows)
        super().__init__(
            model=fitting.model(), args=fitting.args, train_dataset=dataset, processing_class=fitting.tokenizer
        )
        self.begin_run(fitting.job, fitting.tokenizer, rows, fitting.valid)
        self.layout = choose_layout(self.model, fitting.job.run.train.padding_free, fitting.job.plan.precision)
        laid = "laid end to end" if self.layout.padding_free else "padded"
        self.job.events.add("note", self.state.global_step, text=f"rows are {laid}: {self.layout.reason}")
        add_summed_loss(self.model)
        self.collate = self.layout.collate(self.pad_id)
        if isinstance(rows, StreamBatches):
            rows.collate = self.collate

    def generating(self) -> AbstractContextManager[None]:
        return self.layout.generating(self.model)

    # --- rows ---

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this rank, in the order that seed and epoch give, or as they stream in."""
        if isinstance(self.rows, StreamBatches):
            return DataLoader(self.rows, batch_size=None, generator=torch.Generator())
        batches = RankBatches(
            len(self.rows),
            batch_size=self.args.per_device_train_batch_size,
            rank=self.job.rank,
            world=self.job.world,
            seed=self.args.seed,
        )
        return EpochLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.collate,
            generator=torch.Generator(),
        )

    # --- loss ---

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        counted = sum(amount(batch) for batch in batch_samples)
        read = sum(int(batch["tokens"]) for batch in batch_samples)
        seen = torch.tensor([counted, read], dtype=torch.float64)
        if self.job.world > 1:
            seen = seen.to(device)
            dist.all_reduce(seen)
        self.books.take_step(int(seen[1]))
        return seen[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """This micro-batch's part of the step's mean loss over tokens, times the number of ranks.

        The ranks' gradients are averaged, which divides by it again.
        """
        inputs.pop("tokens")
        loss: torch.Tensor = model(**inputs).loss
        return loss / float(num_items_in_batch.clamp(min=MINIMUM)) * self.job.world

    # --- evaluation ---

    def measure(self) -> dict[str, float]:
        return evaluate_causal_lm(
            self.accelerator.unwrap_model(self.model),
            self.valid,
            lengths=self.valid.lengths(),
            batch_size=self.job.run.train.eval_batch_size or self.job.run.train.batch_size,
            collate=self.collate,
            rank=self.job.rank,
            world=self.job.world,
            device=self.args.device,
            interrupted=lambda: bool(self.job.stop.requested()),
        )
