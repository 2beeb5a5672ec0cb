"""Run directories as they are found on disk: read, listed, compared and shown as plain text.

A run that was killed leaves files half-written or missing. Reading shows what is there and lists the rest in
`RunRecord.gaps`; only a folder that holds no run at all is refused.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aitrain.errors import DataError, Problem, nearest

Event = dict[str, Any]
Kind = Literal["config", "data", "code", "environment", "metrics"]

FILES = {
    "config.yaml": "the resolved settings cannot be shown",
    "plan.json": "batch arithmetic, chosen values and the origin of each setting cannot be shown",
    "lock.json": "versions and fingerprints cannot be shown",
    "metrics.jsonl": "there are no curves, samples or checkpoints to show",
    "report.json": "the run is still going, or was killed before it could write one",
}
"""Each file of a run directory that is read here, with what its absence means."""

STEPPED = frozenset({"train", "eval", "generate", "checkpoint"})
"""Events that mean nothing without their step."""

MAX_STEP = 2**53
"""The largest whole number that JSON readers agree on."""

NOT_METRICS = frozenset({"event", "step", "epoch", "split", "tokens", "seconds", "time"})
"""Keys of a train or eval event that say when and how much, not how well."""

LOWER_IS_BETTER = ("loss", "perplexity", "error", "mae", "mse", "rmse", "wer", "cer", "rejected", "kl")
HIGHER_IS_BETTER = ("accuracy", "f1", "precision", "recall", "auc", "reward", "bleu", "rouge", "r2", "correct",
                    "accuracies", "margin", "margins", "chosen", "odds")  # fmt: skip

MAX_DEPTH = 20
"""A YAML alias may point to its own parent; no config of ours is nested this deep."""


@dataclass
class RunRecord:
    """One run directory. Every tree is empty when its file is missing."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    """Events in the order written, without those that a resume has run again."""
    gaps: list[str] = field(default_factory=list)
    """What is missing or unreadable, a sentence each."""

    def of(self, kind: str) -> list[Event]:
        """Events of one kind; when a step was recorded twice, the later record."""
        found = [event for event in self.events if event.get("event") == kind]
        if kind not in STEPPED:
            return found
        return list({(event["step"], str(event.get("split"))): event for event in found}.values())

    @property
    def name(self) -> str:
        return str(self.report.get("name") or section(self.config, "run").get("name") or self.folder.name)

    @property
    def status(self) -> str:
        """`finished`, `stopped`, `failed` or `running` as the run wrote it; `unfinished` when it wrote nothing."""
        return str(self.report.get("status") or "unfinished")

    @property
    def task(self) -> str:
        return str(self.report.get("task") or section(self.config, "task").get("name") or "")

    @property
    def trainer(self) -> str:
        return str(self.report.get("trainer") or section(self.config, "trainer").get("name") or "")

    @property
    def steps(self) -> int | None:
        """Optimizer steps taken, as far as anything on disk says."""
        recorded = [whole(event.get("step")) for event in self.events]
        seen = [step for step in (*recorded, whole(self.report.get("steps"))) if step is not None]
        return max(seen, default=None)

    @property
    def planned_steps(self) -> int | None:
        planned = whole(self.report.get("planned_steps"))
        return whole(self.plan.get("steps")) if planned is None else planned

    @property
    def seconds(self) -> float | None:
        """Wall time of the run; without a report, that of the last training event."""
        reported = number(self.report.get("seconds"))
        if reported is not None:
            return reported
        return max((s for e in self.of("train") if (s := number(e.get("seconds"))) is not None), default=None)

    @property
    def split(self) -> str:
        """The split the run is judged by: validation when it has one, else the first evaluated."""
        splits = [str(event.get("split") or "validation") for event in self.of("eval")]
        return "validation" if "validation" in splits or not splits else splits[0]

    @property
    def evaluations(self) -> list[Event]:
        """Evaluations of `split`, in order of steps."""
        split = self.split
        found = [e for e in self.of("eval") if str(e.get("split") or "validation") == split]
        return sorted(found, key=lambda event: number(event.get("step")) or 0.0)

    @property
    def before(self) -> dict[str, float]:
        """Metrics of the untrained model: from the report, else from the evaluation at step 0."""
        reported = measures(section(self.report, "metrics", "before"))
        untrained = [event for event in self.evaluations if number(event.get("step")) == 0]
        return reported or (measures(untrained[-1]) if untrained else {})

    @property
    def after(self) -> dict[str, float]:
        """Metrics at the end: from the report, else from the last evaluation after step 0."""
        reported = measures(section(self.report, "metrics", "after"))
        trained = [event for event in self.evaluations if (number(event.get("step")) or 0) > 0]
        return reported or (measures(trained[-1]) if trained else {})

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Baseline name -> metric -> value. A bare number in the report is a loss."""
        found: dict[str, dict[str, float]] = {}
        for name, value in section(self.report, "metrics", "baselines").items():
            values = measures(value) if isinstance(value, dict) else measures({"loss": value})
            if values:
                found[name] = values
        return found

    def lower_is_better(self, metric: str) -> bool | None:
        """Which way a metric improves as the run recorded it, None for one that has no better and worse; by its name
        where nothing was recorded."""
        aims = section(self.report, "aims")
        if not aims:
            return lower_is_better(metric)
        return {"min": True, "max": False}.get(str(aims.get(metric)))

    @property
    def weights_step(self) -> int | None:
        """The step whose weights the model ends with, where they are not those of the last one."""
        step = whole(self.report.get("weights_step"))
        return None if step == whole(self.report.get("steps")) else step

    @property
    def best_step(self) -> int | None:
        step = whole(section(self.report, "best").get("step"))
        marked = [whole(event.get("step")) for event in self.of("checkpoint") if event.get("best") is True]
        return step if step is not None else (marked[-1] if marked else None)


