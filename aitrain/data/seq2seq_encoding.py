"""A text and the text that should be written for it, to the token ids of an encoder and of a decoder. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from aitrain.data.columns import ColumnChoice, kind_of
from aitrain.data.encoding import Outcome, TooLong, Truncation, Unusable
from aitrain.data.tokens import Encoded, EncodedGroup, Groups, Table
from aitrain.errors import ConfigError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run


class Seq2SeqEncoder:
    """Pairs of texts. An example is two rows of token ids: the source as the encoder reads it, and the target, which
    ends with the end-of-sequence token.

    The number pair of an example says whether its source and its target were cut (1) or not (0). The record of each row
    is its text as the data has it, without the prefix.
    """

    group = 2
    weighted = False
    parts = ("source", "target")
    """What the rows of an example are."""

    def __init__(self, run: Run) -> None:
        section: Any = run.task
        self.prefix: str = section.source_prefix or ""
        self.forced_bos_token: str | None = section.forced_bos_token
        self.languages: tuple[str | None, str | None] = (section.source_language, section.target_language)
        self.max_length = run.data.max_length
        self.max_target_length: int = section.max_target_length
        self.truncation: Truncation = run.data.truncation

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "text-text-1",
            "prefix": self.prefix,
            "max_length": self.max_length,
            "max_target_length": self.max_target_length,
            "truncation": self.truncation,
            "languages": list(self.languages),
        }

    def prepare(self, tokenizer: Any) -> None:
        """Tell the tokenizer which languages the texts are in. Raises ConfigError for one that it does not know."""
        for key, attribute, language in zip(LANGUAGE_KEYS, ("src_lang", "tgt_lang"), self.languages, strict=True):
            if language is not None:
                language_id(tokenizer, language, key)
                setattr(tokenizer, attribute, language)

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return f"plain text after {self.prefix!r}" if self.prefix else "plain text"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Groups:
        return Groups(table, indices)

    def notes(
        self, tokenizer: Any, choices: Sequence[ColumnChoice], values: Sequence[NDArray[np.float64]]
    ) -> Iterator[str]:
        """How many texts of each side are cut. Raises ConfigError for a token that the tokenizer does not have."""
        self.prepare(tokenizer)
        forced_bos_id(tokenizer, self.forced_bos_token)
        cut = [sum(int(part[:, side].sum()) for part in values) for side in (0, 1)]
        limits = (f"data.max_length={self.max_length}", f"task.max_target_length={self.max_target_length}")
        told = [
            f"{count:,} {name}{'s are' if count > 1 else ' is'} cut to {limit}"
            for name, count, limit in zip(self.parts, cut, limits, strict=True)
            if count
        ]
        if told:
            yield f"of {sum(len(part) for part in values):,} rows {' and '.join(told)}"

    # --- rows ---

    def fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        return self.source_fault(choice, row) or self.target_fault(choice, row)

    def source_fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        """What keeps the source of a row from being read; ''."""
        return _no_text(row.get(choice.columns["text"]), choice.columns["text"])

    def target_fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        """What keeps the target of a row from being read; ''."""
        (column,) = choice.targets
        return _no_text(row.get(column), column)

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        faults = [self.fault(choice, row) for row in rows]
        usable = [row for row, fault in zip(rows, faults, strict=True) if not fault]
        (column,) = choice.targets
        sources = self.sources(tokenizer, [row[choice.columns["text"]] for row in usable])
        pairs = zip(sources, self.targets(tokenizer, [row[column] for row in usable]), strict=True)
        for fault in faults:
            yield Unusable(fault) if fault else self._example(*next(pairs))

    def _example(self, source: Encoded | TooLong, target: Encoded | TooLong) -> Outcome:
        if isinstance(source, TooLong):
            return source
        if isinstance(target, TooLong):
            if self.truncation == "drop":
                return target
            return Unusable(
                f"its target has {target.tokens} tokens, more than task.max_target_length={self.max_target_length}",
                "raise it, or set data.truncation=right, left or drop",
            )
        return EncodedGroup((source, target), (float(source.truncated), float(target.truncated)))

    def sources(self, tokenizer: Any, texts: Sequence[str]) -> list[Encoded | TooLong]:
        """Token ids of sources, prefix and special tokens included, cut to `data.max_length`.

        Raises ConfigError for a prefix that leaves no room for a text.
        """
        if not texts:
            return []
        self.prepare(tokenizer)
        empty, alone, *whole = _source_ids(tokenizer, ["", self.prefix, *(self.prefix + text for text in texts)])
        if len(alone) >= self.max_length:
            what = f"it has {len(alone)} tokens with the special ones, and data.max_length is {self.max_length}"
            raise ConfigError(Problem("task.source_prefix", what, "shorten it, or raise data.max_length"))
        return [
            self._row(text, ids, _common(alone, ids), empty, self.max_length, trained=0)
            for text, ids in zip(texts, whole, strict=True)
        ]

    def targets(self, tokenizer: Any, texts: Sequence[str]) -> list[Encoded | TooLong]:
        """Token ids of targets, the last of them the end-of-sequence token, cut to `task.max_target_length`.

        Raises ConfigError where the tokenizer has no such token.
        """
        if not texts:
            return []
        self.prepare(tokenizer)
        end = tokenizer.eos_token_id
        if end is None:
            what = "its tokenizer has no end-of-sequence token, so that nothing would end a text"
            raise ConfigError(Problem("model.path", what, "name an encoder-decoder model with its own tokenizer"))
        empty, *whole = (_ended(ids, end) for ids in _target_ids(tokenizer, ["", *texts]))
        return [
            self._row(text, ids, _common(empty[:-1], ids), empty, self.max_target_length, trained=1)
            for text, ids in zip(texts, whole, strict=True)
        ]

    def _row(
        self, text: str, ids: list[int], front: int, empty: list[int], most: int, *, trained: int
    ) -> Encoded | TooLong:
        """`front` tokens at the beginning are kept whatever is cut, and at the end those that end an empty text too."""
        record = json.dumps(text, ensure_ascii=False)
        if len(ids) <= most:
            return Encoded(ids, [trained] * len(ids), record=record)
        if self.truncation in ("error", "drop"):
            return TooLong(len(ids))
        back = _common(empty[::-1], ids[::-1])
        kept = cut_middle(ids, min(front, most - back), back, most, self.truncation)
        return Encoded(kept, [trained] * len(kept), truncated=True, record=record)


def cut_middle(ids: list[int], front: int, back: int, most: int, side: str) -> list[int]:
    """`most` of the ids: `front` at the beginning, `back` at the end, and what stands between cut on one side."""
    end = len(ids) - back
    room = most - front - back
    middle = ids[end - room : end] if side == "left" else ids[front : front + room]
    return ids[:front] + middle + ids[end:]


def forced_bos_id(tokenizer: Any, token: str | None) -> int | None:
    """The id of the token that every written text begins with. Raises ConfigError where the tokenizer has none."""
    if token is None:
        return None
    found = tokenizer.get_vocab().get(token)
    if found is None:
        what = f"'{token}' is no token of the tokenizer"
        raise ConfigError(Problem("task.forced_bos_token", what, "name one as its vocabulary has it, such as de_DE"))
    return int(found)


LANGUAGE_KEYS = ("task.source_language", "task.target_language")


def language_id(tokenizer: Any, language: str, key: str) -> int:
    """The id of a language's token. Raises ConfigError for a tokenizer of one language, and for an unknown one."""
    if not hasattr(tokenizer, "src_lang"):
        raise ConfigError(Problem(key, "the tokenizer tells no languages apart", "leave it out", fix=f"~{key}"))
    # M2M100 calls a language by another name than its token.
    token = (getattr(tokenizer, "lang_code_to_token", None) or {}).get(language, language)
    found = tokenizer.get_vocab().get(token)
    if found is None:
        what = f"'{language}' is no language of the tokenizer"
        raise ConfigError(Problem(key, what, "write it as the model's card does, such as deu_Latn, de_DE or de"))
    return int(found)


