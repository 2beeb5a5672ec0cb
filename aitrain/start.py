"""One run, from a request to its report: compose, validate, look, prepare, plan, launch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from aitrain.compose import Request, compose, swept_keys, words_about
from aitrain.config.rl import RL
from aitrain.config.run import Run
from aitrain.data.mixture import FoundSource, epoch_counts, may_share_rows
from aitrain.data.prepare import longest_row
from aitrain.data.splits import held_out_rows
from aitrain.data.targets import targets_from
from aitrain.errors import ConfigError, MachineError, Problem, Refused, Stopped
from aitrain.lockfile import lock, model_fingerprint
from aitrain.look import DataLook, Look, look, look_at_kept_rows
from aitrain.machine import disk_problem, environment_problems
from aitrain.plan import Machine, Plan, Rows, plan, this_machine
from aitrain.progress import write_log
from aitrain.registry import trainer_for, trainer_of
from aitrain.report import Report, begin_report, end_report
from aitrain.resume import done_in, folder_problems, fresh_folder, refuse_changed, remember_start
from aitrain.rl.rows import KEPT, keep_rows, rows_from, rows_of
from aitrain.rundir.folder import CONFIG, LOCK, MODEL, PLAN, acquire, write_json, write_text
from aitrain.rundir.stop import StopRequest
from aitrain.validate import examine

BYTES_A_TOKEN = 4
"""Usual for English text and a large vocabulary; only for estimates before anything is tokenised."""


@dataclass(frozen=True)
class Checked:
    """A valid run, with what was found of its data and model."""

    run: Run
    found: Look
    machine: Machine


def check(request: Request, *, ask_hub: bool = True, judge_rows: bool = True) -> Checked:
    """Everything that can be known before torch loads. Raises Refused with all problems at once.

    Without `ask_hub` a Hub dataset is not looked at, which would take a network and some seconds. Without `judge_rows`
    rows that can be read are not asked whether they can be used.
    """
    composed = compose(request)
    run, problems = examine(composed)
    if run is None or trainer_for(run.task.name, run.trainer.name) is None:
        raise ConfigError(problems)
    machine = this_machine()
    found = look(run, ask_hub=ask_hub, judge_rows=judge_rows)
    wrong = {problem.key for problem in problems}
    further = (*found.problems, *environment_problems(run, machine), *folder_problems(run))
    problems += [problem for problem in further if problem.key not in wrong]
    if problems:
        raise Refused(problems)
    checked = Checked(run, found, machine)
    likely = plan(run, estimated_rows(checked), machine, Path(run.run.dir or "."))
    if full := disk_problem(run, likely, found):
        raise MachineError(full)
    return checked


def check_jobs(jobs: Sequence[Request], *, ask_hub: bool = True) -> Checked:
    """The first of the jobs, all of them valid. Raises Refused with the problems of all jobs, each once, and with the
    jobs that have it where not all do."""
    if len(jobs) == 1:
        return check(jobs[0], ask_hub=ask_hub)
    first: Checked | None = None
    refused: dict[Problem, list[int]] = {}
    problems: list[Problem] = []
    folders: dict[str, int] = {}
    for number, job in enumerate(jobs):
        try:
            checked = check(job, ask_hub=ask_hub)
        except Refused as error:
            for problem in dict.fromkeys(error.problems):
                refused.setdefault(problem, []).append(number)
            continue
        first = first or checked
        named = checked.run.run.dir
        if named is not None and named in folders:
            both = f"runs {folders[named]} and {number} would both write to {named}"
            problems.append(Problem("run.dir", both, "use hydra.sweep.dir"))
        folders.setdefault(str(named), number)
    keys = swept_keys(jobs)
    words = [words_about(keys, job) for job in jobs]
    problems[:0] = [_in_jobs(problem, numbers, words) for problem, numbers in refused.items()]
    if problems or first is None:
        raise Refused(problems)
    return first


SHOWN_JOBS = 3
"""Runs of a multirun that a problem names."""


def _in_jobs(problem: Problem, numbers: Sequence[int], words: Sequence[str]) -> Problem:
    """A problem with the runs of a multirun that have it, unless all do; a correction would change the others too."""
    if len(numbers) == len(words):
        return problem
    shown = "; ".join(words[number] for number in numbers[:SHOWN_JOBS])
    more = f"; and {len(numbers) - SHOWN_JOBS} more" if len(numbers) > SHOWN_JOBS else ""
    runs = f"in {len(numbers)} of {len(words)} runs: {shown}{more}"
    return replace(problem, where=", ".join(filter(None, (problem.where, runs))), fix="")


def start(request: Request, *, command: str, default_folder: Path | None = None) -> Report:
    """Run what was asked for to its end, in this process or in those it starts.

    A run that is finished already gives its report at once, with `Report.found` true. Raises Refused before anything is
    written, Stopped after a checkpoint, TrainingFailed when training could not go on.
    """
    with StopRequest().listening() as stop:
        checked = check(request)
        run = checked.run
        named = Path(run.run.dir) if run.run.dir else default_folder
        if named and (done := done_in(named, run)):
            return replace(done, found=True)
        prepared = prepare_rows(checked)
        folder = named or fresh_folder(run)
        made = plan(
            run,
            prepared.rows,
            checked.machine,
            folder,
            prepared.tokens,
            prepared.facts.get("targets"),
            prepared.facts.get("roles"),
        )
        refuse_changed(folder, run, made)
        return _carry_out(run, made, folder, prepared, command, stop)


def estimated_rows(checked: Checked) -> Rows:
    """Rows to train and validate on, before anything is tokenised. Blocks of plain text are estimated from bytes."""
    run, data = checked.run, checked.found.data
    assert data is not None
    if run.data.streaming:
        return Rows(None, data.valid_count.rows or 0, exact=False)
    parts = estimated_parts(run, data)
    if parts is None:
        return Rows(0, 0, exact=False)
    train, held = sum(part.train for part in parts), sum(part.held for part in parts)
    skips = run.data.on_bad_rows == "skip" or run.data.truncation == "drop" or may_share_rows(data.sources)
    merges = any(source.chosen.conversation_extension > 1 for source in data.sources)
    if "data.block_size" in run.trainer.reads:
        bytes_of_row = sum(part.bytes_of_row * part.train for part in parts) / max(1, train)
        blocks = [int(rows * bytes_of_row / (BYTES_A_TOKEN * run.data.block_size)) + 1 for rows in (train, held)]
        return Rows(blocks[0], blocks[1] if held else 0, exact=False)
    return Rows(train, held, exact=data.train_count.exact and not skips and not merges)


@dataclass(frozen=True)
class Part:
    """What a source is expected to give: examples of an epoch, and examples to validate on."""

    train: int
    held: int
    bytes_of_row: float


def estimated_parts(run: Run, data: DataLook) -> list[Part] | None:
    """The examples expected of each source; None where only a download tells."""
    free, held = [], []
    make = trainer_of(run).encoder
    group = make(run).group if make is not None else 1
    for source in data.sources:
        rows, limit, merged = source.train_count.rows, source.chosen.max_samples, source.chosen.conversation_extension
        if rows is None or (source.valid is not None and source.valid_count.rows is None):
            return None
        rows = math.ceil((rows if limit is None else min(rows, limit)) / merged)
        named = source.valid is not None
        kept = math.ceil((source.valid_count.rows or 0) / merged)
        kept = kept if named else held_out_rows(rows, run.data.valid_fraction)
        # A trainer that reads single answers makes two examples of a pair.
        each = 2 if source.choice is not None and source.choice.shape == "pairs" and group == 1 else 1
        held.append(each * kept)
        free.append(each * (rows if named else rows - kept))
    counts = epoch_counts(free, [source.chosen.weight for source in data.sources], run.data.mixture_stopping)
    bytes_of_rows = [_bytes_of_row(source) for source in data.sources]
    return [Part(*part) for part in zip(counts, held, bytes_of_rows, strict=True)]


def _bytes_of_row(source: FoundSource) -> float:
    return sum(file.stat().st_size for file in source.train.files) / max(1, source.train_count.rows or 0)


# --- data ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenised:
    """Folders of the tokenised rows, their numbers, and what was counted; empty for a stream."""

    rows: Rows
    tokens: Mapping[str, str | None]
    facts: Mapping[str, Any]


def prepare_rows(checked: Checked) -> Tokenised:
    """Tokenise before any process group exists: one process works, none waits in a collective operation."""
    from aitrain.worker import quiet

    if (whole := trainer_of(checked.run).whole) is not None:
        assert checked.found.data is not None
        (source,) = checked.found.data.sources
        train, held, facts = whole(checked.run, source)
        return Tokenised(Rows(train, held), {}, facts)
    with quiet(0):
        tokenizer = run_tokenizer(checked.run)
        return _tokenised(with_rows(checked, tokenizer), tokenizer)


def with_rows(checked: Checked, tokenizer: Any) -> Checked:
    """The same, with rows that a class of the user's brings: made here, kept in the cache, and looked at."""
    run = checked.run
    name = rows_from(run)
    if name is None or not isinstance(run.rl, RL):
        return checked
    from aitrain.data.samples import cache_dir
    from aitrain.rl.chosen import make_environment

    text, digest = rows_of(make_environment(run.rl), tokenizer, name)
    file = keep_rows(text, digest, cache_dir() / KEPT)
    return replace(checked, found=replace(checked.found, data=look_at_kept_rows(run, name, file)))


