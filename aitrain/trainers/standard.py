"""`trainer=standard`: the loss that belongs to the task, on all rows; the task says what that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from aitrain.config.section import OptionSection
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run

NAME = "standard"


class Standard(OptionSection):
    """Supervised training with the task's own loss."""

    reads: ClassVar[tuple[str, ...]] = ("data.max_length", "data.truncation")

    name: Literal["standard"]
    """The trainer; choose it with `trainer=standard`."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if "train.padding_free" in run.given:
            what = f"has no effect with task={run.task.name}, which pads its batches of rows of similar length"
            yield Problem("train.padding_free", what, "leave it out", fix="~train.padding_free")
