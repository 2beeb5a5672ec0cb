"""Encoded rows as `preview` shows them, on a terminal and on a page alike: text, cut where tokens count differently."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from aitrain.data.encoding import TooLong, Unusable
from aitrain.data.tokens import Encoded, EncodedGroup

LONGEST = 120
"""Characters of a column's value that are shown."""
PAIR = ("chosen", "rejected")
JUDGED = {1.0: "wanted", 0.0: "unwanted"}


@dataclass(frozen=True)
class Piece:
    """Tokens that follow each other and count alike."""

    text: str
    weight: float
    """How much the loss of each token counts; 0 where it is not trained."""


@dataclass(frozen=True)
class ShownRow:
    """One row of token ids."""

    name: str
    """Where it is from, and which part of an example it is."""
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    """As long as `ids`."""
    pieces: tuple[Piece, ...]
    is_cut: bool
    is_scored: bool = False
    """Whether the loss is that of a score of the whole row; the tokens that count are then those of the answer."""
    columns: Mapping[str, Any] | None = None
    """Of a prompt that the model answers itself: the columns that rewards see. None for a row with its answer."""

    @property
    def trained(self) -> int:
        """Tokens that carry loss, or that are scored as an answer."""
        return sum(weight != 0 for weight in self.weights)

    @property
    def note(self) -> str:
        """What a row of which everything or nothing is trained should be asked about; '' for others."""
        if self.is_scored or self.columns is not None:
            return ""
        if not self.trained:
            return "nothing is trained"
        return "every token is trained" if self.trained == len(self.ids) else ""

    @property
    def counts(self) -> str:
        """Its tokens and how many of them are trained."""
        cut = ", cut" if self.is_cut else ""
        if self.columns is not None:
            return f"{len(self.ids)} tokens of a prompt{cut}"
        if self.is_scored and not self.trained:
            return f"{len(self.ids)} tokens{cut}"
        return f"{len(self.ids)} tokens{cut}, {share_text(self.trained, len(self.ids), is_scored=self.is_scored)}"

    @property
    def for_rewards(self) -> str:
        """The columns that rewards see, in words; '' where there are none."""
        return ", ".join(f"{name}={_brief(value)}" for name, value in (self.columns or {}).items())


@dataclass(frozen=True)
class Refused:
    """A row that is not trained on."""

    name: str
    reason: str
    is_unusable: bool
    """Whether it holds nothing usable; else it is only too long."""


Shown = ShownRow | Refused


@dataclass(frozen=True)
class Section:
    """The first rows of one source, and how they are read."""

    facts: tuple[tuple[str, str], ...]
    """Name and value of what holds for all of them."""
    rows: tuple[Shown, ...]


def shown(
    place: object,
    outcome: Any,
    tokenizer: Any,
    limit: str,
    *,
    is_scored: bool = False,
    parts: Sequence[str] | None = None,
) -> Iterator[Shown]:
    """What an encoder made of one row of data, row by row of token ids; `limit` is what a longer row is longer than,
    `parts` what the rows of an example are, where they are not by their number."""
    if isinstance(outcome, list):
        for example in outcome:
            yield from shown(place, example, tokenizer, limit, is_scored=is_scored)
    elif isinstance(outcome, Encoded):
        yield _row(str(place), outcome, tokenizer, is_scored)
    elif isinstance(outcome, EncodedGroup):
        for name, row in zip(parts or _names(outcome), outcome.rows, strict=True):
            alone = replace(row, record=None) if parts else row  # only a prompt's record is for rewards
            yield _row(f"{place}, {name}", alone, tokenizer, is_scored)
    elif isinstance(outcome, TooLong):
        what = f"{outcome.tokens} tokens, more than {limit}"
        yield Refused(str(place), what, is_unusable=False)
    else:
        assert isinstance(outcome, Unusable)
        yield Refused(str(place), f"cannot be used: {outcome.reason}", is_unusable=True)


def _names(example: EncodedGroup) -> list[str]:
    """What the rows of an example are."""
    if len(example.rows) == 1 and example.value in JUDGED:
        return [JUDGED[example.value]]
    pair = len(example.rows) == len(PAIR)
    names = [PAIR[number] if pair else f"row {number + 1}" for number in range(len(example.rows))]
    if example.rows[0].labels is not None:  # its numbers only count what it holds
        return names
    if isinstance(example.value, tuple):
        names[0] += f", values {', '.join(f'{value:g}' for value in example.value)}"
    elif example.value is not None:
        names[0] += f", {'margin' if pair else 'value'} {example.value:g}"
    return names


def _row(name: str, row: Encoded, tokenizer: Any, is_scored: bool) -> ShownRow:
    weights = tuple(float(trained) for trained in row.trained) if row.weights is None else tuple(row.weights)
    pieces = tuple(_pieces(row.ids, weights, tokenizer))
    is_prompt = row.record is not None and row.labels is None and not is_scored
    columns = {k: v for k, v in json.loads(row.record or "{}").items() if k != "prompt"} if is_prompt else None
    return ShownRow(name, tuple(row.ids), weights, pieces, row.truncated, is_scored, columns)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _pieces(ids: Sequence[int], weights: Sequence[float], tokenizer: Any) -> Iterator[Piece]:
    start = 0
    for weight, same in groupby(weights):
        end = start + len(list(same))
        yield Piece(tokenizer.decode(ids[start:end]), weight)
        start = end


def marks(rows: Sequence[Shown]) -> str:
    """What the marked tokens are."""
    return "tokens of the answers" if _are_scored(rows) else "trained tokens"


def _are_scored(rows: Sequence[Shown]) -> bool:
    return any(isinstance(row, ShownRow) and row.is_scored for row in rows)


def are_prompts(rows: Sequence[Shown]) -> bool:
    """Whether the rows are prompts alone, of which no token is trained."""
    return any(isinstance(row, ShownRow) and row.columns is not None for row in rows)


def has_marks(rows: Sequence[Shown]) -> bool:
    """Whether some tokens are marked, or should be: not where rows are prompts, or judged whole."""
    marked = any(isinstance(row, ShownRow) and row.trained for row in rows)
    return not are_prompts(rows) and (marked or not _are_scored(rows))


def share_text(trained: int, tokens: int, *, is_scored: bool = False) -> str:
    """How many tokens are trained, in words; 0 % and 100 % are said only where they are exact."""
    share = trained / tokens if tokens else 0.0
    percent = f"{share:.0%}" if share in (0, 1) or 0.005 <= share < 0.995 else f"{share:.1%}"
    return f"{trained} {'of the answer' if is_scored else 'trained'} ({percent})"


def in_all(rows: Sequence[Shown]) -> str:
    """The share of trained tokens of all rows."""
    encoded = [row for row in rows if isinstance(row, ShownRow)]
    tokens = sum(len(row.ids) for row in encoded)
    if are_prompts(rows):
        return f"{tokens} tokens of prompts; the model writes the answers that it learns from"
    trained = sum(row.trained for row in encoded)
    if _are_scored(rows) and not trained:
        return f"{tokens} tokens"
    return f"{tokens} tokens, {share_text(trained, tokens, is_scored=_are_scored(rows))}"
