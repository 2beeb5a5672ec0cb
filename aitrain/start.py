"""One run, from a request to its report: compose, validate, look, prepare, plan, launch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from aitrain.compose import Request, compose
from aitrain.config.run import Run
from aitrain.errors import ConfigError, MachineError, Problem, Refused, Stopped
from aitrain.lockfile import lock, model_fingerprint
from aitrain.look import Look, look
from aitrain.machine import disk_problem, environment_problems
from aitrain.plan import Machine, Plan, Rows, plan, this_machine
from aitrain.progress import write_log
from aitrain.registry import TRAINERS
from aitrain.report import Report, begin_report, end_report
from aitrain.resume import done_in, folder_problems, fresh_folder, refuse_changed, remember_start
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


def check(request: Request, *, ask_hub: bool = True) -> Checked:
    """Everything that can be known before torch loads. Raises Refused with all problems at once.

    Without `ask_hub` a Hub dataset is not looked at, which would take a network and some seconds.
    """
    composed = compose(request)
    run, problems = examine(composed)
    if run is None:
        raise ConfigError(problems)
    machine = this_machine()
    found = look(run, ask_hub=ask_hub)
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
    """The first of the jobs, all of them valid. Raises Refused with the problems of all jobs, each once."""
    if len(jobs) == 1:
        return check(jobs[0], ask_hub=ask_hub)
    first: Checked | None = None
    problems: list[Problem] = []
    folders: dict[str, int] = {}
    for number, job in enumerate(jobs):
        try:
            checked = check(job, ask_hub=ask_hub)
        except Refused as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        first = first or checked
        named = checked.run.run.dir
        if named is not None and named in folders:
            both = f"runs {folders[named]} and {number} would both write to {named}"
            problems.append(Problem("run.dir", both, "use hydra.sweep.dir"))
        folders.setdefault(str(named), number)
    if problems or first is None:
        raise Refused(problems)
    return first


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
        made = plan(run, prepared.rows, checked.machine, folder, prepared.tokens)
        refuse_changed(folder, run, made)
        return _carry_out(run, made, folder, prepared, command, stop)


def estimated_rows(checked: Checked) -> Rows:
    """Rows to train and validate on, before anything is tokenised. Blocks of plain text are estimated from bytes."""
    run, data = checked.run, checked.found.data
    assert data is not None
    total = data.train_count.rows
    if total is None and not run.data.streaming:
        return Rows(0, 0, exact=False)
    if run.data.streaming or total is None:
        return Rows(None, data.valid_count.rows if data.valid else 0, exact=False)
    if run.data.max_samples is not None:
        total = min(total, run.data.max_samples)
    exact = data.train_count.exact and run.data.on_bad_rows == "error" and run.data.truncation != "drop"
    held = data.valid_count.rows or 0
    if data.valid is None:
        held = max(0, min(round(total * run.data.valid_fraction), total - 1))
    train = total - held if data.valid is None else total
    if "data.block_size" in run.trainer.reads:
        blocks = sum(file.stat().st_size for file in data.train.files) // (BYTES_A_TOKEN * run.data.block_size) + 1
        return Rows(max(1, blocks * train // total), max(1, blocks * held // total) if held else 0, exact=False)
    return Rows(train, held, exact)


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

    with quiet(0):
        tokenizer = run_tokenizer(checked.run)
        return _tokenised(checked, tokenizer)


def _tokenised(checked: Checked, tokenizer: Any) -> Tokenised:
    from aitrain.data.prepare import prepare, prepare_validation

    run, data = checked.run, checked.found.data
    assert data is not None
    assert data.choice is not None
    encoder = TRAINERS[run.trainer.name].encoder(run)
    if run.data.streaming:
        stream = {"train": None, "stream": data.train.sizes()}
        if data.valid is None:
            columns = ", ".join(f"{role}={name}" for role, name in data.choice.columns.items())
            return Tokenised(Rows(None, 0), stream, {"columns": columns, "reason": data.choice.reason})
        done = prepare_validation(run, data.valid, data.choice, encoder, tokenizer)
        return Tokenised(Rows(None, done.valid_rows), {**stream, "valid": str(done.valid)}, done.facts)
    done = prepare(run, data.train, data.valid, data.choice, encoder, tokenizer)
    tokens = {"train": str(done.train), "valid": str(done.valid) if done.valid else None}
    return Tokenised(Rows(done.train_rows, done.valid_rows), tokens, done.facts)


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
    yield f"data     {run.data.path}: {rows}, {made.valid_rows or 0:,} to validate on"
    yield f"columns  {facts['columns']}  ({facts['reason']})"
    for split in ("train", "valid"):
        counts = facts.get(split) or {}
        said = {
            "truncated": f"cut to data.max_length={run.data.max_length} tokens (data.truncation={run.data.truncation})",
            "dropped": f"left out, longer than data.max_length={run.data.max_length} tokens (data.truncation=drop)",
            "bad": "left out as bad (data.on_bad_rows=skip)",
        }
        for name, what in said.items():
            if counts.get(name):
                yield f"rows     {counts[name]:,} of {counts['read']:,} {what}"
    yield f"steps    {made.steps:,}, {made.global_batch_size} rows each"


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
