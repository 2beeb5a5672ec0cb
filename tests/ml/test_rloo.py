"""`trainer=rloo`: an update against a calculation by hand, keys that act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import MEASURES, logps, plain, recording, training
from playing import RLOO
from runs import distance, run, weights

from aitrain.ml import rloo_trainer
from aitrain.ml.rloo_trainer import RLOOFit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rloo") / "whole"
    run(folder, **RLOO)
    return folder


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        assert {*MEASURES, "objective", "seconds/generation", "seconds/update"} <= {*event}
        assert event["optimizer_steps"] == 4


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
