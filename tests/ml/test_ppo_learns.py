"""PPO learns a skill from rewards: one seed, far enough to see it; `proofs/test_ppo.py` goes on with three."""

from __future__ import annotations

from pathlib import Path

from runs import run

from aitrain.rundir.events import read_events


def test_right_answers_become_more(tmp_path: Path) -> None:
    run(
        tmp_path / "r",
        trainer="ppo",
        model__path="sample:taught-llama",
        data__max_samples=None,
        data__valid_fraction=0.05,
        rl__reward_fn="exact_match",
        rl__kl_coef=0.0,
        rl__num_ppo_epochs=3,
        rl__mini_batch_size=256,
        rl__max_new_tokens=8,
        trainer__entropy_coef=0.01,
        train__batch_size=256,
        train__gradient_accumulation=1,
        train__max_steps=15,
        train__eval_steps=15,
        train__save_steps="never",
        run__seed=1,
    )
    before, after = (event["reward"] for event in read_events(tmp_path / "r") if event["event"] == "eval")
    assert before < 0.12
    assert after > 0.2
