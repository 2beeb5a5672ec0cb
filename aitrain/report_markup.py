"""What report.html is made of: escaped elements, tables, and the scales of its pictures.

`tag` escapes every child that is not already markup, so nothing that a run recorded can become part of the page.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LARGEST = 1e150
"""Values beyond it are drawn at the edge; a loss that explodes gets there."""

LONG_TEXT = 240
LONG_LINES = 8
"""Characters and lines of a text shown before the rest is folded away."""


# -- markup ----------------------------------------------------------------------------------------------------


class Markup(str):
    """Text that is HTML already; `tag` leaves it as it is."""


VOID = frozenset({"meta", "input", "br"})

UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that HTML forbids or UTF-8 cannot hold; a model's output has them now and then."""


def escaped(content: object) -> Markup:
    """`content` as HTML text, or unchanged when it is markup."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(UNSHOWABLE.sub("\ufffd", str(content)), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. `class_` and `data_x` stand for `class` and `data-x`; None leaves one out, True has no value."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            label = key.rstrip("_").replace("_", "-")
            parts.append(label if value is True else f'{label}="{escaped(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if name in VOID else f"{opening}{joined(children)}</{name}>")


def joined(children: Iterable[object], separator: str = "") -> Markup:
    """Children one after another, each escaped."""
    return Markup(separator.join(escaped(child) for child in children if child is not None))


def spoken(key: str) -> str:
    """`learning_rate` as words."""
    return key.replace("_", " ")


ABBREVIATIONS = {"kl": "KL", "nll": "NLL"}


def title_of(key: str) -> str:
    """`learning_rate` as the title of a chart."""
    words = " ".join(ABBREVIATIONS.get(word, word) for word in spoken(key).split(" "))
    return words[:1].upper() + words[1:]


def grid(
    head: Sequence[object], rows: Iterable[Sequence[object]], numeric: Iterable[int] = (), **attributes: object
) -> Markup:
    """A table whose first column names its rows; columns in `numeric` are set flush right."""
    right = set(numeric)

    def style(column: int) -> str | None:
        return "n" if column in right else None

    heads = [tag("th", cell, scope="col", class_=style(i)) for i, cell in enumerate(head)]
    lines = []
    for row in rows:
        first = tag("th", row[0], scope="row", class_=style(0))
        lines.append(tag("tr", first, *(tag("td", cell, class_=style(i)) for i, cell in enumerate(row[1:], start=1))))
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), **attributes)
    return tag("div", body, class_="wide")


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names with their values, as a description list."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs), class_="facts")


def block(anchor: str, title: str, *children: object) -> Markup | None:
    """A section of the page; nothing when it has no content."""
    content = [child for child in children if child]
    return tag("section", tag("h2", title), *content, id=anchor) if content else None


def quiet(*children: object) -> Markup:
    return tag("p", *children, class_="quiet")


def words(text: str) -> Markup:
    """A text of the run with its line breaks; `auto` keeps right-to-left text from turning its neighbours."""
    start = "".join(text[:LONG_TEXT].splitlines(keepends=True)[:LONG_LINES])
    shown = tag("span", start, class_="words", dir="auto")
    if len(start) == len(text):
        return shown
    rest = tag("span", text[len(start) :], class_="words", dir="auto")
    return joined([shown, tag("details", tag("summary", f"{len(text) - len(start):,} characters more"), rest)])


# -- scales ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Where a value lies between the edges of a plot, 0 to 1."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, wanted: int) -> list[float]:
        """Round values within the scale."""
        return self._decades(wanted) or self._rounds(wanted)

    def tick_texts(self, wanted: int) -> list[str]:
        """The ticks as they are written: all with the decimals that their distance takes, those of a log scale each
        with its own."""
        decades = self._decades(wanted)
        return [exact_texts([tick])[0] for tick in decades] if decades else exact_texts(self._rounds(wanted))

    def _decades(self, wanted: int) -> list[float]:
        """Ticks of a log scale; none where it holds too few of them."""
        if not self.log:
            return []
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for leads in ((1,), (1, 3), (1, 2, 5)):
            found = [lead * 10.0**d for d in decades for lead in leads if self.low <= lead * 10.0**d <= self.high]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / (wanted + 1))]
        return []

    def _rounds(self, wanted: int) -> list[float]:
        """Ticks at equal distances."""
        step = round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


MOST_DECIMALS = 4
"""Decimals beyond which numbers close to zero are written with an exponent."""


def exact_texts(values: Sequence[float]) -> list[str]:
    """Round numbers as short as they can be written exactly, all with the same decimals."""
    texts = [f"{value:.10g}" for value in values]
    decimals = max((decimal_places(text) for text in texts), default=0)
    largest = max(map(abs, values), default=0.0)
    if largest >= 1e15 or (decimals > MOST_DECIMALS and largest < 10.0**-MOST_DECIMALS * 10):
        return [short_exponent(text) for text in texts]
    return [f"{value:,.{decimals}f}" for value in map(float, texts)]


def decimal_places(text: str) -> int:
    """Decimals that a number takes without an exponent: 2 for `0.25`, 6 for `1.5e-05`."""
    mantissa, _, exponent = text.partition("e")
    return max(0, len(mantissa.partition(".")[2]) - int(exponent or 0))


def short_exponent(text: str) -> str:
    """`5e-5` for `0.00005`; 0 stays 0."""
    value = float(text)
    mantissa, _, exponent = f"{value:.9e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if value else "0"


def round_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * lead for lead in (1, 2, 5, 10) if power * lead >= rough * 0.999)


def fitted(values: Sequence[float], log: bool, from_zero: bool) -> Scale:
    """A scale that holds all values with a little air."""
    low, high = min(values), max(values)
    if log:
        air = (high / low) ** 0.06 if high > low else 1.5
        return Scale(low / air, high * air, log=True)
    if from_zero and low >= 0:
        low = 0.0
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low if from_zero and low == 0 else low - air, high + air)


def drawable(value: float) -> float:
    """`value`, cut where the arithmetic of a scale would overflow."""
    return max(-LARGEST, min(LARGEST, value))


def dots(points: Iterable[tuple[float, float]], style: str) -> Markup:
    """Round marks: the round cap of a line without length stays round however the picture is stretched."""
    return tag("path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points), class_=f"dots {style}")
