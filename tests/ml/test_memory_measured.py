"""The memory estimate against transformers' models, the tensors that autograd saves, and processes that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from aitrain.data.tokens import TokenRow
from aitrain.memory import (
    FAMILIES,
    Batch,
    describe,
    estimate,
    lora_parameters,
    parameters,
    saved_for_backward,
    shape_of,
)
from aitrain.ml.collating import pad
from aitrain.ml.heads import add_summed_loss

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
CLASSIC = {**SIZES, "num_key_value_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True},
    "llama tied": {"model_type": "llama", **SIZES, "tie_word_embeddings": True, "head_dim": 32},
    "mistral": {"model_type": "mistral", **SIZES, "sliding_window": 32},
    "mixtral": {"model_type": "mixtral", **SIZES, "num_local_experts": 4},
    "qwen2": {"model_type": "qwen2", **SIZES},
    "qwen3": {"model_type": "qwen3", **SIZES, "tie_word_embeddings": True},
    "qwen3_moe": {"model_type": "qwen3_moe", **SIZES, "num_experts": 4, "moe_intermediate_size": 48,
                  "num_experts_per_tok": 2},
    "gemma": {"model_type": "gemma", **SIZES},
    "gemma2": {"model_type": "gemma2", **SIZES},
    "gemma3_text": {"model_type": "gemma3_text", **SIZES},
    "phi3": {"model_type": "phi3", **SIZES},
    "gpt2": {"model_type": "gpt2", **CLASSIC, "n_inner": 160},
    "gpt2 without dropout": {"model_type": "gpt2", **CLASSIC, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "gpt_neox": {"model_type": "gpt_neox", **CLASSIC},
    "opt": {"model_type": "opt", **CLASSIC, "ffn_dim": 160, "word_embed_proj_dim": 32},
    "opt plain": {"model_type": "opt", **CLASSIC, "ffn_dim": 160, "word_embed_proj_dim": 64},
    "bloom": {"model_type": "bloom", **CLASSIC},
}  # fmt: skip
FORMATS = {"fp32": (torch.float32, False), "autocast": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}


def model_of(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Any]]:
    """The model, and its config as config.json would have it."""
    full = AutoConfig.for_model(**config)
    model = AutoModelForCausalLM.from_config(full, dtype=dtype)
    model.config.use_cache = False
    return model.train(), json.loads(full.to_json_string())


def test_every_family_has_a_config_here() -> None:
    assert {config["model_type"] for config in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model, written = model_of(CONFIGS[name])
    assert parameters(written) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "opt", "gpt_neox", "bloom", "qwen3"])
@pytest.mark.parametrize(
    "targets", ["all-linear", ["dense", "q_proj", "c_attn", "qkv_proj"], r".*\.1\.[^1]*(proj|c_fc|dense)"]
)
def test_adapters_have_the_parameters_that_peft_gives_them(name: str, targets: str | list[str]) -> None:
    with torch.device("meta"):
        model, written = model_of(CONFIGS[name])
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=5, target_modules=targets))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora_parameters(written, 5, targets) == trained > 0


def saved_bytes(model: Any, rows: int, length: int, *, autocast: bool) -> int:
    """Bytes of the distinct tensors that a forward pass over padded rows keeps, the weights themselves apart."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor is held, so that no address comes twice
        return tensor

    ids = torch.randint(2, 500, (rows, length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        logits = model(input_ids=ids, attention_mask=mask).logits
    total = sum(size for size, _ in saved.values())
    del logits
    return total


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", FORMATS)
def test_activations_are_the_tensors_that_autograd_saves(name: str, form: str) -> None:
    if name in ("mixtral", "qwen3_moe") and form != "fp32":
        pytest.skip("how experts cast their weights is not counted")
    dtype, autocast = FORMATS[form]
    model, written = model_of(CONFIGS[name], dtype)
    shape = shape_of(written)
    assert shape is not None
    narrow = 4 if form == "fp32" else 2
    batch = Batch(rows=3, length=64, wide=dtype.itemsize, narrow=narrow, masked=True)
    counted = sum(size * count for size, count in saved_for_backward(shape, batch))
    measured = saved_bytes(model, 3, 64, autocast=autocast)
    print(name, form, counted, measured, counted / measured)
    assert counted == pytest.approx(measured, rel=0.03 if form == "fp32" else 0.12)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_with_adapters_activations_are_still_saved(checkpointing: bool) -> None:
    model, written = model_of(CONFIGS["llama"])
    shape = shape_of(written)
    assert shape is not None
    adapted = frozenset(weight.path for weight in shape.weights if "_proj" in weight.path)
    batch = Batch(rows=3, length=64, wide=4, narrow=4, masked=True, adapted=adapted)
    counted = sum(size * count for size, count in saved_for_backward(shape, batch, checkpointing=checkpointing))
    if checkpointing:
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    if checkpointing:
        model.activation_checkpointing_enable()
        one = sum(size * count for size, count in saved_for_backward(shape, batch)) / shape.layers
        counted -= int(one)  # the forward pass alone does not compute a layer again
    measured = saved_bytes(model, 3, 64, autocast=False)
    print(checkpointing, counted, measured)
    assert counted == pytest.approx(measured, rel=0.25 if checkpointing else 0.08)


# --- whole processes -------------------------------------------------------------------------------------------------

TINY = {"model_type": "llama", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "tie_word_embeddings": True}
WIDE = {**TINY, "vocab_size": 64000, "hidden_size": 160, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 40}  # fmt: skip
DEEP = {**TINY, "vocab_size": 1024, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24}  # fmt: skip
PLAIN = {**TINY, "vocab_size": 16000, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 9,
         "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}  # fmt: skip
SMALL = {**PLAIN, "vocab_size": 8000, "num_hidden_layers": 4}
CASES: dict[str, dict[str, Any]] = {
    "wide vocabulary": {"config": WIDE, "batch_size": 2, "length": 128},
    "deep, long rows": {"config": DEEP, "batch_size": 4, "length": 384},
    "plain": {"config": PLAIN, "batch_size": 2, "length": 48},
    "small, checkpointing": {"config": SMALL, "batch_size": 2, "length": 192, "gradient_checkpointing": True},
    "small, lora": {"config": SMALL, "batch_size": 2, "length": 128, "adapter": {"r": 8}},
}


def status(field: str) -> int:
    """Bytes of a field of this process's /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def train(case: dict[str, Any], steps: int = 3) -> int:
    """Bytes by which this process's memory peaked above what it had before the model, over a few optimizer steps."""
    torch.set_num_threads(1)  # spinning threads on a busy machine cost more than a second core brings
    warm = torch.nn.Linear(64, 64)
    warm(torch.randn(64, 64)).sum().backward()
    torch.optim.AdamW(warm.parameters(), fused=True).step()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
    model, _ = model_of(case["config"])
    if "adapter" in case:
        lora = LoraConfig(task_type="CAUSAL_LM", r=case["adapter"]["r"], target_modules="all-linear")
        model = get_peft_model(model, lora)
    if case.get("gradient_checkpointing"):
        model.activation_checkpointing_enable()
    add_summed_loss(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    for _ in range(steps):
        for _ in range(case.get("accumulation", 1)):
            loss_of(model, case).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return status("VmHWM") - before


def loss_of(model: Any, case: dict[str, Any]) -> torch.Tensor:
    """As the trainer computes it, of padded rows: the last eight positions of the first one are padding."""
    ids = torch.randint(2, case["config"]["vocab_size"], (case["batch_size"], case["length"]), dtype=torch.int32)
    rows = [TokenRow(row, np.ones(len(row), np.uint8)) for row in (ids[0, :-8].numpy(), *ids[1:].numpy())]
    batch = pad(rows, 0)
    del batch["tokens"]
    with torch.autocast("cpu", torch.bfloat16, enabled=case.get("precision") == "bf16"):
        return model(**batch).loss


def measure_all() -> dict[str, int]:
    """Each case in a process of its own, forked from this one after the imports and before any thread."""
    peaks: dict[str, int] = {}
    for name, case in CASES.items():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, str(train(case)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            peaks[name] = int(answer.read() or -1)
        os.waitpid(child, 0)
    return peaks


@pytest.fixture(scope="module")
def peaks() -> dict[str, int]:
    """Measured peaks, from a fresh interpreter: pytest's own heap has holes in which a model could hide."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a process's peak since a moment")
    folder = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, __file__], cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(folder)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_near_the_measured_peak(name: str, peaks: dict[str, int]) -> None:
    case = CASES[name]
    estimated = estimate(**case)
    assert estimated is not None
    ratio = estimated.total / peaks[name]
    print(f"{name}: measured {peaks[name] / 2**20:.0f} MiB, estimated {describe(estimated)}, ratio {ratio:.2f}")
    assert abs(ratio - 1) <= 0.25


if __name__ == "__main__":
    print(json.dumps(measure_all()))
