"""The table of what must not change a result: trainers, families of models, layout, processes, full or adapter.

Each cell trains eight steps on rows of different length, over the end of an epoch, and is compared with the padded run
on one process: losses to 1e-5, weights to 1e-4, in float32. What cannot be laid end to end refuses to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from playing import GRPO, ONLINE_DPO, PPO, RLOO
from runs import distance, events, losses, run, weights

from aitrain import launch
from aitrain.errors import Refused

FAMILIES = {
    "llama": "sample:tiny-llama",
    "mistral with a window": "sample:tiny-mistral",
    "gemma-2 with soft caps": "sample:tiny-gemma2",
    "qwen3": "sample:tiny-qwen3",
    "hybrid with convolutions": "sample:tiny-lfm2",
}
QWEN, HYBRID = "qwen3", "hybrid with convolutions"
PEFT = {"full": {"train__learning_rate": 1e-3}, "lora": {"peft": "lora", "train__learning_rate": 5e-3}}
# 34 rows in steps of 8: the last step of an epoch has two rows, and the second process then has only a stand-in.
# Rows have up to 96 tokens, three times the windows of 32.
COMMON = {"data__max_samples": 36, "train__max_steps": 8, "train__eval_steps": 4, "train__save_steps": "never",
          "train__eval_on_start": False}  # fmt: skip
PAIRS = {"data__path": "sample:pydoc-pairs", "data__max_length": 96}
TRAINERS: dict[str, dict[str, Any]] = {
    "sft": {"data__path": "sample:pydoc", "data__max_length": 96},
    "pretrain": {"trainer": "pretrain", "data__path": "sample:pydoc-text", "data__block_size": 70},
    "dpo": {"trainer": "dpo", **PAIRS},
    "reward": {"trainer": "reward", "generate__count": None, **PAIRS},
    **{name: {"trainer": name, **PAIRS} for name in ("orpo", "cpo", "simpo", "kto")},
    "ppo": {**PPO, "rl__num_ppo_epochs": 1},
    **{words["trainer"]: {**words, "trainer__num_iterations": 1} for words in (GRPO, RLOO, ONLINE_DPO)},
}
ONE = {"hardware": "cpu", "train__batch_size": 8}
TWO = {"hardware": "cpu_x2", "train__batch_size": 2, "train__gradient_accumulation": 2}
LAYOUTS = ("padded", "end to end")
EVERYWHERE = ("sft", "pretrain", "dpo", "reward")
"""Trainers that are tried on every family; the others, which see a model through the same code, on two or one."""
PLAYING = ("ppo", "grpo", "rloo", "online_dpo")
END_TO_END = ("sft", "pretrain", *PLAYING)
Cell = tuple[str, str, str, str, int]
TABLE: list[Cell] = [
    cell
    for cell in product(TRAINERS, FAMILIES, PEFT, LAYOUTS, (1, 2))
    if (cell[3] == "padded" or (cell[0] in END_TO_END and cell[1] != HYBRID))
    and (cell[0] != "reward" or cell[1] != HYBRID)
    and (cell[0] in EVERYWHERE or cell[1] == QWEN or (cell[1] == HYBRID and cell[0] not in PLAYING[1:]))
]
"""The trainers on preferences pad their batches, and so does every trainer of a hybrid; transformers has no sequence
classifier for this one."""


class Prepared(Exception):
    """Raised instead of starting processes."""


def prepare(folder: Path, **changes: Any) -> None:
    """Everything of a run but its workers."""

    def stop_here(*args: Any) -> None:
        raise Prepared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "launch", stop_here)
        with pytest.raises(Prepared):
            run(folder, **changes)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Path]:
    """Folders of finished runs by trainer, family, peft, layout and processes."""
    base, made, pairs = tmp_path_factory.mktemp("matrix"), {}, []
    for number, (trainer, family, peft, layout, processes) in enumerate(TABLE):
        folder = base / str(number)
        changes = {**TRAINERS[trainer], **COMMON, **PEFT[peft], **(ONE if processes == 1 else TWO)}
        changes["model__path"] = FAMILIES[family]
        if trainer in PLAYING:  # where a policy has gone far, a difference in rounding soon draws another token
            changes["train__learning_rate"] = 1e-3
        if trainer in END_TO_END:
            changes["train__padding_free"] = layout == "end to end"
        if processes == 1:
            run(folder, **changes)
        else:
            prepare(folder, **changes)
            pairs.append(str(folder))
        made[trainer, family, peft, layout, processes] = folder
    worker = str(Path(__file__).with_name("matrix_worker.py"))
    command = [sys.executable, "-m", "aitrain.elastic", "--standalone", "--nproc-per-node=2", worker, *pairs]
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return made


MOVES = {"sft": 0.1, "pretrain": 0.03, "grpo": 1e-4, "rloo": 1e-4}
"""By how much the training loss moves at least, where not by 0.001; that of a pair begins at log 2, whatever the
weights, and that of a group stays near 0."""


def compare(folder: Path, reference: Path) -> None:
    ours, wanted = losses(folder), losses(reference)
    assert len(ours) == len(wanted) == 8
    assert max(abs(a - b) for a, b in zip(ours, wanted, strict=True)) <= 1e-5
    for mine, theirs in zip(events(folder), events(reference), strict=True):
        assert mine.get("tokens") == theirs.get("tokens")
        if mine["event"] == "train":
            assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        else:
            judged = "loss" if "loss" in theirs else "reward"
            assert mine[judged] == pytest.approx(theirs[judged], abs=1e-5)
            assert mine.get("token_accuracy") == theirs.get("token_accuracy")
    assert distance(weights(folder / "model"), weights(reference / "model")) <= 1e-4


@pytest.mark.parametrize("cell", TABLE, ids=lambda cell: "-".join(map(str, cell)))
def test_a_cell_trains_as_the_padded_run_on_one_process(table: dict[Cell, Path], cell: Cell) -> None:
    trainer, family, peft, _, _ = cell
    reference = table[trainer, family, peft, "padded", 1]
    first, *_, last = losses(reference)
    assert abs(last - first) > MOVES.get(trainer, 0.001), "the weights must move for this to say anything"
    compare(table[cell], reference)


@pytest.mark.parametrize("peft", PEFT)
def test_a_hybrid_refuses_to_be_laid_end_to_end(tmp_path: Path, peft: str) -> None:
    changes = {**COMMON, **TRAINERS["sft"], **PEFT[peft], **ONE, "model__path": FAMILIES[HYBRID]}
    with pytest.raises(Refused, match="lfm2") as refused:
        run(tmp_path / "asked", **changes, train__padding_free=True)
    assert [problem.key for problem in refused.value.problems] == ["train.padding_free"]
    assert not (tmp_path / "asked").exists()


def test_a_hybrid_is_padded_by_itself(table: dict[Cell, Path], tmp_path: Path) -> None:
    run(tmp_path / "r", **COMMON, **TRAINERS["sft"], **PEFT["full"], **ONE, model__path=FAMILIES[HYBRID])
    assert events(tmp_path / "r") == events(table["sft", HYBRID, "full", "padded", 1])
