"""`trainer=grpo`: an update against a calculation by hand, keys that act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import MEASURES, assert_alike, logps, plain, recording, training
from playing import GRPO
from runs import distance, run, weights

from aitrain.errors import Refused
from aitrain.ml import grpo_trainer
from aitrain.ml.groups import GroupLoop
from aitrain.ml.grpo_trainer import GRPOFit
from aitrain.rundir.events import read_events


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo") / "whole"
    run(folder, **GRPO)
    return folder


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        assert {*MEASURES, "seconds/generation", "seconds/scoring", "seconds/judging", "seconds/update"} <= {*event}
        assert event["optimizer_steps"] == 4
    before, after = (event for event in read_events(whole) if event["event"] == "eval")
    assert {"reward", "length", "ended"} <= {*before}
    assert before["reward"] != after["reward"]


def test_an_epoch_has_each_prompt_once(whole: Path) -> None:
    """18 prompts, two an update: nine updates."""
    assert [event["epoch"] for event in training(whole)] == pytest.approx([1 / 9, 2 / 9, 3 / 9])


# --- an update by hand ---------------------------------------------------------------------------------------------


SETTINGS = {
    "model__path": "sample:tiny-llama",
    "trainer__ref_model": "sample:tiny-mistral",
    "trainer__use_bias_correction_kl": False,
    "trainer__epsilon_high": 0.02,
    "rl__clip_range": 0.01,
    "rl__kl_coef": 0.3,
    "rl__temperature": 0.8,
    "train__max_steps": 1,
}


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_an_update_equals_a_calculation_by_hand(
    loss_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token in float64, on single rows and plain forward passes: advantages, and the last loss."""
    kept: dict[str, Any] = {}
    monkeypatch.setattr(grpo_trainer, "GRPOFit", recording(GRPOFit, kept))
    run(tmp_path / "r", **{**GRPO, **SETTINGS, "trainer__loss_type": loss_type, "train__batch_size": 8})
    advantages = by_hand(kept["answers"])
    assert kept["advantages"] == pytest.approx(list(advantages.values()), abs=1e-6)
    old, new = plain("sample:tiny-llama", kept["old"]), plain("sample:tiny-llama", kept["new"])
    reference = plain("sample:tiny-mistral")
    losses, clipped, apart = [], [], []
    for item in kept["batch"]:
        before, now, held = (logps(model, item.answer.row) for model in (old, new, reference))
        advantage = advantages[item.answer.number]
        of_tokens = []
        for was, is_, ref in zip(before, now, held, strict=True):
            ratio = np.exp(is_ - was)
            bounded = min(max(ratio, 1 - 0.01), 1 + 0.02)
            penalty = np.exp(ref - is_) - (ref - is_) - 1
            of_tokens.append(-min(ratio * advantage, bounded * advantage) + 0.3 * penalty)
            clipped.append((ratio < 0.99 and advantage < 0) or (ratio > 1.02 and advantage > 0))
        apart.append(sum(now) - sum(held))
        losses.append(of_tokens)
    tokens = sum(map(len, losses))
    loss = {
        "dapo": sum(map(sum, losses)) / tokens,
        "grpo": np.mean([np.mean(each) for each in losses]),
        "dr_grpo": sum(map(sum, losses)) / (len(losses) * 10),
    }[loss_type]
    assert 0 < np.mean(clipped) < 1
    assert kept["measured"]["loss"] == pytest.approx(loss, abs=2e-5)
    assert kept["measured"]["policy_clip_fraction"] == pytest.approx(np.mean(clipped), abs=1e-6)
    assert kept["measured"]["kl"] == pytest.approx(np.mean(apart), abs=1e-3)


def by_hand(answers: Any) -> dict[int, float]:
    """By the number of an answer: its reward less the group's mean, by the group's standard deviation."""
    found = {}
    for start in range(0, len(answers), 4):
        group = [answer.score for answer in answers[start : start + 4]]
        mean = sum(group) / 4
        deviation = (sum((score - mean) ** 2 for score in group) / 3) ** 0.5
        for answer in answers[start : start + 4]:
            found[answer.number] = (answer.score - mean) / (deviation + 1e-4)
    return found


# --- keys ----------------------------------------------------------------------------------------------------------

