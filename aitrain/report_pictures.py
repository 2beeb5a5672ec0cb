"""What a model gets right and wrong, from `details` of report.json: three sections of the page.

A task writes what it measured under a `kind` (classification, multi_label, regression, tags, texts), and beside it
whatever a search or a table of columns brought. Each part is drawn from its own keys alone: one that is missing or
malformed takes its part with it and nothing else. No picture speaks by colour only; a count, a place or a shape says
the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aitrain.report_markup import (
    LARGEST,
    Markup,
    Scale,
    block,
    dots,
    drawable,
    exact_texts,
    fitted,
    grid,
    joined,
    quiet,
    spoken,
    tag,
    words,
)
from aitrain.report_read import RunRecord, duration_text, number, number_text, number_texts, section, value_text, whole

Details = dict[str, Any]
Part = Markup | None

NUMBERED_CLASSES = 24
"""Classes up to which a heat map has room for its counts; beyond it they are in the titles of the cells."""

MAX_CLASSES = 100
"""Classes of a heat map; of more, those with the most errors are drawn."""

FAINTEST = 22
"""Per cent of the full shade that a single count gets: one error among a thousand has to be seen."""

MAX_DOTS = 1500
"""Points of a scatter; more make a heavy file of what is one cloud already."""

MAX_TARGETS = 8
"""Targets of a regression that are drawn; the table has them all."""

SHOWN_ERRORS = 8
"""Errors that are open at once; the rest is folded away."""

MAX_CONFUSED = 10
MAX_IMPORTANT = 30
BEST_TRIALS = 10
MAX_PARAMETERS = 8
"""Parameters of a search that get a column each."""

TALL_ROWS = 16
"""Rows beyond which a table scrolls in a box of its own."""


# -- the sections ----------------------------------------------------------------------------------------------


def predictions(run: RunRecord) -> Part:
    """What the model predicts, beside what is true."""
    details = section(run.report, "details")
    draw = KINDS.get(str(details.get("kind")))
    return block(
        "predictions",
        "Predictions",
        measured_on(details),
        compared(run, details),
        folds(details),
        *(draw(details) if draw else ()),
    )


def measured_on(details: Details) -> Part:
    split, rows = details.get("split"), whole(details.get("rows"))
    if not isinstance(split, str):
        return None
    return quiet(f"Measured on {split}{'' if rows is None else f', {rows:,} rows'}.")


def columns(run: RunRecord) -> Part:
    """What each column of a table is, and how much the model leans on it."""
    details = section(run.report, "details")
    return block("columns", "Columns", importance(details), column_kinds(details))


def trials(run: RunRecord) -> Part:
    """The settings that a search tried, and what came of each."""
    details = section(run.report, "details")
    tried = [entry for entry in entries(details.get("trials")) if number(entry.get("number")) is not None]
    objective = details.get("objective")
    name = spoken(objective) if isinstance(objective, str) else "objective"
    return block("trials", "Trials", trial_picture(tried, name), trial_table(tried, name))


def part(title: str, *children: object) -> Part:
    """A titled piece of a section; nothing when it has no content."""
    content = [child for child in children if child]
    return tag("div", tag("h3", title), *content, class_="part") if content else None


def side_by_side(*pictures: Part) -> Part:
    shown = [picture for picture in pictures if picture]
    return tag("div", *shown, class_="pictures") if shown else None


# -- reading ---------------------------------------------------------------------------------------------------


def entries(value: object) -> list[Details]:
    """The objects of a list, none of anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def names_in(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []


def square(value: object, size: int) -> list[list[int]]:
    """A matrix of counts, `size` by `size`; empty when it is anything else."""
    rows = value if isinstance(value, list) else []
    counts = [[n for n in map(whole, row) if n is not None and n >= 0] if isinstance(row, list) else [] for row in rows]
    return counts if size and len(counts) == size and all(len(row) == size for row in counts) else []


def plottable(value: object) -> float | None:
    """A number that the arithmetic of a scale can bear."""
    known = number(value)
    if known is None:
        return None
    return drawable(known) if abs(known) > 1 / LARGEST else 0.0


def plottables(value: object) -> list[float]:
    """The numbers of a list; empty when one of them cannot be drawn."""
    listed = [plottable(item) for item in value] if isinstance(value, list) else []
    known = [item for item in listed if item is not None]
    return known if len(known) == len(listed) else []


def points_in(value: object) -> list[tuple[float, float]]:
    """Pairs of numbers; a pair that is none is left out."""
    pairs = [plottables(item) for item in value] if isinstance(value, list) else []
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def ratio_text(value: float | None) -> str:
    """A score between 0 and 1 with three decimals, so that a column of them lines up."""
    return f"{value:.3f}" if value is not None and 0 <= value <= 1 else number_text(value)


def label_text(value: object) -> str:
    """A label as people read it; several are a list."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else value if isinstance(value, str) else value_text(value)


# -- pictures --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One direction of a picture: what it measures and where its values lie."""

    name: str
    scale: Scale

    def at(self, value: float) -> float:
        """The place of a value in a picture of 1000 units."""
        return min(1.0, max(0.0, self.scale.place(value))) * 1000

    def labels(self, side: str) -> list[Markup]:
        """Round values, as text at their places."""
        ticks = self.scale.ticks(4)
        texts = large_texts(ticks) or self.scale.tick_texts(4)
        return [
            tag("span", text, style=f"{side}:{self.at(tick) / 1000:.2%}")
            for tick, text in zip(ticks, texts, strict=True)
        ]


def large_texts(values: Sequence[float]) -> list[str]:
    """`0.5 M` for 500,000, which the margin of a small picture has no room for; none where numbers are short."""
    most = max(map(abs, values), default=0.0)
    unit = next(((size, name) for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")) if most >= size), None)
    if unit is None or not 1e4 <= most < 1e12:
        return []
    shown = exact_texts([value / unit[0] for value in values])
    return [f"{text} {unit[1]}" if value else "0" for value, text in zip(values, shown, strict=True)]


@dataclass(frozen=True)
class Plot:
    """A picture of two axes: marks in a square of 1000 that is stretched to its place, with the text beside it."""

    title: str
    across: Axis
    up: Axis
    marks: list[Markup]
    said: str
    """The picture in words, for those who do not see it."""
    note: str = ""
    shape: str = "square"
    legend: tuple[tuple[str, str], ...] = ()
    """Style and name of each kind of mark, where there are several."""

    def draw(self, identity: str, *below: Part) -> Markup:
        keys = [tag("li", tag("i", class_=f"key {style}"), tag("span", name)) for style, name in self.legend]
        caption = tag(
            "figcaption",
            tag("strong", self.title, class_="title"),
            tag("small", self.note) if self.note else None,
            tag("ul", *keys, class_="legend") if keys else None,
        )
        chart = tag(
            "div",
            tag("div", *self.up.labels("bottom"), class_="y", aria_hidden="true"),
            tag("div", self.picture(identity), class_="plot"),
            tag("div", *self.across.labels("left"), class_="x", aria_hidden="true"),
            class_="chart",
        )
        names = [tag("p", f"↑ {self.up.name}", class_="axis"), tag("p", f"{self.across.name} →", class_="axis along")]
        return tag("figure", caption, names[0], chart, names[1], *below, class_=f"drawn {self.shape}")

    def picture(self, identity: str) -> Markup:
        lines = [path([(0, self.up.at(tick)), (1000, self.up.at(tick))], "grid") for tick in self.up.scale.ticks(4)]
        return drawing(identity, self.title, self.said, [*lines, *self.marks])


def drawing(identity: str, title: str, said: str, marks: Iterable[Markup]) -> Markup:
    return tag(
        "svg",
        tag("title", title, id=f"{identity}-t"),
        tag("desc", said, id=f"{identity}-d"),
        *marks,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{identity}-t {identity}-d",
    )


def path(corners: Iterable[tuple[float, float]], style: str) -> Markup:
    """A line through corners that are given from the lower left, as axes are."""
    return tag("path", d="M" + "L".join(f"{x:.1f} {1000 - y:.1f}" for x, y in corners), class_=style)


def cloud(spots: Iterable[tuple[float, float]], style: str) -> Markup:
    """Dots at places given from the lower left."""
    return dots(((x, 1000 - y) for x, y in spots), style)


def column(left: float, right: float, top: float, title: str, style: str = "filled train") -> Markup:
    """An upright bar that says on hovering what it counts."""
    sides = {"x": f"{left:.1f}", "width": f"{max(1.0, right - left):.1f}"}
    ends = {"y": f"{1000 - top:.1f}", "height": f"{top:.1f}"}
    return tag("rect", tag("title", title), **sides, **ends, class_=style)


def bar(share: float | None, style: str = "") -> Part:
    """A small bar under a number that stands beside it."""
    if share is None:
        return None
    filled = tag("i", style=f"width:{min(1.0, max(0.0, share)):.1%}")
    return tag("span", filled, class_=f"bar {style}".strip(), aria_hidden="true")


def table(head: Sequence[object], rows: list[list[object]], numeric: Iterable[int], label: str) -> Part:
    """A grid that scrolls in its own box where it is long."""
    if not rows:
        return None
    body = grid(head, rows, numeric)
    if len(rows) <= TALL_ROWS:
        return body
    return tag("div", body, class_="tall listing", tabindex=0, role="region", aria_label=f"{label}, scrolls")


# -- heat maps -------------------------------------------------------------------------------------------------


def heat_map(names: list[str], counts: list[list[int]], what: str) -> Part:
    """Truth down, prediction across; the shade is the share of the row.

    A table and no drawing, so that it can be read aloud, copied and searched.
    """
    if not counts:
        return None
    shown = most_wrong(counts)
    numbered = len(shown) <= NUMBERED_CLASSES
    corner = tag("td", tag("small", "true ↓ predicted →"), class_="corner")
    heads = [tag("th", tag("span", names[i]), scope="col", title=names[i]) for i in shown]
    rows = [tag("tr", *heat_row(names, counts[i], i, shown, numbered)) for i in shown]
    body = tag(
        "table",
        tag("caption", f"True {what} against predicted", class_="unseen"),
        tag("thead", tag("tr", corner, *heads)),
        tag("tbody", *rows),
        class_="heat" if numbered else "heat tiny",
        style=None if numbered else f"--cell:{min(1.3, max(0.64, 55 / len(shown) - 0.06)):.2f}rem",
    )
    box = tag("div", body, class_="sideways", tabindex=0, role="region", aria_label="Confusion matrix, scrolls")
    left_out = f"The {len(shown)} of {len(names):,} with the most errors. " if len(shown) < len(names) else ""
    hover = "" if numbered else " Point at a cell for its counts."
    note = tag(
        "p",
        f"{left_out}Shade: share of the true {what}, ",
        tag("i", class_="ramp right"),
        " on the diagonal right, ",
        tag("i", class_="ramp"),
        f" off it wrong.{hover}",
        class_="quiet",
    )
    size = "few" if len(shown) <= 8 else "many"
    return tag("figure", tag("figcaption", tag("strong", "Confusion matrix", class_="title")), box, note, class_=size)


def most_wrong(counts: list[list[int]]) -> list[int]:
    """The classes to draw, in their order: all, or those that errors come from or go to most."""
    every = range(len(counts))
    if len(counts) <= MAX_CLASSES:
        return list(every)
    errors = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in every]
    return sorted(sorted(every, key=lambda i: -errors[i])[:MAX_CLASSES])


def heat_row(names: list[str], row: list[int], truth: int, shown: list[int], numbered: bool) -> Iterable[Markup]:
    total = sum(row)
    yield tag("th", tag("span", names[truth]), scope="row", title=names[truth])
    for guess in shown:
        if not row[guess]:
            yield tag("td", "0" if numbered else None, class_="zero" if numbered else None)
            continue
        share = row[guess] / total
        said = f"{row[guess]:,} of {total:,} {names[truth]} ({share:.0%}) predicted as {names[guess]}"
        yield tag(
            "td",
            row[guess] if numbered else None,
            class_="right" if guess == truth else None,
            style=f"--share:{FAINTEST + (100 - FAINTEST) * share:.0f}%",
            title=said,
        )


def most_confused(details: Details, names: list[str], counts: list[list[int]]) -> Part:
    """Which class is taken for which, as written or else as counted from the matrix."""
    found = [
        (str(entry.get("truth")), str(entry.get("prediction")), count)
        for entry in entries(details.get("confused"))
        if (count := whole(entry.get("count"))) is not None and count > 0
    ] or [
        (names[i], names[j], count) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count
    ]
    totals = {name: sum(row) for name, row in zip(names, counts, strict=False)}
    ranked = sorted(found, key=lambda pair: -pair[2])[:MAX_CONFUSED]
    if not ranked or len(names) == 2:  # two classes have two pairs, which the matrix shows at a glance
        return None
    rows = [confused_row(pair, ranked[0][2], totals) for pair in ranked]
    head = ["true", "predicted as", "count", "share of true"]
    return part("Most often confused", table(head, rows, (2, 3), "Confused pairs"))


def confused_row(pair: tuple[str, str, int], most: int, totals: dict[str, int]) -> list[object]:
    truth, prediction, count = pair
    share = f"{count / totals[truth]:.0%}" if totals.get(truth) else "–"
    return [truth, prediction, tag("div", f"{count:,}", bar(count / most, "wrong"), class_="gauge"), share]


# -- classes and entities --------------------------------------------------------------------------------------


def classified(details: Details) -> list[Part]:
    """One class a row."""
    names = names_in(details.get("classes"))
    counts = square(details.get("confusion"), len(names))
    return [
        side_by_side(heat_map(names, counts, "class"), reliability(details), most_confused(details, names, counts)),
        score_table(details.get("per_class"), "class"),
        mistakes(details, "Most confident errors"),
    ]


def labelled(details: Details) -> list[Part]:
    """Any number of classes a row."""
    return [
        score_table(details.get("per_class"), "class"),
        side_by_side(reliability(details)),
        mistakes(details, "Most confident errors"),
    ]


def tagged(details: Details) -> list[Part]:
    """A tag for each word, which make up entities."""
    names = names_in(details.get("tags"))
    counts = square(details.get("confusion"), len(names))
    return [
        score_table(details.get("per_entity"), "entity"),
        score_table(details.get("per_tag"), "tag"),
        side_by_side(heat_map(names, counts, "tag"), most_confused(details, names, counts)),
        mistakes(details, "Errors"),
    ]


OUTCOMES = ("tp", "fn", "fp")
OUTCOME_NAMES = ("found", "missed", "false alarm")


def score_table(value: object, what: str) -> Part:
    """Precision, recall and F1 of each class, the weakest first: they are what one can do something about."""
    scored = [entry for entry in entries(value) if what in entry]
    scored.sort(key=lambda entry: f1 if (f1 := number(entry.get("f1"))) is not None else math.inf)
    counts_of = {"class": "rows", "tag": "words"}.get(what, "support")
    head: list[object] = [what, "F1", "precision", "recall", counts_of]
    thresholds = any(number(entry.get("best_threshold")) is not None for entry in scored)
    counted = [[whole(entry.get(name)) for name in OUTCOMES] for entry in scored]
    most = max((sum(n for n in counts if n is not None) for counts in counted), default=0)
    head += ["best threshold"] if thresholds else []
    head += [tag("span", f"{', '.join(OUTCOME_NAMES)}")] if most > 0 else []
    rows = []
    for entry, counts in zip(scored, counted, strict=True):
        f1 = number(entry.get("f1"))
        row: list[object] = [str(entry[what]), tag("div", ratio_text(f1), bar(f1), class_="gauge")]
        row += [ratio_text(number(entry.get(name))) for name in ("precision", "recall")]
        row.append(number_text(number(entry.get("support"))))
        row += [ratio_text(number(entry.get("best_threshold")))] if thresholds else []
        row += [outcome_bar(counts, most)] if most > 0 else []
        rows.append(row)
    numeric = range(1, 6 if thresholds else 5)
    title = f"Scores of each {what}"
    note = quiet("Weakest first.") if len(rows) > 1 else None
    return part(title, note, table(head, rows, numeric, title)) if rows else None


def outcome_bar(counts: list[int | None], most: int) -> Markup:
    """Found, missed and false alarms in one bar: solid, hollow and striped, and in figures."""
    known = [count if count is not None and count > 0 else 0 for count in counts]
    pieces = [
        tag("i", class_=name, style=f"width:{count / most:.1%}", title=f"{count:,} {spelt}")
        for name, spelt, count in zip(OUTCOMES, OUTCOME_NAMES, known, strict=True)
        if count
    ]
    figures = tag("small", " · ".join(f"{count:,}" for count in known))
    return tag("div", tag("span", *pieces, class_="outcome", aria_hidden="true"), figures, class_="gauge")


def reliability(details: Details) -> Part:
    """How often the model is right when it says it is sure, and below it how often it says so."""
    used = [
        (confidence, accuracy, count, number(entry.get("from")), number(entry.get("to")))
        for entry in entries(details.get("calibration"))
        if (confidence := ratio(entry.get("confidence"))) is not None
        and (accuracy := ratio(entry.get("accuracy"))) is not None
        and (count := whole(entry.get("count"))) is not None
        and count > 0
    ]
    used.sort(key=lambda found: found[0])
    if not used:
        return None
    axis = Axis("share that is right", Scale(0, 1))
    across = Axis("confidence", Scale(0, 1))
    spots = [(across.at(confidence), axis.at(accuracy)) for confidence, accuracy, *_ in used]
    marks = [path([(0, 0), (1000, 1000)], "level")]
    marks += [path([(x, x), (x, y)], "gap split-0") for x, y in spots]
    marks += [path(spots, "curve train"), cloud(spots, "train")]
    total = sum(count for _, _, count, *_ in used)
    off = sum(abs(accuracy - confidence) * (count / total) for confidence, accuracy, count, *_ in used)
    lean = sum((confidence - accuracy) * (count / total) for confidence, accuracy, count, *_ in used)
    side = "" if abs(lean) < 0.01 else ", mostly too sure" if lean > 0 else ", mostly not sure enough"
    said = " ".join(f"Confidence {c:.0%}: {a:.0%} right of {n:,}." for c, a, n, *_ in used)
    plot = Plot("Is its confidence justified?", across, axis, marks, said, f"off by {off:.1%} on average{side}")
    return plot.draw("reliability", how_often([(n, low, high) for _, _, n, low, high in used]))


def ratio(value: object) -> float | None:
    known = number(value)
    return known if known is not None and 0 <= known <= 1 else None


def how_often(bins: list[tuple[int, float | None, float | None]]) -> Part:
    """Bars of how many predictions fell into each stretch of confidence."""
    most = max(count for count, *_ in bins)
    bars = [
        column(low * 1000 + 4, high * 1000 - 4, count / most * 1000, f"{count:,} between {low:.0%} and {high:.0%}")
        for count, low, high in bins
        if low is not None and high is not None and 0 <= low < high <= 1
    ]
    said = f"Predictions at each confidence, at most {most:,}"
    strip = tag("div", drawing("how-often", said, said, bars), class_="strip")
    return joined([strip, tag("p", f"predictions, at most {most:,} a bar", class_="axis along")]) if bars else None


# -- errors ----------------------------------------------------------------------------------------------------


def mistakes(details: Details, title: str) -> Part:
    """Rows that were predicted wrong, the surest first."""
    found = [entry for entry in entries(details.get("wrong")) if "truth" in entry or "prediction" in entry]
    found.sort(key=lambda entry: -(number(entry.get("probability")) or 0.0))
    return folded(title, [mistake(entry) for entry in found])


def folded(title: str, items: list[Markup]) -> Part:
    """A list whose first few are open."""
    first, rest = items[:SHOWN_ERRORS], items[SHOWN_ERRORS:]
    more = tag("ul", *rest, class_="errors")
    return part(
        title,
        tag("ul", *first, class_="errors") if first else None,
        tag("details", tag("summary", f"{len(rest)} more"), more) if rest else None,
    )


def mistake(entry: Details) -> Markup:
    tokens = names_in(entry.get("tokens"))
    truth, guess = tag_list(entry.get("truth")), tag_list(entry.get("prediction"))
    if tokens and len(tokens) == len(truth) == len(guess):
        return tag("li", row_number(entry), tagged_words(tokens, truth, guess))
    probability = ratio(entry.get("probability"))
    sure = tag("span", f"at {probability:.1%}", class_="quiet") if probability is not None else None
    what = (spoken(str(entry["class"])), ": ") if "class" in entry else ()
    verdict = tag(
        "p",
        *(row_number(entry), *what),
        *("true ", tag("b", label_text(entry.get("truth"))), ", predicted "),
        *(tag("b", label_text(entry.get("prediction")), class_="worse"), " ", sure),
    )
    text = " ".join(tokens) or entry.get("text")
    return tag("li", verdict, words(text) if isinstance(text, str) else None)


def row_number(entry: Details) -> Part:
    row = whole(entry.get("row"))
    return None if row is None else tag("small", f"row {row:,} ", class_="quiet")


def tag_list(value: object) -> list[str]:
    """Tags of a sentence, as a list or with spaces between them."""
    return value.split() if isinstance(value, str) else names_in(value)


def tagged_words(tokens: list[str], truth: list[str], guess: list[str]) -> Markup:
    """A sentence with the tags under the words; where two differ, what is true and what was predicted."""
    return tag("p", *(tagged_word(*each) for each in zip(tokens, truth, guess, strict=True)), class_="sentence")


def tagged_word(token: str, truth: str, guess: str) -> Markup:
    if truth == guess:
        return tag("span", token, tag("small", truth) if truth != "O" else None)
    return tag("span", token, tag("small", "true ", truth), tag("small", "predicted ", guess), class_="differs")


# -- numbers ---------------------------------------------------------------------------------------------------

MEASURES = ("mse", "rmse", "mae", "r2", "pearson", "spearman", "mean", "deviation")
MEASURE_NAMES = {"mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "mean": "mean", "deviation": "std. deviation"}


def regressed(details: Details) -> list[Part]:
    """Numbers, a picture row for each target."""
    names = names_in(details.get("targets"))
    drawn = [target_pictures(details, name, index) for index, name in enumerate(names[:MAX_TARGETS])]
    left_out = len(names) - MAX_TARGETS
    return [
        target_table(details),
        *drawn,
        quiet(f"{left_out} more target(s) are in the table alone.") if left_out > 0 else None,
        folded("Furthest off", [far_off(entry) for entry in entries(details.get("worst"))]),
    ]


def target_table(details: Details) -> Part:
    scored = [entry for entry in entries(details.get("per_target")) if "target" in entry]
    known = [name for name in MEASURES if any(number(entry.get(name)) is not None for entry in scored)]
    rows: list[list[object]] = [
        [str(entry["target"]), *(number_text(number(entry.get(name))) for name in known)] for entry in scored
    ]
    head = ["target", *(MEASURE_NAMES.get(name, name) for name in known)]
    return part("Scores of each target", table(head, rows, range(1, len(head)), "Scores of each target"))


def target_pictures(details: Details, name: str, index: int) -> Part:
    points = points_in(section(details, "points").get(name))
    step = max(1, math.ceil(len(points) / MAX_DOTS))
    shown = points[::step]
    pictures = side_by_side(
        scatter(name, shown, len(points), index),
        histogram(name, section(details, "residuals", name), index),
        residual_scatter(name, shown, index),
    )
    return part(name, pictures)


def scatter(name: str, points: list[tuple[float, float]], total: int, index: int) -> Part:
    """Predicted against true: on the line where it is right."""
    if not points:
        return None
    scale = fitted([value for point in points for value in point], log=False, from_zero=False)
    across, up = Axis("true", scale), Axis("predicted", scale)
    marks = [path([(0, 0), (1000, 1000)], "level")]
    marks.append(cloud(((across.at(true), up.at(guess)) for true, guess in points), "fine train"))
    note = f"{len(points):,} of {total:,} rows" if len(points) < total else f"{total:,} rows"
    said = f"{name}: {note}; a dot on the dashed line is right, one above it predicted too high."
    return Plot("Predicted against true", across, up, marks, said, note).draw(f"scatter-{index}")


def residual_scatter(name: str, points: list[tuple[float, float]], index: int) -> Part:
    """How far off, along what was predicted: a slope or a funnel is something left to learn."""
    if not points:
        return None
    off = [(guess, drawable(guess - true)) for true, guess in points]
    across = Axis("predicted", fitted([guess for guess, _ in off], log=False, from_zero=False))
    up = Axis("predicted − true", fitted([*(error for _, error in off), 0.0], log=False, from_zero=False))
    marks = [path([(0, up.at(0)), (1000, up.at(0))], "level")]
    marks.append(cloud(((across.at(guess), up.at(error)) for guess, error in off), "fine train"))
    said = f"{name}: the error of each prediction, above the dashed line where it is too high."
    return Plot("Error along the prediction", across, up, marks, said).draw(f"residual-{index}")


def histogram(name: str, residuals: Details, index: int) -> Part:
    """How many predictions are how far off."""
    edges, counts = plottables(residuals.get("edges")), plottables(residuals.get("counts"))
    rising = all(low < high for low, high in pairwise(edges))
    if not counts or len(edges) != len(counts) + 1 or not rising or min(counts) < 0 or max(counts) == 0:
        return None
    across, up = Axis("predicted − true", Scale(edges[0], edges[-1])), Axis("rows", Scale(0, max(counts) * 1.06))
    said = [
        f"{number_text(count)} rows off by {number_text(low, 3)} to {number_text(high, 3)}"
        for count, (low, high) in zip(counts, pairwise(edges), strict=True)
    ]
    marks = [
        column(across.at(low) + 2, across.at(high) - 2, up.at(count), title)
        for count, (low, high), title in zip(counts, pairwise(edges), said, strict=True)
        if count
    ]
    if edges[0] < 0 < edges[-1]:
        marks.append(path([(across.at(0), 0), (across.at(0), 1000)], "level"))
    return Plot("How far off", across, up, marks, f"{name}: {'; '.join(said)}.").draw(f"histogram-{index}")


def far_off(entry: Details) -> Markup:
    truth, guess = number(entry.get("truth")), number(entry.get("predicted"))
    true_text, guess_text = number_texts([truth, guess])
    target = (str(entry["target"]), ": ") if "target" in entry else ()
    off = None
    if truth is not None and guess is not None:
        error = drawable(guess) - drawable(truth)
        off = tag("span", f" ({number_text(abs(error))} too {'high' if error > 0 else 'low'})", class_="quiet")
    told = ("true ", tag("b", true_text), ", predicted ", tag("b", guess_text), off)
    verdict = tag("p", row_number(entry), *target, *told)
    text = entry.get("text")
    return tag("li", verdict, words(text) if isinstance(text, str) else None)


# -- texts -----------------------------------------------------------------------------------------------------


def written(details: Details) -> list[Part]:
    """Texts for texts: those nearest to what was wanted, and those furthest from it."""
    best, worst = details.get("best"), details.get("worst")
    return [text_table("Nearest to the target", best), text_table("Furthest from the target", worst)]


def text_table(title: str, value: object) -> Part:
    """Source, target and written text side by side; a sign before the score says which are equal to the letter."""
    rows: list[list[object]] = [
        [
            number_text(number(entry.get("row"))),
            label_text(entry.get("source")),
            label_text(entry.get("wanted")),
            label_text(entry.get("given")) or tag("i", "nothing"),
            ("✓ " if entry.get("exact") is True else "") + number_text(number(entry.get("chrf")), 3),
        ]
        for entry in entries(value)
    ]
    head = ["row", "source", "wanted", "written", "chrF"]
    body = table(head, rows, (0, 4), title)
    note = quiet("✓ is equal to the letter.") if any(entry.get("exact") is True for entry in entries(value)) else None
    return part(title, tag("div", body, class_="texts") if body else None, note if body else None)


# -- answers ---------------------------------------------------------------------------------------------------


def answered(details: Details) -> list[Part]:
    """Answers cut out of a text."""
    rows, right = whole(details.get("rows")), whole(details.get("right"))
    told = None if rows is None or right is None else quiet(f"{right:,} of {rows:,} answers are exactly right.")
    return [
        told,
        side_by_side(
            asked_table(details.get("by_question"), "How the question asks"),
            asked_table(details.get("by_length"), "Length of the answer"),
        ),
        folded("Wrong answers, the worst first", [wrong_answer(entry) for entry in entries(details.get("wrong"))]),
    ]


def asked_table(value: object, title: str) -> Part:
    """Measures (0 to 100) of the questions of each kind."""
    rows: list[list[object]] = []
    for entry in entries(value):
        f1 = number(entry.get("f1"))
        gauge = tag("div", number_text(f1, 3), bar(None if f1 is None else f1 / 100), class_="gauge")
        exact = number_text(number(entry.get("exact_match")), 3)
        rows.append([str(entry.get("name")), number_text(number(entry.get("rows"))), exact, gauge])
    return part(title, table(["", "rows", "exact match", "F1"], rows, (1, 2, 3), title))


def wrong_answer(entry: Details) -> Markup:
    """A question, what was wanted and given, and the part of the text where the answer stands."""
    truth, guess = entry.get("truth"), entry.get("prediction")
    wanted = " or ".join(dict.fromkeys(map(str, truth))) if isinstance(truth, list) else label_text(truth)
    overlap = ratio(entry.get("f1"))
    shared = tag("span", f" (F1 {overlap:.2f})", class_="quiet") if overlap else None
    question, context = entry.get("question"), entry.get("context")
    verdict = tag(
        "p",
        *("wanted ", tag("b", wanted or "no answer"), ", given "),
        *(tag("b", label_text(guess) or "no answer", class_="worse"), shared),
    )
    asked = tag("p", row_number(entry), question) if isinstance(question, str) else None
    return tag("li", asked, verdict, words(context) if isinstance(context, str) else None)


KINDS: dict[str, Callable[[Details], list[Part]]] = {
    "classification": classified,
    "multi_label": labelled,
    "regression": regressed,
    "tags": tagged,
    "qa": answered,
    "texts": written,
}
"""What is drawn of each kind of task."""


# -- against a baseline, and fold by fold ----------------------------------------------------------------------


def compared(run: RunRecord, details: Details) -> Part:
    """The model's scores beside those of the plainest guess."""
    scores, baseline = section(details, "scores"), section(details, "baseline")
    rows = [compared_row(run, name, number(scores.get(name)), number(baseline.get(name))) for name in baseline]
    known = [row for row in rows if row is not None]
    body = table(["measure", "model", "baseline"], known, (1, 2), "Baseline")
    return part("Against the baseline", body, quiet("✓ is the better of the two.") if body else None)


def compared_row(run: RunRecord, name: str, mine: float | None, plain: float | None) -> list[object] | None:
    if mine is None and plain is None:
        return None
    texts: list[object] = [*number_texts([mine, plain])]
    lower = run.lower_is_better(name)
    if mine is not None and plain is not None and lower is not None and mine != plain:
        winner = 0 if (mine < plain) == lower else 1
        texts[winner] = tag("strong", "✓ ", texts[winner], class_="lost" if winner else "won")
    return [spoken(name), *texts]


def folds(details: Details) -> Part:
    """Cross-validation: how much a score depends on which rows were held out."""
    measured = {name: value for name, value in section(details, "cross_validation").items() if isinstance(value, dict)}
    scores = {name: fold_texts(value.get("folds")) for name, value in measured.items()}
    most = max(map(len, scores.values()), default=0)
    rows: list[list[object]] = [
        [spoken(name), mean_text(value), *scores[name], *["–"] * (most - len(scores[name]))]
        for name, value in measured.items()
    ]
    head = ["measure", "mean ± deviation", *(f"fold {i}" for i in range(1, most + 1))]
    return part("Cross-validation", table(head, rows, range(1, len(head)), "Cross-validation"))


def fold_texts(value: object) -> list[str]:
    return [number_text(number(score)) for score in value] if isinstance(value, list) else []


def mean_text(entry: Details) -> str:
    mean, deviation = number(entry.get("mean")), number(entry.get("deviation"))
    return number_text(mean) + (f" ± {number_text(deviation, 2)}" if deviation is not None else "")


# -- columns ---------------------------------------------------------------------------------------------------


def importance(details: Details) -> Part:
    """Bars from zero, which may go to the left: such a column did harm. The thin line is a deviation to either side."""
    measured = [
        (str(entry["column"]), mean, abs(plottable(entry.get("deviation")) or 0.0))
        for entry in entries(details.get("importance"))
        if "column" in entry and (mean := plottable(entry.get("mean"))) is not None
    ]
    ranked = sorted(measured, key=lambda found: -found[1])[:MAX_IMPORTANT]
    ends = [drawable(mean + side * spread) for _, mean, spread in ranked for side in (-1, 1)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    scale = Scale(low, high if high > low else low + 1.0)
    text = aligned(max(high, -low))
    rows: list[list[object]] = [
        [name, text(mean) + (f" ± {text(spread)}" if spread else ""), whisker(scale, mean, spread)]
        for name, mean, spread in ranked
    ]
    left_out = len(measured) - len(ranked)
    note = quiet(f"The {MAX_IMPORTANT} most important of {len(measured)}.") if left_out else None
    body = grid(["column", "importance", ""], rows, (1,)) if rows else None
    return part("Importance", note, tag("div", body, class_="important") if body else None)


def aligned(largest: float) -> Callable[[float], str]:
    """How to write the numbers of a column with the decimals that give its largest three digits."""
    if not 1e-4 < largest < 1e9:
        return lambda value: number_text(value, 3)
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return lambda value: f"{value:,.{decimals}f}"


def whisker(scale: Scale, mean: float, spread: float) -> Markup:
    """A bar from zero to the mean, with a line as long as the deviation to either side."""

    def piece(start: float, end: float, style: str) -> Markup:
        left, right = (min(1.0, max(0.0, scale.place(drawable(value)))) for value in sorted((start, end)))
        return tag("i", style=f"left:{left:.1%};width:{right - left:.1%}", class_=style)

    pieces = [piece(0.0, mean, "harm" if mean < 0 else "helps")]
    pieces += [piece(mean - spread, mean + spread, "spread")] if spread else []
    return tag("span", *pieces, class_="track", aria_hidden="true")


def column_kinds(details: Details) -> Part:
    found = [entry for entry in entries(details.get("columns")) if "column" in entry]
    rows: list[list[object]] = [
        [
            str(entry["column"]),
            label_text(entry.get("kind")),
            number_text(number(entry.get("missing"))),
            number_text(number(entry.get("values"))),
            label_text(entry.get("reason")),
        ]
        for entry in found
    ]
    head = ["column", "kind", "missing", "values", "because"]
    return part("What each column is", table(head, rows, (2, 3), "Columns"))


# -- trials ----------------------------------------------------------------------------------------------------

DONE = frozenset({"complete", "completed", "finished", "done", "success", "none"})
"""States of a trial that ran to its end; one that says nothing did."""


def value_of(trial: Details) -> float | None:
    """The objective of a trial that ran to its end."""
    return plottable(trial.get("value")) if str(trial.get("state")).lower() in DONE else None


def trial_picture(tried: list[Details], name: str) -> Part:
    """Each trial's objective, and the best up to then as a line of steps."""
    ordered = [(place, trial) for trial in tried if (place := plottable(trial.get("number"))) is not None]
    ordered.sort(key=lambda found: found[0])
    done = [(place, value) for place, trial in ordered if (value := value_of(trial)) is not None]
    cut = [
        (place, value)
        for place, trial in ordered
        if value_of(trial) is None and (value := plottable(trial.get("value"))) is not None
    ]
    if not done:
        return None
    values = [value for _, value in (*done, *cut)]
    log = min(values) > 0 and max(values) / min(values) > 20
    up = Axis(f"{name}, lower is better" + (", log scale" if log else ""), fitted(values, log=log, from_zero=False))
    across = Axis("trial", fitted([place for place, _ in ordered], log=False, from_zero=False))
    marks = [path(running_best(done, across, up), "curve split-0")]
    marks.append(cloud(((across.at(place), up.at(value)) for place, value in done), "train"))
    marks += [cloud(((across.at(place), up.at(value)) for place, value in cut), "cut")] if cut else []
    best_at, best = min(done, key=lambda found: found[1])
    said = f"{len(done)} trials ran to their end; the best, number {best_at:.0f}, reached {number_text(best)}."
    ends = Counter(str(trial.get("state") or "without a value") for trial in tried if value_of(trial) is None)
    note = ", ".join([f"{len(done)} to their end", *(f"{count} {state.lower()}" for state, count in ends.items())])
    legend = (("train dot", "trial"), ("split-0", "best so far"), *((("cut dot", "cut short"),) if cut else ()))
    return Plot("Every trial", across, up, marks, said, note, "broad", legend).draw("trials-picture")


def running_best(done: list[tuple[float, float]], across: Axis, up: Axis) -> list[tuple[float, float]]:
    """Corners of a staircase that goes down at each trial that beats all before it, and on to the right edge."""
    best = done[0][1]
    corners = [(across.at(done[0][0]), up.at(best))]
    for place, value in done[1:]:
        if value < best:
            corners += [(across.at(place), up.at(best)), (across.at(place), up.at(value))]
            best = value
    return [*corners, (1000.0, up.at(best))]


def trial_table(tried: list[Details], name: str) -> Part:
    """The best trials with what they were run with, a column for each parameter where they are few."""
    ranked = [(value, trial) for trial in tried if (value := value_of(trial)) is not None]
    ranked.sort(key=lambda found: found[0])
    best = [trial for _, trial in ranked[:BEST_TRIALS]]
    names = list(dict.fromkeys(key for trial in best for key in section(trial, "parameters")))
    spread = len(names) <= MAX_PARAMETERS
    head = ["trial", name, "time", *(names if spread else ["parameters"])]
    values = number_texts([number(trial.get("value")) for trial in best])
    rows: list[list[object]] = []
    for reached, trial in zip(values, best, strict=True):
        chosen = section(trial, "parameters")
        listed = ", ".join(f"{key} {parameter_text(chosen[key])}" for key in chosen)
        cells = [parameter_text(chosen[key]) if key in chosen else "–" for key in names] if spread else [listed]
        time = duration_text(number(trial.get("seconds")))
        rows.append([number_text(number(trial.get("number"))), tag("strong", reached), time, *cells])
    title = f"The best {len(rows)} of {len(tried)}" if len(tried) > len(rows) else "Best first"
    return part(title, table(head, rows, range(len(head) if spread else 3), title))


def parameter_text(value: object) -> str:
    known = number(value)
    return value_text(value) if known is None else number_text(known)
