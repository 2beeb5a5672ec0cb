"""`config.yaml` and `plan.json` to a `Report`: what runs on each rank. It never sees Hydra.

Called in place for one process; `python -m aitrain.worker FOLDER` is what a launcher starts for several.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from aitrain.config.run import SECTIONS, TREE, Run, leaves
from aitrain.data.encoding import Encoder, LearnsTargets
from aitrain.data.mixture import FoundSource
from aitrain.data.targets import targets_from
from aitrain.errors import ConfigError, Problem, Refused, Stopped
from aitrain.plan import Plan
from aitrain.registry import ADAPTERS, TRACKERS, section_class, trainer_of
from aitrain.resume import checkpoint_at_start
from aitrain.rundir import checkpoints
from aitrain.rundir.events import EventLog, Listener, forget_after, now
from aitrain.rundir.folder import CONFIG, PLAN, read_json, wait_for_owner_to_end
from aitrain.rundir.lineage import resume_problems
from aitrain.rundir.status import state_of, write_status
from aitrain.rundir.stop import StopRequest
from aitrain.trackers.tracking import tracked

GRACE = 15.0
"""Seconds a failed rank waits for the launcher to end it."""
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Environment variables by which libraries keep silent."""


def read_run(folder: Path) -> Run:
    """The run that a folder's `config.yaml` describes. Raises pydantic's ValidationError for a file edited wrongly."""
    tree = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    origins = (read_json(folder / PLAN) or {}).get("origins", {})
    sections = {}
    for name in TREE:
        cls = SECTIONS.get(name) or section_class(name, tree[name]["name"])
        if cls is None:
            raise Refused(Problem(f"{name}.name", f"no option '{tree[name]['name']}' in this version"))
        sections[name] = cls.model_validate(tree[name])
    return Run(**sections, origins=origins, given=frozenset(key for key, _ in leaves(tree)))  # type: ignore[arg-type]


def work(
    folder: Path,
    *,
    rank: int = 0,
    world: int = 1,
    stop: StopRequest,
    listeners: tuple[Listener, ...] = (),
) -> dict[str, Any]:
    """Train one rank's share of the run in `folder`; returns the outcome as plain values.

    Raises Stopped, TrainingFailed or Refused; any other exception is a bug.
    """
    run, plan = read_run(folder), Plan.from_dict(read_json(folder / PLAN))
    if trainer_of(run).encoder is None:
        return _work(run, plan, folder, rank, world, stop, listeners)
    with quiet(rank), torch_settings(plan.threads):
        return _work(run, plan, folder, rank, world, stop, listeners)


def _work(
    run: Run, plan: Plan, folder: Path, rank: int, world: int, stop: StopRequest, listeners: tuple[Listener, ...]
) -> dict[str, Any]:
    from aitrain.ml.job import Job

    events = EventLog(folder, writes=rank == 0, listeners=listeners)
    with tracked(TRACKERS.get(run.tracking.name), run, folder, events):
        resume_from = _checkpoint_to_resume(run, folder, rank, events)
        adapter = ADAPTERS.get(run.peft.name)
        job = Job(
            run=run,
            plan=plan,
            folder=folder,
            rank=rank,
            world=world,
            events=events,
            stop=stop,
            resume_from=resume_from,
            encoder=_encoder(run, plan) if trainer_of(run).encoder else None,
            sources=() if trainer_of(run).encoder else _sources(run),
            metrics=trainer_of(run).metrics,
            stream=_stream(run) if run.data.streaming else None,
            adapt=partial(_adapt, adapter.apply, run.peft) if adapter else None,
        )
        with stop.training():
            outcome = trainer_of(run).train(job)
        events.add("end", outcome.steps, time=now())
        return asdict(outcome)


def _encoder(run: Run, plan: Plan) -> Encoder:
    make = trainer_of(run).encoder
    assert make is not None
    found = make(run)
    if plan.targets is not None and isinstance(found, LearnsTargets):
        return found.with_targets(targets_from(plan.targets))
    return found


def _stream(run: Run) -> Any:
    from aitrain.ml.job import Stream

    make = trainer_of(run).encoder
    assert make is not None
    return Stream(_sources(run), make(run))


def _sources(run: Run) -> Sequence[FoundSource]:
    """Where the rows are, for a trainer that reads them itself."""
    from aitrain.look import look_at_data

    return look_at_data(run, judge_rows=False).sources


def _adapt(apply: Callable[[Any, Any], Any], section: Any, model: Any) -> Any:
    return apply(model, section)


def _checkpoint_to_resume(run: Run, folder: Path, rank: int, events: EventLog) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of this folder, else the one that `run.resume` names."""
    found, faults = checkpoints.newest_valid(folder)
    if found is None:
        found = checkpoint_at_start(folder)
        if found and (problems := resume_problems(run, found)):
            raise ConfigError(problems)
    if rank == 0:
        step = found.step if found else 0
        forgotten = forget_after(folder, step) if events.path.exists() else 0
        events.add("resume" if found else "start", step, time=now())
        for wrong in faults:
            events.add("note", step, text=f"checkpoint not used: {wrong}")
        if forgotten:
            events.add("note", step, text=f"{forgotten} events after the last checkpoint are recorded again")
    return found


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """Compute with so many threads; this and what the run sets besides is as before at the end."""
    import torch

    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)


@contextmanager
def quiet(rank: int) -> Iterator[None]:
    """`quiet_libraries` for a while."""
    from transformers.utils import logging as transformers_logging

    verbosity, disabled = transformers_logging.get_verbosity(), logging.root.manager.disable
    has_bars = transformers_logging.is_progress_bar_enabled()
    with environment({name: os.environ.get(name, value) for name, value in QUIET.items()}), warnings.catch_warnings():
        quiet_libraries(rank)
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if has_bars:
                transformers_logging.enable_progress_bar()
            logging.disable(disabled)


def quiet_libraries(rank: int) -> None:
    """Keep the libraries' own progress bars and chatter out of ours; of other ranks their warnings too."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if rank != 0:
        logging.disable(logging.WARNING)


def _end_with_owner(folder: Path) -> None:
    """End this process when the one that owns the run ends: a killed launcher leaves no worker behind."""

    def watch() -> None:
        wait_for_owner_to_end(folder)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str] | None = None) -> int:
    """One rank started by torchrun. Its last word goes to a status file, which the launcher reads."""
    folder = Path((argv or sys.argv[1:])[0])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _end_with_owner(folder)
    write_status(folder, rank, "running")
    try:
        with ExitStack() as views:
            listeners = _listeners(folder, rank, views)
            outcome = work(folder, rank=rank, world=world, stop=StopRequest(folder), listeners=listeners)
        if rank == 0:
            from aitrain.rundir.folder import CONTROL, OUTCOME, write_json

            write_json(folder / CONTROL / OUTCOME, outcome)
    except BaseException as error:
        write_status(folder, rank, state_of(error), error)
        if isinstance(error, Stopped):  # agreed on by all ranks, so torchrun has nothing to complain of
            return 0
        # The launcher reads the status and ends every process at once. Ending by ourselves first would make torchrun
        # bury the message under a report of its own.
        time.sleep(GRACE)
        return 1
    write_status(folder, rank, "finished")
    return 0


def _listeners(folder: Path, rank: int, views: ExitStack) -> tuple[Listener, ...]:
    if rank != 0:
        return ()
    from aitrain.progress import progress_view

    run, plan = read_run(folder), Plan.from_dict(read_json(folder / PLAN))
    return (views.enter_context(closing(progress_view(run, plan, folder))),)


if __name__ == "__main__":
    sys.exit(main())
