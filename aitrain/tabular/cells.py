"""What one value means: missing, a number, a date or a word. Rules are chosen a column, never a value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

MISSING = ("", "na", "n/a", "nan", "null", "?", "-")
"""Words that stand for no value, as whole values and in any case."""

Decimals = Literal[".", ","]
DateOrder = Literal["auto", "day_first", "month_first"]


def text_of(value: Any, missing: Collection[str] = MISSING) -> str | None:
    """The value as text without the space around it, or None where there is none. A float that is whole is written
    as an int, so that 1 and 1.0 of a JSON file are one category. Raises ValueError for what is no single value."""
    if isinstance(value, str):
        stripped = value.strip()
        return None if stripped.casefold() in missing else stripped
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"{value} is no number to learn from")
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, date):  # datetime is one too
        return value.isoformat()
    raise ValueError(f"a {type(value).__name__} is no single value")


# --- numbers -------------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_SPACES = " '’\u00a0\u202f"
_GROUPED_POINT = re.compile(rf"[+-]?[1-9]\d{{0,2}}([,{_SPACES}])\d{{3}}(?:\1\d{{3}})*(?:\.\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?")
_GROUPED_COMMA = re.compile(rf"[+-]?[1-9]\d{{0,2}}([.{_SPACES}])\d{{3}}(?:\1\d{{3}})*(?:,\d+)?")
_WITHOUT_POINT = str.maketrans("", "", "," + _SPACES)
_WITHOUT_COMMA = str.maketrans(",", ".", "." + _SPACES)
_CODE = re.compile(r"0\d+")


class Ambiguous(Exception):
    """A column that reads in two ways with different values; `args` are an example and its two readings."""


def number(word: str, decimal: Decimals) -> float | None:
    """The number a word is with this decimal sign, thousands in groups or not; None if it is none."""
    if _PLAIN.fullmatch(word) and (decimal == "." or "." not in word):
        found = float(word)
    elif decimal == "." and _GROUPED_POINT.fullmatch(word):
        found = float(word.translate(_WITHOUT_POINT))
    elif decimal == "," and (_COMMA.fullmatch(word) or _GROUPED_COMMA.fullmatch(word)):
        found = float(word.translate(_WITHOUT_COMMA))
    else:
        return None
    return found if math.isfinite(found) else None


def decimal_of(words: Iterable[str], told: Decimals | None) -> Decimals | None:
    """The decimal sign with which every word is a number; None if there is none. A sign that is told comes first. A
    point is a point: a comma is only considered where some word has no other reading. Raises Ambiguous."""
    words = list(words)
    if told is not None and all(number(word, told) is not None for word in words):
        return told
    if all(_PLAIN.fullmatch(word) for word in words):
        return "."
    point = [number(word, ".") for word in words]
    comma = [number(word, ",") for word in words]
    if None in point:
        return None if None in comma else ","
    if None in comma:
        return "."
    for word, one, other in zip(words, point, comma, strict=True):
        if one != other:
            raise Ambiguous(word, one, other)
    return "."


def likely_decimal(words: Iterable[str]) -> tuple[Decimals, int]:
    """The sign with which most words are numbers, and how many are."""
    words = list(words)
    signs: tuple[Decimals, ...] = (".", ",")
    counts = {sign: sum(number(word, sign) is not None for word in words) for sign in signs}
    best = max(counts, key=lambda sign: counts[sign])
    return best, counts[best]


def is_code(word: str) -> bool:
    """Whether it is digits with a zero before them, as in postal codes: as a number it would lose the zero."""
    return _CODE.fullmatch(word) is not None


# --- yes and no ----------------------------------------------------------------------------------------------------

BOOLEANS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("off", "on"), ("0", "1"), ("0.0", "1.0"))


def are_booleans(words: Iterable[str]) -> bool:
    """Whether the words are a yes and a no of one pair, in any case."""
    said = {word.casefold() for word in words}
    return any(said == set(pair) for pair in BOOLEANS)


def truth(word: str) -> bool | None:
    """Whether a word says yes or no; None if neither."""
    low = word.casefold()
    for no, yes in BOOLEANS:
        if low in (no, yes):
            return low == yes
    return None


# --- dates ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DateFormat:
    """One way to write a date."""

    name: str
    shape: re.Pattern[str]
    parse: Callable[[str], datetime]
    order: Literal["day_first", "month_first"] | None = None
    """Set where the same digits might be read the other way."""


_TIME = r"(?: (\d{1,2}:\d{2}(:\d{2})?))?"


def _iso(word: str) -> datetime:
    found = datetime.fromisoformat(word)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def _written(pattern: str, shape: str, order: Literal["day_first", "month_first"] | None = None) -> DateFormat:
    def parse(word: str) -> datetime:
        clock = {0: "", 1: " %H:%M", 2: " %H:%M:%S"}[word.count(":")]
        return datetime.strptime(word, pattern + clock)

    return DateFormat(pattern, re.compile(shape + _TIME), parse, order)


_DATES = (
    DateFormat(
        "ISO 8601",
        re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"),
        _iso,
    ),
    _written("%Y/%m/%d", r"\d{4}/\d{1,2}/\d{1,2}"),
    _written("%d.%m.%Y", r"\d{1,2}\.\d{1,2}\.\d{4}"),
    _written("%d/%m/%Y", r"\d{1,2}/\d{1,2}/\d{4}", "day_first"),
    _written("%m/%d/%Y", r"\d{1,2}/\d{1,2}/\d{4}", "month_first"),
    _written("%d-%m-%Y", r"\d{1,2}-\d{1,2}-\d{4}", "day_first"),
    _written("%m-%d-%Y", r"\d{1,2}-\d{1,2}-\d{4}", "month_first"),
    _written("%d %b %Y", r"\d{1,2} [A-Za-z]{3} \d{4}"),
    _written("%d %B %Y", r"\d{1,2} [A-Za-z]{3,9} \d{4}"),
    _written("%b %d, %Y", r"[A-Za-z]{3} \d{1,2}, \d{4}"),
    _written("%B %d, %Y", r"[A-Za-z]{3,9} \d{1,2}, \d{4}"),
)
DATE_FORMATS = {form.name: form for form in _DATES}


def moment(word: str, form: DateFormat) -> datetime | None:
    """The date a word is in this format, in UTC if it names a zone; None if it is none."""
    if not form.shape.fullmatch(word):
        return None
    try:
        return form.parse(word)
    except ValueError:
        return None


def date_format_of(words: Iterable[str], order: DateOrder) -> tuple[DateFormat | None, int]:
    """The format in which most words are dates, and how many are. Raises Ambiguous where all are in two."""
    words = list(words)
    counts = {form: 0 for form in _DATES if order == "auto" or form.order in (None, order)}
    for form in counts:
        # The shape of the first words decides cheaply for columns that hold no dates at all.
        if any(form.shape.fullmatch(word) for word in words[:20]):
            counts[form] = sum(moment(word, form) is not None for word in words)
    best = max(counts, key=lambda form: counts[form])
    if not counts[best]:
        return None, 0
    same = [form for form in counts if form.order and counts[form] == counts[best] == len(words)]
    if len(same) == 2:
        for word in words:
            one, other = (moment(word, form) for form in same)
            if one != other:
                raise Ambiguous(word, one, other)
    return best, counts[best]
