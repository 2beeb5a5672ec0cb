"""Proof that PPO teaches: a model that can write, but not do this, learns it from nothing but right and wrong.

    python -m pytest proofs/test_ppo.py -s          # a quarter of an hour on an idle machine

`sample:taught-llama` is to name the second letter of a word, three seeds, no choice among checkpoints. The share of
right answers to held-out prompts, drawn at temperature 1, must rise from below 0.3 to above 0.8 within five minutes on
two cores.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from runs import run

from aitrain.rundir.events import read_events

SEEDS = (1, 2, 3)
LEARNING: dict[str, Any] = {
    "trainer": "ppo",
    "model__path": "sample:taught-llama",
    "data__max_samples": None,
    "rl__reward_fn": "exact_match",
    "rl__kl_coef": 0.0,
    "rl__num_ppo_epochs": 3,
    "rl__mini_batch_size": 256,
    "rl__max_new_tokens": 8,
    "trainer__entropy_coef": 0.01,
    "train__batch_size": 128,
    "train__gradient_accumulation": 1,
    "train__max_steps": 110,
    "train__eval_steps": 10,
    "train__save_steps": "never",
    "hardware": "cpu_x2",
    "hardware__threads": 1,
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_skill_is_learnt_from_rewards(seed: int, tmp_path: Path) -> None:
    began = time.monotonic()
    run(tmp_path / "r", **LEARNING, run__seed=seed)
    minutes = (time.monotonic() - began) / 60
    rewards = [event["reward"] for event in read_events(tmp_path / "r") if event["event"] == "eval"]
    shares = " ".join(f"{reward:.2f}" for reward in rewards)
    print(f"\nseed {seed}: {shares}; {minutes:.1f} minutes, {os.cpu_count()} CPUs")
    assert rewards[0] < 0.3
    assert rewards[-1] > 0.8
    assert minutes < 5
