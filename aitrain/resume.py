"""Whether a run's folder is free, can be continued, or holds a finished run; and what a continued run may change."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from aitrain.config.run import Run, leaves
from aitrain.errors import ConfigError, MachineError, Problem, Refused
from aitrain.lockfile import model_fingerprint
from aitrain.plan import Plan
from aitrain.report import Report
from aitrain.rundir import checkpoints
from aitrain.rundir.folder import CONFIG, CONTROL, LOCK, PLAN, REPORT, in_use_by, read_json, write_json
from aitrain.rundir.lineage import resume_problems

MAY_DIFFER = ("run.resume", "run.progress", "run.dir", "run.allow_downloads", "train.max_minutes",
              "train.logging_steps", "train.eval_batch_size", "train.save_total_limit", "hardware.stop_timeout",
              "hardware.collective_timeout", "generate.", "tracking.")  # fmt: skip
"""Keys that a continued run may have otherwise than before: they do not change what is learnt."""
MAY_DIFFER_WITHOUT_CHOICE = ("train.eval_steps", "train.save_steps")
"""Those that matter only where an evaluation decides: early stopping, and ending with the best weights."""
START = "start.json"
"""File in `control/` that names the checkpoint of another run with which this one began."""


def fresh_folder(run: Run) -> Path:
    """`outputs/NAME/TIMESTAMP`, made now, so that no other start takes the same name."""
    stem = Path("outputs") / run.run.name / time.strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = stem, 2
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1


def folder_problems(run: Run) -> tuple[Problem, ...]:
    """What is wrong with `run.dir` and `run.resume`, looked at without writing anything."""
    differing: list[Problem] = []
    try:
        if run.run.resume not in ("never", "auto"):
            differing = resume_problems(run, checkpoints.named(Path(run.run.resume)))
        if run.run.dir is not None:
            _refuse_unusable(Path(run.run.dir))
            done_in(Path(run.run.dir), run)
    except Refused as error:
        return (*differing, *error.problems)
    return tuple(differing)


def _refuse_unusable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise MachineError(Problem("run.dir", f"{folder} is a file", "choose another folder"))
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise MachineError(Problem("run.dir", f"{nearest} cannot be written to", "choose another run.dir"))
    if owner := in_use_by(folder):
        advice = "wait for it, stop it, or choose another run.dir"
        raise MachineError(Problem("run.dir", f"{folder} is in use by {owner}", advice))


def done_in(folder: Path, run: Run) -> Report | None:
    """The report of a run that is already finished in the folder, or None if the folder may be used or continued.

    Raises MachineError or ConfigError when it may not. A run ended by `train.max_minutes` can be continued.
    """
    entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if not any(name != CONTROL and not name.startswith(".") for name in entries):
        return None
    if run.run.resume != "auto":
        advice = "choose another run.dir, or continue that run with run.resume=auto"
        what = f"{folder} exists and is not empty"
        raise MachineError(Problem("run.dir", what, advice, fix="run.resume=auto"))
    if not (folder / CONFIG).is_file():
        raise MachineError(Problem("run.dir", f"{folder} holds no run to continue", "choose another run.dir"))
    _refuse_other_config(folder, run)
    values = read_json(folder / REPORT) or {}
    return Report(folder, values) if values.get("status") == "finished" else None


def _refuse_other_config(folder: Path, run: Run) -> None:
    old = dict(leaves(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))))
    new = dict(leaves(run.tree()))
    chooses = run.train.early_stopping_patience is not None or run.train.load_best
    free = MAY_DIFFER if chooses else (*MAY_DIFFER, *MAY_DIFFER_WITHOUT_CHOICE)
    problems = [
        Problem(key, f"was {old.get(key)!r}, is {new.get(key)!r}", "a run continues with what it began with")
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not key.startswith(free)
    ]
    if problems:
        raise ConfigError(problems)


def refuse_changed(folder: Path, run: Run, made: Plan) -> None:
    """Raise ConfigError when the rows or the model are other ones than when the folder's run began."""
    earlier = (read_json(folder / PLAN) or {}).get("tokens")
    if earlier is not None and _names(earlier) != _names(made.tokens):
        what = f"the rows of {run.data.described} changed since {folder} began"
        key = "data.path" if run.data.mixture is None else "data.mixture"
        raise ConfigError(Problem(key, what, "use a new run.dir"))
    model = (read_json(folder / LOCK) or {}).get("model")
    if model is not None and model != model_fingerprint(run):
        what = f"the files of {run.model.path} changed since {folder} began"
        raise ConfigError(Problem("model.path", what, "use a new run.dir"))


def _names(tokens: Mapping[str, str | None]) -> dict[str, str | None]:
    """The tables by their content's hash; the cache they lie in may have moved."""
    return {split: Path(folder).name if folder else None for split, folder in tokens.items()}


def remember_start(folder: Path, run: Run) -> None:
    """Note the checkpoint that `run.resume` names, for a continuation before this run has one of its own."""
    if run.run.resume not in ("never", "auto"):
        write_json(folder / CONTROL / START, {"checkpoint": str(Path(run.run.resume).absolute())})


def checkpoint_at_start(folder: Path) -> checkpoints.Checkpoint | None:
    """The checkpoint of another run with which the folder's run began, or None."""
    noted = read_json(folder / CONTROL / START)
    return checkpoints.named(Path(noted["checkpoint"])) if noted else None
