"""Using a trained encoder-decoder model: rows to texts, and what those are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import torch

from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import TooLong, Unusable, load_tokenizer
from aitrain.data.seq2seq_encoding import Seq2SeqEncoder
from aitrain.errors import MachineError, Problem
from aitrain.evaluation.text import details_of_texts
from aitrain.ml.collating import padding_id
from aitrain.ml.loading import load_trained
from aitrain.ml.seq2seq_models import (
    load_seq2seq,
    measures_of_targets,
    measures_of_texts,
    padded_labels,
    read_targets,
    shift_of,
    texts_of_ids,
    write,
)
from aitrain.ml.text_predicting import device_of

CHANGED = {"num_beams": "num_beams", "generation_max_length": "max_length"}
"""Keys of `task` that may be another one for a model's use, and what they are to the model."""


@dataclass(frozen=True)
class Told:
    """What the model makes of a row."""

    text: str
    ids: tuple[int, ...]
    loss: float = 0.0
    """Sum over the tokens of the row's own target; 0 where only texts are wanted."""
    right: float = 0.0
    tokens: float = 0.0


class TextWriter:
    """A trained model with its tokenizer and its settings for writing."""

    def __init__(self, run: Run, folder: Path, encoder: Seq2SeqEncoder, choice: ColumnChoice) -> None:
        self.run = run
        self.encoder = encoder
        self.choice = choice
        if choice.targets and (missing := [name for name in JUDGES if util.find_spec(name) is None]):
            what = f"needs the package '{missing[0]}'"
            raise MachineError(Problem("evaluate", what, "pip install 'aitrain[evaluation]'"))
        self.tokenizer = load_tokenizer(str(folder), None, trust_remote_code=False, allow_downloads=False)
        self.pad_id = padding_id(self.tokenizer)
        self.device = device_of(run)
        self.model = load_trained(run, folder, self.tokenizer, load_seq2seq).to(self.device).eval()
        self.shift = shift_of(self.model)
        self.settings = settings_in(run, folder)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What the model makes of each row, or Unusable. Rows of similar length are read together."""
        found: list[Any] = [self._fault(row) for row in rows]
        usable = [index for index, fault in enumerate(found) if not fault]
        sources = self._tokens(rows, usable, self.choice.columns["text"], self.encoder.sources)
        targets: dict[int, Any] = {}
        if self.choice.targets:
            targets = self._tokens(rows, usable, self.choice.targets[0], self.encoder.targets)
        found = [Unusable(fault) if fault else None for fault in found]
        for index in usable:
            for side, tokens in (("source", sources), ("target", targets)):
                if isinstance(row := tokens.get(index), TooLong):
                    found[index] = Unusable(f"its {side} has {row.tokens} tokens, more than {LIMITS[side]}")
        ready = [index for index in usable if found[index] is None]
        for indices, told in self._batches(ready, sources, targets):
            for index, each in zip(indices, told, strict=True):
                found[index] = each
        return found

    def _fault(self, row: Mapping[str, Any]) -> str:
        fault = self.encoder.fault if self.choice.targets else self.encoder.source_fault
        return fault(self.choice, row)

    def _tokens(
        self, rows: Sequence[Mapping[str, Any]], usable: Sequence[int], column: str, tokenise: Any
    ) -> dict[int, Any]:
        return dict(zip(usable, tokenise(self.tokenizer, [rows[index][column] for index in usable]), strict=True))

    def _batches(
        self, ready: Sequence[int], sources: Mapping[int, Any], targets: Mapping[int, Any]
    ) -> Iterator[tuple[list[int], list[Told]]]:
        size = self.run.train.eval_batch_size or self.run.train.batch_size
        order = sorted(ready, key=lambda index: -len(sources[index].ids))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            asked = [sources[index].ids for index in indices]
            ids = write(self.model, asked, self.settings, self.pad_id)
            told = [Told(text, tuple(row)) for text, row in zip(texts_of_ids(self.tokenizer, ids), ids, strict=True)]
            if targets:
                told = self._with_losses(told, asked, [targets[index].ids for index in indices])
            yield indices, told

    def _with_losses(self, told: list[Told], sources: list[list[int]], targets: list[list[int]]) -> list[Told]:
        labels = padded_labels(targets)
        longest = max(map(len, sources))
        ids = torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in sources])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sources])
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": self.shift(labels)}
        with torch.inference_mode():
            logits = self.model(**{name: value.to(self.device) for name, value in inputs.items()}).logits
        read = read_targets(logits, labels.to(self.device))
        figures = zip(read.losses.tolist(), read.right.tolist(), read.tokens.tolist(), strict=True)
        return [Told(one.text, one.ids, *row) for one, row in zip(told, figures, strict=True)]

    def shown(self, prediction: Told) -> dict[str, Any]:
        """The written text."""
        return {"prediction": prediction.text}

    def truth(self, row: Mapping[str, Any]) -> Any:
        """Source and target of the row, or Unusable."""
        if fault := self.encoder.fault(self.choice, row):
            return Unusable(fault)
        return row[self.choice.columns["text"]], row[self.choice.targets[0]]

    def judge(self, predictions: Sequence[Told], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures and details of written texts."""
        sources, targets = zip(*truths, strict=True)
        given = [each.text for each in predictions]
        tokens = sum(each.tokens for each in predictions)
        loss = sum(each.loss for each in predictions) / tokens
        plain = measures_of_targets(loss, sum(each.right for each in predictions) / tokens)
        measures = plain | measures_of_texts(given, targets, [each.ids for each in predictions])
        return measures, details_of_texts(sources, given, targets, range(len(given)))


JUDGES = ("rouge_score", "sacrebleu")
"""Packages that compare texts."""
LIMITS = {"source": "data.max_length", "target": "task.max_target_length"}


def settings_in(run: Run, folder: Path) -> Any:
    """How the model writes, as it was saved; `task.num_beams` and `task.generation_max_length` may change it."""
    from transformers import GenerationConfig

    found = GenerationConfig.from_pretrained(str(folder))
    for name, theirs in CHANGED.items():
        value = getattr(run.task, name)
        if f"task.{name}" in run.given and value is not None:
            setattr(found, theirs, value + (name == "generation_max_length"))
    return found
