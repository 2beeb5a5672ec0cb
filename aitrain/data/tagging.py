"""The words of a row and the tag of each: from lists, from the text of lists, or from a text with spans. No torch."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aitrain.data.columns import ColumnChoice, kind_of
from aitrain.data.targets import NoTarget

OUTSIDE = "O"
WORD = re.compile(r"\w+|[^\w\s]")
"""A word of a text with spans: letters and digits that stand together, or a sign."""
SHOWN = 40
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class Words:
    """The words of a row."""

    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...] | None = None
    """Where each stands in the row's text; None where the row is a list of words."""


@dataclass(frozen=True)
class TagReader:
    """Reads words and tags of a row; `names` stand for whole numbers where the data has a class feature."""

    choice: ColumnChoice
    names: tuple[str, ...] = ()

    @property
    def is_inline(self) -> bool:
        """Whether a row is a text with spans, instead of a list of words."""
        return "text" in self.choice.columns

    def words(self, row: Mapping[str, Any]) -> Words:
        """The words of a row. Raises NoTarget where there are none."""
        if self.is_inline:
            return _words_of_text(row.get(self.choice.columns["text"]), self.choice.columns["text"])
        column = self.choice.columns["tokens"]
        return Words(tuple(_word(value, number, column) for number, value in _values(row.get(column), column)))

    def tags(self, row: Mapping[str, Any], words: Words) -> tuple[str, ...]:
        """The tag of each word. Raises NoTarget where they do not fit the words."""
        column = self.choice.columns["tags"]
        if words.places is not None:
            return tuple(_tags_of_spans(list(_spans(row, self.choice)), words, column))
        tags = tuple(self._tag(value, number) for number, value in _values(row.get(column), column))
        if len(tags) != len(words.words):
            both = f"column '{column}' has {len(tags)} tags, and column '{self.choice.columns['tokens']}'"
            raise NoTarget(f"{both} {len(words.words)} words")
        return tags

    def _tag(self, value: Any, number: int) -> str:
        column = self.choice.columns["tags"]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if not self.names:
                return str(value)
            if 0 <= value < len(self.names):
                return self.names[value]
            what = f"tag {number} is {value}, and the file names {len(self.names)} tags, from 0 on"
            raise NoTarget(f"column '{column}': {what}")
        if isinstance(value, str) and value.strip():
            return value.strip()
        raise NoTarget(f"column '{column}': tag {number} is {_told(value)}, where a tag is expected")


# --- lists ---------------------------------------------------------------------------------------------------------


def wrong_list(value: Any) -> str:
    """What a value is when it is neither a list nor the text of one, else ''. How such a text reads, each row tells."""
    is_text_of_list = isinstance(value, str) and value.strip()[:1] in ("[", "")
    return "" if is_text_of_list or isinstance(value, list | tuple) else kind_of(value)


def _values(value: Any, column: str) -> Iterator[tuple[int, Any]]:
    """What a list holds, counted from 1. Raises NoTarget for what is no list, and for an empty one."""
    found = read_list(value, column)
    if not found:
        raise NoTarget(f"column '{column}' holds an empty list")
    return enumerate(found, 1)


def read_list(value: Any, column: str) -> list[Any]:
    """A list, or the list that a text of JSON or Python says. Raises NoTarget."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str) or not value.strip():
        raise NoTarget(f"column '{column}' holds {_told(value)}, where a list is expected")
    text = value.strip()
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | tuple) and (read is json.loads or _has_commas(text)):
            return list(found)
    raise NoTarget(f"column '{column}' holds text that reads as no list: {_cut(text)}")


def _has_commas(text: str) -> bool:
    """Whether no two texts stand side by side, which Python would read as one: so numpy prints a list."""
    found = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    return (tokenize.STRING, tokenize.STRING) not in pairwise(kind for kind in found if kind != tokenize.NL)


def _word(value: Any, number: int, column: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    what = "an empty word" if isinstance(value, str) else kind_of(value)
    raise NoTarget(f"column '{column}': word {number} is {what}")


def _told(value: Any) -> str:
    return "nothing" if value is None or value == "" else kind_of(value)


def _cut(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


# --- texts with spans ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class _Span:
    """Characters of a text from `start` up to, without, `end`."""

    start: int
    end: int
    label: str
    number: int
    """Its place among the spans of the row, from 1."""


def _words_of_text(value: Any, column: str) -> Words:
    if not isinstance(value, str):
        raise NoTarget(f"column '{column}' holds {_told(value)}, where text is expected")
    found = list(WORD.finditer(value))
    if not found:
        raise NoTarget(f"column '{column}' holds no word")
    return Words(tuple(match[0] for match in found), tuple(match.span() for match in found))


def _spans(row: Mapping[str, Any], choice: ColumnChoice) -> Iterator[_Span]:
    """The spans of a row. Raises NoTarget for one that does not lie within its text."""
    column, length = choice.columns["tags"], len(row[choice.columns["text"]])
    for number, entry in enumerate(read_list(row.get(column), column), 1):
        start, end, label = _parts(entry, number, column)
        if not 0 <= start < end <= length:
            what = f"span {number} goes from {start} to {end}, and the text has {length} characters"
            raise NoTarget(f"column '{column}': {what}")
        yield _Span(start, end, label, number)


def _parts(entry: Any, number: int, column: str) -> tuple[int, int, str]:
    """Start, end and label of {start, end, label}, or of a list of the three."""
    values = [entry.get(name) for name in ("start", "end", "label")] if isinstance(entry, Mapping) else entry
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise NoTarget(f"column '{column}': span {number} is {kind_of(entry)}, not {{start, end, label}}")
    start, end, label = values
    places = (start, end)
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in places):
        raise NoTarget(f"column '{column}': span {number} has no whole numbers for start and end")
    if not isinstance(label, str) or not label.strip():
        raise NoTarget(f"column '{column}': span {number} has no label")
    return start, end, label.strip()


def _tags_of_spans(spans: Sequence[_Span], words: Words, column: str) -> list[str]:
    """Tags in BIO. Raises NoTarget for spans that share characters, and for one that begins or ends inside a word."""
    for first, second in pairwise(sorted(spans)):
        if second.start < first.end:
            what = f"spans {first.number} and {second.number} share characters {second.start} to {first.end}"
            raise NoTarget(f"column '{column}': {what}")
    tags = [OUTSIDE] * len(words.words)
    for span in spans:
        for number, mark in _marked(span, words, column):
            tags[number] = f"{mark}-{span.label}"
    return tags


def _marked(span: _Span, words: Words, column: str) -> Iterable[tuple[int, str]]:
    """The words of a span by number, each with its mark."""
    assert words.places is not None
    inside = [number for number, (start, end) in enumerate(words.places) if start < span.end and end > span.start]
    if not inside:
        raise NoTarget(f"column '{column}': span {span.number} holds no word")
    for number in (inside[0], inside[-1]):
        start, end = words.places[number]
        if start < span.start or end > span.end:
            what = f"span {span.number}, {span.start} to {span.end}, cuts the word {words.words[number]!r}"
            raise NoTarget(f"column '{column}': {what}, which is {start} to {end}")
    return ((number, "I" if place else "B") for place, number in enumerate(inside))
