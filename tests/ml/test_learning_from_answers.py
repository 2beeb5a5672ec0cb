"""What holds for every trainer that learns from answers of its own: what a division, a restart, an adapter change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparing import assert_alike, measures, signal_in, training
from playing import GRPO, ONLINE_DPO, PPO, RLOO
from runs import assert_same_run, events, run

from aitrain.errors import Stopped
from aitrain.ml import rollouts
from aitrain.ml.compared import ComparedLoop
from aitrain.ml.ppo_trainer import PPOFit

TRAINERS: dict[str, dict[str, Any]] = {"ppo": PPO, "grpo": GRPO, "rloo": RLOO, "online_dpo": ONLINE_DPO}
DIVISIONS: dict[str, dict[str, Any]] = {
    "8x1": {},
    "4x2 padded": {"train__batch_size": 4, "train__gradient_accumulation": 2, "train__padding_free": False},
    "1x8": {"train__batch_size": 1, "train__gradient_accumulation": 8},
    "written in threes": {"rl__chunk_size": 3},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("answers")
    for name, words in TRAINERS.items():
        run(base / name, **words)
    return {name: base / name for name in TRAINERS}


@pytest.mark.parametrize("division", [name for name in DIVISIONS if name != "8x1"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_an_update_is_the_same_however_it_is_divided(
    trainer: str, division: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    run(tmp_path / "r", **{**TRAINERS[trainer], **DIVISIONS[division]})
    assert_alike(tmp_path / "r", whole[trainer])


# Updates and mini-batches that do not go up in two processes: the second has fewer of one, and none of the last.
ODD: dict[str, tuple[int, dict[str, Any]]] = {
    "ppo": (14, {"rl__mini_batch_size": 3}),
    "grpo": (28, {"rl__mini_batch_size": 3, "trainer__num_generations": 7}),
    "rloo": (28, {"rl__mini_batch_size": 3, "trainer__num_generations": 7}),
    "online_dpo": (14, {"rl__mini_batch_size": 6}),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_two_processes_make_the_update_of_one(trainer: str, tmp_path: Path) -> None:
    size, odd = ODD[trainer]
    words = {**TRAINERS[trainer], **odd, "train__max_steps": 2, "train__eval_steps": 2}
    run(tmp_path / "one", **{**words, "train__batch_size": size})
    run(tmp_path / "two", **{**words, "train__batch_size": size // 2, "hardware": "cpu_x2"})
    assert_alike(tmp_path / "two", tmp_path / "one")
    assert events(tmp_path / "two", "eval") == events(tmp_path / "one", "eval")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_an_adapter_is_held_to_the_model_without_it(trainer: str, tmp_path: Path) -> None:
    """Switched off it is the reference; a copy of the starting model as reference gives the same run."""
    changes = {**TRAINERS[trainer], "peft": "lora", "train__learning_rate": 1e-2}
    run(tmp_path / "off", **changes)
    run(tmp_path / "copy", **changes, trainer__ref_model="sample:tiny-qwen3")
    assert_alike(tmp_path / "off", tmp_path / "copy", 1e-6)
    if trainer == "ppo":  # its divergence is that of the policy that wrote, at first the reference itself
        assert training(tmp_path / "off")[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert abs(training(tmp_path / "off")[-1]["kl"]) > 1e-4


# --- a run that is stopped -----------------------------------------------------------------------------------------

FOUR = {"train__max_steps": 4, "train__save_steps": 1}
STEERED = {"trainer__kl_target": 0.05, "trainer__kl_horizon": 50}
LEARNING, JUDGING, WRITING = "learning", "judging", "writing"
PARTS: dict[str, dict[str, tuple[Any, str, int]]] = {
    "ppo": {LEARNING: (PPOFit, "_optimize", 10), JUDGING: (PPOFit, "judge", 3), WRITING: (rollouts, "sample", 4)},
    "grpo": {
        LEARNING: (ComparedLoop, "_optimize", 10),
        JUDGING: (ComparedLoop, "judge", 3),
        WRITING: (rollouts, "sample", 4),
    },
    "rloo": {LEARNING: (ComparedLoop, "_optimize", 10)},
    "online_dpo": {LEARNING: (ComparedLoop, "_optimize", 10)},
}
"""A part of each trainer's third update: the class or module that has it, its name, and which of its calls it is."""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("four")
    for name, words in TRAINERS.items():
        run(base / name, **{**words, **FOUR, **(STEERED if name == "ppo" else {})})
    return {name: base / name for name in TRAINERS}


@pytest.mark.parametrize(("trainer", "part"), [(trainer, part) for trainer, parts in PARTS.items() for part in parts])
def test_a_continued_run_is_the_same_run(trainer: str, part: str, four: dict[str, Path], tmp_path: Path) -> None:
    """Stopped by a signal in the third update: while it learns, which it ends, or while it plays, which it forgets."""
    folder, words = tmp_path / "stopped", {**TRAINERS[trainer], **FOUR, **(STEERED if trainer == "ppo" else {})}
    with pytest.MonkeyPatch.context() as patch:
        signal_in(patch, *PARTS[trainer][part])
        with pytest.raises(Stopped) as stopped:
            run(folder, **words)
    assert stopped.value.checkpoint
    assert stopped.value.checkpoint.endswith("step-000002" if part == WRITING else "step-000003")
    run(folder, **words, run__resume="auto")
    assert_same_run(folder, four[trainer])
    ours, theirs = training(folder), training(four[trainer])
    assert [measures(event) for event in ours] == [measures(event) for event in theirs]
