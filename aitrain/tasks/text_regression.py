"""`task=text_regression`: a number for a text, or for two texts that belong together; or several numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Task, Trainer
from aitrain.config.section import OptionSection
from aitrain.tasks.rows import PAIRS, READS, TEXTS
from aitrain.trainers import standard

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.target_encoding import TextTargetEncoder

NUMBERS = ("target", "score", "rating", "stars", "value", "similarity", "label")
METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "mse": "min",
    "mae": "min",
    "rmse": "min",
    "r2": "max",
    "explained_variance": "max",
    "pearson": "max",
    "spearman": "max",
}
"""What evaluations report, in the units of the data; of several targets the mean."""
LEARNING_RATES = {"full": 5e-5, "adapter": 5e-4, "scratch": 1e-3}


class TextRegression(OptionSection):
    """A number for a text, or several."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "data.columns.text", "data.columns.text_pair")

    name: Literal["text_regression"]
    """The task; choose it with `task=text_regression`."""
    loss: Literal["mse", "mae", "huber"]
    """What an error costs: its square, its size, or its square near zero and its size beyond one (Huber 1964,
    https://doi.org/10.1214/aoms/1177703732)."""
    scale_targets: bool
    """Learn each target less its mean, divided by its standard deviation over the training rows. Both are saved with
    the model, whose predictions are in the units of the data."""


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """Text, second text, and numbers. Raises DataError."""
    from aitrain.data.fields import Field, find_fields, wrong_text
    from aitrain.data.targets import wrong_numbers

    fields = (
        Field("text", TEXTS, "text", wrong_text),
        Field("text_pair", PAIRS, "text", wrong_text, required=False),
        Field("target", NUMBERS, "a number", wrong_numbers),
    )
    wanted = [field for field in fields if needs_target or field.role != "target"]
    return find_fields("text_target", wanted, names, first_rows, chosen, key)


def encoder(run: Run) -> TextTargetEncoder:
    """A text to token ids and its numbers."""
    from aitrain.data.target_encoding import NumberTarget, TextTargetEncoder

    return TextTargetEncoder(run, NumberTarget())


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.text_regression import fit_text_regression

    return fit_text_regression(job)


def predictor(run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool) -> Any:
    """The model in `folder`, ready for rows like these, whose targets are needed where it `judges`."""
    from aitrain.ml.text_predicting import NumberPredictor

    names = list(dict.fromkeys(name for row in first_rows for name in row))
    choice = find_columns(names, first_rows, run.data.columns.model_dump(), needs_target=judges)
    if run.data.columns.text_pair is None:  # trained on single texts: a column of such a name is none
        choice.columns.pop("text_pair", None)
    return NumberPredictor(run, folder, encoder(run), choice)


TASK = Task(
    TextRegression,
    standard=Trainer(
        standard.Standard,
        tasks=("text_regression",),
        shapes=("text_target",),
        metrics=METRICS,
        encoder=encoder,
        train=train,
        learning_rates=LEARNING_RATES,
        pipeline="text-classification",
        load=Load(logits="none"),
        scores=True,
        find_columns=find_columns,
        headline=("r2", "rmse"),
        predictor=predictor,
    ),
)
