"""`model`: which model, in which revision and number format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aitrain.config.section import Section, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run

PINNED = re.compile(r"[0-9a-f]{40}")


class Model(Section):
    """Which model is trained."""

    path: str = key(min_length=1)
    """A folder, a Hub id (`owner/name`), or `sample:NAME`."""
    revision: str | None = key(visibility="advanced")
    """Branch, tag or commit of a Hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """Number format of the weights. auto: float32 for weights that are trained, the file's own for frozen ones."""
    trust_remote_code: bool = key(visibility="advanced")
    """Run Python code that comes with the model. Needs `model.revision` pinned to a commit."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.trust_remote_code and not PINNED.fullmatch(self.revision or ""):
            yield Problem(
                "model.trust_remote_code",
                "runs code that the model's owner may change at any time",
                "pin model.revision to a commit (40 hexadecimal digits)",
            )
        # A recipe's revision gives way to another model typed on the command line.
        if self.revision is not None and run.strength("model.revision") >= max(1, run.strength("model.path")):
            if self.path.startswith("sample:"):
                yield Problem("model.revision", f"has no effect for {self.path}", "leave it out")
            elif Path(self.path).expanduser().is_dir():
                what = f"has no effect for {self.path}, a folder has no revisions"
                yield Problem("model.revision", what, "leave it out")
        if self.dtype in ("bfloat16", "float16") and run.peft.name == "none":
            yield Problem(
                "model.dtype",
                f"{self.dtype} weights lose small updates when all of them are trained",
                "use model.dtype=auto with train.precision=bf16, or peft=lora",
            )
