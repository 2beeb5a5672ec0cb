"""PPO: an update against a calculation by hand, and that neither division, processes nor a restart change it."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playing import PPO
from runs import assert_same_run, distance, events, run, weights

from aitrain.errors import Refused, Stopped
from aitrain.ml import ppo_trainer, rollouts
from aitrain.ml.loading import load_causal_lm
from aitrain.ml.ppo_trainer import PPOFit
from aitrain.rundir.events import read_events

MEASURES = (
    *("loss", "reward", "reward_std", "objective", "kl", "entropy", "length", "ended", "explained_variance"),
    *("value_loss", "policy_loss", "approx_kl", "policy_clip_fraction", "value_clip_fraction", "grad_norm"),
    "optimizer_steps",
)


def training(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["event"] == "train"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ppo") / "whole"
    run(folder, **PPO)
    return folder


def assert_alike(folder: Path, other: Path, tolerance: float = 1e-4) -> None:
    assert len(training(folder)) == len(training(other)) > 0
    for mine, theirs in zip(training(folder), training(other), strict=True):
        for name in MEASURES:
            assert mine.get(name) == pytest.approx(theirs.get(name), rel=1e-3, abs=tolerance), (name, mine["step"])
    assert distance(weights(folder / "model"), weights(other / "model")) <= tolerance


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        assert {*MEASURES, "seconds/generation", "seconds/scoring", "seconds/judging", "seconds/update", "kl_coef"} <= {
            *event
        }
        assert event["optimizer_steps"] == 4
    before, after = (event for event in read_events(whole) if event["event"] == "eval")
    assert {"reward", "length", "ended"} <= {*before}
    assert before["reward"] != after["reward"]


@pytest.mark.parametrize(
    "changes",
    [
        {"train__batch_size": 4, "train__gradient_accumulation": 2},
        {"train__batch_size": 1, "train__gradient_accumulation": 8},
        {"rl__chunk_size": 3},
        {"train__padding_free": False},
    ],
    ids=str,
)
def test_an_update_is_the_same_however_it_is_divided(changes: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "r", **{**PPO, **changes})
    assert_alike(tmp_path / "r", whole)


def test_two_processes_make_the_update_of_one(whole: Path, tmp_path: Path) -> None:
    """Three rows of eight for the second process, which has none of the last mini-batch of three."""
    odd = {"train__batch_size": 7, "rl__mini_batch_size": 3, "train__max_steps": 2, "train__eval_steps": 2}
    run(tmp_path / "one", **{**PPO, **odd, "train__batch_size": 14})
    run(tmp_path / "two", **{**PPO, **odd, "hardware": "cpu_x2"})
    assert_alike(tmp_path / "two", tmp_path / "one")
    assert events(tmp_path / "two", "eval") == events(tmp_path / "one", "eval")


# --- an update by hand ---------------------------------------------------------------------------------------------


class Recorded(PPOFit):
    """Keeps what the first update is made of."""

    kept: dict[str, Any]

    def _judge(self, rollouts: Any) -> Any:
        found = super()._judge(rollouts)
        Recorded.kept.setdefault("rollouts", rollouts)
        return found

    def _learn(self, model: Any, experience: Any) -> Any:
        if "experience" not in Recorded.kept:
            Recorded.kept["experience"] = experience
            policy = self.trained_model()
            Recorded.kept["weights"] = {name: w.detach().double() for name, w in policy.state_dict().items()}
            Recorded.kept["head"] = [p.detach().double() for p in self.model.value_head.parameters()]
        return super()._learn(model, experience)

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
    policy = plain("sample:tiny-llama")
    policy.load_state_dict(kept["weights"])
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


def plain(path: str) -> Any:
    model = load_causal_lm(path, revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)
    return model.double().eval()


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


# --- adapters ------------------------------------------------------------------------------------------------------


def test_an_adapter_is_held_to_the_model_without_it(tmp_path: Path) -> None:
    """Switched off it is the reference; a copy of the starting model as reference gives the same run."""
    changes = {**PPO, "peft": "lora", "train__learning_rate": 1e-2}
    run(tmp_path / "off", **changes)
    run(tmp_path / "copy", **changes, trainer__ref_model="sample:tiny-qwen3")
    assert_alike(tmp_path / "off", tmp_path / "copy", 1e-6)
    assert training(tmp_path / "off")[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert abs(training(tmp_path / "off")[-1]["kl"]) > 1e-4


# --- a run that is stopped -----------------------------------------------------------------------------------------


FOUR = {**PPO, "train__max_steps": 4, "train__save_steps": 1, "trainer__kl_target": 0.05, "trainer__kl_horizon": 50}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ppo") / "four"
    run(folder, **FOUR)
    return folder


@pytest.mark.parametrize("where", ["_optimize", "_judge", "sample"])
def test_a_continued_run_is_the_same_run(where: str, four: Path, tmp_path: Path) -> None:
    """Stopped by a signal in the third update: while it learns, which it ends, or while it plays, which it forgets."""
    folder = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        signal_in(patch, where, 10 if where == "_optimize" else 4 if where == "sample" else 3)
        with pytest.raises(Stopped) as stopped:
            run(folder, **FOUR)
    assert stopped.value.checkpoint
    assert stopped.value.checkpoint.endswith("step-000002" if where == "sample" else "step-000003")
    run(folder, **FOUR, run__resume="auto")
    assert_same_run(folder, four)
    ours, theirs = training(folder), training(four)
    assert [[e.get(name) for name in MEASURES] for e in ours] == [[e.get(name) for name in MEASURES] for e in theirs]


def signal_in(patch: pytest.MonkeyPatch, where: str, call: int) -> None:
    """Send this process SIGTERM in a call of one of the trainer's parts, counted from 1."""
    owner: Any = rollouts if where == "sample" else PPOFit
    original, seen = getattr(owner, where), iter(range(1, 10**6))

    def signalled(*args: Any, **kwargs: Any) -> Any:
        if next(seen) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    patch.setattr(owner, where, signalled)
