"""`task=text_classification`: the class of a text, or of two texts that belong together; or any number of classes.

A classifier on top of a language model of either kind, trained with cross entropy; with several classes a row, each is
a decision of its own, trained with binary cross entropy (Devlin et al. 2018, https://arxiv.org/abs/1810.04805).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Task, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.tasks.rows import PAIRS, READS, TEXTS
from aitrain.trainers import standard

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.target_encoding import TextTargetEncoder
    from aitrain.data.targets import Classes

LABELS = ("target", "label", "labels", "class", "classes", "category", "categories", "intent", "sentiment", "topic",
          "emotion", "similar", "is_duplicate", "gold_label")  # fmt: skip
METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "accuracy": "max",
    "f1_macro": "max",
    "f1_micro": "max",
    "f1_weighted": "max",
    "f1": "max",
    "precision": "max",
    "precision_macro": "max",
    "precision_micro": "max",
    "precision_weighted": "max",
    "recall": "max",
    "recall_macro": "max",
    "recall_micro": "max",
    "recall_weighted": "max",
    "auc": "max",
    "mcc": "max",
    "calibration_error": "min",
    "f1_samples": "max",
    "subset_accuracy": "max",
    "hamming_loss": "min",
}
"""What evaluations report: `f1`, `precision` and `recall` of two classes, `subset_accuracy` and `hamming_loss` of rows
with several classes, the other ones of more than two."""
_OF_ALL = ("loss", "auc", "mcc", "calibration_error")
_AVERAGED = tuple(f"{name}_{average}" for name in ("f1", "precision", "recall") for average in ("macro", "micro"))
_OF_TWO = (*_OF_ALL, "accuracy", "f1_macro", "f1", "precision", "recall")
_OF_MORE = (*_OF_ALL, "accuracy", *_AVERAGED, "f1_weighted", "precision_weighted", "recall_weighted")
_OF_SETS = ("loss", "auc", "calibration_error", *_AVERAGED, "f1_weighted", "f1_samples", "subset_accuracy",
            "hamming_loss")  # fmt: skip
LEARNING_RATES = {"full": 5e-5, "adapter": 5e-4, "scratch": 1e-3}


class TextClassification(OptionSection):
    """The class of a text, or its classes."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "data.columns.text", "data.columns.text_pair")

    name: Literal["text_classification"]
    """The task; choose it with `task=text_classification`."""
    multi_label: bool | Literal["auto"]
    """Whether a row has any number of classes. auto: where rows hold lists, or several target columns are named."""
    label_separator: str | None = key(min_length=1, visibility="advanced")
    """What stands between the classes of a row that are one text, such as `,`. null: lists only."""
    classes: list[str] | None = key(visibility="advanced")
    """All classes, in the order of the model's outputs. null: those of the training rows, numbers by size, words by
    the alphabet; or as the data's class feature or the model's own head has them."""
    class_weights: Literal["none", "balanced"] | dict[str, float]
    """How much a row of each class counts in the loss. balanced: rows / (classes x rows of the class), so that all
    classes count alike; with several classes a row, a class that is there counts as often as it is not."""
    sampling: Literal["natural", "balanced"] = key(visibility="advanced")
    """Which rows an epoch has. balanced: as many as there are, drawn again and again so that classes are equally
    frequent."""
    label_smoothing: float = key(ge=0, lt=1, visibility="advanced")
    """Share of a row's probability that is spread over all classes (Szegedy et al. 2015,
    https://arxiv.org/abs/1512.00567)."""
    threshold: float = key(gt=0, lt=1)
    """Probability from which a class counts as there, with several classes a row."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.classes is not None:
            yield from _class_problems(self.classes)
        if self.multi_label is False:
            for name in ("label_separator", "threshold"):
                if f"task.{name}" in run.given:
                    yield Problem(f"task.{name}", "has no effect with task.multi_label=false", "leave one of them out")
            if isinstance(run.data.columns.target, list) and len(run.data.columns.target) > 1:
                what = "several columns are several classes a row, which task.multi_label=false rules out"
                yield Problem("data.columns.target", what, "name one column")
        if isinstance(self.class_weights, dict):
            yield from _weight_problems(self.class_weights, self.classes)
        if self.sampling == "balanced" and self.class_weights == "balanced":
            what = "makes classes count alike, which task.sampling=balanced does already"
            yield Problem("task.class_weights", what, "choose one of the two")
        if self.sampling == "balanced" and self.multi_label is True:
            what = "a row with several classes cannot be drawn by its class"
            yield Problem("task.sampling", what, "use task.class_weights=balanced", fix="task.sampling=natural")


def _class_problems(classes: Sequence[str]) -> Iterator[Problem]:
    if len(classes) == 1:
        yield Problem("task.classes", f"names one class only, '{classes[0]}'", "name all of them, or leave it out")
    twice = [name for name in dict.fromkeys(classes) if list(classes).count(name) > 1]
    if twice:
        yield Problem("task.classes", f"names '{twice[0]}' twice", "name each class once")
    if any(not name.strip() or name != name.strip() for name in classes):
        yield Problem("task.classes", "holds an empty name, or space around one", "write the names alone")


def _weight_problems(weights: Mapping[str, float], classes: Sequence[str] | None) -> Iterator[Problem]:
    for name, weight in weights.items():
        if weight < 0:
            yield Problem("task.class_weights", f"the weight of '{name}' is {weight:g}", "it should not be negative")
        if classes is not None and name not in classes:
            yield Problem("task.class_weights", f"'{name}' is none of task.classes", "name the classes of the data")


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """Text, second text, and class. Raises DataError."""
    from aitrain.data.fields import Field, find_fields, wrong_text
    from aitrain.data.targets import wrong_class

    fields = (
        Field("target", LABELS, "a class", wrong_class),
        Field("text", TEXTS, "text", wrong_text),
        Field("text_pair", PAIRS, "text", wrong_text, required=False),
    )
    wanted = [field for field in fields if needs_target or field.role != "target"]
    return find_fields("text_target", wanted, names, first_rows, chosen, key)


def encoder(run: Run) -> TextTargetEncoder:
    """A text to token ids and its class or classes."""
    from aitrain.data.target_encoding import ClassTarget, TextTargetEncoder

    section: Any = run.task
    multi_label = None if section.multi_label == "auto" else section.multi_label
    classes = None if section.classes is None else tuple(section.classes)
    return TextTargetEncoder(run, ClassTarget(multi_label, section.label_separator, classes), reported)


def reported(classes: Classes) -> tuple[str, ...]:
    """What evaluations of these classes report."""
    return _OF_SETS if classes.multi_label else _OF_TWO if len(classes.names) == 2 else _OF_MORE


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.text_classification import fit_text_classifier

    return fit_text_classifier(job)


def predictor(run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool) -> Any:
    """The model in `folder`, ready for rows like these, whose targets are needed where it `judges`."""
    from aitrain.ml.text_predicting import ClassPredictor

    names = list(dict.fromkeys(name for row in first_rows for name in row))
    choice = find_columns(names, first_rows, run.data.columns.model_dump(), needs_target=judges)
    if run.data.columns.text_pair is None:  # trained on single texts: a column of such a name is none
        choice.columns.pop("text_pair", None)
    return ClassPredictor(run, folder, encoder(run), choice)


TASK = Task(
    TextClassification,
    has_classes=True,
    standard=Trainer(
        standard.Standard,
        tasks=("text_classification",),
        shapes=("text_target",),
        metrics=METRICS,
        encoder=encoder,
        train=train,
        learning_rates=LEARNING_RATES,
        pipeline="text-classification",
        load=Load(logits="none"),
        scores=True,
        find_columns=find_columns,
        headline=("f1_macro",),
        predictor=predictor,
    ),
)
