"""report.html: one run for eyes, in one file that needs no network.

The page is built from `tag`, which escapes every child that is not already markup; so a prompt that holds `<script>` is
shown, never run. The curves are SVG stretched to the width of the page, their labels are text beside it (stretched
text would be unreadable on a phone), and a little script adds the read-out. Without script everything is still there.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from aitrain.report_markup import (
    LARGEST,
    Markup,
    Scale,
    block,
    dots,
    drawable,
    escaped,
    facts,
    fitted,
    grid,
    joined,
    quiet,
    spoken,
    tag,
    title_of,
    words,
)
from aitrain.report_pictures import columns, predictions, trials
from aitrain.report_read import (
    NOT_METRICS,
    Event,
    RunRecord,
    autos,
    bytes_text,
    duration_text,
    flatten,
    number,
    number_text,
    number_texts,
    read_run,
    result_sentence,
    right_share,
    samples,
    section,
    value_text,
    whole,
)

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

MAX_POINTS = 600
"""Points drawn a curve; more cannot be told apart on a screen and make the file heavy."""

MAX_COLUMNS = 12
"""Evaluations shown side by side in the table of generations."""


def write_html(folder: Path) -> Path:
    """Write `report.html` into a run directory and return its path. A reader never sees it half-written.

    Raises DataError when `folder` holds no run, OSError when it cannot be written to.
    """
    target = Path(folder) / "report.html"
    aside = target.with_name(f".report.html.{os.getpid()}")
    content = page(read_run(folder))
    try:
        aside.write_text(content, encoding="utf-8")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


# -- the page --------------------------------------------------------------------------------------------------


def page(run: RunRecord) -> str:
    """The whole document."""
    sections = [part for part in (build(run) for build in SECTIONS) if part is not None]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=CONTENT_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{run.name} · {run.status}"),
        tag("style", Markup(STYLE)),
    )
    script = tag("script", Markup(SCRIPT))
    main = tag("main", headline(run), contents(sections), *sections)
    return f"<!doctype html>\n{tag('html', head, tag('body', main, script), lang='en')}\n"


def headline(run: RunRecord) -> Markup:
    kind = " · ".join(part for part in (run.task, run.trainer) if part)
    error = run.report.get("error")
    return tag(
        "header",
        tag("p", kind or "training run", class_="kind"),
        tag("h1", run.name, " ", tag("span", run.status, class_=f"badge {badge(run.status)}")),
        tag("p", UNIT.sub("\\1\N{NO-BREAK SPACE}", result_sentence(run)), class_="result"),
        tag("p", f"Stopped: {reason}.", class_="why quiet") if (reason := run.report.get("ended_because")) else None,
        tag("pre", error, class_="error") if error else None,
        tiles(run),
        gaps(run),
    )


UNIT = re.compile(r"(\d) (?=(?:s|min|h)\b)")
"""The space in `73 s`: a line must not break there."""


def badge(status: str) -> str:
    return {"finished": "good", "failed": "bad", "running": "live"}.get(status, "warn")


def tiles(run: RunRecord) -> Markup:
    """The numbers one looks for first; those that were not recorded are left out."""
    started = str(run.report.get("started") or "")[:19].replace("T", " ")
    planned = f" of {run.planned_steps:,}" if run.planned_steps is not None else ""
    parameters = section(run.report, "parameters")
    total, trainable = number(parameters.get("total")), number(parameters.get("trainable"))
    share = f" ({trainable / total:.1%} trained)" if total and trainable is not None and trainable != total else ""
    speeds = sorted(s for e in run.of("train") if (s := number(e.get("tokens_per_second"))) is not None)
    peak = number(run.report.get("peak_memory_bytes"))
    epochs = number(run.report.get("epochs"))
    shown = [
        ("fits" if without_steps(run) else "steps", None if run.steps is None else f"{run.steps:,}{planned}"),
        ("epochs", number_text(epochs, 3) if epochs else None),
        ("time", None if run.seconds is None else duration_text(run.seconds)),
        ("tokens a second", f"{speeds[len(speeds) // 2]:,.0f}" if speeds else None),
        ("peak memory", None if peak is None else bytes_text(peak)),
        ("parameters", f"{compact(total)}{share}" if total else None),
        ("started", started or None),
        ("ended by", spoken(ended_by) if (ended_by := str(run.report.get("ended_by") or "")) else None),
        ("weights of", None if run.weights_step is None else f"step {run.weights_step:,}"),
    ]
    return facts((name, value) for name, value in shown if value is not None)


def without_steps(run: RunRecord) -> bool:
    """Whether the run fitted something that is judged once, at its end: there is no before and no curve."""
    return not run.of("train") and not run.before and bool(run.after)


def compact(count: float) -> str:
    """1.7 M, 7.2 B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{number_text(count / size, 3)} {unit}"
    return f"{count:.0f}"


