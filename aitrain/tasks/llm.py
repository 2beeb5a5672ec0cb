"""`task=llm`: text in, text out, with a causal language model."""

from __future__ import annotations

from typing import ClassVar, Literal

from aitrain.config.section import OptionSection


class LLM(OptionSection):
    """A causal language model."""

    reads: ClassVar[tuple[str, ...]] = (
        "data.path",
        "data.files",
        "data.config",
        "data.mixture",
        "data.mixture_stopping",
        "data.*_split",
        "data.valid_fraction",
        "data.max_samples*",
        "data.on_bad_rows",
        "data.max_bad_rows",
    )

    name: Literal["llm"]
    """The task; choose it with `task=llm`."""
