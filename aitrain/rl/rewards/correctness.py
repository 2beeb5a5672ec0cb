"""Reward for a right result: a number where the right answer is one, else a text."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from aitrain.rl.episode import Text, answer_of
from aitrain.rl.rewards.built_in import BuiltIn, column
from aitrain.rl.settings import option

DIGITS = r"(?:\d{1,3}(?:[,\u202f\u00a0']\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|\.\d+"
SIGN = r"(?:(?<![\w)\]}])[-+\u2212])?"  # in 5-3 it is no sign
CURRENCY = "$€£¥₹"
LATEX = rf"{SIGN}\\[dt]?frac\s*\{{\s*-?\d+\s*\}}\s*\{{\s*\d+\s*\}}"
MIXED = rf"{SIGN}\d+\s+\d+\s*/\s*\d+(?![\d/])"
RATIO = rf"{SIGN}(?:{DIGITS})\s*[/\u2044]\s*\d+(?:\.\d+)?(?![\d/])"
VULGAR = "".join(chr(code) for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F)))
PLAIN = rf"{SIGN}(?:{DIGITS})?[{VULGAR}]|{SIGN}(?:{DIGITS})"
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
VALUE = rf"(?:{LATEX}|{MIXED}|{RATIO}|{PLAIN})"
AFTER = rf"\s*(?:\\?%|percent\b|per cent\b|(?:{'|'.join(SCALES)})s?\b)"
NUMBER = re.compile(rf"(?P<value>{VALUE})(?P<after>{AFTER})?", re.IGNORECASE)
UNIT = r"[^\W\d_]+\.?(?:\s*/\s*[^\W\d_]+)?[²³]?"
NAMED = r"[A-Za-z]\w?\s*(?:=|\\approx|≈)\s*"
ONLY_A_NUMBER = re.compile(
    rf"(?:{NAMED})?[-+\u2212]?\s*[{CURRENCY}]?\s*{VALUE}(?:{AFTER})?\s*[{CURRENCY}°]?\s*(?:{UNIT}(?:\s+{UNIT}){{0,3}})?\s*\.?",
    re.IGNORECASE,
)
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
SAID = re.compile(r"(?:\banswer(?:\s+is)?\s*[:=]|\banswer\s+is\b)\s*", re.IGNORECASE)
LONGEST = 4000
"""Characters at the end of an answer in which its result is looked for."""


class Number(NamedTuple):
    """A value, and whether it stood before a per cent sign."""

    value: Fraction
    percent: bool = False


class Correctness(BuiltIn):
    r"""1 where the answer's result is that of a column, else 0.

    The result is what follows the last `####`, else what the last `\boxed{}` holds. Of a number the last one in that
    place counts, or else the last one of the whole answer; of a text what follows the last "answer is" or "answer:",
    or else the last line.
    """

    answer: str = "answer"
    """The column of right answers: numbers, or texts; of one with a `####` what follows it."""
    tolerance: float = option(1e-6, ge=0, lt=1)
    """How far off a number may be, as a share of the right one."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.answer,)

    def __call__(self, prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
        right = column(columns, self.answer)
        pairs = zip(completions, right, strict=True)
        return [float(is_correct(answer_of(given), wanted, self.tolerance)) for given, wanted in pairs]


def is_correct(given: str, wanted: Any, tolerance: float = 1e-6) -> bool:
    """Whether an answer comes to the right result."""
    given = given[-LONGEST:]
    right = marked(str(wanted)) or str(wanted).strip()
    if not isinstance(wanted, str) or ONLY_A_NUMBER.fullmatch(right):
        target, found = last_number(right), last_number(marked(given) or given)
        return target is not None and found is not None and same(found, target, tolerance)
    return plain(right) in {plain(text) for text in results(given)}


def marked(text: str) -> str | None:
    """What an answer marks as its result, with `####` or `\\boxed{}`."""
    _, mark, after = text.rpartition("####")
    if mark and after.strip():
        return after.strip().splitlines()[0].strip()
    boxes = BOXED.findall(text)
    return boxes[-1].strip() if boxes and boxes[-1].strip() else None


def results(text: str) -> Iterator[str]:
    """The texts that may be meant as the result: a marked one alone, else the likely ones."""
    if mark := marked(text):
        yield mark
        return
    yield text
    lines = [line for line in text.splitlines() if line.strip()]
    yield lines[-1] if lines else ""
    said = [part for part in SAID.split(text)[1:] if part.strip()]
    if said:
        yield said[-1].strip().splitlines()[0]
        yield re.split(r"[.!?](?:\s|$)", said[-1].strip())[0]


def plain(text: str) -> str:
    """Without capitals, punctuation around words, LaTeX's `\\text{}` and white space more than one blank."""
    text = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text).casefold()
    words = (word.strip(string.punctuation) or word for word in text.split())
    return " ".join(word for word in words if word.strip(".,;:!?\"'`*"))


def last_number(text: str) -> Number | None:
    """The last number of a text: 1,234.5, -3, 2/3, 1 1/2, \\frac{1}{2}, ½, 40%, 3 million; None without any."""
    cleaned = text.replace("\\!", "").replace("{,}", ",").replace("**", "")
    cleaned = re.sub(rf"([-+\u2212])\s*\\?[{CURRENCY}]", r"\1", cleaned)
    found = list(NUMBER.finditer(cleaned))
    for match in reversed(found):
        value = _value(match["value"])
        if value is None:
            continue
        after = (match["after"] or "").strip().lower()
        return Number(value * SCALES.get(after.rstrip("s"), 1), after.lstrip("\\") in ("%", "percent", "per cent"))
    return None


def same(found: Number, target: Number, tolerance: float) -> bool:
    """Equal within the tolerance. Of 40%, both 40 and 0.4 are the same where only one side says per cent."""
    candidates = [found.value]
    if found.percent != target.percent:
        candidates.append(found.value / 100 if found.percent else found.value * 100)
    return any(abs(value - target.value) <= abs(target.value) * Fraction(tolerance) for value in candidates)


def _value(text: str) -> Fraction | None:
    text = text.replace("\u2212", "-").replace("\u2044", "/")
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    try:
        return sign * _unsigned(text)
    except (ValueError, ZeroDivisionError):
        return None


def _unsigned(text: str) -> Fraction:
    if "frac" in text:
        above, below = re.findall(r"-?\d+", text)
        return Fraction(int(above), int(below))
    if text[-1] in VULGAR:
        part = Fraction(unicodedata.numeric(text[-1])).limit_denominator(100)
        return part + (_decimal(text[:-1]) if text[:-1] else 0)
    above, slash, below = text.partition("/")
    if not slash:
        return _decimal(text)
    whole, _, upper = above.strip().rpartition(" ")
    return _decimal(whole or "0") + _decimal(upper) / _decimal(below)


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[,'\s\u202f\u00a0]", "", text))
