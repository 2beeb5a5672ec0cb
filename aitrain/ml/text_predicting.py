"""Using a trained model of texts: rows to probabilities or numbers, and what those are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import TooLong, Unusable, load_tokenizer
from aitrain.data.target_encoding import TextTargetEncoder
from aitrain.data.targets import FILE, Classes, NoTarget, Numbers, Targets, targets_from
from aitrain.data.tokens import Encoded, TokenRow
from aitrain.errors import ConfigError, MachineError, Problem
from aitrain.evaluation.classification import details_of_classes, details_of_labels
from aitrain.evaluation.regression import details_of_numbers, judge_numbers
from aitrain.ml.collating import padding_id
from aitrain.ml.loading import load_classifier, load_regressor, load_trained
from aitrain.ml.standard import LONGEST_TEXT, padded
from aitrain.ml.text_classification import judge, probabilities
from aitrain.ml.text_regression import Scale, columns
from aitrain.rundir.folder import read_json


class TextPredictor:
    """A model of texts with one output a class or number."""

    def __init__(self, run: Run, folder: Path, encoder: TextTargetEncoder, choice: ColumnChoice) -> None:
        self.run = run
        self.choice = choice
        self.notes = saved_targets(folder)
        self.targets = targets_from({name: self.notes[name] for name in self.notes if name not in BESIDE})
        self.encoder = encoder.with_targets(self.targets)
        self.tokenizer = load_tokenizer(str(folder), None, trust_remote_code=False, allow_downloads=False)
        self.pad_id = padding_id(self.tokenizer)
        self.device = device_of(run)
        self.model = load_trained(run, folder, self.tokenizer, loader_of(self.targets)).to(self.device).eval()

    def outputs(self, rows: Sequence[Mapping[str, Any]]) -> list[NDArray[np.float64] | Unusable]:
        """For each row the model's outputs in float64, or why there are none. Rows of one length are read together."""
        found: list[Any] = [self.encoder.text_fault(self.choice, row) for row in rows]
        found = [Unusable(fault) if fault else None for fault in found]
        usable = [index for index, outcome in enumerate(found) if outcome is None]
        tokens = dict(
            zip(usable, self.encoder.tokenise(self.tokenizer, self.choice, [rows[i] for i in usable]), strict=True)
        )
        for index, outcome in tokens.items():
            if isinstance(outcome, TooLong):
                found[index] = Unusable(f"it has {outcome.tokens} tokens, more than data.max_length")
        ready = {index: row for index, row in tokens.items() if isinstance(row, Encoded)}
        for indices, outputs in self._batches(ready):
            for index, output in zip(indices, outputs, strict=True):
                found[index] = output
        return found

    def _batches(self, rows: Mapping[int, Encoded]) -> Iterator[tuple[list[int], NDArray[np.float64]]]:
        size = self.run.train.eval_batch_size or self.run.train.batch_size
        order = sorted(rows, key=lambda index: -len(rows[index].ids))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = padded([_token_row(rows[index]) for index in indices], self.pad_id)
            with torch.inference_mode():
                logits = self.model(**{name: value.to(self.device) for name, value in batch.items()}).logits
            yield indices, logits.double().cpu().numpy()

    def text(self, row: Mapping[str, Any]) -> str:
        """What a row says, for showing."""
        names = [self.choice.columns[role] for role in ("text", "text_pair") if role in self.choice.columns]
        return " | ".join(str(row[name]) for name in names)[:LONGEST_TEXT]

    def truth(self, row: Mapping[str, Any]) -> Any:
        """The row's target as numbers, with its text, or Unusable."""
        try:
            return self.encoder.target.read(self.choice, row, self.targets), self.text(row)
        except NoTarget as error:
            return Unusable(str(error))


class ClassPredictor(TextPredictor):
    """Probabilities of classes."""

    targets: Classes

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Probabilities of each row, or Unusable."""
        return [
            value if isinstance(value, Unusable) else probabilities(torch.from_numpy(value), self.targets).numpy()
            for value in self.outputs(rows)
        ]

    @property
    def threshold(self) -> float:
        """From which probability a class counts as there."""
        given = "task.threshold" in self.run.given
        section: Any = self.run.task
        return float(section.threshold if given else self.notes["threshold"])

    def shown(self, prediction: NDArray[np.float64]) -> dict[str, Any]:
        """The class or the classes, and the probability of each."""
        names = self.targets.names
        by_name = {name: round(float(p), 6) for name, p in zip(names, prediction, strict=True)}
        if self.targets.multi_label:
            there = [name for name, p in zip(names, prediction, strict=True) if p >= self.threshold]
            return {"prediction": there, "probabilities": by_name}
        best = int(prediction.argmax())
        return {"prediction": names[best], "probability": by_name[names[best]], "probabilities": by_name}

    def judge(self, predictions: Sequence[Any], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures and details of a classifier."""
        found = np.stack(predictions)
        truth = np.asarray([value for value, _ in truths], np.float64)
        measures = judge(found, truth, self.targets, self.threshold)
        if self.targets.multi_label:
            details = details_of_labels(found, truth.astype(np.int64), self.targets.names, self.threshold)
        else:
            details = details_of_classes(found, truth.astype(np.int64), self.targets.names)
        return measures, with_texts(details, "wrong", truths)


class NumberPredictor(TextPredictor):
    """Numbers in the units of the data."""

    targets: Numbers

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Numbers of each row, or Unusable."""
        scale = Scale(self.targets, self.notes["scaled"])
        return [value if isinstance(value, Unusable) else scale.unscaled(value) for value in self.outputs(rows)]

    def shown(self, prediction: NDArray[np.float64]) -> dict[str, Any]:
        """The number, or one for each target."""
        values = [round(float(value), 6) for value in prediction]
        if len(values) == 1:
            return {"prediction": values[0]}
        return {"prediction": dict(zip(self.targets.names, values, strict=True))}

    def judge(self, predictions: Sequence[Any], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures and details of numbers."""
        found, truth = np.stack(predictions), columns(np.asarray([value for value, _ in truths]))
        details = details_of_numbers(found, truth, self.targets.names)
        return judge_numbers(found, truth, self.targets.names), with_texts(details, "worst", truths)


BESIDE = ("threshold", "scaled")
"""What stands beside the targets in their file."""


def saved_targets(folder: Path) -> dict[str, Any]:
    """What was predicted in training. Raises ConfigError where the folder does not say."""
    found = read_json(folder / FILE)
    if not isinstance(found, dict):
        raise ConfigError(Problem(str(folder), f"has no {FILE}", "name the folder of a run that ended"))
    return found


def loader_of(targets: Targets) -> Callable[..., Any]:
    """What loads a model with an output for each class or number."""
    if isinstance(targets, Classes):
        return partial(load_classifier, classes=targets)
    return partial(load_regressor, names=targets.names)


def device_of(run: Run) -> torch.device:
    """Where a trained model is used. Raises MachineError for a device that is not there."""
    asked = run.hardware.device
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(Problem("hardware.device", f"torch can use no {asked} here", "use hardware.device=cpu"))
    return torch.device(asked)


def with_texts(details: dict[str, Any], name: str, truths: Sequence[Any]) -> dict[str, Any]:
    """Details whose rows have their text."""
    for entry in details[name]:
        entry["text"] = truths[entry["row"]][1]
    return details


def _token_row(row: Encoded) -> TokenRow:
    types = None if row.types is None else np.asarray(row.types, np.uint8)
    return TokenRow(np.asarray(row.ids, np.int32), np.zeros(len(row.ids), np.uint8), None, types)
