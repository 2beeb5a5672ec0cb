"""`hardware`: one profile is one YAML; all of them have these keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


class Hardware(OptionSection):
    """Where the run computes and in how many processes."""

    name: str
    """The profile; choose it with `hardware=NAME`."""
    device: str
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`. One that is absent is refused. auto: a GPU if there is one."""
    processes: int = key(gt=0)
    """Processes on one machine. One runs in place; several are started by torchrun."""
    nodes: int = key(ge=1, le=1, visibility="advanced")
    """Machines. This version starts processes on one machine."""
    threads: int | None = key(gt=0)
    """CPU threads of each process. null: the machine's cores shared among the processes."""
    stop_timeout: float = key(gt=0, visibility="advanced")
    """Seconds that processes get to finish a checkpoint after a stop request before they are killed."""
    collective_timeout: float = key(gt=0, visibility="advanced")
    """Seconds a process waits for the others before it gives up."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if not DEVICE.fullmatch(self.device):
            yield Problem("hardware.device", f"{self.device!r} is no device", "there is auto, cpu, cuda, cuda:N, mps")
        if self.processes > 1 and re.fullmatch(r"cuda:\d+|mps", self.device):
            yield Problem(
                "hardware.processes",
                f"{self.processes} processes cannot share {self.device}",
                "use hardware.device=cuda",
            )
        chosen = max(run.strength("hardware.processes"), run.strength("hardware.name"))
        for name in ("stop_timeout", "collective_timeout"):
            # A recipe's value gives way to a profile or a number of processes typed on the command line.
            if self.processes == 1 and run.strength(f"hardware.{name}") >= max(1, chosen):
                yield Problem(f"hardware.{name}", "has no effect with one process", "set hardware.processes")
