"""`data`: where the rows come from, which columns mean what, and how long a row may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from aitrain.config.section import Section, key
from aitrain.config.train import no_evaluation
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


class Columns(Section):
    """`data.columns`: names of the user's columns. null finds them and prints why."""

    prompt: str | None
    """Column with what the model is asked."""
    input: str | None = key(visibility="advanced")
    """Column with a further text that belongs to the prompt (Alpaca's `input`); put below it after an empty line."""
    completion: str | None
    """Column with the answer to learn."""
    messages: str | None
    """Column with a list of turns, {role, content} or {from, value}."""
    system: str | None = key(visibility="advanced")
    """Column with a system message for the row."""
    text: str | None
    """Column with plain text."""


class Data(Section):
    """Where the rows come from and what is done to them before training."""

    path: str
    """A file, a folder, a glob, a `save_to_disk` folder, a Hub id (`owner/name`), or `sample:NAME`."""
    files: str | list[str] | None
    """Files to take from a folder or a Hub dataset, as names or globs relative to it."""
    config: str | None
    """Configuration (subset) of a Hub dataset."""
    train_split: str
    """Split to train on, with an optional slice: `train`, `train[:10%]`, `train[100:200]`."""
    valid_split: str | None
    """Split to validate on, with an optional slice. null: see `data.valid_fraction`."""
    valid_fraction: float = key(ge=0, lt=1)
    """Share of the training rows held out for validation when `data.valid_split` is null; drawn with `run.seed`."""
    max_samples: int | None = key(gt=0)
    """Use at most this many training rows. null: all."""
    max_samples_strategy: Literal["first", "even", "random"] = key(visibility="advanced")
    """Which rows `data.max_samples` keeps: the first ones, evenly spaced ones, or random ones drawn with `run.seed`."""
    columns: Columns
    """Names of the user's columns, by what they mean."""
    max_length: int = key(gt=1)
    """Longest row in tokens, special tokens included."""
    truncation: Literal["error", "left", "right", "drop"]
    """What happens to a longer row: refuse the run, cut its start, cut its end, or leave the row out (counted)."""
    block_size: int = key(gt=1)
    """Tokens in one block when texts are laid end to end."""
    add_eos: bool
    """End each text with the end-of-sequence token before texts are laid end to end."""
    train_on: Literal["assistant", "all", "last"]
    """Tokens that carry loss: every answer, the whole row, or only the last answer."""
    on_bad_rows: Literal["error", "skip"]
    """A row that cannot be read or has no usable content: refuse the run, or skip and count it."""
    max_bad_rows: float = key(gt=0, le=1, visibility="advanced")
    """Largest share of bad rows that `data.on_bad_rows=skip` accepts."""
    streaming: bool = key(visibility="advanced")
    """Read and tokenise rows while training instead of before it. Needs `train.max_steps`."""
    shuffle_buffer: int = key(gt=0, visibility="advanced")
    """Rows a streaming run holds to shuffle among."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.path.strip() != self.path or not self.path:
            yield Problem("data.path", f"{self.path!r} is empty or has space around it")
        given = run.given
        if self.valid_split is not None and "data.valid_fraction" in given and self.valid_fraction > 0:
            yield Problem(
                "data.valid_fraction",
                f"has no effect beside data.valid_split={self.valid_split}",
                "set one of the two",
            )
        none = no_evaluation(run)
        if self.valid_split is not None and none and none.wastes(run, "data.valid_split"):
            yield Problem("data.valid_split", f"has no effect: {none.why}", none.cure)
        if self.max_samples is None and "data.max_samples_strategy" in given:
            yield Problem(
                "data.max_samples_strategy", "has no effect without data.max_samples", "set data.max_samples too"
            )
        if self.on_bad_rows == "error" and "data.max_bad_rows" in given:
            yield Problem("data.max_bad_rows", "has no effect with data.on_bad_rows=error", "set data.on_bad_rows=skip")
        if not self.streaming and "data.shuffle_buffer" in given:
            yield Problem("data.shuffle_buffer", "has no effect without streaming", "set data.streaming=true")
        if self.streaming and run.train.max_steps is None:
            yield Problem("train.max_steps", "a streaming run has no known end", "set train.max_steps")
        if self.streaming and "data.valid_fraction" in given and self.valid_fraction > 0:
            yield Problem("data.valid_fraction", "a stream holds out no rows", "set data.valid_split")
        if self.streaming and run.train.overfit_batch:
            yield Problem("train.overfit_batch", "has no effect on a stream", "set data.streaming=false")
        if self.streaming and self.max_samples is not None and self.max_samples_strategy != "first":
            yield Problem(
                "data.max_samples_strategy",
                f"'{self.max_samples_strategy}' needs the number of rows, which a stream does not have",
                "use data.max_samples_strategy=first",
            )
