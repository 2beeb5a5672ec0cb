"""What this machine cannot do of what was asked, found without torch: an absent device, a missing extra."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from aitrain.config.run import Run
from aitrain.errors import Problem
from aitrain.look import Look
from aitrain.memory import Estimate, estimate_run
from aitrain.plan import Machine, Plan
from aitrain.registry import TRACKERS


def environment_problems(run: Run, machine: Machine) -> Iterator[Problem]:
    """Devices that are absent and packages that are not installed."""
    yield from _device(run, machine)
    tracker = TRACKERS.get(run.tracking.name)
    if tracker and util.find_spec(tracker.module) is None:
        yield missing_extra(f"tracking={run.tracking.name}", tracker.module, tracker.extra)


def missing_extra(key: str, module: str, extra: str) -> Problem:
    """The one line for a package that is not installed."""
    return Problem(key, f"needs the package '{module}'", f"pip install 'aitrain[{extra}]'")


def _device(run: Run, machine: Machine) -> Iterator[Problem]:
    kind, _, number = run.hardware.device.partition(":")
    if kind in ("cuda", "mps") and kind not in machine.accelerators:
        yield Problem("hardware.device", f"{run.hardware.device} is absent here", "use hardware.device=cpu, or auto")
    elif number and int(number) >= len(machine.accelerators):
        yield Problem("hardware.device", f"{run.hardware.device} is absent, there are {len(machine.accelerators)}")
    elif machine.accelerators and kind in ("cuda", "auto") and run.hardware.processes > len(machine.accelerators):
        yield Problem(
            "hardware.processes",
            f"{run.hardware.processes} processes need as many devices, there are {len(machine.accelerators)}",
        )


def disk_problem(run: Run, made: Plan, found: Look) -> Problem | None:
    """The refusal when the run's folder cannot hold what will be written to it; None when it can, or for an unknown
    model."""
    model = found.model
    estimate = estimate_run(run, made, model.config, model.parameters) if model and model.config else None
    if estimate is None:
        return None
    need, free = disk_need(run, estimate), disk_free(Path(made.folder))
    if need <= free:
        return None
    what = f"needs about {need / 2**20:,.0f} MiB for model and checkpoints, {free / 2**20:,.0f} MiB are free"
    return Problem("run.dir", what, "free some space, choose another run.dir, or lower train.save_total_limit")


def disk_need(run: Run, estimate: Estimate) -> int:
    """Bytes of the final model and of the checkpoints kept, one more while it is written."""
    state = estimate.parameters_bytes + estimate.optimizer_bytes
    kept = 0 if run.train.save_steps == "never" else (run.train.save_total_limit or 3) + 1
    return estimate.parameters_bytes + kept * state


def disk_free(folder: Path) -> int:
    """Free bytes where a folder is or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
