"""`run`: name, folder, seed, resuming and what is shown while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from aitrain.config.section import Section, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


class RunSection(Section):
    """Name, folder, seed, resuming and progress."""

    name: str = key(min_length=1)
    """Name of the run; part of its folder."""
    dir: Annotated[str, Field(min_length=1)] | None
    """Folder of the run. null: a fresh `outputs/NAME/TIMESTAMP`."""
    seed: int = key(ge=0, lt=2**32)
    """Seed of everything random: weights that are not loaded, row order, held-out rows, dropout."""
    resume: str
    """`never` refuses an existing folder, `auto` continues it, a path starts from that checkpoint."""
    progress: Literal["auto", "rich", "plain", "none"]
    """Live view on a terminal, plain lines, or nothing. auto: rich on a terminal, plain in a pipe."""
    allow_downloads: bool
    """Whether models and datasets may be fetched. Its default is the environment's ALLOW_DOWNLOADS, else true."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if "/" in self.name or "\\" in self.name or self.name.startswith("."):
            yield Problem("run.name", f"{self.name!r} cannot be a folder name", "use letters, digits, '-', '_' and '.'")
        if self.resume == "auto" and self.dir is None:
            yield Problem(
                "run.resume", "auto needs to know which folder to continue", "set run.dir to the folder of that run"
            )
