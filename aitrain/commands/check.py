"""`check`: everything that can be known before torch loads, the plan, and every problem at once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from aitrain.commands.words import read_words
from aitrain.compose import expand, sweep_folder
from aitrain.config.run import Run
from aitrain.data.columns import read_label
from aitrain.data.mixture import FoundSource
from aitrain.data.rows import Count
from aitrain.look import DataLook, ModelLook
from aitrain.machine import disk_free, disk_need
from aitrain.memory import describe, estimate_run
from aitrain.plan import Plan, plan
from aitrain.registry import trainer_of
from aitrain.start import Checked, check_jobs, estimated_parts, estimated_rows


def check(words: list[str]) -> int:
    """Print what would happen, with `-m` to the first of the runs. Raises Refused with every problem of every run;
    starts and writes nothing."""
    read = read_words(words)
    read.refuse_flags("check", multirun=True)
    jobs = expand(read.request) if read.multirun else [read.request]
    checked = check_jobs(jobs, ask_hub=False)
    run = checked.run
    if read.multirun:
        print(f"{'runs':<11}{len(jobs)}; the first one: {shlex.join(jobs[0].overrides)}")
    fresh = sweep_folder(read.request, "TIMESTAMP") / "0" if read.multirun else f"outputs/{run.run.name}/TIMESTAMP"
    folder = Path(run.run.dir or fresh)
    made = plan(run, estimated_rows(checked), checked.machine, folder)
    for title, text in lines(checked, made):
        print(f"{title:<10} {text}")
    assert checked.found.data is not None
    is_whole = not any(source.unread for source in checked.found.data.sources)
    found = "nothing is wrong" if is_whole else "nothing is wrong with what was looked at"
    print(f"{found}; drop the word 'check' to start it")
    return 0


def lines(checked: Checked, made: Plan) -> Iterator[tuple[str, str]]:
    """Title and text of each line."""
    run, data, model = checked.run, checked.found.data, checked.found.model
    assert data is not None
    sections = {name: section for name, section in run.sections() if hasattr(section, "name") and name != "run"}
    yield "chosen", "  ".join(f"{name}={section.name}" for name, section in sections.items() if section.name != "none")
    if model is not None:
        yield "model", model_line(run, model)
    yield from data_lines(run, data, made)
    if model is not None:
        yield from step_lines(run, made)
        yield from size_lines(run, checked, made)
    else:
        yield "fits", f"{made.steps:,} at most"
    yield "folder", str(made.folder)
    yield "files", files_line(run, made)
    for auto in made.autos:
        yield "decided", f"{auto.key}={auto.value}  ({auto.reason})"
    if made.argv:
        yield "starts", " ".join(made.argv)
    else:
        yield "starts", "in this process"


def files_line(run: Run, made: Plan) -> str:
    """What the run will leave in its folder."""
    kept = run.train.save_total_limit
    many = "all of them kept" if kept is None else f"the newest {kept} and the best one kept"
    saved = "" if made.save_every is None else f"checkpoints/ ({many}), "
    return f"config.yaml plan.json lock.json log.txt metrics.jsonl, {saved}model/, report.json report.html"


def model_line(run: Run, model: ModelLook) -> str:
    """Which model, of which family."""
    family = (model.config or {}).get("model_type", "")
    return f"{run.model.path}" + (f"  ({family})" if family else "") + (f"  {model.note}" if model.note else "")


def data_lines(run: Run, data: DataLook, made: Plan) -> Iterator[tuple[str, str]]:
    """Where the rows come from, how many there are, what the columns mean; of a mixture for each source."""
    if run.data.mixture is None:
        source = data.sources[0]
        where = source.train.path if source.train.kind == "class" else run.data.path
        yield "data", f"{where}  {_count(source.train_count)}  ({source.train.reason})"
        yield "validation", _validation(run, source, made.valid_rows or 0)
        yield from _column_lines(source)
        yield from _answer_lines(run, source)
        return
    parts = None if run.data.streaming else estimated_parts(run, data)
    yield "data", f"a mixture of {len(data.sources)}: {_mixing(run)}"
    for number, source in enumerate(data.sources):
        yield "source", f"{source.chosen.name}  {_count(source.train_count)}  ({source.train.reason})"
        if parts:
            share = parts[number].train / max(1, sum(part.train for part in parts))
            about = "" if source.train_count.exact else "about "
            yield "  share", f"{about}{parts[number].train:,} rows of an epoch ({share:.1%}){_weight(source)}"
        elif source.chosen.weight is not None:
            yield "  share", f"weight {source.chosen.weight:g}"
        yield "  validation", _validation(run, source, parts[number].held if parts else 0)
        further = (*_column_lines(source), *_answer_lines(run, source))
        yield from ((f"  {title}", text) for title, text in further)


def _mixing(run: Run) -> str:
    if all(source.weight is None for source in run.data.sources()):
        return "every row of every source once"
    return f"by weight, data.mixture_stopping={run.data.mixture_stopping}"


def _weight(source: FoundSource) -> str:
    return "" if source.chosen.weight is None else f", weight {source.chosen.weight:g}"


def _validation(run: Run, source: FoundSource, held: int) -> str:
    if source.valid is not None:
        return f"{source.chosen.valid_split}  {_count(source.valid_count)}"
    if not run.data.valid_fraction or run.data.streaming:
        return "none"
    share = f"{run.data.valid_fraction:g} of the rows, drawn with run.seed={run.run.seed}"
    return share if source.choice is None else f"{held} rows  ({share})"


def _column_lines(source: FoundSource) -> Iterator[tuple[str, str]]:
    if source.choice is None:
        ours = "not looked at: the rows come from the class, and none of its code is run here"
        yield "columns", ours if source.train.kind == "class" else "not looked up: the rows are on the Hub"
        return
    yield "columns", f"{source.columns}  ({source.choice.reason})"
    if source.targets is not None:
        yield "target", source.targets.described
    if source.unread:
        yield "rows", f"{source.unread}; a run looks at all when it tokenises them, before the model loads"
    first = json.dumps(source.first, ensure_ascii=False, default=str)
    yield "first row", first if len(first) < 300 else first[:297] + "…"


JUDGED = 10_000
"""Rows whose judgements are counted here; the run counts all of them."""


def _answer_lines(run: Run, source: FoundSource) -> Iterator[tuple[str, str]]:
    """How many answers are wanted and how many are not, for a trainer of single answers."""
    if source.choice is None or "unpaired" not in trainer_of(run).shapes:
        return
    if source.choice.shape == "pairs":
        yield "answers", "one wanted and one unwanted of each pair"
        return
    rows = source.train.head(JUDGED + 1, "skip")
    labels = [read_label(row.values.get(source.choice.columns["label"])) for row in rows[:JUDGED]]
    first = f" of the first {JUDGED:,} rows" if len(rows) > JUDGED else ""
    yield "answers", f"{labels.count(True):,} wanted, {labels.count(False):,} unwanted{first}"


def _count(count: Count) -> str:
    if count.rows is None:
        return "not looked up"
    return f"{count.rows:,} rows" if count.exact else f"about {count.rows:,} rows"


def step_lines(run: Run, made: Plan) -> Iterator[tuple[str, str]]:
    """Batch arithmetic and steps."""
    train = run.train
    yield (
        "batch",
        (
            f"{train.batch_size} rows x {train.gradient_accumulation} accumulated x {made.processes} process"
            f"{'es' if made.processes > 1 else ''} = {made.global_batch_size} rows a step"
        ),
    )
    about = "" if made.exact else "about "
    if made.train_rows == 0 and run.train.max_steps is None:
        yield "steps", "not known before the rows are counted"
        return
    if made.epochs is None:
        yield "steps", f"{made.steps:,} (a stream)"
    else:
        yield "steps", f"{about}{made.steps:,} = {made.epochs:.3g} epochs of {made.steps_per_epoch:,}"
    evaluations = "never" if made.eval_every is None else f"every {made.eval_every:,} steps"
    saves = "never" if made.save_every is None else f"every {made.save_every:,} steps"
    yield "evaluates", f"{evaluations}, saves {saves}"


def size_lines(run: Run, checked: Checked, made: Plan) -> Iterator[tuple[str, str]]:
    """Memory and disk."""
    model = checked.found.model
    assert model is not None
    estimate = estimate_run(run, made, model.config, model.parameters) if model.config else None
    if estimate is None:
        yield "memory", "not estimated: the model's shape is not known here"
        return
    yield "memory", f"up to {describe(estimate)}, beside Python and its libraries"
    need, free = disk_need(run, made, estimate), disk_free(Path(made.folder))
    yield "disk", f"about {need / 2**20:,.0f} MiB of {free / 2**20:,.0f} MiB free"
