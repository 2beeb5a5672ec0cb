"""Batch arithmetic against a run counted out by hand, every `auto` with its reason, and golden plans."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.config.run import Run
from aitrain.plan import Machine, Plan, Rows, plan, this_machine

MACHINE = Machine(cores=4, accelerators=())
FOLDER = Path("outputs/x")
GOLDEN = Path(__file__).resolve().parents[1] / "golden/plans"


def changed(run: Run, **values: Any) -> Run:
    """A run with other values, without another composition. Keys as `train__epochs`."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition("__")
        sections.setdefault(section, {})[name] = value
    made = {name: getattr(run, name).model_copy(update=update) for name, update in sections.items()}
    return Run(**{**{name: section for name, section in run.sections()}, **made}, origins=run.origins, given=run.given)


@pytest.fixture(scope="module")
def run(run_of: Callable[..., Run]) -> Run:
    return run_of()


def planned(run: Run, rows: int | None = 100, valid: int = 10, machine: Machine = MACHINE, **values: Any) -> Plan:
    return plan(changed(run, **values), Rows(rows, valid), machine, FOLDER)


def steps_counted(rows: int, batch: int, accumulation: int, processes: int) -> int:
    """Optimizer steps of one epoch, by dealing out the rows: every process takes a batch, the last may be short."""
    steps, left, held = 0, rows, 0
    while left > 0:
        left -= batch * processes
        held += 1
        if held == accumulation or left <= 0:
            steps, held = steps + 1, 0
    return steps


def test_steps_of_an_epoch_as_counted(run: Run) -> None:
    for rows, batch, accumulation, processes in itertools.product(
        (1, 2, 7, 8, 9, 63, 64, 65), (1, 3, 8), (1, 2, 5), (1, 2, 3)
    ):
        made = planned(
            run, rows, train__batch_size=batch, train__gradient_accumulation=accumulation,
            hardware__processes=processes,
            train__epochs=1.0,
        )  # fmt: skip
        case = (rows, batch, accumulation, processes)
        assert made.steps_per_epoch == made.steps == steps_counted(*case), case
        assert made.global_batch_size == batch * accumulation * processes
        assert made.epochs == 1.0


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0.01, 1), (0.5, 7), (1.0, 13), (1.5, 20), (2.0, 26), (3.0, 39), (0.999, 13)]
)
def test_a_part_of_an_epoch_is_rounded_up(run: Run, epochs: float, steps: int) -> None:
    made = planned(run, 100, train__epochs=epochs)
    assert (made.steps_per_epoch, made.steps) == (13, steps)


@pytest.mark.parametrize(("epochs", "steps"), [(1.1, 110), (0.07, 7), (0.55, 55)])
def test_no_step_is_added_by_floating_point(run: Run, epochs: float, steps: int) -> None:
    assert planned(run, 800, train__epochs=epochs).steps == steps


def test_max_steps_wins_and_says_how_many_epochs_that_is(run: Run) -> None:
    made = planned(run, 100, train__max_steps=5)
    assert (made.steps, made.steps_per_epoch) == (5, 13)
    assert made.epochs == pytest.approx(5 / 13)
    longer = planned(run, 100, train__max_steps=1000)
    assert longer.epochs == pytest.approx(1000 / 13)


def test_a_stream_has_steps_and_no_epochs(run: Run) -> None:
    made = planned(run, None, 0, train__max_steps=50, data__streaming=True)
    assert (made.steps, made.epochs, made.train_rows, made.eval_every) == (50, None, None, None)


def test_one_batch_again_and_again(run: Run) -> None:
    made = planned(run, 100, train__overfit_batch=True, train__epochs=30.0, train__gradient_accumulation=4)
    assert (made.steps_per_epoch, made.steps, made.eval_every, made.save_every) == (1, 30, None, 30)


@pytest.mark.parametrize(
    ("value", "every"), [("epoch", 13), ("never", None), (5, 5), (1, 1), (38, 38), (39, 39), (500, 39)]
)
def test_evaluations_and_checkpoints_never_lie_beyond_the_end(run: Run, value: Any, every: int | None) -> None:
    made = planned(run, 100, train__eval_steps=value, train__save_steps=value, train__epochs=3.0)
    assert (made.steps, made.eval_every, made.save_every) == (39, every, every)
    assert planned(run, 100, 0, train__eval_steps=value).eval_every is None


