"""`task=text_classification`: a classifier's losses, predictions and judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from aitrain.data.target_encoding import values_of
from aitrain.data.targets import FILE, Classes, targets_from
from aitrain.errors import ConfigError, Problem
from aitrain.evaluation.classification import details_of_classes, details_of_labels, judge_classes, judge_labels
from aitrain.ml.examples import Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.length_groups import Draw
from aitrain.ml.loading import load_classifier
from aitrain.ml.standard import StandardFit, values_in
from aitrain.rundir.folder import write_json


def fit_text_classifier(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), TextClassifierFit, baseline)


class TextClassifierFit(StandardFit):
    """Cross entropy over classes, or binary cross entropy of each class."""

    def __init__(self, fitting: Fitting) -> None:
        self.classes = classes_of(fitting.job)
        section: Any = fitting.job.run.task
        self.section = section
        self.class_weights = torch.tensor(weights_of(section.class_weights, trained_on(self.classes, fitting.rows)))
        super().__init__(fitting, partial(load_classifier, classes=self.classes))
        self.truth = None if fitting.valid is None else values_of(fitting.valid)

    @property
    def width(self) -> int:
        return len(self.classes.names)

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        values = np.asarray([example.group.value for example in examples])
        return torch.from_numpy(values.astype(np.float32 if self.classes.multi_label else np.int64))

    def amount(self, targets: Tensor) -> float:
        if self.classes.multi_label:
            return float(targets.numel())
        return float(self.class_weights[targets].double().sum())

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        logits = outputs.logits.float()
        weights = self.class_weights.to(logits.device)
        smoothing = self.section.label_smoothing
        if self.classes.multi_label:
            # Smoothing spreads a decision's probability over its two outcomes.
            soft = targets * (1 - smoothing) + smoothing / 2
            return binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="sum")
        losses = cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="none")
        # A row that does not count must not add what smoothing spreads over the other classes either.
        return (losses * (weights[targets] > 0)).sum()

    def predicted(self, outputs: Any) -> Tensor:
        return probabilities(outputs.logits, self.classes)

    def judge(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        assert self.truth is not None
        return judge(predictions, self.truth, self.classes, self.section.threshold)

    def details(self, predictions: NDArray[np.float64]) -> dict[str, Any]:
        assert self.truth is not None
        truth = self.truth.astype(np.int64)
        if self.classes.multi_label:
            found = details_of_labels(predictions, truth, self.classes.names, self.section.threshold)
        else:
            found = details_of_classes(predictions, truth, self.classes.names)
        return self.with_texts(found, "wrong")

    def drawn(self) -> Draw | None:
        if self.section.sampling == "natural":
            return None
        return partial(balanced_draw, values_in(self.rows).astype(np.int64), self.args.seed)

    def save_beside(self, folder: Path) -> None:
        write_json(folder / FILE, {**self.classes.to_dict(), "threshold": self.section.threshold})


def trained_on(classes: Classes, rows: Any) -> Classes:
    """The classes with what is counted of the rows to train on, those held out left aside."""
    values = values_in(rows)
    counts = (
        values.sum(axis=0)
        if classes.multi_label
        else np.bincount(values.astype(np.int64), minlength=len(classes.names))
    )
    return replace(classes, counts=tuple(int(count) for count in counts), rows=len(values))


def classes_of(job: Job) -> Classes:
    """The classes of the run's plan."""
    assert job.plan.targets is not None
    found = targets_from(job.plan.targets)
    assert isinstance(found, Classes)
    return found


def probabilities(logits: Tensor, classes: Classes) -> Tensor:
    """Of each class, in float64: they sum to 1, or with several classes a row each is one of its own."""
    return logits.double().sigmoid() if classes.multi_label else logits.double().softmax(-1)


def weights_of(chosen: str | dict[str, float], classes: Classes) -> list[float]:
    """The weight of each class, 1 where nothing is said of it. Raises ConfigError for a class that there is not."""
    if isinstance(chosen, dict):
        if unknown := [name for name in chosen if name not in classes.names]:
            what = f"'{unknown[0]}' is none of the classes"
            raise ConfigError(Problem("task.class_weights", what, f"there is {', '.join(classes.names[:20])}"))
        weights = [float(chosen.get(name, 1.0)) for name in classes.names]
        if not any(weights):
            raise ConfigError(Problem("task.class_weights", "every weight is 0: nothing would be learnt", "raise one"))
        return weights
    if chosen == "none":
        return [1.0] * len(classes.names)
    counts = [max(1, count) for count in classes.counts]
    if classes.multi_label:
        return [max(1, classes.rows - count) / count for count in counts]
    return [classes.rows / (len(counts) * count) for count in counts]


def judge(
    predictions: NDArray[np.float64], truth: NDArray[Any], classes: Classes, threshold: float
) -> dict[str, float]:
    """What an evaluation reports of these probabilities, (rows, classes)."""
    if classes.multi_label:
        return judge_labels(predictions, truth.astype(np.int64), classes.names, threshold)
    return judge_classes(predictions, truth.astype(np.int64), classes.names)


def balanced_draw(truth: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """As many examples as there are, of each class equally many, in random order.

    Each class's examples come in shuffled rounds, so that none is drawn twice before all were drawn once.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch, 2]))
    present = np.unique(truth)
    quotas = np.full(len(present), len(truth) // len(present))
    quotas[: len(truth) % len(present)] += 1
    parts = []
    for name, quota in zip(present, quotas, strict=True):
        members = np.flatnonzero(truth == name)
        rounds = [generator.permutation(members) for _ in range(-(-int(quota) // len(members)))]
        parts.append(np.concatenate(rounds)[:quota])
    return generator.permutation(np.concatenate(parts))


def baseline(fitting: Fitting) -> dict[str, Any]:
    """What always naming the most frequent classes of training is worth on the validation rows."""
    if fitting.valid is None:
        return {}
    classes = classes_of(fitting.job)
    truth, trained = values_of(fitting.valid), values_in(fitting.rows)
    section: Any = fitting.job.run.task
    if classes.multi_label:
        guess = trained.mean(axis=0)
    else:
        guess = np.bincount(trained.astype(np.int64), minlength=len(classes.names)) / len(trained)
    return {"majority": judge(np.tile(guess, (len(truth), 1)), truth, classes, section.threshold)}
