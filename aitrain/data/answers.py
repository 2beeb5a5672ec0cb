"""Answers that stand in a text: read off a row in any of the forms they come in, held against the text. No torch."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aitrain.data.columns import ColumnChoice, kind_of

NONE_AT = -1
"""The `answer_start` that says that there is no answer."""
IMPOSSIBLE = "is_impossible"
"""Column of SQuAD 2.0 that says so too."""
_ARRAYS = re.compile(r"\barray\((\[.*?\])(?:,\s*dtype=\w+)?\)", re.DOTALL)


class NoAnswers(ValueError):
    """A row does not say what the answer is, nor that there is none."""


@dataclass(frozen=True)
class Answer:
    """A stretch of the context."""

    text: str
    start: int
    """Its first character."""

    @property
    def end(self) -> int:
        """The character after its last one."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Question:
    """What is asked of a text."""

    context: str
    question: str


def read_question(choice: ColumnChoice, row: Mapping[str, Any]) -> Question:
    """Context and question of a row. Raises NoAnswers where one is empty or no text."""
    return Question(_text(choice.columns["context"], row), _text(choice.columns["question"], row).strip())


def _text(column: str, row: Mapping[str, Any]) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise NoAnswers(f"column '{column}' holds {'nothing' if value is None else kind_of(value)}, no text")
    if not value.strip():
        raise NoAnswers(f"column '{column}' is empty")
    return value


def read_answers(choice: ColumnChoice, row: Mapping[str, Any], context: str) -> tuple[Answer, ...]:
    """The answers of a row, each of which stands in `context` where it says; () where there is none.

    Raises NoAnswers for anything else, with the place where a misplaced answer really stands.
    """
    column = choice.columns["answers"]
    pairs = _pairs(row.get(column), column)
    impossible = _is_impossible(row)
    if all(start == NONE_AT for _, start in pairs):
        if impossible is False and pairs == [] and row.get(column) is None:
            raise NoAnswers(f"column '{column}' holds nothing, and '{IMPOSSIBLE}' is false")
        return ()
    if impossible:
        raise NoAnswers(f"column '{column}' holds an answer, and '{IMPOSSIBLE}' says that there is none")
    return tuple(_placed(text, start, number, context, column) for number, (text, start) in enumerate(pairs, 1))


def _is_impossible(row: Mapping[str, Any]) -> bool | None:
    value = row.get(IMPOSSIBLE)
    if isinstance(value, str):
        return {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    return None if value is None else bool(value)


def wrong_answers(value: Any) -> str:
    """What a value is when it cannot hold answers, else ''."""
    if isinstance(value, dict | list | tuple):
        return ""
    if isinstance(value, str):
        return "" if not value.strip() or value.strip()[0] in "{[" else kind_of(value)
    return kind_of(value)


def _pairs(value: Any, column: str) -> list[tuple[Any, Any]]:
    """Text and start of each answer, not yet looked at."""
    if isinstance(value, str):
        value = _parsed(value, column)
    if value is None:
        return []
    if isinstance(value, Mapping):
        if "text" not in value or "answer_start" not in value:
            found = ", ".join(f"'{name}'" for name in list(value)[:5]) or "nothing"
            raise NoAnswers(f"column '{column}' holds an object of {found}, where text and answer_start are expected")
        texts, starts = (each if isinstance(each, list | tuple) else [each] for each in _both(value))
        if len(texts) != len(starts):
            raise NoAnswers(f"column '{column}' holds {len(texts)} texts and {len(starts)} starts (answer_start)")
        return list(zip(texts, starts, strict=True))
    if isinstance(value, list | tuple):
        strange = next((each for each in value if not isinstance(each, Mapping) or not {*each} >= {*_NAMES}), None)
        if strange is not None:
            told = f"{kind_of(strange)} among its answers"
            raise NoAnswers(f"column '{column}' holds {told}, where {{text, answer_start}} is expected")
        return [_both(each) for each in value]
    raise NoAnswers(f"column '{column}' holds {kind_of(value)} where answers {{text, answer_start}} are expected")


_NAMES = ("text", "answer_start")


def _both(value: Mapping[str, Any]) -> tuple[Any, Any]:
    return value["text"], value["answer_start"]


def _parsed(text: str, column: str) -> Any:
    """Answers from their text: JSON, a Python literal, or one with the arrays that pandas writes."""
    if not text.strip():
        return None
    for read, source in ((json.loads, text), (ast.literal_eval, text), (ast.literal_eval, _ARRAYS.sub(r"\1", text))):
        try:
            return read(source)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise NoAnswers(f"column '{column}' holds {kind_of(text)}, which is neither JSON nor a Python literal")


def _placed(text: Any, start: Any, number: int, context: str, column: str) -> Answer:
    which = f"column '{column}': answer {number}"
    if not isinstance(text, str):
        raise NoAnswers(f"{which} is {kind_of(text)}, no text")
    if not text.strip():
        raise NoAnswers(f"{which} is empty")
    if isinstance(start, bool) or not isinstance(start, int | float) or not float(start).is_integer():
        raise NoAnswers(f"{which}, {_brief(text)}, has {kind_of(start)} as its answer_start")
    start = int(start)
    if start == NONE_AT:
        raise NoAnswers(f"{which}, {_brief(text)}, has answer_start -1 beside answers that are there")
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    raise NoAnswers(f"{which}, {_brief(text)}, {_whereabouts(text, start, context)}")


def _whereabouts(text: str, start: int, context: str) -> str:
    """Where a misplaced answer really stands: the place nearest to the one that was named."""
    places = [found.start() for found in re.finditer(f"(?={re.escape(text)})", context)]
    if places:
        nearest = min(places, key=lambda place: abs(place - start))
        return f"does not begin at {start} of the context; found at {nearest}, {abs(nearest - start)} off"
    if other := re.search(re.escape(text), context, re.IGNORECASE):
        return f"does not stand in the context; found in other case at {other.start()}"
    return "does not stand in the context"


def _brief(text: str) -> str:
    return f"'{text}'" if len(text) <= 40 else f"'{text[:39]}…'"