def test_every_auto_is_decided_with_a_reason(run: Run) -> None:
    made = planned(run)
    assert {auto.key: auto.value for auto in made.autos} == {
        "hardware.device": "cpu", "hardware.threads": 4, "train.precision": "fp32", "model.dtype": "float32",
        "train.learning_rate": 2e-3,
    }  # fmt: skip
    assert all(auto.reason for auto in made.autos)
    said = planned(
        run, hardware__device="cpu", hardware__threads=1, train__precision="bf16", model__dtype="bfloat16",
        train__learning_rate=1.0,
    )  # fmt: skip
    assert said.autos == ()
    assert (said.threads, said.precision, said.dtype, said.learning_rate) == (1, "bf16", "bfloat16", 1.0)


def test_a_trainer_says_what_the_learning_rate_becomes(run_of: Callable[..., Run]) -> None:
    for words, wanted in (
        (("trainer=dpo", "model.path=some/model"), 1e-6),
        (("trainer=dpo", "model.path=some/model", "peft=lora"), 1e-5),
        (("trainer=dpo",), 1e-4),  # the sample that was taught
        (("trainer=dpo", "model.path=sample:tiny-llama"), 2e-3),
        (("trainer=reward", "model.path=some/model"), 1e-5),
        (("trainer=sft", "model.path=sample:taught-llama"), 2e-5),
    ):
        made = planned(run_of(*words))
        assert made.learning_rate == wanted, words


def test_autos_on_a_gpu(run: Run) -> None:
    made = planned(run, machine=Machine(8, ("cuda", "cuda")), model__path="some/model")
    assert (made.device, made.precision, made.learning_rate) == ("cuda", "bf16", 2e-5)
    assert "ACCELERATE_USE_CPU" not in made.env
    assert planned(run, machine=Machine(8, ("mps",))).precision == "fp32"


def test_threads_are_shared_and_never_none(run: Run) -> None:
    assert [planned(run, hardware__processes=p).threads for p in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]


def test_several_processes_are_started_by_torchrun(run: Run) -> None:
    made = planned(run, hardware__processes=2)
    assert made.argv[:3] == (sys.executable, "-m", "aitrain.elastic")
    assert "--nproc-per-node=2" in made.argv
    assert made.argv[-1] == str(FOLDER)
    assert planned(run).argv == ()


def test_no_downloads_reaches_the_environment(run: Run) -> None:
    assert planned(run, run__allow_downloads=False).env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in planned(run, run__allow_downloads=True).env


def test_plan_json_gives_the_same_plan_back(run: Run) -> None:
    made = plan(run, Rows(100, 10, exact=False), MACHINE, FOLDER, {"train": "a", "valid": None})
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made


def test_this_machine_counts_the_devices_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def exists(path: str) -> bool:
        return path in ("/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2")

    for visible, count in {None: 3, "": 0, "-1": 0, "1": 1, "0,2": 2, "0,1,2,3,4": 3}.items():
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert this_machine(exists).accelerators == ("cuda",) * count
    assert this_machine(exists).cores >= 1


# --- golden --------------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[tuple[str, ...], Rows]] = {
    "default": ((), Rows(1000, 53)),
    "cpu_x2": (("hardware=cpu_x2", "train.gradient_accumulation=3"), Rows(1000, 53)),
    "pretrain": (("trainer=pretrain", "data.block_size=128", "train.epochs=0.5"), Rows(777, 41, exact=False)),
    "lora": (("peft=lora", "model.path=some/model", "train.load_best=true"), Rows(1000, 53)),
    "streaming": (
        ("data.streaming=true", "data.valid_split=test", "train.max_steps=500", "train.eval_steps=100",
         "train.save_steps=100", "run.allow_downloads=false"),
        Rows(None, 53),
    ),
    "max_steps": (("train.max_steps=10", "train.batch_size=4", "train.precision=bf16"), Rows(1000, 53)),
    "epochs": (("train.eval_steps=epoch", "train.save_steps=7", "train.epochs=2"), Rows(90, 10)),
    "overfit": (("train.overfit_batch=true", "train.epochs=50"), Rows(1000, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_golden_plans(run_of: Callable[..., Run], name: str) -> None:
    words, rows = CASES[name]
    values = plan(run_of(*words), rows, MACHINE, FOLDER).to_dict()
    del values["origins"]  # line numbers of conf/, which test_compose looks after
    values["argv"] = ["python" if word == sys.executable else word for word in values["argv"]]
    text = json.dumps(values, indent=2) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("AITRAIN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "AITRAIN_UPDATE_GOLDEN=1 writes it anew"
    assert math.isfinite(values["learning_rate"])
