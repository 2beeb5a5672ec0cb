"""What each kind of option brings: its typed section and the functions the stages call. The registry lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aitrain.config.section import OptionSection

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import Shape
    from aitrain.data.encoding import Encoder


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
class Trainer:
    """How a model is trained.

    `shapes` are the row shapes it takes (see `aitrain.data.columns`), `encoder` turns rows into token ids and loss
    masks (no torch), `train` runs on every rank and returns what `aitrain.ml.fitting` measured.
    """

    section: type[OptionSection]
    tasks: tuple[str, ...]
    shapes: tuple[Shape, ...]
    encoder: Callable[[Run], Encoder]
    train: Callable[..., Any]


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
