"""A run and what was found of its data to everything that is decided before processes start. Pure."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aitrain.config.run import Run
from aitrain.registry import trainer_of
from aitrain.rl.rows import rows_from


@dataclass(frozen=True)
class Auto:
    """A value that was left to us, and why it became what it is."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Machine:
    """What this machine offers, found without importing torch."""

    cores: int
    accelerators: tuple[str, ...]
    """`cuda` once for each NVIDIA device, or `mps`."""
    visible: tuple[str, ...] = ()
    """The devices in CUDA_VISIBLE_DEVICES, by number or UUID; empty when it is not set."""


@dataclass(frozen=True)
class Rows:
    """How many rows (or blocks) are trained and validated on; None for a stream."""

    train: int | None
    valid: int | None
    exact: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything decided before the start. Written to `plan.json`; the workers read it and change nothing."""

    folder: str
    device: str
    processes: int
    threads: int
    precision: str
    dtype: str
    learning_rate: float
    train_rows: int | None
    valid_rows: int | None
    exact: bool
    global_batch_size: int
    steps_per_epoch: int
    steps: int
    epochs: float | None
    eval_every: int | None
    save_every: int | None
    argv: tuple[str, ...]
    env: Mapping[str, str]
    autos: tuple[Auto, ...]
    origins: Mapping[str, str]
    tokens: Mapping[str, str | None]
    """Folders of the tokenised rows, by `train` and `valid`; empty before they are made and for a stream."""
    targets: Mapping[str, Any] | None = None
    """What is predicted of a row, as `aitrain.data.targets` has it; None for tasks that predict nothing of rows."""
    columns: Mapping[str, str] | None = None
    """The columns of a task that predicts something of a row, by what they mean."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `plan.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`."""
        autos = tuple(Auto(**auto) for auto in values["autos"])
        return cls(**{**values, "autos": autos, "argv": tuple(values["argv"])})


