"""What a run asks of CUDA, without a GPU: the environment planned, what is compared at the launch, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aitrain.config.run import Run
from aitrain.errors import MachineError
from aitrain.ml.causal import CausalTrainer
from aitrain.ml.fitting import check_launch, check_precision
from aitrain.plan import Machine, Plan, Rows, plan, this_machine


def planned(run_of: Callable[..., Run], *words: str, visible: tuple[str, ...] = (), cards: int = 3) -> Plan:
    machine = Machine(4, ("cuda",) * cards, visible)
    return plan(run_of(*words), Rows(100, 10), machine, Path("outputs/x"))


@pytest.mark.parametrize(("device", "visible", "wanted"), [
    ("auto", (), "0"), ("cuda", (), "0"), ("cuda:0", (), "0"), ("cuda:2", (), "2"),
    ("auto", ("5", "3"), "5"), ("cuda", ("5", "3"), "5"), ("cuda:1", ("5", "3"), "3"),
    ("cuda:1", ("GPU-aa", "GPU-bb"), "GPU-bb"),
])  # fmt: skip
def test_one_process_sees_the_device_asked_for_and_no_other(
    run_of: Callable[..., Run], device: str, visible: tuple[str, ...], wanted: str
) -> None:
    made = planned(run_of, f"hardware.device={device}", visible=visible)
    assert made.env["CUDA_VISIBLE_DEVICES"] == wanted


def test_several_processes_see_all_devices_and_a_cpu_run_is_told_nothing(run_of: Callable[..., Run]) -> None:
    many = planned(run_of, "hardware.device=cuda", "hardware.processes=2")
    assert "CUDA_VISIBLE_DEVICES" not in many.env
    assert "CUDA_VISIBLE_DEVICES" not in planned(run_of, "hardware.device=cpu").env


def test_this_machine_names_the_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0,-1")
    assert this_machine(lambda path: path < "/dev/nvidia4").visible == ("2", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert this_machine(lambda path: path < "/dev/nvidia4").visible == ()


def test_determinism_on_cuda_fixes_the_order_in_which_cublas_sums(run_of: Callable[..., Run]) -> None:
    name, on = "CUBLAS_WORKSPACE_CONFIG", "train.deterministic=true"
    assert planned(run_of, "hardware.device=cuda", on).env[name] == ":4096:8"
    assert planned(run_of, "hardware.device=cuda", "hardware.processes=2", on).env[name] == ":4096:8"
    assert name not in planned(run_of, "hardware.device=cuda", "train.deterministic=false").env
    assert name not in planned(run_of, "hardware.device=cpu", on).env


def job(made: Plan) -> Any:
    return SimpleNamespace(plan=made)


def test_a_process_that_sees_several_devices_is_refused(run_of: Callable[..., Run]) -> None:
    asked = job(planned(run_of, "hardware.device=cuda"))
    args: Any = SimpleNamespace(world_size=1, n_gpu=1, device=torch.device("cuda", 0))
    check_launch(args, asked)
    args.n_gpu = 2
    with pytest.raises(MachineError, match="asked for 1, but the workers got 2"):
        check_launch(args, asked)


def test_bf16_on_a_gpu_without_it_is_refused(run_of: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(run_of, "hardware.device=cuda")
    assert made.precision == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match=r"hardware.device: torch .* can use no CUDA device"):
        check_precision(job(made))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    has: list[bool] = [True]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has[0] and not including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    check_precision(job(made))
    has[0] = False
    with pytest.raises(MachineError, match=r"train.precision: Tesla T4 .* use train.precision=fp16 or fp32"):
        check_precision(job(made))
    check_precision(job(replace(made, precision="fp16")))
    check_precision(job(planned(run_of, "hardware.device=cpu", "train.precision=bf16")))


def test_memory_is_that_of_the_gpu_or_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000 + device.index)
    trainer = SimpleNamespace(args=SimpleNamespace(device=torch.device("cuda", 1)), _agree=lambda value: value)
    assert CausalTrainer.peak_device_memory(trainer) == 1001  # type: ignore[arg-type]
    trainer.args.device = torch.device("cpu")
    assert CausalTrainer.peak_device_memory(trainer) is None  # type: ignore[arg-type]