def gaps(run: RunRecord) -> Markup | None:
    if not run.gaps:
        return None
    listed = tag("ul", *(tag("li", gap) for gap in run.gaps))
    return tag("aside", tag("strong", "Not everything is here"), listed, class_="gaps")


def contents(sections: Iterable[Markup]) -> Markup:
    """Links to the sections that exist."""
    found = [re.match(r'<section id="([a-z-]+)"><h2>([^<]*)</h2>', part) for part in sections]
    links = [tag("a", Markup(match[2]), href=f"#{match[1]}") for match in found if match]
    return tag("nav", *links, aria_label="Sections")


# -- results ---------------------------------------------------------------------------------------------------


def results(run: RunRecord) -> Markup | None:
    before, after, baselines = run.before, run.after, run.baselines
    metrics = list(dict.fromkeys([*before, *after, *(m for values in baselines.values() for m in values)]))
    if not metrics:
        return block("results", "Before and after", quiet("No evaluation was recorded."))
    once = without_steps(run)
    kinds = ["score"] if once else ["before", "after", "change"]
    head = ["metric", *kinds, *(f"{name} baseline" for name in baselines)]
    rows = []
    for metric in metrics:
        measured = [before.get(metric), after.get(metric), *(values.get(metric) for values in baselines.values())]
        first, last, *others = number_texts(measured)
        course = [] if once else [tag("span", first)]
        rows.append([spoken(metric), *course, tag("strong", last), *([] if once else [change(run, metric)]), *others])
    note = f"Measured on {run.split}" + ("." if once else "; before is the model as training found it.")
    if (kept := run.weights_step) is not None:
        note += f" The model ends with the weights of step {kept:,}, and after is what they gave."
    if not section(run.report, "metrics", "after") and run.evaluations:
        note += f" The report has no final metrics: after is the evaluation at step {run.evaluations[-1].get('step')}."
    start = better_start(run)
    warning = tag("p", start, class_="worse") if start else None
    title = "Scores" if once else "Before and after"
    return block("results", title, grid(head, rows, range(1, len(head))), warning, quiet(note))


def better_start(run: RunRecord) -> str | None:
    """A sentence, where the model before training beats the best that was found on the way.

    The best of a run is the best of its evaluations after the start: it says nothing of the start itself.
    """
    best = section(run.report, "best")
    metric = str(best.get("metric") or "loss")
    start, reached, lower = run.before.get(metric), number(best.get("value")), run.lower_is_better(metric)
    if reached is None:  # a report of a run that is judged by its loss may have it under that name alone
        reached = number(best.get(metric))
    if start is None or reached is None or lower is None or not (start < reached if lower else start > reached):
        return None
    first, later = number_texts([start, reached])
    return f"The start was better: {spoken(metric)} {first} before training, {later} at step {best.get('step')}."


def change(run: RunRecord, metric: str) -> Markup:
    """The difference, with a word on whether it is for the better where a metric has a better and a worse."""
    before, after = run.before.get(metric), run.after.get(metric)
    if before is None or after is None:
        return escaped("–")
    difference, lower = after - before, run.lower_is_better(metric)
    text = f"{'+' if difference > 0 else '−' if difference < 0 else ''}{number_text(abs(difference))}"
    if lower is None or difference == 0:
        return escaped(text)
    better = (difference < 0) == lower
    return joined([text, " ", tag("span", "better" if better else "worse", class_="better" if better else "worse")])


# -- curves ----------------------------------------------------------------------------------------------------

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Curve:
    """A named line; a None in it is a gap."""

    name: str
    points: list[Point]
    style: str
    dots: bool = False


