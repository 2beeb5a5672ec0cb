"""`trainer=ppo`: an update against a calculation by hand, and keys that act."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparing import plain, training
from playing import PPO
from runs import distance, run, weights

from aitrain.errors import Refused
from aitrain.ml import ppo_trainer
from aitrain.ml.ppo_trainer import PPOFit
from aitrain.rundir.events import read_events

MEASURES = (
    *("loss", "reward", "reward_std", "objective", "kl", "entropy", "length", "ended", "explained_variance"),
    *("value_loss", "policy_loss", "approx_kl", "policy_clip_fraction", "value_clip_fraction", "grad_norm"),
    "optimizer_steps",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ppo") / "whole"
    run(folder, **PPO)
    return folder


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        parts = ("generation", "scoring", "judging", "update")
        assert {*MEASURES, "kl_coef", *(f"seconds/{part}" for part in parts)} <= {*event}
        assert all(event[f"tokens_per_second/{part}"] > 0 for part in parts)
        written = event["length"] * 8
        assert event["tokens_per_second/generation"] * event["seconds/generation"] == pytest.approx(written)
        assert event["optimizer_steps"] == 4
    before, after = (event for event in read_events(whole) if event["event"] == "eval")
    assert {"reward", "length", "ended"} <= {*before}
    assert before["reward"] != after["reward"]


# --- an update by hand ---------------------------------------------------------------------------------------------


class Recorded(PPOFit):
    """Keeps what the first update is made of."""

    kept: dict[str, Any]

    def judge(self, rollouts: Any) -> Any:
        found = super().judge(rollouts)
        Recorded.kept.setdefault("rollouts", rollouts)
        return found

    def learn(self, model: Any, experience: Any) -> Any:
        if "experience" not in Recorded.kept:
            Recorded.kept["experience"] = experience
            policy = self.trained_model()
            Recorded.kept["weights"] = {name: w.detach().double() for name, w in policy.state_dict().items()}
            Recorded.kept["head"] = [p.detach().double() for p in self.model.value_head.parameters()]
        return super().learn(model, experience)

    def _optimize(self, model: Any, batch: Any) -> dict[str, float]:
        found = super()._optimize(model, batch)
        Recorded.kept.setdefault("batch", batch)
        Recorded.kept.setdefault("measured", found)
        return found


SETTINGS = {
    "model__path": "sample:tiny-llama",
    "trainer__ref_model": "sample:taught-llama",
    "trainer__entropy_coef": 0.02,
    "trainer__kl_estimator": "k3",
    "trainer__missing_eos_penalty": 0.25,
    "rl__gamma": 0.9,
    "rl__gae_lambda": 0.8,
    "rl__kl_coef": 0.3,
    "rl__value_loss_coef": 0.5,
    "rl__temperature": 0.8,
    "rl__num_ppo_epochs": 1,
}


def test_an_update_equals_a_calculation_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token in float64, on single rows and plain forward passes: advantages, returns, and the first loss."""
    Recorded.kept = {}
    monkeypatch.setattr(ppo_trainer, "PPOFit", Recorded)
    run(tmp_path / "r", **{**PPO, **SETTINGS, "train__max_steps": 1})
    kept = Recorded.kept
    policy = plain("sample:tiny-llama", kept["weights"])
    reference = plain("sample:taught-llama")
    terms: dict[int, list[tuple[float, ...]]] = {}
    for rollout, found in zip(sorted(kept["rollouts"], key=lambda r: r.number), kept["experience"], strict=True):
        logps, entropies, values = judged(policy, rollout, kept["head"])
        ref_logps, _, _ = judged(reference, rollout, None)
        rewards = []
        for token, (ours, theirs) in enumerate(zip(logps, ref_logps, strict=True)):
            difference = ours - theirs
            rewards.append(-0.3 * (math.exp(-difference) - 1 + difference))
            if token + 1 == len(logps):
                rewards[-1] += sum(rollout.components.values()) - (0 if rollout.episode.ended else 0.25)
        advantages, later, value_after = [0.0] * len(logps), 0.0, 0.0
        for token in range(len(logps) - 1, -1, -1):
            later = rewards[token] + 0.9 * value_after - values[token] + 0.9 * 0.8 * later
            advantages[token], value_after = later, values[token]
        returns = [advantage + value for advantage, value in zip(advantages, values, strict=True)]
        assert found.logps.tolist() == pytest.approx(logps, abs=2e-5)
        assert found.values.tolist() == pytest.approx(values, abs=2e-5)
        assert found.advantages.tolist() == pytest.approx(advantages, abs=1e-4)
        assert found.returns.tolist() == pytest.approx(returns, abs=1e-4)
        terms[id(found)] = list(zip(advantages, returns, values, entropies, strict=True))
    assert any(not rollout.episode.ended for rollout in kept["rollouts"])
    tokens = [term for item in kept["batch"] for term in terms[id(item)]]
    spread = np.array([advantage for advantage, *_ in tokens])
    # At the first step the policy is still the old one: the ratio is 1, and nothing is clipped.
    policy_loss = -np.mean((spread - spread.mean()) / spread.std(ddof=1))
    value_loss = np.mean([0.5 * (value - wanted) ** 2 for _, wanted, value, _ in tokens])
    entropy = np.mean([entropy for *_, entropy in tokens])
    assert kept["measured"]["value_loss"] == pytest.approx(value_loss, rel=1e-4)
    assert kept["measured"]["loss"] == pytest.approx(policy_loss + 0.5 * value_loss - 0.02 * entropy, abs=1e-5)
    assert kept["measured"]["policy_clip_fraction"] == kept["measured"]["value_clip_fraction"] == 0


