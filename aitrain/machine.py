"""What this machine cannot do of what was asked, found without torch: an absent device, a missing extra."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from aitrain.config.run import Run
from aitrain.errors import Problem
from aitrain.look import Look
from aitrain.memory import Estimate, estimate_run
from aitrain.plan import Machine, Plan
from aitrain.registry import TRACKERS, trainer_of


def environment_problems(run: Run, machine: Machine) -> Iterator[Problem]:
    """Devices that are absent or cannot compute as asked, and packages that are not installed."""
    yield from _device(run, machine)
    on_cpu = run.hardware.device == "cpu" or (run.hardware.device == "auto" and not machine.accelerators)
    if run.train.precision == "fp16" and on_cpu:
        found = "" if run.hardware.device == "cpu" else ", and no accelerator was found"
        yield Problem("train.precision", f"fp16 does not train on a CPU{found}", "use train.precision=bf16 or fp32")
    yield from _vllm(run, on_cpu)
    for module, extra in trainer_of(run).packages(run).items():
        if util.find_spec(module) is None:
            yield missing_extra(f"task={run.task.name}", module, extra)
    tracker = TRACKERS.get(run.tracking.name)
    if tracker and util.find_spec(tracker.module) is None:
        yield missing_extra(f"tracking={run.tracking.name}", tracker.module, tracker.extra)


def _vllm(run: Run, on_cpu: bool) -> Iterator[Problem]:
    rl: Any = run.rl
    if rl.name == "none" or not rl.use_vllm:
        return
    if util.find_spec("vllm") is None:
        yield missing_extra("rl.use_vllm", "vllm", "vllm")
    if on_cpu:
        what = "vLLM writes on a GPU, and this run is on a CPU"
        yield Problem("rl.use_vllm", what, "leave it out: the model then writes by itself", fix="rl.use_vllm=false")


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
    need, free = disk_need(run, made, estimate), disk_free(Path(made.folder))
    if need <= free:
        return None
    what = f"needs about {need / 2**20:,.0f} MiB for model and checkpoints, {free / 2**20:,.0f} MiB are free"
    return Problem("run.dir", what, "free some space, choose another run.dir, or lower train.save_total_limit")


def disk_need(run: Run, made: Plan, estimate: Estimate) -> int:
    """Bytes of the final model and of the checkpoints on disk at once."""
    state = estimate.parameters_bytes + estimate.optimizer_bytes
    return estimate.parameters_bytes + checkpoints_at_once(run, made) * state


def checkpoints_at_once(run: Run, made: Plan) -> int:
    """Most checkpoints that lie on disk together: those within the limit, the best one, and the one being written;
    without a limit every one."""
    if made.save_every is None:
        return 0
    limit = run.train.save_total_limit
    written = math.ceil(made.steps / made.save_every)
    if limit is None:
        return written
    kept = limit + (made.eval_every is not None) + 1
    rows_are_known = made.train_rows != 0 or run.train.max_steps is not None
    return min(kept, written) if rows_are_known else kept


def disk_free(folder: Path) -> int:
    """Free bytes where a folder is or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
