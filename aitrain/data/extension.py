"""Rows of one source to token ids with their places, and `data.conversation_extension`: single turns made longer ones.

With an extension of n up to n rows that follow each other become one conversation. Each must be one question with one
answer, without tools, and all must have the same system message or none. As many are taken as fit into
`data.max_length` together, in the order of the file; the next conversation begins with the row that did not fit. No row
is left out: one that cannot be merged is trained on as it stands. Rows that are fit for it but make a conversation that
cannot be written, for other reasons than its length, are unusable together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, NamedTuple

from aitrain.data.columns import ColumnChoice, Shape
from aitrain.data.encoding import Encoder, Outcome, Unusable, conversation
from aitrain.data.formats import has_place_for_input
from aitrain.data.rendering import Message
from aitrain.data.rows import BadRow, Item, Place, Row
from aitrain.data.tokens import Encoded

BATCH = 500
"""Rows that are tokenised together."""
MERGEABLE: tuple[Shape, ...] = ("messages", "prompt_completion")
MERGED = ColumnChoice("messages", {"messages": "messages"}, "")


class Result(NamedTuple):
    """What became of a row, or of several that were merged."""

    place: Place
    """Of the first row."""
    outcome: Outcome
    rows: int = 1
    """Rows of the file that are in it."""


def encode_rows(
    encoder: Encoder, tokenizer: Any, choice: ColumnChoice, items: Iterator[Item], extension: int = 1
) -> Iterator[Result]:
    """One result for each row, in order, or with an `extension` above 1 for each conversation of several."""
    if extension > 1:
        yield from _Merging(encoder, tokenizer, choice, extension).results(items)
        return
    while batch := list(islice(items, BATCH)):
        outcomes = encoder.encode(tokenizer, choice, [item.values for item in batch if isinstance(item, Row)])
        for item in batch:
            if isinstance(item, BadRow):
                yield Result(item.place, Unusable(item.reason))
            else:
                yield Result(item.place, next(outcomes))


@dataclass(frozen=True)
class _Turn:
    """A question and its answer, as messages, and what becomes of the row by itself."""

    system: list[Message]
    messages: list[Message]
    alone: Result
    tokens: int


@dataclass(frozen=True)
class _Merging:
    encoder: Encoder
    tokenizer: Any
    choice: ColumnChoice
    most: int

    def results(self, items: Iterator[Item]) -> Iterator[Result]:
        waiting: list[_Turn] = []
        for item, alone in self._alone(items):
            turn = self._turn(item, alone)
            if waiting and (turn is None or turn.system != waiting[0].system):
                yield from self._all(waiting)
                waiting = []
            if turn is None:
                yield alone
                continue
            waiting.append(turn)
            if len(waiting) == self.most:
                result = self._longest(waiting)
                yield result
                waiting = waiting[result.rows :]
        yield from self._all(waiting)

    def _alone(self, items: Iterator[Item]) -> Iterator[tuple[Item, Result]]:
        """Each row with what becomes of it by itself."""
        while batch := list(islice(items, BATCH)):
            yield from zip(batch, encode_rows(self.encoder, self.tokenizer, self.choice, iter(batch)), strict=True)

    def _turn(self, item: Item, alone: Result) -> _Turn | None:
        """The row as one question with one answer; None when it is something else, or too long already."""
        outcome = alone.outcome
        if isinstance(item, BadRow) or not isinstance(outcome, Encoded) or outcome.truncated:
            return None
        apart = has_place_for_input(self.tokenizer.chat_template)
        messages = conversation(self.choice, item.values, input_apart=apart)
        said = messages[1:] if messages[0]["role"] == "system" else messages
        has_tools = item.values.get("tools") or any(message.get("tool_calls") for message in said)
        if has_tools or [message["role"] for message in said] != ["user", "assistant"]:
            return None
        return _Turn(messages[: len(messages) - 2], said, alone, len(outcome.ids))

    def _all(self, waiting: list[_Turn]) -> Iterator[Result]:
        while waiting:
            result = self._longest(waiting)
            yield result
            waiting = waiting[result.rows :]

    def _longest(self, turns: Sequence[_Turn]) -> Result:
        """As many of the first turns as make a whole conversation within the length allowed.

        Rendering a long conversation is dear, so the search begins where the lengths of the rows add up to the limit:
        a little short of the answer where a template begins each text in the same way.
        """
        best, low = turns[0].alone, 1
        count = max(self._likely(turns), min(2, len(turns)))
        while low < count <= len(turns):
            tried = self._merged(turns[:count])
            if tried is not None and isinstance(tried.outcome, Unusable):
                return tried
            if tried is not None:
                best, low, count = tried, count, count + 1
            elif best.rows > 1:
                break
            else:
                count -= 1
        return best

    def _likely(self, turns: Sequence[_Turn]) -> int:
        limit = getattr(self.encoder, "max_length", None)
        if limit is None:
            return len(turns)
        return sum(tokens <= limit for tokens in accumulate(turn.tokens for turn in turns))

    def _merged(self, turns: Sequence[_Turn]) -> Result | None:
        """One conversation of all turns, with the reason where it cannot be written, or None when it does not fit."""
        messages = [*turns[0].system, *(message for turn in turns for message in turn.messages)]
        (outcome,) = self.encoder.encode(self.tokenizer, MERGED, [{"messages": messages}])
        if isinstance(outcome, Unusable) and not outcome.cut:
            reason, _, _ = outcome.reason.partition("; ")  # what may help a row alone is no help here
            what = f"it makes no conversation with the next {len(turns) - 1}: {reason}"
            outcome = Unusable(what, "set data.conversation_extension=1, or choose another data.chat_format")
        elif not isinstance(outcome, Encoded) or outcome.truncated:
            return None
        return Result(turns[0].alone.place, outcome, len(turns))
