"""What trainers refuse that learn from rewards in groups of answers, before torch loads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aitrain.compose import Composed
from aitrain.errors import Problem
from aitrain.machine import Machine
from aitrain.plan import Rows, plan
from aitrain.validate import examine

Compose = Callable[..., Composed]
LOSS = "trainer.loss_type={}"
MISTAKES: dict[tuple[str, ...], dict[str, tuple[str, str]]] = {
    ("rl=none",): {"rl": ("trainer=grpo learns from rewards", "rl=text_generation")},
    ("trainer.num_generations=6",): {
        "trainer.num_generations": ("the 64 answers of an update are no whole groups of 6", "trainer.num_generations=4")
    },
    ("trainer.num_generations=1",): {"trainer.num_generations": ("greater than or equal to 2", "")},
    ("rl.gamma=0.9",): {"rl.gamma": ("has no effect with", "")},
    ("rl.num_ppo_epochs=2",): {"rl.num_ppo_epochs": ("has no effect with", "")},
    ("rl.mini_batch_size=65",): {"rl.mini_batch_size": ("more than the 64 of an update", "rl.mini_batch_size=64")},
    ("rl.kl_coef=0", "trainer.ref_model=sample:tiny-llama"): {"trainer.ref_model": ("no effect with rl.kl_coef=0", "")},
    ("rl.kl_coef=0", "trainer.use_bias_correction_kl=false"): {"trainer.use_bias_correction_kl": ("no effect", "")},
    ("trainer.ref_model=./nowhere",): {"trainer.ref_model": ("there is no folder", "")},
    ("data.truncation=right",): {"data.truncation": ("cut the end of a question", "data.truncation=left")},
    ("trainer.loss_type=dappo",): {"trainer.loss_type": ("dapo", "")},
    ("trainer.loss_type=sapo", "rl.clip_range=0.1", "trainer.delta=2.0", "trainer.epsilon_high=0.3"): {
        "rl.clip_range": ("has no effect with trainer.loss_type=sapo", "~rl.clip_range"),
        "trainer.delta": ("has no effect with trainer.loss_type=sapo", ""),
        "trainer.epsilon_high": ("has no effect with trainer.loss_type=sapo", ""),
    },
    ("trainer.loss_type=cispo", "rl.clip_range=0.1", "trainer.epsilon_high=5.0"): {
        "rl.clip_range": ("has no effect with trainer.loss_type=cispo and trainer.epsilon_high", "~rl.clip_range")
    },
    ("trainer.sapo_temperature_pos=2.0", "trainer.vespo_k_neg=2.0"): {
        "trainer.sapo_temperature_pos": ("has no effect with trainer.loss_type=dapo", ""),
        "trainer.vespo_k_neg": ("has no effect with trainer.loss_type=dapo", ""),
    },
    ("trainer.loss_type=luspo",): {
        "trainer.importance_sampling_level": ("ratios of the other kind", "trainer.importance_sampling_level=sequence")
    },
    ("trainer.multi_objective_aggregation=normalize_then_sum",): {
        "trainer.multi_objective_aggregation": ("has no effect with rl.multi_objective=false", "")
    },
    ("rl=multi_objective", "trainer.multi_objective_aggregation=normalize_then_sum", "trainer.scale_rewards=none"): {
        "trainer.scale_rewards": ("which scales each", "")
    },
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_refused_with_its_cure(words: tuple[str, ...], composed: Compose) -> None:
    found = {problem.key: problem for problem in examine(composed("trainer=grpo", *words))[1]}
    assert {*found} == {*MISTAKES[words]}
    for key, (said, fix) in MISTAKES[words].items():
        problem: Problem = found[key]
        assert said in str(problem)
        assert not fix or problem.fix == fix


def test_a_key_that_acts_in_one_case_is_taken_there(composed: Compose) -> None:
    for words in (
        ("trainer.loss_type=cispo", "rl.clip_range=0.1"),
        ("trainer.loss_type=vespo", "trainer.vespo_k_pos=1.0"),
        ("trainer.loss_type=luspo", "trainer.importance_sampling_level=sequence"),
        ("rl=multi_objective", "trainer.multi_objective_aggregation=normalize_then_sum"),
    ):
        assert examine(composed("trainer=grpo", *words))[1] == []


def test_an_epoch_is_as_many_updates_as_answers_to_each_row_need(run_of: Callable[..., Any], tmp_path: Any) -> None:
    made = plan(run_of("trainer=grpo", "hardware=cpu"), Rows(80, 0), Machine(2, ()), tmp_path)
    assert (made.global_batch_size, made.steps_per_epoch) == (64, 10)