def thinned(points: list[Point]) -> list[Point]:
    """At most about MAX_POINTS, keeping the lowest and highest of each stretch so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(len(points) / (MAX_POINTS // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        known = [point for point in stretch if point[1] is not None]
        ends = {min(known, key=value_of), max(known, key=value_of)} if known else {stretch[0]}
        kept += [point for point in stretch if point in ends]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def value_of(point: Point) -> float:
    return point[1] if point[1] is not None else math.nan


def smoothed(points: list[Point]) -> list[Point]:
    """A centred moving average over about a twentieth of the run: unlike a trailing one it does not lag behind.

    Towards both ends the window shrinks evenly, so the line starts and ends on the curve.
    """
    known = [(step, value) for step, value in points if value is not None]
    sums = [0.0, *accumulate(value for _, value in known)]
    reach = max(1, len(known) // 40)
    line: list[Point] = []
    for index, (step, _) in enumerate(known):
        side = min(reach, index, len(known) - 1 - index)
        line.append((step, (sums[index + side + 1] - sums[index - side]) / (2 * side + 1)))
    return line


def recorded(events: Iterable[Event], key: str) -> list[Point]:
    """(step, value) of the events that have the key; a value that is no finite number is a gap."""
    points: list[Point] = []
    for event in events:
        step, value = number(event.get("step")), number(event.get(key))
        if step is not None and key in event:
            points.append((step, None if value is None else drawable(value)))
    return sorted(points, key=lambda point: point[0]) if any(value is not None for _, value in points) else []


@dataclass(frozen=True)
class Figure:
    """A chart with its title: curves, level lines and steps worth a mark."""

    title: str
    curves: list[Curve]
    steps: Scale
    levels: tuple[tuple[str, float], ...] = ()
    marks: tuple[tuple[str, float], ...] = ()
    from_zero: bool = True
    large: bool = False

    @property
    def values(self) -> list[float]:
        drawn = [value for curve in self.curves for _, value in curve.points if value is not None]
        return drawn + [level for _, level in self.levels]

    def views(self) -> dict[str, Scale]:
        """The scales offered: both for the large chart; one for a small chart, log when the values span decades."""
        positive = min(self.values) > 1 / LARGEST
        wide = positive and max(self.values) > 1 and max(self.values) / min(self.values) > 20
        views: dict[str, Scale] = {}
        if self.large or not wide:
            views["linear"] = fitted(self.values, log=False, from_zero=self.from_zero)
        if positive and (self.large or wide):
            views["log"] = fitted(self.values, log=True, from_zero=False)
        return views

    def draw(self, identity: str) -> Markup:
        views = self.views()
        first = next(iter(views))
        lasts = number_texts([last_value(c) for c in self.curves])
        legend = [
            tag("li", tag("i", class_=f"key {c.style}"), tag("span", c.name), " ", tag("b", last))
            for c, last in zip(self.curves, lasts, strict=True)
        ]
        caption = tag(
            "figcaption",
            tag("strong", self.title, class_="title"),
            tag("small", "log scale") if first == "log" else None,
            toggle(identity) if len(views) > 1 else None,
            tag("output", "last", class_="at"),
            tag("ul", *legend, class_="legend"),
        )
        axes = [joined(self.axis(name, scale)) for name, scale in views.items()]
        pictures = [self.picture(name, scale, f"{identity}-{name}") for name, scale in views.items()]
        bottom = [
            tag("span", f"{step:,.0f}", style=f"left:{self.steps.place(step):.2%}")
            for step in self.steps.ticks(6 if self.large else 3)
            if float(f"{step:.10g}").is_integer()
        ]
        plot = tag("div", *pictures, *self.labels(views), class_="plot")
        across = tag("div", *bottom, class_="x", aria_hidden="true")
        return tag(
            "figure",
            caption,
            tag("div", tag("div", *axes, class_="y", aria_hidden="true"), plot, across, class_="chart"),
            class_="large" if self.large else "small",
            data_view=first,
            data_plot=self.payload(views),
        )

    def axis(self, view: str, scale: Scale) -> list[Markup]:
        wanted = 7 if self.large else 3
        return [
            tag("span", text, class_=f"in-{view}", style=f"bottom:{scale.place(tick):.2%}")
            for tick, text in zip(scale.ticks(wanted), scale.tick_texts(wanted), strict=True)
        ]

    def picture(self, view: str, scale: Scale, identity: str) -> Markup:
        """The lines, in a square of 1000 that is stretched to the plot."""
        lines = [line(0, y, 1000, y, "grid") for y in (height(scale, t) for t in scale.ticks(7 if self.large else 3))]
        lines += [line(0, y, 1000, y, "level") for y in (height(scale, level) for _, level in self.levels)]
        lines += [line(x, 0, x, 1000, "mark") for x in (self.steps.place(step) * 1000 for _, step in self.marks)]
        for curve in self.curves:
            lines.append(tag("path", d=self.path(curve, scale), class_=f"curve {curve.style}"))
            # a point without a neighbour makes no line, so it is always a dot
            seen = [run for run in self.runs(curve, scale) if curve.dots or len(run) == 1]
            if seen:
                lines.append(dots((point for run in seen for point in run), curve.style))
        return tag(
            "svg",
            tag("title", self.title, id=f"{identity}-t"),
            tag("desc", self.description(), id=f"{identity}-d"),
            *lines,
            viewBox="0 0 1000 1000",
            preserveAspectRatio="none",
            role="img",
            aria_labelledby=f"{identity}-t {identity}-d",
            class_=f"in-{view}",
        )

    def runs(self, curve: Curve, scale: Scale) -> list[list[tuple[float, float]]]:
        """The stretches of a curve between its gaps, in picture coordinates."""
        stretches: list[list[tuple[float, float]]] = [[]]
        for step, value in curve.points:
            if value is None:
                stretches.append([])
            else:
                stretches[-1].append((self.steps.place(step) * 1000, height(scale, value)))
        return [stretch for stretch in stretches if stretch]

    def path(self, curve: Curve, scale: Scale) -> str:
        return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in stretch) for stretch in self.runs(curve, scale))

    def description(self) -> str:
        """The chart in words, for those who do not see it."""
        said = []
        for curve in self.curves:
            known = [(step, value) for step, value in curve.points if value is not None]
            (first, start), (last, end) = known[0], known[-1]
            said.append(
                f"{curve.name}: {number_text(start)} at step {first:.0f}, {number_text(end)} at step {last:.0f}."
            )
        said += [f"{name}: {number_text(value)}." for name, value in self.levels]
        return " ".join(said)

    def labels(self, views: dict[str, Scale]) -> list[Markup]:
        """Names of level lines (set below a line that has a neighbour close above) and of marked steps."""
        found = []
        for view, scale in views.items():
            above: float | None = None
            for name, value in sorted(self.levels, key=lambda level: -level[1]):
                place = scale.place(value)
                crowded = above is not None and above - place < 0.08
                style = f"bottom:{place:.2%}"
                found.append(tag("span", name, class_=f"level in-{view}{' under' if crowded else ''}", style=style))
                above = place
        for name, step in self.marks:
            place = self.steps.place(step)
            side = f"right:{1 - place:.2%}" if place > 0.5 else f"left:{place:.2%}"
            found.append(tag("span", name, class_="mark", style=side))
        return found

    def payload(self, views: dict[str, Scale]) -> str:
        """What the read-out needs, as JSON."""
        return json.dumps(
            {
                "steps": [self.steps.low, self.steps.high],
                "views": {name: [scale.low, scale.high] for name, scale in views.items()},
                "curves": [
                    {"style": c.style, "points": [[s, float(f"{v:.7g}")] for s, v in c.points if v is not None]}
                    for c in self.curves
                ],
            },
            separators=(",", ":"),
        )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return tag("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=style)


def height(scale: Scale, value: float) -> float:
    return 1000 - scale.place(value) * 1000


def last_value(curve: Curve) -> float | None:
    return next((value for _, value in reversed(curve.points) if value is not None), None)


def toggle(identity: str) -> Markup:
    """Linear or log, for those who have script."""
    choices = [
        tag("label", tag("input", type="radio", name=identity, value=view, checked=view == "linear"), view)
        for view in ("linear", "log")
    ]
    return tag("span", *choices, class_="toggle scripted", role="group", aria_label="Scale of the loss axis")


FIRST_FIGURES = ("learning_rate", "grad_norm", "tokens_per_second", "perplexity", "token_accuracy", "accuracy",
                 "margin", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")  # fmt: skip

OF_REWARDS = ("reward_faults",)
OF_EPISODES = ("kl", "entropy", "length", "ended", "reward_std")
"""What is looked at first of answers that were rewarded, before and after the parts of the reward."""


def curves(run: RunRecord) -> Markup | None:
    """The loss, or where answers were rewarded the reward with its parts, then everything else that was recorded along
    the way, each in a small chart."""
    if without_steps(run):
        return None
    trained, evaluated = run.of("train"), run.of("eval")
    steps = [step for e in (*trained, *evaluated) if (step := number(e.get("step"))) is not None]
    if not steps:
        return block("curves", "Curves", quiet("No step was recorded."))
    scale = Scale(0.0, max(*steps, 1.0))
    recorded_keys = {k for e in (*trained, *evaluated) for k, v in e.items() if number(v) is not None}
    main = "reward" if "reward" in recorded_keys else "loss"
    figure = main_figure(run, main, scale)
    first = (*OF_REWARDS, *sorted(key for key in recorded_keys if key.startswith("reward/")), "loss", *OF_EPISODES)
    first = (*(first if main == "reward" else ()), *FIRST_FIGURES)
    others = sorted(recorded_keys - NOT_METRICS - {main, *first})
    small = [small_figure(run, key, scale) for key in (*first, *others)]
    drawn = [f.draw(f"small-{i}") for i, f in enumerate([*small, right_figure(run, scale)]) if f is not None]
    scrub = tag("input", type="range", min=0, max=int(scale.high), value=int(scale.high), aria_label="Step to read out")
    return block(
        "curves",
        "Curves",
        figure.draw(main) if figure else quiet("No loss was recorded."),
        tag("div", scrub, class_="scrub scripted"),
        *not_finite(trained),
        tag("div", *drawn, class_="multiples") if drawn else None,
    )


def main_figure(run: RunRecord, key: str, scale: Scale) -> Figure | None:
    """What the run is about, large: the loss, or the reward."""
    lines = main_curves(run, key)
    if not lines:
        return None
    known = [(name, values[key]) for name, values in run.baselines.items() if key in values]
    levels = tuple((f"{name} baseline {number_text(loss, 3)}", drawable(loss)) for name, loss in known)
    marks = [("resumed", step) for e in run.of("resume") if (step := number(e.get("step"))) is not None]
    if better_start(run):
        marks.append(("the start was better", 0.0))
    elif run.best_step is not None:
        marks.append((f"best, step {run.best_step:,}", float(run.best_step)))
    within = tuple((name, step) for name, step in marks if 0 <= step <= scale.high)
    return Figure(title_of(key), lines, scale, levels, within, from_zero=False, large=True)


def main_curves(run: RunRecord, key: str) -> list[Curve]:
    train = recorded(run.of("train"), key)
    found = []
    if len(train) > 40:
        found = [
            Curve("train", thinned(train), "train raw"),
            Curve("train, smoothed", thinned(smoothed(train)), "train"),
        ]
    elif train:
        found = [Curve("train", train, "train")]
    return found + split_curves(run, key)


def split_curves(run: RunRecord, key: str) -> list[Curve]:
    """One curve for each split it was evaluated on, the one the run is judged by first."""
    events = run.of("eval")
    names = sorted({str(e.get("split") or "validation") for e in events}, key=lambda name: (name != run.split, name))
    found = []
    for index, name in enumerate(names):
        points = recorded((e for e in events if str(e.get("split") or "validation") == name), key)
        if points:
            found.append(Curve(name, thinned(points), f"split-{index % 3}", dots=len(points) <= 40))
    return found


def small_figure(run: RunRecord, key: str, scale: Scale) -> Figure | None:
    train = recorded(run.of("train"), key)
    lines = ([Curve("train", thinned(train), "train")] if train else []) + split_curves(run, key)
    return Figure(title_of(key), lines, scale) if lines else None


def right_figure(run: RunRecord, scale: Scale) -> Figure | None:
    """Share of generations that are right."""
    shares = [(number(e.get("step")), right_share(e)) for e in run.of("generate")]
    points: list[Point] = [(step, right / judged) for step, (right, judged) in shares if step is not None and judged]
    within = sorted(point for point in points if point[0] <= scale.high)
    lines = [Curve("generations", within, "split-0", dots=len(within) <= 40)]
    return Figure(title_of("share_of_answers_right"), lines, scale) if within else None


def not_finite(trained: Iterable[Event]) -> list[Markup]:
    """A loss that was no number is a gap in the curve: say so."""
    lost = [e.get("step") for e in trained if "loss" in e and number(e.get("loss")) is None]
    if not lost:
        return []
    return [
        tag("p", f"The loss was not a number at {len(lost)} logged step(s), first at step {lost[0]}.", class_="worse")
    ]


# -- generations -----------------------------------------------------------------------------------------------


def generations(run: RunRecord) -> Markup | None:
    """What the model answered to the same prompts at each evaluation."""
    every = sorted(run.of("generate"), key=lambda event: number(event.get("step")) or 0.0)
    if not every:
        return None
    shown = spread(every, MAX_COLUMNS)
    prompts: dict[tuple[str, str | None], None] = {}
    for event in every:
        prompts.update(dict.fromkeys(identity(sample) for sample in samples(event)))
    answers = [{identity(sample): sample for sample in samples(event)} for event in shown]
    rows = [prompt_row(key, answers) for key in prompts]
    head = [tag("th", "prompt", scope="col"), *(tag("th", column_head(event), scope="col") for event in shown)]
    left_out = len(every) - len(shown)
    more = (
        quiet(f"{left_out} evaluation(s) in between are left out here; metrics.jsonl has them.") if left_out else None
    )
    body = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="answers")
    box = tag("div", body, class_="wide", tabindex=0, role="region", aria_label="Generations, scrolls sideways")
    return block("generations", "Generations over time", box, more)


def spread(events: list[Event], wanted: int) -> list[Event]:
    """At most `wanted` of them, evenly, with the first and the last."""
    if len(events) <= wanted:
        return events
    return [events[round(i * (len(events) - 1) / (wanted - 1))] for i in range(wanted)]


def identity(sample: dict[str, Any]) -> tuple[str, str | None]:
    expected = sample.get("expected")
    return str(sample.get("prompt", "")), None if expected is None else str(expected)


def column_head(event: Event) -> Markup:
    step = whole(event.get("step"))
    right, judged = right_share(event)
    label = "before training" if step == 0 else f"step {number_text(step)}"
    if not judged:
        return escaped(label)
    bar = tag("span", tag("i", style=f"width:{right / judged:.0%}"), class_="bar", aria_hidden="true")
    return joined([label, tag("small", f"{right} of {judged} right"), bar])


def prompt_row(key: tuple[str, str | None], answers: list[dict[tuple[str, str | None], dict[str, Any]]]) -> Markup:
    prompt, expected = key
    wanted = tag("small", "expected ", words(expected)) if expected is not None else None
    head = tag("th", words(prompt), wanted, scope="row")
    return tag("tr", head, *(answer_cell(column.get(key)) for column in answers))


def answer_cell(sample: dict[str, Any] | None) -> Markup:
    if sample is None:
        return tag("td", "–", class_="quiet")
    correct = sample.get("correct")
    text = sample.get("text")
    shown = words(str(text)) if text not in (None, "") else tag("em", "(nothing)", class_="quiet")
    if (reward := number(sample.get("reward"))) is not None:
        return tag("td", tag("small", reward_words(reward, sample.get("rewards"))), shown)
    if correct is True:
        return tag("td", tag("small", "✓ right", class_="verdict"), shown, class_="right")
    return tag("td", tag("small", "✗ wrong", class_="verdict") if correct is False else None, shown)


def reward_words(reward: float, parts: object) -> str:
    """The reward of an answer, and of what parts it is made where there are several."""
    known = [(name, number(value)) for name, value in parts.items()] if isinstance(parts, dict) else []
    listed = ", ".join(f"{name} {number_text(value, 3)}" for name, value in known if value is not None)
    return f"reward {number_text(reward, 3)}" + (f" ({listed})" if len(known) > 1 else "")


# -- data, plan, config ----------------------------------------------------------------------------------------

DATA_NAMES = {
    "train_rows": "training rows",
    "valid_rows": "validation rows",
    "bad_rows": "bad rows",
    "truncated": "rows truncated",
    "dropped": "rows dropped",
    "train_tokens": "tokens in the training rows",
    "trained_tokens": "tokens that carry loss",
    "answer_tokens": "tokens of the answers",
    "wanted_rows": "wanted answers",
    "unwanted_rows": "unwanted answers",
    "rows_from": "rows from",
    "columns": "columns",
    "reason": "why these columns",
}


def data(run: RunRecord) -> Markup | None:
    counted = section(run.report, "data")
    chosen = section(run.config, "data")
    keys: tuple[str, ...] = ("mixture", "mixture_stopping")
    if chosen.get("mixture") is None:
        keys = () if counted.get("rows_from") else ("path", "files", "config")  # a class may have brought them
    source = [(f"data.{key}", chosen.get(key)) for key in keys]
    pairs = [(name, value_text(value)) for name, value in source if value not in (None, [], {}, "")]
    known = {key: counted[key] for key in DATA_NAMES if counted.get(key) is not None}
    rest = {key: value for key, value in counted.items() if key not in DATA_NAMES and value is not None}
    for key, value in {**known, **rest}.items():
        count = number(value)
        shown = value_text(value) if count is None else number_text(count)
        pairs.append((DATA_NAMES.get(key, spoken(key)), shown))
    return block("data", "Data", facts(pairs)) if pairs else None


PLAN_SHOWN_ELSEWHERE = frozenset({"folder", "steps", "global_batch_size", "train_rows", "valid_rows"})


def plan(run: RunRecord) -> Markup | None:
    """How the batch comes about and what was decided late, with reasons."""
    chosen = [
        [tag("code", a["key"]), tag("code", value_text(a.get("value"))), str(a.get("reason") or "")] for a in autos(run)
    ]
    others = {
        key: value
        for key, value in run.plan.items()
        if key not in PLAN_SHOWN_ELSEWHERE and value is not None and not isinstance(value, dict | list)
    }
    return block(
        "plan",
        "Batch and plan",
        batch(run),
        facts((spoken(key), value_text(value)) for key, value in others.items()) if others else None,
        grid(["chosen for you", "value", "because"], chosen) if chosen else None,
    )


def batch(run: RunRecord) -> Markup | None:
    """The batch arithmetic, only as far as the recorded numbers agree with it."""
    train = section(run.config, "train")
    factors = [
        (whole(train.get("batch_size")), "a device"),
        (whole(train.get("gradient_accumulation")), "accumulated"),
        (whole(run.plan.get("processes")), "processes"),
    ]
    total, steps = whole(run.plan.get("global_batch_size")), whole(run.plan.get("steps"))
    if total is None:
        return None
    known = [(factor, name) for factor, name in factors if factor is not None]
    agree = len(known) == len(factors) and math.prod(factor for factor, _ in known) == total
    parts = [figure_of(f"{factor:,}", name) for factor, name in known] if agree else []
    terms: list[object] = list(interleaved(parts, "×"))
    terms += ["=" if parts else None, figure_of(f"{total:,}", "sequences a step")]
    if steps is not None:
        terms += ["×", figure_of(f"{steps:,}", "steps"), "=", figure_of(f"{total * steps:,}", "sequences at most")]
    return tag("p", *terms, class_="sum")


def figure_of(value: str, name: str) -> Markup:
    return tag("span", tag("b", value), tag("small", name))


def interleaved(parts: list[Markup], sign: str) -> Iterable[object]:
    for index, part in enumerate(parts):
        if index:
            yield sign
        yield part


def origin_kind(origin: str) -> str:
    """Who set a value: `command line`, `Python`, `recipe`, or `default`, whose file lies in a folder `conf`."""
    lowered = origin.lower()
    if lowered.startswith("command"):
        return "command line"
    if lowered.startswith("python"):
        return "Python"
    folders = origin.rsplit(":", 1)[0].replace("\\", "/").split("/")[:-1]
    return "default" if not origin or lowered.startswith("default") or "conf" in folders else "recipe"


def config(run: RunRecord) -> Markup | None:
    values = flatten(run.config)
    if not values:
        return None
    origins = {key: str(origin) for key, origin in section(run.plan, "origins").items()}
    late = {str(auto["key"]): auto.get("value") for auto in autos(run)}
    rows = []
    for key, value in values.items():
        origin = origins.get(key, "")
        mine = origin_kind(origin) != "default"
        shown = (
            joined([value_text(value), tag("span", " → ", value_text(late[key]))]) if key in late else value_text(value)
        )
        cells = (tag("th", key, scope="row"), tag("td", tag("code", shown)), tag("td", origin or "default"))
        rows.append(tag("tr", *cells, class_="mine" if mine else "default"))
    set_here = sum(origin_kind(origin) != "default" for key, origin in origins.items() if key in values)
    controls = tag(
        "p",
        tag("input", type="search", placeholder="Filter settings", aria_label="Filter settings", id="filter"),
        tag("label", tag("input", type="checkbox", id="mine"), "only what was set"),
        class_="controls scripted",
    )
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in ("key", "value", "origin"))))
    body = tag("table", head, tag("tbody", *rows), class_="config")
    box = tag("div", body, class_="wide tall", tabindex=0, role="region", aria_label="Settings, scrolls")
    summary = f"{len(values)} settings; {set_here} set for this run (marked), the others defaults."
    return block("config", "Config", quiet(summary), controls, box)


# -- what is left on disk and how to do it again ---------------------------------------------------------------


def checkpoints(run: RunRecord) -> Markup | None:
    saved = run.of("checkpoint")
    if not saved:
        return None
    best = section(run.report, "best").get("checkpoint")
    if best is None:
        best = next((event.get("path") for event in reversed(saved) if event.get("best") is True), None)
    better = tag("span", "★ best", class_="badge good")
    worse = tag("span", "the start was better", class_="badge warn")
    rows = []
    for event in saved:
        path = str(event.get("path") or "")
        mark = (worse if better_start(run) else better) if path and path == best else None
        state = "on disk" if path and os.path.exists(run.folder / path) else "removed"
        size, seconds = bytes_text(number(event.get("bytes"))), duration_text(number(event.get("seconds")))
        rows.append(
            [number_text(number(event.get("step"))), tag("code", path), size, seconds, joined([state, " ", mark])]
        )
    return block("checkpoints", "Checkpoints", grid(["step", "folder", "size", "saved in", "state"], rows, (0, 2, 3)))


def versions(run: RunRecord) -> Markup | None:
    """lock.json, a table for each of its parts."""
    parts = {key: value for key, value in run.lock.items() if isinstance(value, dict)}
    single = {key: value for key, value in run.lock.items() if key not in parts}
    groups = [(spoken(key), flatten(value)) for key, value in parts.items()] + ([("other", single)] if single else [])
    tables = [
        tag(
            "div", tag("h3", name), grid(["key", "value"], [[k, tag("code", value_text(v))] for k, v in leaves.items()])
        )
        for name, leaves in groups
        if leaves
    ]
    return block("versions", "Versions", tag("div", *tables, class_="columns") if tables else None)


def again(run: RunRecord) -> Markup | None:
    """The command, ready to copy."""
    argv = run.plan.get("argv")
    command = run.report.get("command")
    note = None
    if not command and isinstance(argv, list) and argv:
        command, note = shlex.join(map(str, argv)), "As the processes were started; the report has no command."
    if not command:
        return None
    button = tag("button", "Copy", type="button", id="copy", class_="scripted")
    shown = tag("div", tag("pre", tag("code", command, id="command"), tabindex=0), button, class_="command")
    return block("again", "Run it again", shown, quiet(note) if note else None)


def notes(run: RunRecord) -> Markup | None:
    """Notes, stops and resumes, as they happened."""
    lines = []
    for event in run.events:
        kind = str(event.get("event"))
        if kind not in ("note", "start", "resume", "end"):
            continue
        text = event.get("text") if kind == "note" else f"{kind} {event.get('time') or ''}"
        lines.append(tag("li", tag("b", f"step {number_text(number(event.get('step')))}"), " ", str(text or "")))
    return block("notes", "Notes", tag("ul", *lines, class_="notes") if lines else None)


SECTIONS: tuple[Callable[[RunRecord], Markup | None], ...] = (
    results,
    curves,
    predictions,
    columns,
    trials,
    generations,
    data,
    plan,
    config,
    checkpoints,
    versions,
    again,
    notes,
)
"""The page below its head, in reading order."""

FOLDER = Path(__file__).parent
STYLE = "".join("\n" + (FOLDER / f"report_{name}.css").read_text(encoding="utf-8") for name in ("html", "pictures"))
SCRIPT = "\n" + (FOLDER / "report_html.js").read_text(encoding="utf-8")
