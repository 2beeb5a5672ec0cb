"""`task=seq2seq`: cross entropy on the tokens of targets, and texts that are written at each evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from aitrain.data.seq2seq_encoding import texts_of, with_lengths
from aitrain.data.targets import FILE
from aitrain.errors import ConfigError, Problem
from aitrain.evaluation.text import details_of_texts, judge_texts
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.examples import COUNTS, Example, Examples
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.ordering import EvaluationBatches
from aitrain.ml.seq2seq_models import (
    IGNORED,
    base_of,
    kept_settings,
    load_seq2seq,
    measures_of_targets,
    measures_of_texts,
    padded_labels,
    read_targets,
    shift_of,
    texts_of_ids,
    write,
    writing_settings,
)
from aitrain.ml.standard import AMOUNT, TARGETS, StandardFit
from aitrain.rundir.folder import write_json

COUNTED = 100_000
"""Training rows among which the most frequent target is looked for."""


def fit_seq2seq(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), Seq2SeqFit, baselines)


class Seq2SeqFit(StandardFit):
    """An encoder-decoder model on pairs of texts."""

    def __init__(self, fitting: Fitting) -> None:
        section: Any = fitting.job.run.task
        self.section = section
        super().__init__(fitting, load_seq2seq)
        model = self.trained_model()
        encoder: Any = fitting.job.encoder
        encoder.prepare(fitting.tokenizer)
        self.settings = writing_settings(model, fitting.tokenizer, section)
        base_of(model).generation_config = self.settings
        self.shift = shift_of(model)
        self.texts = chosen_texts(fitting)
        self.written: list[list[int]] | None = None
        """What the weights as they are now write for the rows of `texts`: token ids; None where that is not known."""
        if self.texts and (kept := kept_settings(self.settings)):
            note = f"texts are written with the model's own {kept}"
            self.job.events.add("note", self.state.global_step, text=note)

    # --- the loss ---

    def lengths(self, rows: Any) -> NDArray[np.int64]:
        return with_lengths(rows)

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """A batch of sources and targets, each padded on the right to its longest."""
        batch = super().collate(examples)
        if examples[0].counts:
            batch[COUNTS]["tokens"] += sum(len(example.group.rows[1].ids) for example in examples)
        return {**batch, "decoder_input_ids": self.shift(batch[TARGETS])}

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        return padded_labels([example.group.rows[1].ids.tolist() for example in examples])

    def amount(self, targets: Tensor) -> float:
        return float((targets != IGNORED).sum())

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        logits = outputs.logits.float().flatten(0, 1)
        smoothing = self.section.label_smoothing
        return cross_entropy(
            logits, targets.flatten(), ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
        )

    # --- evaluation ---

    @property
    def width(self) -> int:
        return 2

    def measure(self) -> dict[str, float]:
        counts, loss = self.predict_rows(self.valid)
        if not math.isfinite(loss):  # the run ends because of it; there is nothing to judge
            return {"loss": loss}
        right, tokens = counts.sum(axis=0)
        plain = measures_of_targets(loss, right / tokens)
        if not self.section.generate_on_eval:
            return plain
        self.written = None
        self.written = self.write_texts()
        return plain | measures_of_texts(self.given(), [target for _, target in self.texts.values()], self.written)

    def _predict(self, model: Any, rows: Any) -> tuple[Tensor, Tensor]:
        """For each row of this rank the tokens that are right and all of them, 0 elsewhere; and sums of plain losses
        and tokens."""
        found = torch.zeros(len(rows), self.width, dtype=torch.float64)
        sums = torch.zeros(2, dtype=torch.float64)
        order = self._order_of_evaluation(rows)
        loader = DataLoader(Examples(rows), batch_sampler=order, collate_fn=self.collate, generator=torch.Generator())
        for numbers, batch in zip(order, self._until_stopped(loader), strict=False):
            inputs = self._prepare_inputs(batch)
            counts, labels = inputs.pop(COUNTS), inputs.pop(TARGETS)
            read = read_targets(model(**inputs).logits, labels)
            sums += torch.tensor([float(read.losses.sum()), counts[AMOUNT]], dtype=torch.float64)
            found[numbers] = torch.stack([read.right, read.tokens], dim=1)
        return found, sums

    def write_texts(self) -> list[list[int]]:
        """What the model writes for the rows of `texts`, in their order; the same on every rank.

        Raises EvaluationInterrupted on every rank once any of them sees a stop request.
        """
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        try:
            mine = self._write_mine(model)
        finally:
            model.train(was_training)
        parts: list[Any] = [mine]
        if self.job.world > 1:
            parts = [None] * self.job.world
            dist.all_gather_object(parts, mine)
        if self._agreed_signal():
            raise EvaluationInterrupted
        found = {number: ids for part in parts for number, ids in part.items()}
        return [found[number] for number in self.texts]

    def _write_mine(self, model: Any) -> dict[int, list[int]]:
        """This rank's share, by the number of the row."""
        numbers = list(self.texts)
        sources = {number: self.valid[number].rows[0].ids.tolist() for number in numbers}
        lengths = np.array([len(sources[number]) for number in numbers])
        size = self.job.run.train.eval_batch_size or self.job.run.train.batch_size
        found: dict[int, list[int]] = {}
        for places in EvaluationBatches(lengths, batch_size=size, rank=self.job.rank, world=self.job.world):
            if self.job.stop.requested():
                break
            batch = [numbers[place] for place in places]
            ids = write(model, [sources[number] for number in batch], self.settings, self.pad_id)
            found |= dict(zip(batch, ids, strict=True))
        return found

    def given(self) -> list[str]:
        """The written texts."""
        assert self.written is not None
        return texts_of_ids(self.processing_class, self.written)

    def load_weights(self, checkpoint: Path) -> None:
        super().load_weights(checkpoint)
        self.written = None

    def described(self) -> dict[str, Any] | None:
        if not self.texts or self.books.after is None:
            return None
        try:
            if self.written is None:
                with self.accelerator.autocast():
                    self.written = self.write_texts()
        except EvaluationInterrupted:  # the run is over; its report lacks the texts
            return None
        sources, targets = zip(*self.texts.values(), strict=True)
        return {"split": "validation", **details_of_texts(sources, self.given(), targets, list(self.texts))}

    def _evaluate_here(self) -> int:
        """Shows the first of the written texts too."""
        signum = super()._evaluate_here()
        count = self.job.run.generate.count
        if not signum and self.written is not None and count and self.job.rank == 0:
            shown = list(zip(self.texts.values(), self.given(), strict=True))[:count]
            samples = [
                {"prompt": source, "expected": target, "text": given, "correct": given == target.strip()}
                for (source, target), given in shown
            ]
            self.job.events.add("generate", self.state.global_step, samples=samples)
        return signum

    # --- saving ---

    def save_beside(self, folder: Path) -> None:
        section, data = self.section, self.job.run.data
        base_of(self.trained_model()).generation_config.save_pretrained(folder)  # an adapter alone brings none
        write_json(folder / FILE, {
            "kind": "texts",
            "source_prefix": section.source_prefix,
            "max_source_length": data.max_length,
            "max_target_length": section.max_target_length,
        })  # fmt: skip


