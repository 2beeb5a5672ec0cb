"""Proof that a reward model learns what people prefer: held-out pairs of real conversations are told apart.

    python -m pytest proofs/test_reward.py -s

A model of 0.7 M weights that begins untrained, two epochs of 389 pairs, judged by 78 others, with three seeds and no
choice among checkpoints. Needs a folder with pairs; it is skipped where there is none.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from runs import events, run

PAIRS = Path(__file__).parents[2] / "shared/data/preference/hh_rlhf"
SEEDS = (1, 2, 3)


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def test_held_out_pairs_of_people_are_told_apart(tmp_path: Path) -> None:
    if not PAIRS.is_dir():
        pytest.skip("the data folder of the development machine is not here")
    found = []
    for seed in SEEDS:
        run(tmp_path / str(seed), trainer="reward", data__path=PAIRS, data__valid_split="test", run__seed=seed,
            model__path="sample:tiny-llama", train__epochs=2, train__learning_rate=5e-4, data__truncation="left",
            data__max_length=512, data__max_samples=None, train__save_steps="never", generate__count=None)  # fmt: skip
        before, *_, after = events(tmp_path / str(seed), "eval")
        found.append(after["accuracy"])
        print(f"seed {seed}: {before['accuracy']:.3f} before, {after['accuracy']:.3f} after")
    mean = sum(found) / len(found)
    low, high = wilson(mean, 78)
    print(f"mean {mean:.3f}, 95 % interval of one such run {low:.3f} to {high:.3f}")
    assert low > 0.5
