"""The memory estimate: what must hold for any model. Measured numbers are compared in tests/ml."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aitrain.data.samples import SAMPLE_MODELS
from aitrain.memory import Estimate, describe, estimate, lora_parameters, parameters

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
QWEN_7B = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def total(config: dict[str, Any] = LLAMA, **changes: Any) -> int:
    made = estimate(config, **({"batch_size": 4, "length": 128} | changes))
    assert made is not None
    return made.total


def test_parameters_by_hand() -> None:
    attention = 64 * 64 + 2 * 64 * 32 + 64 * 64
    layer = attention + 3 * 64 * 160 + 2 * 64
    assert parameters(LLAMA) == 2 * 1000 * 64 + 2 * layer + 64


def test_parameters_of_a_published_model() -> None:
    assert parameters(QWEN_7B) == 7_615_616_512  # as its model card's safetensors index counts them


def test_tied_embeddings_count_once() -> None:
    untied, tied = parameters(LLAMA), parameters({**LLAMA, "tie_word_embeddings": True})
    assert untied is not None
    assert tied == untied - 1000 * 64


def test_adapters_by_hand() -> None:
    assert lora_parameters(LLAMA, 8, ["q_proj"]) == 2 * 8 * (64 + 64)
    every = (64 + 64) * 2 + (64 + 32) * 2 + (64 + 160) * 3
    assert lora_parameters(LLAMA, 8) == 2 * 8 * every
    assert lora_parameters(LLAMA, 8, r"model\.layers\.1\..*k_proj") == 8 * (64 + 32)


@pytest.mark.parametrize(
    "config", [{"model_type": "mamba", "hidden_size": 64}, {}, {"model_type": "llama", "hidden_size": 64}]
)
def test_an_unknown_family_or_a_missing_size_gives_no_number(config: dict[str, Any]) -> None:
    assert parameters(config) is None
    assert lora_parameters(config, 8) is None
    assert estimate(config, batch_size=1, length=1) is None


def test_every_sample_model_but_the_hybrid_is_known() -> None:
    decoders = {name: model for name, model in SAMPLE_MODELS.items() if model.kind == "decoder"}
    unknown = [name for name, model in decoders.items() if not parameters(model.config)]
    assert unknown == ["tiny-lfm2"]


def test_parts_of_full_training() -> None:
    made = estimate(LLAMA, batch_size=4, length=128, accumulation=2)
    count = parameters(LLAMA)
    assert made is not None
    assert count is not None
    assert made.parameters_bytes == made.gradients_bytes == 4 * count
    assert made.optimizer_bytes == 8 * count
    assert made.logits_bytes == 4 * 1000 * 3 * 4 * 127


def test_adapters_need_gradients_and_moments_only_for_themselves() -> None:
    made = estimate(LLAMA, batch_size=4, length=128, adapter={"r": 8, "target_modules": None})
    trained = lora_parameters(LLAMA, 8)
    assert made is not None
    assert trained is not None
    assert made.gradients_bytes == 4 * trained
    assert made.optimizer_bytes == 8 * trained
    assert made.activations_bytes > 0


@pytest.mark.parametrize(
    "less",
    [
        {"batch_size": 2},
        {"length": 64},
        {"labelled": 0.2},
        {"gradient_checkpointing": True, "device": "cuda"},
        {"optimizer": "sgd"},
        {"optimizer": "adafactor"},
        {"dtype_bytes": 2},
        {"adapter": {"r": 4}, "device": "cuda"},
        {"config": {**LLAMA, "num_hidden_layers": 1}},
        {"config": {**LLAMA, "tie_word_embeddings": True}, "device": "cuda"},
    ],
)
def test_what_needs_less(less: dict[str, Any]) -> None:
    same = {"device": less["device"]} if "device" in less else {}
    assert total(**less) < total(**same)


@pytest.mark.parametrize("more", [{"processes": 2}, {"device": "cuda", "accumulation": 2}])
def test_what_needs_more(more: dict[str, Any]) -> None:
    same = {"device": more["device"]} if "device" in more else {}
    assert total(**more) > total(**same)


def test_only_a_gpu_and_large_tensors_return_memory_between_the_phases() -> None:
    large = {**QWEN_7B, "num_hidden_layers": 1}
    small_share = 1 - total(device="cuda") / total()
    large_share = 1 - total(large, length=1024, device="cuda") / total(large, length=1024)
    assert small_share > 0.2
    assert large_share < 0.02


def test_the_line_adds_up_and_chooses_the_unit() -> None:
    made = Estimate(300 * 2**20, 300 * 2**20, 600 * 2**20, 100 * 2**20, 20 * 2**20, 10 * 2**20)
    assert describe(made) == (
        "1.30 GiB: weights 0.29, gradients 0.29, optimizer 0.59, activations 0.10, logits 0.02, allocator 0.01"
    )
    assert describe(replace(made, optimizer_bytes=0)).startswith("730 MiB: weights 300,")


def test_known_counts_replace_ours() -> None:
    made = estimate(LLAMA, batch_size=1, length=8, parameters=10, trainable=5, accumulation=2)
    assert made is not None
    assert (made.parameters_bytes, made.gradients_bytes, made.optimizer_bytes) == (40, 20, 40)


def test_it_takes_less_than_five_milliseconds() -> None:
    def once() -> float:
        began = time.perf_counter()
        estimate(QWEN_7B, batch_size=8, length=2048, adapter={"r": 16, "target_modules": r".*\.[qv]_proj"})
        return time.perf_counter() - began

    assert min(once() for _ in range(5)) < 0.005


def test_importing_it_brings_no_heavy_library() -> None:
    code = "import sys, aitrain.memory; print([n for n in ('torch', 'transformers', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- what a trainer asks for besides --------------------------------------------------------------------------------


def test_a_frozen_model_takes_its_weights_and_nothing_else() -> None:
    alone, beside = (
        estimate(LLAMA, batch_size=4, length=128, frozen_models=models, parameters=5_000_000) for models in (0, 1)
    )
    assert alone is not None
    assert beside is not None
    assert beside.parameters_bytes == 2 * alone.parameters_bytes == 2 * 5_000_000 * 4
    assert beside.gradients_bytes == alone.gradients_bytes
    assert beside.activations_bytes == alone.activations_bytes


def test_whole_outputs_take_more_than_parts_and_a_score_takes_none() -> None:
    made = {kind: estimate(LLAMA, batch_size=4, length=128, logits_made=kind) for kind in ("none", "in parts", "whole")}
    logits = [found.logits_bytes for found in made.values() if found is not None]
    assert logits[0] == 0 < logits[1] < logits[2]


@pytest.mark.parametrize(("words", "rows", "models"), [
    (("trainer=sft",), 1, 0), (("trainer=dpo",), 2, 1), (("trainer=dpo", "peft=lora"), 2, 0),
    (("trainer=dpo", "peft=lora", "trainer.ref_model=some/model"), 2, 1), (("trainer=orpo",), 2, 0),
    (("trainer=kto",), 1, 1), (("trainer=reward",), 2, 0), (("trainer=ppo",), 1, 1),
    (("trainer=ppo", "rl.kl_coef=0"), 1, 0), (("trainer=ppo", "trainer.value_model=some/model"), 1, 5),
    (("trainer=grpo", "rl.reward_fn=null", "rl.reward_model_path=some/model"), 1, 2), (("trainer=online_dpo",), 1, 1),
])  # fmt: skip
def test_a_trainer_says_what_it_holds(
    run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], rows: int, models: int
) -> None:
    from aitrain import memory
    from aitrain.plan import Machine, Rows, plan

    asked: dict[str, Any] = {}
    monkeypatch.setattr(memory, "estimate", lambda config, **more: asked.update(more))
    run = run_of(*words, "model.path=some/model", "train.batch_size=4")
    memory.estimate_run(run, plan(run, Rows(100, 10), Machine(2, ()), Path("x")), LLAMA, None)
    assert (asked["batch_size"], asked["frozen_models"]) == (4 * rows, models)


@pytest.mark.parametrize(("words", "length"), [
    (("trainer=sft", "data.max_length=300"), 300), (("trainer=pretrain", "data.block_size=70"), 70),
    (("trainer=ppo", "data.max_prompt_length=50", "rl.max_new_tokens=20"), 70),
    (("trainer=ppo", "data.max_prompt_length=null", "rl.max_new_tokens=20"), 1044),
])  # fmt: skip
def test_rows_are_as_long_as_they_may_become(
    run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], length: int
) -> None:
    from aitrain import memory
    from aitrain.plan import Machine, Rows, plan

    asked: dict[str, Any] = {}
    monkeypatch.setattr(memory, "estimate", lambda config, **more: asked.update(more))
    run = run_of(*words, "model.path=some/model")
    memory.estimate_run(run, plan(run, Rows(100, 10), Machine(2, ()), Path("x")), LLAMA, None)
    assert asked["length"] == length
