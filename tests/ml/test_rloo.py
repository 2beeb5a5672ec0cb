"""`trainer=rloo`: an update against a calculation by hand, keys that act, what changes nothing: divisions, restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import MEASURES, assert_alike, logps, plain, recording, signal_in, training
from playing import GROUPS
from runs import assert_same_run, distance, events, run, weights

from aitrain.errors import Stopped
from aitrain.ml import rloo_trainer
from aitrain.ml.rloo_trainer import RLOOFit

RLOO = {**GROUPS, "trainer": "rloo"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rloo") / "whole"
    run(folder, **RLOO)
    return folder


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        assert {*MEASURES, "objective", "seconds/generation", "seconds/update"} <= {*event}
        assert event["optimizer_steps"] == 4


def test_an_update_is_the_same_however_it_is_divided(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "r", **{**RLOO, "train__batch_size": 1, "train__gradient_accumulation": 8})
    assert_alike(tmp_path / "r", whole)


def test_two_processes_make_the_update_of_one(tmp_path: Path) -> None:
    odd = {"trainer__num_generations": 7, "rl__mini_batch_size": 3, "train__max_steps": 2, "train__eval_steps": 2}
    run(tmp_path / "one", **{**RLOO, **odd, "train__batch_size": 28})
    run(tmp_path / "two", **{**RLOO, **odd, "train__batch_size": 14, "hardware": "cpu_x2"})
    assert_alike(tmp_path / "two", tmp_path / "one")
    assert events(tmp_path / "two", "eval") == events(tmp_path / "one", "eval")


SETTINGS = {
    "model__path": "sample:tiny-llama",
    "trainer__ref_model": "sample:tiny-mistral",
    "trainer__epsilon_high": 0.02,
    "trainer__reward_clip_range": "[0.3, 0.8]",
    "rl__clip_range": 0.01,
    "rl__kl_coef": 0.3,
    "rl__temperature": 0.8,
    "train__max_steps": 1,
}


def test_an_update_equals_a_calculation_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, on single rows and plain forward passes: advantages, and the last loss."""
    kept: dict[str, Any] = {}
    monkeypatch.setattr(rloo_trainer, "RLOOFit", recording(RLOOFit, kept))
    run(tmp_path / "r", **{**RLOO, **SETTINGS})
    old, new = plain("sample:tiny-llama", kept["old"]), plain("sample:tiny-llama", kept["new"])
    reference = plain("sample:tiny-mistral")
    rewards = [
        min(max(answer.score, 0.3), 0.8) - 0.3 * (sum(logps(old, answer.row)) - sum(logps(reference, answer.row)))
        for answer in kept["answers"]
    ]
    advantages = {}
    for place, answer in enumerate(kept["answers"]):
        first = place // 4 * 4
        others = [rewards[other] for other in range(first, first + 4) if other != place]
        advantages[answer.number] = rewards[place] - sum(others) / 3
    assert kept["advantages"] == pytest.approx(list(advantages.values()), abs=1e-4)
    losses, clipped = [], []
    for item in kept["batch"]:
        advantage = advantages[item.answer.number]
        ratio = np.exp(sum(logps(new, item.answer.row)) - sum(logps(old, item.answer.row)))
        losses.append(-min(ratio * advantage, min(max(ratio, 0.99), 1.02) * advantage))
        clipped.append((ratio < 0.99 and advantage < 0) or (ratio > 1.02 and advantage > 0))
    assert any(clipped)
    assert kept["measured"]["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert kept["measured"]["policy_clip_fraction"] == pytest.approx(np.mean(clipped), abs=1e-6)


EFFECTS: dict[str, dict[str, Any]] = {
    "kl_coef": {"rl__kl_coef": 1.0},
    "no reference": {"rl__kl_coef": 0.0},
    "clip_range": {"rl__clip_range": 1e-4},
    "mini_batch_size": {"rl__mini_batch_size": 8},
    "num_generations": {"trainer__num_generations": 2},
    "num_iterations": {"trainer__num_iterations": 1},
    "normalize_advantages": {"trainer__normalize_advantages": True},
    "reward_clip_range": {"trainer__reward_clip_range": "[0.5, 0.6]"},
    "epsilon_high": {"trainer__epsilon_high": 1e-4},
    "ref_model": {"trainer__ref_model": "sample:tiny-mistral"},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_changes_what_is_learnt(name: str, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "r", **{**RLOO, **EFFECTS[name]})
    assert distance(weights(tmp_path / "r" / "model"), weights(whole / "model")) > 1e-6
    if name == "no reference":
        assert not any("kl" in event for event in training(tmp_path / "r"))


def test_an_adapter_is_held_to_the_model_without_it(tmp_path: Path) -> None:
    """Switched off it is the reference; a copy of the starting model as reference gives the same run."""
    changes = {**RLOO, "peft": "lora", "train__learning_rate": 1e-2}
    run(tmp_path / "off", **changes)
    run(tmp_path / "copy", **changes, trainer__ref_model="sample:tiny-qwen3")
    assert_alike(tmp_path / "off", tmp_path / "copy", 1e-6)
    assert abs(training(tmp_path / "off")[-1]["kl"]) > 1e-4


def test_a_continued_run_is_the_same_run(tmp_path: Path) -> None:
    four = {**RLOO, "train__max_steps": 4, "train__save_steps": 1}
    run(tmp_path / "four", **four)
    with pytest.MonkeyPatch.context() as patch:
        signal_in(patch, "_optimize", 10)
        with pytest.raises(Stopped):
            run(tmp_path / "stopped", **four)
    run(tmp_path / "stopped", **four, run__resume="auto")
    assert_same_run(tmp_path / "stopped", tmp_path / "four")
    ours, theirs = training(tmp_path / "stopped"), training(tmp_path / "four")
    assert [[e.get(name) for name in MEASURES] for e in ours] == [[e.get(name) for name in MEASURES] for e in theirs]