def _no_text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        return f"column '{column}' holds {'nothing' if value is None else kind_of(value)}, no text"
    return "" if value.strip() else f"column '{column}' is empty"


def _source_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]
    return found


def _target_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """As the tokenizer writes targets, which may begin with a language's token."""
    found: list[list[int]] = tokenizer(text_target=list(texts), return_attention_mask=False, verbose=False)["input_ids"]
    return found


def _ended(ids: list[int], end: int) -> list[int]:
    # A language's token may stand behind the end of the text (the first mBART).
    return ids if end in ids[-2:] else [*ids, end]


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(some, others, strict=False)))


def with_lengths(rows: Any) -> NDArray[np.int64]:
    """Tokens of source and target together, of each example."""
    import numpy as np

    if isinstance(rows, Groups):
        lengths = rows.table.lengths().reshape(-1, rows.table.group).sum(axis=1)
        return lengths if rows.indices is None else lengths[rows.indices]
    return np.array([sum(len(row.ids) for row in rows[i].rows) for i in range(len(rows))], np.int64)


def texts_of(rows: Groups, number: int) -> tuple[str, str]:
    """Source and target of an example, as the data has them."""
    first = rows.table.group * (number if rows.indices is None else int(rows.indices[number]))
    source, target = (json.loads(rows.table.record(first + side)) for side in (0, 1))
    return source, target