@dataclass(frozen=True)
class Difference:
    """One thing in which two runs differ; a side that lacks the key is None."""

    kind: Kind
    key: str
    a: Any
    b: Any


# -- values ----------------------------------------------------------------------------------------------------


def number(value: Any) -> float | None:
    """A finite number, or None for anything else (null, text, NaN, a boolean)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def whole(value: Any) -> int | None:
    """`number`, as an int."""
    converted = number(value)
    return None if converted is None else int(converted)


def section(tree: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """The mapping at `path`, empty when it is absent or no mapping."""
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, dict) else {}


def measures(event: Mapping[str, Any]) -> dict[str, float]:
    """The finite metrics of an event or a report's metrics."""
    return {k: value for k, v in event.items() if k not in NOT_METRICS and (value := number(v)) is not None}


def flatten(tree: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Dotted key -> leaf. Lists and empty mappings are leaves."""
    if not isinstance(tree, Mapping) or not tree or depth > MAX_DEPTH:
        return {prefix: tree} if prefix else {}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves.update(flatten(value, f"{prefix}.{key}" if prefix else str(key), depth + 1))
    return leaves


def lower_is_better(metric: str) -> bool | None:
    """Which way a metric improves, from the words of its name; None when they do not tell."""
    words = metric.lower().replace("/", "_").replace("-", "_").split("_")
    if words == ["mean", "reward"]:  # of a reward model, whose scores have no zero
        return None
    if any(word in words for word in LOWER_IS_BETTER):
        return True
    return False if any(word in words for word in HIGHER_IS_BETTER) else None


def number_text(value: float | None, digits: int = 4) -> str:
    """A number for eyes: `digits` significant ones, thousands set apart, an en dash for nothing."""
    if value is None:
        return "–"
    if value == 0 or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size >= 15:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        trimmed = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{trimmed}e{int(exponent)}"
    if size < -1:  # a learning rate reads better without padding zeros
        return f"{value:.{digits - 1 - size}f}".rstrip("0")
    return f"{value:,.{max(0, digits - 1 - max(size, 0))}f}"


MOST_DIGITS = 9
"""Significant digits beyond which two numbers are called equal."""


def number_texts(values: Sequence[float | None], digits: int = 4) -> list[str]:
    """`number_text` of numbers that are read side by side, with as many digits as tell those apart that differ."""
    known = {value for value in values if value is not None}

    def read(more: int) -> set[float]:
        return {float(number_text(value, more).replace(",", "")) for value in known}

    needed = next((more for more in range(digits, MOST_DIGITS + 1) if len(read(more)) == len(known)), digits)
    return [number_text(value, needed) for value in values]


def duration_text(seconds: float | None) -> str:
    """`73 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 90:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def bytes_text(size: float | None) -> str:
    """Bytes in binary units."""
    if size is None:
        return "–"
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def value_text(value: Any) -> str:
    """A leaf of a config as YAML would show it on one line."""
    if value is None or isinstance(value, bool | list | dict | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):  # a YAML alias that points to its own parent
            return str(value)
    return str(value)


def printable(text: str) -> str:
    """One line without control characters: what a run recorded must not steer the terminal that shows it."""
    return "".join(c if c.isprintable() else " " for c in text)


# -- reading ---------------------------------------------------------------------------------------------------


def read_run(folder: Path) -> RunRecord:
    """Read one run directory, tolerating missing and half-written files.

    Raises DataError when `folder` is no folder or holds none of a run's files.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in FILES):
        raise DataError(_no_run(folder))
    run = RunRecord(folder)
    run.config = _read_tree(run, "config.yaml")
    run.plan = _read_tree(run, "plan.json")
    run.lock = _read_tree(run, "lock.json")
    run.report = _read_tree(run, "report.json")
    run.events = _without_repeated(run, list(_read_events(run)))
    if run.status == "running":
        run.gaps.append("report.json was begun and not completed: the run is still going, or was killed")
    return run


def _no_run(folder: Path) -> Problem:
    if folder.is_dir():
        below = next(_run_folders(folder), None)
        advice = f"there is one below it, {below}" if below else "a run directory holds plan.json and metrics.jsonl"
        return Problem(str(folder), "no run in this folder", advice)
    siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
    near = nearest(folder.name, siblings)
    return Problem(str(folder), "no such folder", f"did you mean '{folder.parent / near}'?" if near else "")


def _read_text(run: RunRecord, name: str) -> str | None:
    try:
        return (run.folder / name).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        run.gaps.append(f"{name} is missing: {FILES[name]}")
    except OSError as error:
        run.gaps.append(f"{name} cannot be read ({error.strerror}): {FILES[name]}")
    return None


def _read_tree(run: RunRecord, name: str) -> dict[str, Any]:
    text = _read_text(run, name)
    if text is None:
        return {}
    try:
        tree = _parse_yaml(text) if name.endswith(".yaml") else _parse_json(text)
    except (ValueError, RecursionError):
        tree = None
    if isinstance(tree, dict):
        return tree
    run.gaps.append(f"{name} is damaged or half-written: {FILES[name]}")
    return {}


def _parse_json(text: str) -> Any:
    return json.loads(text, parse_constant=lambda _: None)


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _read_events(run: RunRecord) -> Iterator[Event]:
    """The objects of metrics.jsonl; lines that are none are counted in `gaps`."""
    lines = (_read_text(run, "metrics.jsonl") or "").split("\n")
    damaged: list[int] = []
    for index, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = _parse_json(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and _has_its_step(event):
            yield event
        elif index == len(lines):
            run.gaps.append(f"metrics.jsonl: line {index}, the last, is half-written and left out")
        else:
            damaged.append(index)
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
        run.gaps.append(f"metrics.jsonl: {len(damaged)} damaged line(s) left out ({shown})")


def _has_its_step(event: Event) -> bool:
    step = number(event.get("step"))
    if step is None:
        return "step" not in event and event.get("event") not in STEPPED
    return 0 <= step < MAX_STEP


def _without_repeated(run: RunRecord, events: list[Event]) -> list[Event]:
    """Drop what a resume has run again: earlier events beyond the step it went on from."""
    kept: list[Event] = []
    for event in events:
        resumed_from = number(event.get("step")) if event.get("event") == "resume" else None
        if resumed_from is not None:
            before = len(kept)
            kept = [e for e in kept if e.get("event") == "note" or (number(e.get("step")) or 0) <= resumed_from]
            if len(kept) < before:
                count = before - len(kept)
                run.gaps.append(f"{count} event(s) after step {resumed_from:.0f} were run again by a resume: left out")
        kept.append(event)
    return kept


def list_runs(root: Path) -> list[RunRecord]:
    """Every run at or below `root`, oldest first. Links are not followed, so a `latest` link counts once.

    Raises DataError when `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(_no_run(root))
    runs = [read_run(folder) for folder in _run_folders(root)]
    return sorted(runs, key=lambda run: (_started(run), str(run.folder)))


def _started(run: RunRecord) -> str:
    first = next((event.get("time") for event in run.of("start")), None)
    return str(run.report.get("started") or first or "")


def _run_folders(root: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(root):
        is_run = "report.json" in files or {"plan.json", "metrics.jsonl"} <= set(files)
        inside = {"checkpoints", "model"} if is_run else set()
        folders[:] = sorted(name for name in folders if name not in inside and not name.startswith("."))
        if is_run:
            yield Path(parent)


# -- comparing -------------------------------------------------------------------------------------------------

ALWAYS_DIFFERENT = frozenset({"run.dir", "made"})
"""Settings and lock entries that say which run it is, not how it was made."""


def diff_runs(a: RunRecord, b: RunRecord) -> list[Difference]:
    """What differs between two runs, causes before effects.

    config: settings, seeds, resolved `auto`s and the batch they make; data: rows and fingerprints, of data and model;
    code: git state and user code; environment: versions and machine; metrics: what came out.
    """
    sides = [_comparable(run) for run in (a, b)]
    kinds: tuple[Kind, ...] = ("config", "data", "code", "environment", "metrics")
    found: list[Difference] = []
    for kind in kinds:
        left, right = sides[0][kind], sides[1][kind]
        for key in dict.fromkeys((*left, *right)):
            if left.get(key) != right.get(key):
                found.append(Difference(kind, key, left.get(key), right.get(key)))
    return found


def _comparable(run: RunRecord) -> dict[Kind, dict[str, Any]]:
    values: dict[Kind, dict[str, Any]] = {"config": {}, "data": {}, "code": {}, "environment": {}, "metrics": {}}
    values["config"] = {key: value for key, value in flatten(run.config).items() if key not in ALWAYS_DIFFERENT}
    for auto in autos(run):
        values["config"][f"{auto['key']} (chosen)"] = auto.get("value")
    for key in ("steps", "global_batch_size"):
        if key in run.plan:
            values["config"][f"plan.{key}"] = run.plan[key]
    for key, value in flatten(run.lock).items():
        if key not in ALWAYS_DIFFERENT:
            values[_lock_kind(key)][f"lock.{key}"] = value
    for key, value in flatten(section(run.report, "data")).items():
        values["data"][f"data.{key}"] = value
    values["metrics"] |= {"status": run.status, "steps": run.steps}
    values["metrics"] |= {f"before.{key}": value for key, value in run.before.items()}
    values["metrics"] |= {f"after.{key}": value for key, value in run.after.items()}
    values["metrics"] |= {f"baselines.{key}": value for key, value in flatten(run.baselines).items()}
    for key in ("seconds", "peak_memory_bytes"):
        values["metrics"][key] = run.report.get(key)
    return values


LOCK_KINDS: tuple[tuple[str, Kind], ...] = (
    ("data", "data"),
    ("model", "data"),
    ("tokenizer", "data"),
    ("fingerprint", "data"),
    ("git", "code"),
    ("code", "code"),
    ("user_code", "code"),
    ("seed", "config"),
)
"""Beginning of a top-level key of lock.json -> kind; any other is environment."""


def _lock_kind(key: str) -> Kind:
    return next((kind for start, kind in LOCK_KINDS if key.startswith(start)), "environment")


def autos(run: RunRecord) -> list[dict[str, Any]]:
    """The values decided late, each with `key`, `value` and `reason`."""
    listed = run.plan.get("autos")
    entries = listed if isinstance(listed, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("key")]


# -- sentences and text ----------------------------------------------------------------------------------------


def right_share(event: Event) -> tuple[int, int]:
    """(right answers, answers that can be judged) of one `generate` event."""
    judged = [s["correct"] for s in samples(event) if isinstance(s.get("correct"), bool)]
    return sum(judged), len(judged)


def samples(event: Event) -> list[dict[str, Any]]:
    """The well-formed samples of a `generate` event."""
    listed = event.get("samples")
    return [s for s in listed if isinstance(s, dict)] if isinstance(listed, list) else []


def headline_metric(run: RunRecord) -> str | None:
    """The metric a run is summed up by: the loss, else the first one measured at the end."""
    names = [*run.after, *run.before]
    for name in run.report.get("headline") or ():
        if name in names:
            return str(name)
    return "loss" if "loss" in names else next(iter(names), None)


def result_sentence(run: RunRecord) -> str:
    """One sentence on what came out, for the page's head and the terminal."""
    metric = headline_metric(run)
    rivals = _rivals(run, metric) if metric and metric in run.after else []
    before, after, *texts = _headline_texts(run, metric, [value for _, value in rivals])
    parts = [_outcome(run, metric, before, after)]
    parts += [_against(run, name, value, text) for (name, value), text in zip(rivals, texts, strict=True)]
    if run.status != "finished":
        parts.insert(0, _how_far(run))
    return "; ".join(parts)


def _headline_texts(run: RunRecord, metric: str | None, rivals: Sequence[float] = ()) -> list[str]:
    """What was measured before and after, and what it is compared with, in digits that tell them apart."""
    return number_texts([run.before.get(metric or ""), run.after.get(metric or ""), *rivals], 3)


def _outcome(run: RunRecord, metric: str | None, before: str, after: str) -> str:
    if metric is None:
        return "no evaluation was recorded"
    label = f"{run.split} {metric.replace('_', ' ')}"
    if metric not in run.after:
        return f"{label} {before} before training, none after"
    change = f"{before} → {after}" if metric in run.before else after
    time = "" if run.seconds is None else f" in {duration_text(run.seconds)}"
    return f"{label} {change}{time}"


def _rivals(run: RunRecord, metric: str) -> list[tuple[str, float]]:
    return [(name, values[metric]) for name, values in run.baselines.items() if metric in values]


def _against(run: RunRecord, name: str, baseline: float, shown: str) -> str:
    metric = headline_metric(run)
    lower = run.lower_is_better(metric) if metric else None
    text = f"{name} baseline {shown}"
    if metric is None or lower is None:
        return text
    after = run.after[metric]
    if after == baseline:
        return f"{text}, equalled"
    return f"{text}, {'beaten' if (after < baseline if lower else after > baseline) else 'not reached'}"


def _how_far(run: RunRecord) -> str:
    reached = "before the first step" if run.steps is None else f"at step {run.steps:,}"
    of = f" of {run.planned_steps:,}" if run.steps is not None and run.planned_steps else ""
    return f"{run.status} {reached}{of}"


COLUMNS = ("name", "folder", "status", "kind", "steps", "result", "right", "time", "started")
NUMERIC = frozenset({"steps", "result", "right", "time"})
FOLDING = frozenset({"name", "folder", "key", "a", "b"})
"""Columns that a narrow terminal may break over lines, down to MIN_FOLDED characters each."""
MIN_FOLDED = 9
DISPENSABLE = ("started", "kind", "right")
"""Columns that a terminal too narrow for all goes without, in this order; a pipe always gets them."""


def _row(run: RunRecord, root: Path) -> dict[str, str]:
    metric = headline_metric(run) or "loss"
    before, after = _headline_texts(run, metric)
    right, judged = right_share(run.of("generate")[-1]) if run.of("generate") else (0, 0)
    planned = f"/{run.planned_steps:,}" if run.planned_steps is not None else ""
    row = {
        "name": run.name,
        "folder": os.path.relpath(run.folder, root),
        "status": run.status,
        "kind": "/".join(part for part in (run.task, run.trainer) if part),
        "steps": f"{number_text(run.steps)}{planned}",
        "result": f"{'' if metric == 'loss' else f'{metric} '}{before} → {after}",
        "right": f"{right}/{judged}" if judged else "–",
        "time": duration_text(run.seconds),
        "started": _started(run)[:16].replace("T", " "),
    }
    return {key: printable(value) for key, value in row.items()}


def _common_root(runs: Sequence[RunRecord]) -> Path:
    """The deepest folder that holds all of them, so that no folder is shown as `.`."""
    return Path(os.path.commonpath([run.folder.absolute().parent for run in runs]))


def _on_terminal(terminal: bool | None) -> bool:
    return sys.stdout.isatty() if terminal is None else terminal


def table(runs: Sequence[RunRecord], terminal: bool | None = None) -> str:
    """Runs as a table: rich on a terminal, fixed-width text otherwise. A result without a name is a loss."""
    if not runs:
        return "no runs"
    root = _common_root(runs)
    rows = [_row(run, root) for run in runs]
    return _grid(COLUMNS, [[row[column] for column in COLUMNS] for row in rows], NUMERIC, _on_terminal(terminal))


def diff_table(differences: Sequence[Difference], terminal: bool | None = None) -> str:
    """Differences of two runs as a table, in the same two forms as `table`."""
    if not differences:
        return "no differences"
    rows = [[d.kind, d.key, _side(d.a), _side(d.b)] for d in differences]
    return _grid(("kind", "key", "a", "b"), rows, frozenset(), _on_terminal(terminal))


def _side(value: Any) -> str:
    return printable("–" if value is None else value_text(value))


def _grid(columns: Sequence[str], rows: list[list[str]], numeric: Iterable[str], terminal: bool) -> str:
    return _rich_grid(columns, rows, numeric) if terminal else _plain_grid(columns, rows, numeric)


def _plain_grid(columns: Sequence[str], rows: list[list[str]], numeric: Iterable[str]) -> str:
    from rich.cells import cell_len

    widths = [max(cell_len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    right = [column in numeric for column in columns]
    lines = []
    for row in (columns, *rows):
        pads = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [pad + c if r else c + pad for c, pad, r in zip(row, pads, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _rich_grid(columns: Sequence[str], rows: list[list[str]], numeric: Iterable[str]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=io.StringIO(), force_terminal=True)
    shown = _fitting(columns, rows, console.width)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index in shown:
        column = columns[index]
        folds = column in FOLDING
        side: Literal["left", "right"] = "right" if column in numeric else "left"
        grid.add_column(
            column, justify=side, no_wrap=not folds, overflow="fold", min_width=MIN_FOLDED if folds else None
        )
    for row in rows:  # Text: a name in brackets is no markup
        styles = [STATUS_STYLES.get(row[i], "") if columns[i] == "status" else "" for i in shown]
        grid.add_row(*(Text(row[i], style=style) for i, style in zip(shown, styles, strict=True)))
    with console.capture() as captured:
        console.print(grid)
    return captured.get().rstrip("\n")


def _fitting(columns: Sequence[str], rows: list[list[str]], width: int) -> list[int]:
    """Which columns to show: those of DISPENSABLE go, one by one, until the rest fits into `width`."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    least = [min(w, MIN_FOLDED) if name in FOLDING else w for name, w in zip(columns, widths, strict=True)]
    shown = list(range(len(columns)))
    for name in DISPENSABLE:
        if name in columns and sum(least[index] + 3 for index in shown) > width:
            shown.remove(list(columns).index(name))
    return shown


STATUS_STYLES = {"finished": "green", "failed": "bold red", "stopped": "yellow", "running": "cyan"}

BARS = "▁▂▃▄▅▆▇█"


def curve_text(run: RunRecord, width: int = 60) -> str:
    """Training and evaluation loss as sparklines, `width` characters wide, on one scale and one axis of steps."""
    curves = {"train": run.of("train"), run.split: run.evaluations}
    points = {name: loss_points(events) for name, events in curves.items()}
    drawn = {name: line for name, line in points.items() if line}
    if not drawn:
        return "no loss was recorded"
    values = [value for line in drawn.values() for _, value in line]
    last = max(step for line in drawn.values() for step, _ in line)
    pad = max(map(len, drawn))
    lowest, highest = number_texts([min(values), max(values)])
    lines = [f"loss from {lowest} to {highest}, steps 0 to {last:,.0f}"]
    for name, line in drawn.items():
        bars = _sparkline(line, last, min(values), max(values), width)
        ends = " → ".join(number_texts([line[0][1], line[-1][1]]))
        lines.append(f"{printable(name):<{pad}}  {bars}  {ends}")
    return "\n".join(lines)


def loss_points(events: Iterable[Event]) -> list[tuple[float, float]]:
    """(step, loss) where both are finite, in order of steps."""
    pairs = ((number(event.get("step")), number(event.get("loss"))) for event in events)
    return sorted((step, loss) for step, loss in pairs if step is not None and loss is not None)


def _sparkline(line: list[tuple[float, float]], last: float, low: float, high: float, width: int) -> str:
    """One character a column: the mean of the values that fall into it, blank where none does."""
    cells: list[list[float]] = [[] for _ in range(width)]
    for step, value in line:
        cells[min(width - 1, int(step / last * width)) if last > 0 else 0].append(value)
    span = (high - low) or 1.0
    height = len(BARS) - 1
    return "".join(BARS[round((sum(c) / len(c) - low) / span * height)] if c else " " for c in cells)
