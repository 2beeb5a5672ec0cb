"""Preferences to token ids: a pair as two rows that begin alike, a judged answer as one row. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aitrain.data.columns import ColumnChoice, MessagesError
from aitrain.data.encoding import (
    CUT_AWAY,
    Outcome,
    TooLong,
    Unusable,
    UnusableRow,
    mask_of_spans,
    one_bos,
    refuse_unfit,
    template_notes,
    tokenize_texts,
)
from aitrain.data.formats import RAW, shape_problem
from aitrain.data.preference import Pair, Unpaired, preference_pair, unpaired_rows
from aitrain.data.rendering import ChatTemplate, Message, Rendered, RenderingError, format_name
from aitrain.data.tokens import Encoded, EncodedGroup, Groups, Table
from aitrain.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run


@dataclass(frozen=True)
class _Texts:
    """A prompt as text, and whole conversations that begin with it; their spans are those after the prompt."""

    prompt: str
    whole: tuple[Rendered, ...]


@dataclass(frozen=True)
class _Tokens:
    """Rows that begin with the same `prompt` tokens, and which of their tokens are trained."""

    prompt: int
    rows: list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class _Writing:
    """How conversations become text and tokens."""

    tokenizer: Any
    template: ChatTemplate | None
    """None: a prompt and its answers as they are (`data.chat_format=raw`)."""

    def texts(self, prompt: list[Message], answers: Sequence[list[Message]], tools: list[Any] | None) -> _Texts:
        """Raises RenderingError when prompt or answers cannot be told apart in the text."""
        if self.template is None:
            return self._as_they_are(prompt, answers, tools)
        before = self.template.prompt(prompt, tools)
        whole = tuple(self._whole(self.template, [*prompt, *answer], len(prompt), tools) for answer in answers)
        if not all(item.text.startswith(before) for item in whole):
            raise RenderingError("the chat template writes the prompt in another way when an answer follows")
        return _Texts(before, whole)

    def _whole(self, template: ChatTemplate, messages: list[Message], prompt: int, tools: list[Any] | None) -> Rendered:
        count = sum(turn["role"] == "assistant" for turn in messages[prompt:])
        rendered = template.render(messages, tools, only_last=count == 1)
        answers = rendered.answers[-count:]
        if not all(template.is_ended(rendered.text, end) for _, end in answers):
            raise RenderingError("the chat template writes no end token after an answer that other turns follow")
        return Rendered(rendered.text, answers)

    def _as_they_are(self, prompt: list[Message], answers: Sequence[list[Message]], tools: list[Any] | None) -> _Texts:
        _refuse_more(prompt, answers, tools)
        if not self.tokenizer.eos_token:
            raise RenderingError("the tokenizer has no end-of-sequence token, with which an answer ends")
        before = prompt[0]["content"]
        texts = [f"{before}{answer[0]['content']}{self.tokenizer.eos_token}" for answer in answers]
        return _Texts(before, tuple(Rendered(text, ((len(before), len(text)),)) for text in texts))

    def tokens(self, texts: Sequence[_Texts]) -> Iterator[_Tokens]:
        """Tokens of all texts, from one call of the tokenizer."""
        flat = [text for item in texts for text in (item.prompt, *(whole.text for whole in item.whole))]
        # A chat template writes its special tokens itself; text as it is has none yet.
        encodings = iter(tokenize_texts(self.tokenizer, flat, self.template is None)) if flat else iter(())
        for item in texts:
            ids, offsets, _ = next(encodings)
            prompt, _ = one_bos(self.tokenizer, ids, [0] * len(offsets))
            rows = []
            for whole in item.whole:
                ids, offsets, added = next(encodings)
                rows.append(one_bos(self.tokenizer, ids, mask_of_spans(whole.answers, offsets, added)))
            yield _joined(prompt, rows)


def _refuse_more(prompt: list[Message], answers: Sequence[list[Message]], tools: list[Any] | None) -> None:
    if [turn["role"] for turn in prompt] != ["user"] or any(len(answer) > 1 for answer in answers) or tools:
        raise RenderingError("data.chat_format=raw has no place for more than a prompt and its answer")


def _joined(prompt: list[int], rows: list[tuple[list[int], list[int]]]) -> _Tokens:
    """The answers begin where a row is no longer as the prompt alone is tokenised.

    That is where the answer's text begins, unless tokens merge across its first character: then the answer begins with
    the merged token, since generation starts after a prompt without it. The rule is TRL's (`common_prefix_length`).
    """
    length = min(_common(prompt, ids) for ids, _ in rows)
    joined = []
    for ids, trained in rows:
        first = trained.index(1) if 1 in trained else len(ids)
        length = min(length, first)
        joined.append((ids, first, trained))
    return _Tokens(
        length,
        [(ids, [*trained[:length], *[1] * (first - length), *trained[first:]]) for ids, first, trained in joined],
    )


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two rows have in common at their start."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


@dataclass(frozen=True)
class _Limits:
    """How long prompt and rows may be, and what becomes of longer ones."""

    max_length: int
    max_prompt_length: int | None
    truncation: str

    def fit(self, tokens: _Tokens) -> list[Encoded] | TooLong | Unusable:
        """The rows within the limits. All lose the same part of the prompt, so that they still begin alike."""
        lost = max(0, tokens.prompt - self.max_prompt_length) if self.max_prompt_length else 0
        longest = max(len(ids) for ids, _ in tokens.rows)
        excess = longest - lost - self.max_length
        if excess > 0 and self.truncation in ("error", "drop"):
            return TooLong(longest - lost)
        if excess > 0 and self.truncation == "left":
            lost += excess
        room = f"within data.max_length={self.max_length}"
        if lost and lost >= tokens.prompt:
            what = f"an answer of {longest - tokens.prompt} tokens leaves no room for the prompt {room}"
            return Unusable(what, "raise data.max_length, or set data.truncation=right or drop", cut=True)
        if tokens.prompt - lost >= self.max_length:
            what = f"a prompt of {tokens.prompt} tokens leaves no room for an answer {room}"
            return Unusable(f"{what}; data.max_prompt_length keeps the end of a prompt", CUT_AWAY, cut=True)
        end = lost + self.max_length
        rows = [Encoded(ids[lost:end], on[lost:end], lost > 0 or len(ids) > end) for ids, on in tokens.rows]
        # The first token is never predicted, so a row needs a trained token after it.
        if not all(any(row.trained[1:]) for row in rows):
            what = "no token of an answer is left to train on"
            return Unusable(f"{what} {room}", CUT_AWAY, cut=True) if longest > end else Unusable(what)
        return rows


class _PreferenceEncoder:
    """What the encoders of preferences share: limits, format, and how an encoded row is looked at."""

    weighted = False

    def __init__(self, run: Run) -> None:
        self.limits = _Limits(run.data.max_length, run.data.max_prompt_length, run.data.truncation)
        self.chat_format = run.data.chat_format

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Groups:
        return Groups(table, indices)

    def _settings(self, name: str, **more: Any) -> dict[str, Any]:
        # Formats other than raw are in the tokenizer's template.
        return {"encoder": name, **vars(self.limits), "raw": self.chat_format == RAW, **more}

    def _writing(self, tokenizer: Any, choice: ColumnChoice) -> _Writing:
        if problem := shape_problem(self.chat_format, choice.shape, bool(tokenizer.chat_template)):
            raise DataError(problem)
        return _Writing(tokenizer, None if self.chat_format == RAW else ChatTemplate(tokenizer))

    @property
    def _input_apart(self) -> bool:
        return self.chat_format == "alpaca"

    def notes(
        self, tokenizer: Any, choices: Sequence[ColumnChoice], values: Sequence[NDArray[np.float64]]
    ) -> Iterator[str]:
        """What is odd about the chat template."""
        yield from template_notes(tokenizer, self.chat_format)

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        """What keeps a row from being used whatever the tokenizer; ''."""
        try:
            for prompt, answers, tools in self._said(choice, row):
                if self.chat_format == RAW:
                    _refuse_more(prompt, answers, tools)
                for answer in answers:
                    refuse_unfit(self.chat_format, [*prompt, *answer], tools)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return str(error)
        return ""

    def _said(
        self, choice: ColumnChoice, row: dict[str, Any]
    ) -> Iterator[tuple[list[Message], tuple[list[Message], ...], list[Any] | None]]:
        """The prompts of a row, each with its answers and tools."""
        raise NotImplementedError


class PairEncoder(_PreferenceEncoder):
    """Pairs as two rows, the chosen answer first: both begin with the same prompt, and only the answers are trained.

    The value of a pair is its margin, unless `margins` says that the trainer uses none.
    """

    group = 2

    def __init__(self, run: Run, *, margins: bool = True) -> None:
        super().__init__(run)
        self.margins = margins

    def settings(self) -> dict[str, Any]:
        return self._settings("pair-2", margins=self.margins)

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return f"prompt with chosen and rejected answer, in {format_name(tokenizer, self.chat_format)}"

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        writing = self._writing(tokenizer, choice)
        written = [self._written(writing, choice, row) for row in rows]
        tokens = writing.tokens([item[1] for item in written if not isinstance(item, Unusable)])
        for item in written:
            yield item if isinstance(item, Unusable) else self._finished(item[0], next(tokens))

    def _said(
        self, choice: ColumnChoice, row: dict[str, Any]
    ) -> Iterator[tuple[list[Message], tuple[list[Message], ...], list[Any] | None]]:
        pair = preference_pair(choice, row, margins=self.margins, input_apart=self._input_apart)
        yield pair.prompt, (pair.chosen, pair.rejected), pair.tools

    def _written(self, writing: _Writing, choice: ColumnChoice, row: dict[str, Any]) -> tuple[Pair, _Texts] | Unusable:
        try:
            pair = preference_pair(choice, row, margins=self.margins, input_apart=self._input_apart)
            return pair, writing.texts(pair.prompt, (pair.chosen, pair.rejected), pair.tools)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return Unusable(str(error))

    def _finished(self, pair: Pair, tokens: _Tokens) -> Outcome:
        rows = self.limits.fit(tokens)
        if not isinstance(rows, list):
            return rows
        if rows[0].ids == rows[1].ids:
            what = "chosen and rejected become the same tokens"
            if tokens.rows[0][0] == tokens.rows[1][0]:  # not because they were cut
                return Unusable(what)
            return Unusable(f"{what} within data.max_length={self.limits.max_length}", CUT_AWAY, cut=True)
        return EncodedGroup(tuple(rows), pair.margin)


class UnpairedEncoder(_PreferenceEncoder):
    """Answers with a judgement, one row each: the value is 1 for a wanted answer and 0 for an unwanted one.

    A pair becomes two of them. `encode` gives a list for it, since one row of data is two examples.
    """

    group = 1

    def settings(self) -> dict[str, Any]:
        return self._settings("unpaired-2")

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        answers = "each answer of a pair" if choice.shape == "pairs" else "answer"
        return f"prompt with {answers}, in {format_name(tokenizer, self.chat_format)}"

    def notes(
        self, tokenizer: Any, choices: Sequence[ColumnChoice], values: Sequence[NDArray[np.float64]]
    ) -> Iterator[str]:
        yield from super().notes(tokenizer, choices, values)
        kinds = {value > 0 for part in values for value in set(part.tolist())}
        if len(kinds) == 1:
            have, lack = ("wanted", "unwanted") if kinds == {True} else ("unwanted", "wanted")
            yield f"every answer is {have} and none is {lack}: the model learns from one kind alone"

    def _said(
        self, choice: ColumnChoice, row: dict[str, Any]
    ) -> Iterator[tuple[list[Message], tuple[list[Message], ...], list[Any] | None]]:
        for item in unpaired_rows(choice, row, input_apart=self._input_apart):
            yield item.prompt, (item.completion,), item.tools

    def encode(
        self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]
    ) -> Iterator[Outcome | list[EncodedGroup]]:
        writing = self._writing(tokenizer, choice)
        written = [self._written(writing, choice, row) for row in rows]
        tokens = writing.tokens([text for items in written if isinstance(items, list) for _, text in items])
        for items in written:
            if isinstance(items, Unusable):
                yield items
                continue
            yield _as_one_row([self._finished(item, next(tokens)) for item, _ in items])

    def _written(
        self, writing: _Writing, choice: ColumnChoice, row: dict[str, Any]
    ) -> list[tuple[Unpaired, _Texts]] | Unusable:
        try:
            items = unpaired_rows(choice, row, input_apart=self._input_apart)
            return [(item, writing.texts(item.prompt, (item.completion,), item.tools)) for item in items]
        except (RenderingError, MessagesError, UnusableRow) as error:
            return Unusable(str(error))

    def _finished(self, item: Unpaired, tokens: _Tokens) -> EncodedGroup | TooLong | Unusable:
        rows = self.limits.fit(tokens)
        return EncodedGroup(tuple(rows), float(item.wanted)) if isinstance(rows, list) else rows


def _as_one_row(found: Sequence[EncodedGroup | TooLong | Unusable]) -> Outcome | list[EncodedGroup]:
    """What became of a row of data, which is used as a whole or not at all."""
    unusable = next((outcome for outcome in found if isinstance(outcome, Unusable)), None)
    if unusable is not None:
        return unusable
    too_long = [outcome for outcome in found if isinstance(outcome, TooLong)]
    if too_long:
        return max(too_long, key=lambda outcome: outcome.tokens)
    groups = [outcome for outcome in found if isinstance(outcome, EncodedGroup)]
    return groups if len(groups) > 1 else groups[0]