LOW = {"rl__clip_range": 1e-3}
TWO = {
    "rl": "multi_objective",
    "rl__reward_fn": "[{name: length, target: 30, unit: characters}, repetition]",
    "rl__reward_weights": "[2.0, 0.5]",
}
SEQUENCE = {"trainer__loss_type": "grpo", "trainer__importance_sampling_level": "sequence"}
UNEVEN = {"rl__stop_strings": "[e]", "rl__max_new_tokens": 3}
"""Answers of several lengths, some of which end."""
EFFECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kl_coef": ({}, {"rl__kl_coef": 1.0}),
    "no reference": ({}, {"rl__kl_coef": 0.0}),
    "clip_range": ({}, LOW),
    "mini_batch_size": ({}, {"rl__mini_batch_size": 8}),
    "max_new_tokens": ({}, {"rl__max_new_tokens": 5}),
    "temperature": ({}, {"rl__temperature": 0.5}),
    "top_k": ({}, {"rl__top_k": 20}),
    "top_p": ({}, {"rl__top_p": 0.5}),
    "stop_strings": ({}, {"rl__stop_strings": "[e]"}),
    "reward_fn": ({}, {"rl__reward_fn": "repetition"}),
    "num_generations": ({}, {"trainer__num_generations": 2}),
    "num_iterations": ({}, {"trainer__num_iterations": 1}),
    "grpo": ({}, {"trainer__loss_type": "grpo", "trainer__scale_rewards": "none"}),
    "dr_grpo": (UNEVEN, {"trainer__loss_type": "dr_grpo"}),
    "bnpo": ({**UNEVEN, "train__batch_size": 2, "train__gradient_accumulation": 4}, {"trainer__loss_type": "bnpo"}),
    "cispo": ({}, {"trainer__loss_type": "cispo"}),
    "sapo": ({}, {"trainer__loss_type": "sapo"}),
    "luspo": (SEQUENCE, {"trainer__loss_type": "luspo"}),
    "vespo": ({}, {"trainer__loss_type": "vespo"}),
    "scale by batch": ({}, {"trainer__scale_rewards": "batch"}),
    "scale_rewards": ({}, {"trainer__scale_rewards": "none"}),
    "aggregation": (TWO, {"trainer__multi_objective_aggregation": "normalize_then_sum"}),
    "sequence": ({"trainer__loss_type": "grpo"}, SEQUENCE),
    "epsilon_high": (LOW, {"trainer__epsilon_high": 0.5}),
    "delta": ({}, {"trainer__delta": 1.0001}),
    "mask_truncated": (UNEVEN, {"trainer__mask_truncated_completions": True}),
    "entropy_coef": ({}, {"trainer__entropy_coef": 0.5}),
    "top_entropy_quantile": ({}, {"trainer__top_entropy_quantile": 0.2}),
    "off_policy_mask_threshold": ({}, {"trainer__off_policy_mask_threshold": 1e-9}),
    "use_bias_correction_kl": ({}, {"trainer__use_bias_correction_kl": False}),
    "sapo_temperature_pos": ({"trainer__loss_type": "sapo"}, {"trainer__sapo_temperature_pos": 20.0}),
    "sapo_temperature_neg": ({"trainer__loss_type": "sapo"}, {"trainer__sapo_temperature_neg": 20.0}),
    "vespo_k_pos": ({"trainer__loss_type": "vespo"}, {"trainer__vespo_k_pos": 9.0}),
    "vespo_lambda_pos": ({"trainer__loss_type": "vespo"}, {"trainer__vespo_lambda_pos": 9.0}),
    "vespo_k_neg": ({"trainer__loss_type": "vespo"}, {"trainer__vespo_k_neg": 9.0}),
    "vespo_lambda_neg": ({"trainer__loss_type": "vespo"}, {"trainer__vespo_lambda_neg": 9.0}),
    "ref_model": ({}, {"trainer__ref_model": "sample:tiny-mistral"}),
    "seed": ({}, {"run__seed": 3}),
}
"""For each key: what it is compared with, and what is changed."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of some changes, made once."""
    made: dict[str, Path] = {}

    def of(changes: dict[str, Any]) -> Path:
        if str(changes) not in made:
            made[str(changes)] = tmp_path_factory.mktemp("grpo") / "r"
            run(made[str(changes)], **{**GRPO, **changes})
        return made[str(changes)]

    return of


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_changes_what_is_learnt(name: str, compared: Any, tmp_path: Path) -> None:
    base, changes = EFFECTS[name]
    before = compared(base)
    run(tmp_path / "r", **{**GRPO, **base, **changes})
    assert distance(weights(tmp_path / "r" / "model"), weights(before / "model")) > 1e-6
    changed = training(tmp_path / "r")
    if name == "no reference":
        assert not any("kl" in event for event in changed)
    if name == "max_new_tokens":
        assert max(event["length"] for event in changed) <= 5
    if name == "clip_range":
        assert changed[0]["policy_clip_fraction"] > training(before)[0]["policy_clip_fraction"] + 0.1
    if name in ("mini_batch_size", "num_iterations"):
        assert all(event["optimizer_steps"] == 2 for event in changed)


def test_several_rewards_are_weighted_and_told_apart(compared: Any, tmp_path: Path) -> None:
    for event in training(compared(TWO)):
        parts = 2.0 * event["reward/length"] + 0.5 * event["reward/repetition"]
        assert event["reward"] == pytest.approx(parts, abs=1e-6)
    with pytest.raises(Refused, match="multi_objective"):
        run(tmp_path / "no", **{**GRPO, **TWO, "rl__multi_objective": False})
    assert not (tmp_path / "no").exists()


def test_nothing_is_remembered_where_the_policy_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass in one mini-batch needs no log-probabilities of the old policy, and learns the same from them."""
    once = {**GRPO, "trainer__num_iterations": 1, "rl__mini_batch_size": 8}
    run(tmp_path / "without", **once)
    monkeypatch.setattr(GroupLoop, "looks_back", lambda self: True)
    run(tmp_path / "with", **once)
    assert_alike(tmp_path / "without", tmp_path / "with")