def plan(
    run: Run,
    rows: Rows,
    machine: Machine,
    folder: Path,
    tokens: Mapping[str, str | None] | None = None,
    targets: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Plan:
    """Batch arithmetic, steps, device, argv and environment; every `auto` with its reason."""
    autos: list[Auto] = []
    device = _device(run, machine, autos)
    trainer = trainer_of(run)
    steps_per_epoch, steps = _steps(run, rows) if trainer.encoder else (1, trainer.fits(run))
    processes = run.hardware.processes
    threads = _threads(run, machine, autos)
    if (name := rows_from(run)) is not None:
        autos.append(Auto("data.path", name, "the class brings its own rows"))
    if trainer.encoder is None:
        return _plan_of_fits(run, rows, folder, threads, steps, autos)
    evaluates = rows.valid != 0 and not run.train.overfit_batch
    return Plan(
        folder=str(folder),
        device=device,
        processes=processes,
        threads=threads,
        precision=_precision(run, device, autos),
        dtype=_dtype(run, autos),
        learning_rate=_learning_rate(run, autos),
        train_rows=rows.train,
        valid_rows=rows.valid,
        exact=rows.exact,
        global_batch_size=run.train.batch_size * run.train.gradient_accumulation * processes,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        epochs=steps / steps_per_epoch if rows.train else None,
        eval_every=_every(run.train.eval_steps, steps_per_epoch, steps) if evaluates else None,
        save_every=_every(run.train.save_steps, steps if run.train.overfit_batch else steps_per_epoch, steps),
        argv=_argv(processes, folder),
        env=_environment(run, device, threads, machine.visible),
        autos=tuple(autos),
        origins=dict(run.origins),
        tokens=dict(tokens or {}),
        targets=targets,
        columns=columns,
    )


def _plan_of_fits(run: Run, rows: Rows, folder: Path, threads: int, steps: int, autos: list[Auto]) -> Plan:
    """Of a trainer that fits no model of tokens: its steps are fits, in this process."""
    return Plan(
        folder=str(folder),
        device="cpu",
        processes=1,
        threads=threads,
        precision="fp64",
        dtype="float64",
        learning_rate=0.0,
        train_rows=rows.train,
        valid_rows=rows.valid,
        exact=rows.exact,
        global_batch_size=rows.train or 0,
        steps_per_epoch=1,
        steps=steps,
        epochs=None,
        eval_every=None,
        save_every=None,
        argv=(),
        env={"OMP_NUM_THREADS": str(threads)},
        autos=tuple(auto for auto in autos if auto.key != "hardware.device"),
        origins=dict(run.origins),
        tokens={},
    )


def _steps(run: Run, rows: Rows) -> tuple[int, int]:
    """Optimizer steps in an epoch and in all."""
    train = run.train
    if rows.train is None:
        assert train.max_steps is not None, "validation refuses a stream without train.max_steps"
        return train.max_steps, train.max_steps
    answers = trainer_of(run).answers(run)
    micro = math.ceil(rows.train * answers / (train.batch_size * run.hardware.processes))
    if train.overfit_batch:
        micro = train.gradient_accumulation
    per_epoch = max(1, math.ceil(micro / train.gradient_accumulation))
    # 1.1 * 100 is a little more than 110 in floating point, which must not become a step more.
    return per_epoch, train.max_steps or math.ceil(round(train.epochs * per_epoch, 9))


def _every(value: int | str, steps_per_epoch: int, steps: int) -> int | None:
    if value == "never":
        return None
    every = steps_per_epoch if value == "epoch" else int(value)
    return min(every, steps)


def _device(run: Run, machine: Machine, autos: list[Auto]) -> str:
    asked = run.hardware.device
    if asked != "auto":
        return asked
    if machine.accelerators:
        found = machine.accelerators[0]
        autos.append(Auto("hardware.device", found, f"{len(machine.accelerators)} {found} device(s) found"))
        return found
    autos.append(Auto("hardware.device", "cpu", "no accelerator found"))
    return "cpu"


def _threads(run: Run, machine: Machine, autos: list[Auto]) -> int:
    if run.hardware.threads is not None:
        return run.hardware.threads
    threads = max(1, machine.cores // run.hardware.processes)
    autos.append(Auto("hardware.threads", threads, f"{machine.cores} cores for {run.hardware.processes} process(es)"))
    return threads


def _precision(run: Run, device: str, autos: list[Auto]) -> str:
    if run.train.precision != "auto":
        return run.train.precision
    value, reason = ("bf16", "a GPU computes") if device.startswith("cuda") else ("fp32", f"on {device}")
    autos.append(Auto("train.precision", value, reason))
    return value


def _dtype(run: Run, autos: list[Auto]) -> str:
    if run.model.dtype != "auto":
        return run.model.dtype
    full = run.peft.name == "none"
    value = "float32" if full else "auto"
    reason = "all weights are trained" if full else "the frozen weights stay as the file has them"
    autos.append(Auto("model.dtype", value, reason))
    return value


def _learning_rate(run: Run, autos: list[Auto]) -> float:
    if run.train.learning_rate != "auto":
        return run.train.learning_rate
    rates = trainer_of(run).learning_rates
    if run.model.path.startswith("sample:tiny-"):
        kind, reason = "scratch", "a tiny model that begins untrained"
    elif run.model.path.startswith("sample:") and "taught" in rates:
        kind, reason = "taught", "a tiny model that was taught"
    elif run.peft.name != "none":
        kind, reason = "adapter", f"peft={run.peft.name}"
    else:
        kind, reason = "full", "all weights of a pretrained model"
    autos.append(Auto("train.learning_rate", rates[kind], reason))
    return rates[kind]


def _argv(processes: int, folder: Path) -> tuple[str, ...]:
    """The command that starts the workers through torchrun; empty when the run goes in place."""
    if processes == 1:
        return ()
    return (sys.executable, "-m", "aitrain.elastic", "--standalone", f"--nproc-per-node={processes}",
            "-m", "aitrain.worker", str(folder))  # fmt: skip


def _environment(run: Run, device: str, threads: int, visible: tuple[str, ...]) -> dict[str, str]:
    env = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        env["ACCELERATE_USE_CPU"] = "true"
    if device.startswith("cuda"):
        env |= _cuda_environment(run, device, visible)
    if not run.run.allow_downloads:
        env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return env


def _cuda_environment(run: Run, device: str, visible: tuple[str, ...]) -> dict[str, str]:
    """One process sees one device: of several the Trainer would take the first, and spread each batch over all."""
    env = {}
    if run.hardware.processes == 1:
        number = int(device.partition(":")[2] or 0)
        env["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    if run.train.deterministic:  # without it cuBLAS sums in an order that varies, and torch refuses to multiply
        env["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return env


def this_machine(exists: Callable[[str], bool] = os.path.exists) -> Machine:
    """Cores this process may use, and accelerators by their device files."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = sum(exists(f"/dev/nvidia{number}") for number in range(16))
    visible = tuple(v.strip() for v in (named or "").split(",") if v.strip() and v.strip() != "-1")
    if named is not None:
        cards = min(cards, len(visible))
    if cards:
        return Machine(cores, ("cuda",) * cards, visible)
    is_apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    return Machine(cores, ("mps",) if is_apple else ())