@torch.no_grad()
def judged(model: Any, rollout: Any, head: Any) -> tuple[list[float], list[float], list[float]]:
    """Log-probabilities, entropies and values of the written tokens of one row at temperature 0.8."""
    output = model(input_ids=torch.tensor([rollout.ids]), output_hidden_states=True)
    shares = (output.logits[0] / 0.8).log_softmax(-1)
    logps, entropies, values = [], [], []
    for place in np.flatnonzero(rollout.written):
        before = shares[place - 1]
        logps.append(before[rollout.ids[place]].item())
        entropies.append(-(before.exp() * before).sum().item())
        hidden = output.hidden_states[-1][0, place - 1]
        values.append((head[0][0] @ hidden + head[1][0]).item() if head else 0.0)
    return logps, entropies, values


# --- keys ----------------------------------------------------------------------------------------------------------

EFFECTS: dict[str, dict[str, Any]] = {
    "gamma": {"rl__gamma": 0.5},
    "gae_lambda": {"rl__gae_lambda": 0.1},
    "kl_coef": {"rl__kl_coef": 1.0},
    "no reference": {"rl__kl_coef": 0.0},
    "value_loss_coef": {"rl__value_loss_coef": 5.0},
    "value_clip_range": {"rl__value_clip_range": 1e-4},
    "clip_range": {"rl__clip_range": 1e-4},
    "num_ppo_epochs": {"rl__num_ppo_epochs": 1},
    "mini_batch_size": {"rl__mini_batch_size": 8},
    "max_new_tokens": {"rl__max_new_tokens": 5},
    "temperature": {"rl__temperature": 0.5},
    "top_k": {"rl__top_k": 20},
    "top_p": {"rl__top_p": 0.5},
    "stop_strings": {"rl__stop_strings": "[e]"},
    "reward_fn": {"rl__reward_fn": "repetition"},
    "entropy_coef": {"trainer__entropy_coef": 0.5},
    "kl_estimator": {"trainer__kl_estimator": "k3"},
    "kl_target": {"trainer__kl_target": 0.01, "trainer__kl_horizon": 10},
    "whiten_advantages": {"trainer__whiten_advantages": False},
    "whiten_rewards": {"trainer__whiten_rewards": True},
    "missing_eos_penalty": {"trainer__missing_eos_penalty": 2.0},
    "target_kl": {"trainer__target_kl": 1e-9},
    "value_model": {"trainer__value_model": "sample:tiny-llama"},
    "ref_model": {"trainer__ref_model": "sample:tiny-mistral"},
    "seed": {"run__seed": 3},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_changes_what_is_learnt(name: str, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "r", **{**PPO, **EFFECTS[name]})
    changed, before = training(tmp_path / "r"), training(whole)
    assert distance(weights(tmp_path / "r" / "model"), weights(whole / "model")) > 1e-5
    assert [e["loss"] for e in changed] != [e["loss"] for e in before]
    if name == "no reference":
        assert not any("kl" in event for event in changed)
    if name == "kl_target":
        assert changed[0]["kl_coef"] != changed[-1]["kl_coef"]
    if name == "max_new_tokens":
        assert max(event["length"] for event in changed) <= 5
    if name == "target_kl":
        assert all(event["optimizer_steps"] == 2 for event in changed)
    if name == "clip_range":
        assert changed[0]["policy_clip_fraction"] > before[0]["policy_clip_fraction"] + 0.1


def test_several_rewards_are_weighted_and_told_apart(tmp_path: Path) -> None:
    rewards = "[{name: length, target: 30, unit: characters}, repetition]"
    several = {**PPO, "rl": "multi_objective", "rl__reward_fn": rewards, "rl__reward_weights": "[2.0, 0.5]"}
    run(tmp_path / "r", **several)
    for event in training(tmp_path / "r"):
        parts = 2.0 * event["reward/length"] + 0.5 * event["reward/repetition"]
        assert event["reward"] == pytest.approx(parts, abs=1e-6)
    with pytest.raises(Refused, match="multi_objective"):
        run(tmp_path / "no", **{**several, "rl__multi_objective": False})
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(("chosen", "device", "emptied"), [(True, "cuda", 3), (False, "cuda", 0), (True, "cpu", 0)])
def test_cached_memory_is_given_back_between_phases(
    chosen: bool, device: str, emptied: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(None))
    monkeypatch.setattr(PPOFit, "device_type", property(lambda self: device))
    run(tmp_path / "r", **{**PPO, "rl__optimize_device_cache": chosen})
    assert len(calls) == 2 * emptied