def _tokenised(checked: Checked, tokenizer: Any) -> Tokenised:
    from aitrain.data.prepare import prepare

    run, data = checked.run, checked.found.data
    assert data is not None
    make = trainer_of(run).encoder
    assert make is not None
    done = prepare(run, data.sources, make(run), tokenizer)
    if (name := rows_from(run)) is not None:
        done.facts["rows_from"] = name
    if run.data.streaming:
        sizes = " ".join(source.train.sizes() for source in data.sources)
        return Tokenised(Rows(None, done.valid_rows), {"stream": sizes, **done.tokens}, done.facts)
    return Tokenised(Rows(done.train_rows, done.valid_rows), done.tokens, done.facts)


def run_tokenizer(run: Run) -> Any:
    """The tokenizer of `model.path`. Raises ConfigError when it cannot be loaded."""
    from aitrain.data.encoding import load_tokenizer

    path = run.model.path
    if path.startswith("sample:"):
        from aitrain.data.samples import sample_tokenizer

        path = str(sample_tokenizer(path.removeprefix("sample:")))
    try:
        return load_tokenizer(
            path,
            run.model.revision,
            trust_remote_code=run.model.trust_remote_code,
            allow_downloads=run.run.allow_downloads,
            chat_format=run.data.chat_format,
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(Problem("model.path", f"the tokenizer of {run.model.path} does not load: {first}")) from error


# --- running -------------------------------------------------------------------------------------------------------


def _carry_out(run: Run, made: Plan, folder: Path, prepared: Tokenised, command: str, stop: StopRequest) -> Report:
    try:
        held = acquire(folder)
    except OSError as error:
        what = f"{folder} cannot be written: {error.strerror}"
        raise MachineError(Problem("run.dir", what, "choose another run.dir")) from error
    try:
        if done := done_in(folder, run):  # another start may have finished it while this one tokenised
            return replace(done, found=True)
        return _run_in(folder, run, made, prepared, command, stop)
    finally:
        held.release()


def _run_in(folder: Path, run: Run, made: Plan, prepared: Tokenised, command: str, stop: StopRequest) -> Report:
    """Run in a folder that is ours, and leave a report whatever happens."""
    from aitrain.launch import launch

    is_new = not (folder / CONFIG).exists()
    try:
        _write_down(run, made, folder, prepared, command)
        announce(run, made, folder, prepared.facts)
        outcome = launch(run, made, folder, stop)
    except Refused as error:
        error.begun = True
        if is_new:  # nothing was trained, so nothing is left behind
            shutil.rmtree(folder, ignore_errors=True)
        else:
            end_report(folder, "stopped", None, str(error))
        raise
    except Stopped:
        end_report(folder, "stopped", None)
        raise
    except Exception as error:
        end_report(folder, "failed", None, str(error))
        raise
    _write_card(run, folder, outcome)
    return end_report(folder, "stopped" if outcome["ended_by"] == "minutes" else "finished", outcome)


def announce(run: Run, made: Plan, folder: Path, facts: Mapping[str, Any]) -> None:
    """Say what is about to be trained on, with the columns chosen and why, and every row that was cut or left out."""
    for line in opening(run, made, facts):
        write_log(folder, line)
        if run.run.progress != "none":
            print(line, flush=True)


def opening(run: Run, made: Plan, facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines that open a run."""
    yield f"run      {made.folder}"
    rows = "a stream" if made.train_rows is None else f"{made.train_rows:,} rows to train on"
    yield f"data     {facts.get('rows_from') or run.data.described}: {rows}, {made.valid_rows or 0:,} to validate on"
    for source in facts.get("sources", ()):
        yield f"source   {source_line(source)}"
    if "sources" not in facts:
        yield f"columns  {facts['columns']}  ({facts['reason']})"
    if facts.get("targets"):
        yield f"target   {targets_from(facts['targets']).described}"
    key, limit = longest_row(run)
    for split in ("train", "valid"):
        counts = facts.get(split) or {}
        said = {
            "truncated": f"cut to {key}={limit} tokens (data.truncation={run.data.truncation})",
            "dropped": f"left out, longer than {key}={limit} tokens (data.truncation=drop)",
            "bad": "left out as bad (data.on_bad_rows=skip)",
        }
        for name, what in said.items():
            if counts.get(name):
                yield f"rows     {counts[name]:,} of {counts['read']:,} {what}"
    if "wanted_rows" in facts:
        yield f"answers  {facts['wanted_rows']:,} wanted, {facts['unwanted_rows']:,} unwanted to train on"
    for note in facts.get("notes", ()):
        yield f"note     {note}"
    if trainer_of(run).encoder is None:
        yield f"fits     {made.steps:,} at most, of {run.trainer.name}"
    else:
        yield f"steps    {made.steps:,}, {made.global_batch_size} rows each"


def source_line(facts: Mapping[str, Any]) -> str:
    """One source of a mixture: its rows, its part of an epoch, its columns."""
    said = [f"{facts['read']:,} rows"] if "read" in facts else []
    if "share" in facts:
        said.append(f"{facts['examples']:,} in an epoch ({facts['share']:.1%})")
    if facts["weight"] is not None:
        said.append(f"weight {facts['weight']:g}")
    if facts.get("left_out"):
        said.append(f"{facts['left_out']:,} left out on which another source validates")
    return f"{facts['name']}: {', '.join([*said, facts['columns']])}  ({facts['reason']})"


def _write_down(run: Run, made: Plan, folder: Path, prepared: Tokenised, command: str) -> None:
    write_text(folder / CONFIG, yaml.safe_dump(run.tree(), sort_keys=False, allow_unicode=True))
    write_json(folder / PLAN, made.to_dict())
    remember_start(folder, run)
    write_json(folder / LOCK, lock(run, made, prepared.facts, model_fingerprint(run)))
    begin_report(run, made, folder, prepared.facts, command)


def _write_card(run: Run, folder: Path, outcome: Mapping[str, Any]) -> None:
    from aitrain.card import model_card

    if (folder / MODEL).is_dir():
        write_text(folder / MODEL / "README.md", model_card(run, outcome))
