"""What each kind of option brings: its typed section and the functions the stages call. The registry lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aitrain.config.section import OptionSection

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice, Shape
    from aitrain.data.encoding import Encoder
    from aitrain.data.mixture import FoundSource
    from aitrain.errors import Problem


LEARNING_RATES = {"full": 2e-5, "adapter": 2e-4, "scratch": 2e-3}
"""For the cross entropy of the next token."""


class Option(Protocol):
    """Anything a group can choose."""

    @property
    def section(self) -> type[OptionSection]:
        """The typed keys of this option."""


@dataclass(frozen=True)
class Choice:
    """An option that is only a section."""

    section: type[OptionSection]


@dataclass(frozen=True)
class Load:
    """What a trainer asks of the memory, for the estimate before a run."""

    rows: int = 1
    """Rows of an example that one forward pass reads."""
    logits: Literal["in parts", "whole", "none"] = "in parts"
    """Whether the model's outputs exist for a part of the positions at once, for all of them, or not at all."""


@dataclass(frozen=True)
class Trainer:
    """How a model is trained.

    `shapes` are the row shapes it takes (see `aitrain.data.columns`), `encoder` turns rows into token ids and loss
    masks (no torch), `train` runs on every rank and returns what `aitrain.ml.fitting` measured.
    """

    section: type[OptionSection]
    tasks: tuple[str, ...]
    shapes: tuple[Shape, ...]
    metrics: Mapping[str, Literal["min", "max"]]
    """What an evaluation reports, and whether less or more of it is better."""
    encoder: Callable[[Run], Encoder] | None
    """None for a trainer that fits no model of tokens; then `whole` looks at the rows."""
    train: Callable[..., Any]
    learning_rates: Mapping[str, float] = field(default_factory=lambda: LEARNING_RATES)
    """What `train.learning_rate=auto` becomes: `full` for all weights of a pretrained model, `adapter`, and `scratch`
    for a tiny sample model that begins untrained; if it is there, `taught` for a sample model that is no longer so."""
    pipeline: str = "text-generation"
    """What the model then does, in the Hub's words."""
    load: Load = field(default_factory=Load)
    """What it asks of the memory; a reference model besides, if its section has `ref_model`."""
    answers: Callable[[Run], int] = field(default=lambda run: 1)
    """How many rows of a step come of one row of the data."""
    scores: bool = False
    """Whether the loss is that of one score a row: then no token carries loss, and those marked are the answer's."""
    find_columns: Callable[..., ColumnChoice] | None = None
    """Finds the columns of a task with fields of its own; None: by `shapes`, among those of conversations."""
    headline: tuple[str, ...] = ()
    """The measure that a report names first: the first of these that an evaluation has; () for the loss."""
    predictor: Callable[..., Any] | None = None
    """Makes a trained model ready for rows (see `aitrain.predicting.Predictor`); None where nothing of rows is
    predicted."""
    model_problems: Callable[[Run, Mapping[str, Any]], Iterable[Problem]] = lambda run, config: ()
    """What is wrong with a model for this, by its config.json."""
    judge: Callable[[Run, FoundSource], None] | None = None
    """Of a trainer without an encoder: raises Refused for what is wrong with the rows as a whole, and is quick."""
    whole: Callable[[Run, FoundSource], tuple[int, int, dict[str, Any]]] | None = None
    """Of a trainer without an encoder: rows to learn from, rows held out, and what a run says of its data. Raises
    Refused as `judge` does."""
    fits: Callable[[Run], int] = lambda run: 1
    """Of a trainer without an encoder: how many fits are its steps."""
    packages: Callable[[Run], Mapping[str, str]] = lambda run: {}
    """Packages that it needs besides, and the extra of ours that installs each."""


@dataclass(frozen=True)
class Task:
    """What is learnt. `standard` is how `trainer=standard` trains it; None where the task has trainers of its own."""

    section: type[OptionSection]
    standard: Trainer | None = None
    has_classes: bool = False
    """Whether rows may be of classes, of which `data.max_samples_strategy=balanced` takes as many of each."""


@dataclass(frozen=True)
class Adapter:
    """A PEFT method: `apply(model, section)` returns the wrapped model."""

    section: type[OptionSection]
    apply: Callable[..., Any]


@dataclass(frozen=True)
class Tracker:
    """Where metrics go besides the run directory.

    `module` is the package it needs and `extra` the extra of ours that installs it. `start(run, folder)` returns an
    object with `log(event)` and `finish(status)`.
    """

    section: type[OptionSection]
    module: str
    extra: str
    start: Callable[..., Any]
