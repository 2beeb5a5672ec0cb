"""What this machine cannot do of what was asked, found without torch: an absent device, a missing extra."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util

from aitrain.config.run import Run
from aitrain.errors import Problem
from aitrain.plan import Machine
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
    elif kind == "cuda" and run.hardware.processes > len(machine.accelerators):
        yield Problem(
            "hardware.processes",
            f"{run.hardware.processes} processes need as many devices, there are {len(machine.accelerators)}",
        )
