"""`task=text_regression`: losses of numbers, predictions in the units of the data, and their judgement."""

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
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from aitrain.data.target_encoding import values_of
from aitrain.data.targets import FILE, Numbers, targets_from
from aitrain.evaluation.regression import details_of_numbers, judge_numbers
from aitrain.ml.examples import Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import load_regressor
from aitrain.ml.standard import StandardFit, values_in
from aitrain.rundir.folder import write_json

LOSSES: dict[str, Any] = {"mse": mse_loss, "mae": l1_loss, "huber": huber_loss}


def fit_text_regression(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), TextRegressionFit, baseline)


class TextRegressionFit(StandardFit):
    """The mean over examples and targets of what an error costs."""

    def __init__(self, fitting: Fitting) -> None:
        self.numbers = trained_on(numbers_of(fitting.job), fitting.rows)
        section: Any = fitting.job.run.task
        self.section = section
        self.scale = Scale(self.numbers, section.scale_targets)
        super().__init__(fitting, partial(load_regressor, names=self.numbers.names))
        self.truth = None if fitting.valid is None else columns(values_of(fitting.valid))

    @property
    def width(self) -> int:
        return len(self.numbers.names)

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        values = columns(np.asarray([example.group.value for example in examples], np.float64))
        return torch.from_numpy(self.scale.scaled(values).astype(np.float32))

    def amount(self, targets: Tensor) -> float:
        return float(targets.numel())

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        loss: Tensor = LOSSES[self.section.loss](outputs.logits.float(), targets, reduction="sum")
        return loss

    def predicted(self, outputs: Any) -> Tensor:
        return torch.from_numpy(self.scale.unscaled(outputs.logits.double().cpu().numpy()))

    def judge(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        assert self.truth is not None
        return judge_numbers(predictions, self.truth, self.numbers.names)

    def details(self, predictions: NDArray[np.float64]) -> dict[str, Any]:
        assert self.truth is not None
        return self.with_texts(details_of_numbers(predictions, self.truth, self.numbers.names), "worst")

    def save_beside(self, folder: Path) -> None:
        write_json(folder / FILE, {**self.numbers.to_dict(), "scaled": self.section.scale_targets})


def trained_on(numbers: Numbers, rows: Any) -> Numbers:
    """The targets with mean and deviation of the rows to train on, those held out left aside."""
    values = columns(values_in(rows))
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    spread = np.where(deviation > 0, deviation, 1.0)  # one batch, or the rows left, may hold a single value
    return replace(numbers, mean=tuple(map(float, mean)), deviation=tuple(map(float, spread)))


class Scale:
    """Numbers of the data to those the model learns, and back; (rows, targets)."""

    def __init__(self, numbers: Numbers, is_scaled: bool) -> None:
        size = len(numbers.names)
        self.mean = np.asarray(numbers.mean) if is_scaled else np.zeros(size)
        self.deviation = np.asarray(numbers.deviation) if is_scaled else np.ones(size)

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """In standard deviations from the mean."""
        return (values - self.mean) / self.deviation

    def unscaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """In the units of the data."""
        return values * self.deviation + self.mean


def columns(values: NDArray[Any]) -> NDArray[np.float64]:
    """One column a target, also where there is one target alone."""
    found = np.asarray(values, np.float64)
    return found if found.ndim == 2 else found[:, None]


def numbers_of(job: Job) -> Numbers:
    """The targets of the run's plan."""
    assert job.plan.targets is not None
    found = targets_from(job.plan.targets)
    assert isinstance(found, Numbers)
    return found


def baseline(fitting: Fitting) -> dict[str, Any]:
    """What always saying the mean of the training rows is worth on the validation rows."""
    if fitting.valid is None:
        return {}
    names = numbers_of(fitting.job).names
    truth, trained = columns(values_of(fitting.valid)), columns(values_in(fitting.rows))
    return {"mean": judge_numbers(np.tile(trained.mean(axis=0), (len(truth), 1)), truth, names)}
