"""One run, from a request to its report: compose, validate, look, prepare, plan, launch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aitrain.compose import Request, compose
from aitrain.config.run import Run, leaves
from aitrain.errors import ConfigError, MachineError, Problem, Refused, Stopped
from aitrain.lockfile import lock, model_fingerprint
from aitrain.look import Look, look
from aitrain.machine import disk_problem, environment_problems
from aitrain.plan import Machine, Plan, Rows, plan, this_machine
from aitrain.progress import write_log
from aitrain.report import Report, begin_report, end_report
from aitrain.rundir import checkpoints
from aitrain.rundir.folder import CONFIG, LOCK, MODEL, PLAN, REPORT, acquire, read_json, write_json, write_text
from aitrain.rundir.stop import StopRequest
from aitrain.validate import examine

MAY_DIFFER = ("run.resume", "run.progress", "run.dir", "run.allow_downloads", "train.max_minutes",
              "train.logging_steps", "train.eval_steps", "train.eval_batch_size", "train.save_steps",
              "train.save_total_limit", "hardware.stop_timeout", "hardware.collective_timeout",
              "generate.", "tracking.")  # fmt: skip
"""Keys that a continued run may have otherwise than before: they do not change what is learnt."""


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
    further = (*found.problems, *environment_problems(run, machine), *_resume_problems(run))
    problems += [problem for problem in further if problem.key not in wrong]
    if problems:
        raise Refused(problems)
    return Checked(run, found, machine)


def _resume_problems(run: Run) -> tuple[Problem, ...]:
    """What is wrong with the checkpoint that `run.resume` names."""
    if run.run.resume in ("never", "auto"):
        return ()
    try:
        checkpoints.named(Path(run.run.resume))
    except Refused as error:
        return error.problems
    return ()


def start(request: Request, *, command: str, default_folder: Path | None = None) -> Report:
    """Run what was asked for to its end, in this process or in those it starts.

    Raises Refused before anything is written, Stopped after a checkpoint, TrainingFailed when training could not go on.
    """
    with StopRequest().listening() as stop:
        checked = check(request)
        run = checked.run
        folder = Path(run.run.dir) if run.run.dir else default_folder or fresh_folder(run)
        if done := taken(folder, run):
            return done
        prepared = prepare_rows(checked)
        made = _plan(checked, folder, prepared)
        _refuse_if_changed(folder, run, made)
        if problem := disk_problem(run, made, checked.found):
            raise MachineError(problem)
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
    return Rows(train, held, exact)


def fresh_folder(run: Run) -> Path:
    """`outputs/NAME/TIMESTAMP`, not existing yet."""
    stem = Path("outputs") / run.run.name / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = stem, 2
    while folder.exists():
        folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return folder


def taken(folder: Path, run: Run) -> Report | None:
    """The report of a run that is already done in the folder, or None if it may be used or continued.

    Raises MachineError or ConfigError when it may not.
    """
    if folder.exists() and not folder.is_dir():
        raise MachineError(Problem("run.dir", f"{folder} is a file", "choose another folder"))
    if not folder.is_dir() or not any(entry.name != "control" for entry in folder.iterdir()):
        return None
    if run.run.resume != "auto":
        raise MachineError(
            Problem(
                "run.dir",
                f"{folder} exists and is not empty",
                "choose another run.dir, or continue that run with run.resume=auto",
                fix="run.resume=auto",
            )
        )
    if not (folder / CONFIG).is_file():
        raise MachineError(Problem("run.dir", f"{folder} holds no run to continue", "choose another run.dir"))
    _refuse_other_config(folder, run)
    values = read_json(folder / REPORT) or {}
    return Report(folder, values) if values.get("status") == "finished" else None


def _refuse_other_config(folder: Path, run: Run) -> None:
    old = dict(leaves(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))))
    new = dict(leaves(run.tree()))
    problems = [
        Problem(key, f"was {old.get(key)!r}, is {new.get(key)!r}", "a run continues with what it began with")
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not key.startswith(MAY_DIFFER)
    ]
    if problems:
        raise ConfigError(problems)


def _refuse_if_changed(folder: Path, run: Run, made: Plan) -> None:
    earlier = (read_json(folder / PLAN) or {}).get("tokens")
    if earlier is not None and _names(earlier) != _names(made.tokens):
        raise ConfigError(
            Problem("data.path", f"the rows of {run.data.path} changed since {folder} began", "use a new run.dir")
        )
    model = (read_json(folder / LOCK) or {}).get("model")
    if model is not None and model != model_fingerprint(run):
        raise ConfigError(
            Problem("model.path", f"the files of {run.model.path} changed since {folder} began", "use a new run.dir")
        )


def _names(tokens: Mapping[str, str | None]) -> dict[str, str | None]:
    """The tables by their content's hash; the cache they lie in may have moved."""
    return {split: Path(folder).name if folder else None for split, folder in tokens.items()}


# --- data ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenised:
    """Folders of the tokenised rows, their numbers, and what was counted; empty for a stream."""

    rows: Rows
    tokens: Mapping[str, str | None]
    facts: Mapping[str, Any]


def prepare_rows(checked: Checked) -> Tokenised:
    """Tokenise before any process group exists: one process works, none waits in a collective operation."""
    from aitrain.data.prepare import prepare, prepare_validation
    from aitrain.registry import TRAINERS
    from aitrain.worker import quiet_libraries

    run, data = checked.run, checked.found.data
    assert data is not None
    assert data.choice is not None
    quiet_libraries(0)
    tokenizer = run_tokenizer(run)
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


def _plan(checked: Checked, folder: Path, prepared: Tokenised) -> Plan:
    return plan(checked.run, prepared.rows, checked.machine, folder, prepared.tokens)


# --- running -------------------------------------------------------------------------------------------------------


def _carry_out(run: Run, made: Plan, folder: Path, prepared: Tokenised, command: str, stop: StopRequest) -> Report:
    from aitrain.launch import launch

    is_new = not folder.exists()
    try:
        held = acquire(folder)
    except OSError as error:
        raise MachineError(
            Problem("run.dir", f"{folder} cannot be written: {error.strerror}", "choose another run.dir")
        ) from error
    try:
        _write_down(run, made, folder, prepared, command)
        announce(run, made, folder, prepared.facts)
        outcome = launch(run, made, folder, stop)
    except Stopped as error:
        end_report(folder, "stopped", None)
        raise Stopped(error.signum, error.checkpoint) from None
    except Refused:
        if is_new:  # nothing was trained, so nothing is left behind
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:
        end_report(folder, "failed", None, str(error))
        raise
    finally:
        held.release()
    _write_card(run, folder, outcome)
    return end_report(folder, "finished", outcome)


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
    write_json(folder / LOCK, lock(run, made, prepared.facts, model_fingerprint(run)))
    begin_report(run, made, folder, prepared.facts, command)


def _write_card(run: Run, folder: Path, outcome: Mapping[str, Any]) -> None:
    from aitrain.card import model_card

    if (folder / MODEL).is_dir():
        write_text(folder / MODEL / "README.md", model_card(run, outcome))