# --- what is compared ----------------------------------------------------------------------------------------------


def chosen_texts(fitting: Fitting) -> dict[int, tuple[str, str]]:
    """Source and target of the validation rows that texts are written for, by number; evenly spaced ones.

    Raises ConfigError where the best model is judged by words that no target has.
    """
    section: Any = fitting.job.run.task
    if fitting.valid is None or not section.generate_on_eval:
        return {}
    total = len(fitting.valid)
    count = min(section.generate_rows or total, total)
    found = {number: texts_of(fitting.valid, number) for number in (place * total // count for place in range(count))}
    metric = fitting.job.run.train.metric_for_best_model
    everything = " ".join(target for _, target in found.values())
    if metric.startswith("rouge") and metric not in judge_texts([""], [[everything]]):
        what = f"{metric} knows the letters a-z and digits alone, and no target has any"
        raise ConfigError(Problem("train.metric_for_best_model", what, "choose chrf"))
    return found


def baselines(fitting: Fitting) -> dict[str, Any]:
    """What copying the source is worth, and writing the most frequent target of training for every row."""
    texts = chosen_texts(fitting)
    if not texts:
        return {}
    sources, targets = zip(*texts.values(), strict=True)
    seen: Counter[str] = Counter(texts_of(fitting.rows, number)[1] for number in range(min(len(fitting.rows), COUNTED)))
    ((frequent, _),) = seen.most_common(1)
    wanted = [[target] for target in targets]
    found: Mapping[str, Any] = {
        "copied": judge_texts(sources, wanted),
        "frequent": judge_texts([frequent] * len(wanted), wanted),
    }
    return dict(found)
