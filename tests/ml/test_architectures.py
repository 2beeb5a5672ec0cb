"""Rows laid end to end give the logits of single rows, for every family that may have them; others are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from aitrain.config.architectures import ROWS_APART, why_padded
from aitrain.data.tokens import TokenRow
from aitrain.errors import MachineError
from aitrain.ml import layout
from aitrain.ml.attention import ROWS, attention, rows_attention, varlen_attention
from aitrain.ml.collating import lay_end_to_end
from aitrain.ml.heads import add_summed_loss
from aitrain.ml.layout import choose_layout

TINY = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
    "eos_token_id": 1, "initializer_range": 0.3, "attention_dropout": 0.0,
}  # fmt: skip
WINDOW = {"sliding_window": 4}
MORE: dict[str, dict[str, Any]] = {
    "mistral": WINDOW,
    "ministral": {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "mixtral": {**WINDOW, "num_local_experts": 2},
    "qwen2": {**WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {**WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "qwen2_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
                  "shared_expert_intermediate_size": 16},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "gemma2": {**WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0},
    "gemma3_text": {**WINDOW, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "olmoe": {"num_experts": 2, "num_experts_per_tok": 1},
    "granitemoe": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "starcoder2": WINDOW,
    "exaone4": {**WINDOW, "sliding_window_pattern": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {**WINDOW, "rope_scaling": None},
    "gpt_neox": {"rotary_pct": 0.5},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.7},
}  # fmt: skip
LENGTHS = (9, 1, 17, 6)


def tiny(family: str, **changes: Any) -> Any:
    """A model of a family with random weights wide enough that a leak moves the logits."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**TINY, **MORE.get(family, {}), **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def some_rows(seed: int = 0, vocabulary: int = 96) -> list[TokenRow]:
    draw = np.random.default_rng(seed)
    return [TokenRow(draw.integers(2, vocabulary, n).astype(np.int32), np.ones(n, np.uint8)) for n in LENGTHS]


def alone(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    """Logits of each row by itself, under the family's own attention."""
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.from_numpy(row.ids)[None].long()).logits[0] for row in rows])


def together(model: Any, rows: list[TokenRow]) -> torch.Tensor:
    batch = lay_end_to_end(rows)
    inputs = {name: value for name, value in batch.items() if name not in ("kept", "targets", "tokens")}
    with torch.no_grad(), attention(model, ROWS):
        return model(**inputs).logits[0]


@pytest.mark.parametrize("family", sorted(ROWS_APART))
def test_rows_laid_end_to_end_have_the_logits_of_single_rows(family: str) -> None:
    model, rows = tiny(family), some_rows()
    expected = alone(model, rows)
    assert float((together(model, rows) - expected).abs().max()) < 2e-5 * float(expected.abs().max())


@pytest.mark.parametrize("family", sorted(ROWS_APART))
def test_the_loss_inside_the_forward_pass_is_that_of_all_logits(family: str) -> None:
    model, rows = tiny(family), some_rows()
    logits = alone(model, rows)
    expected, start = 0.0, 0
    for row in rows:
        own = logits[start : start + len(row.ids)].double().log_softmax(-1)
        expected -= float(own[:-1].gather(1, torch.from_numpy(row.ids[1:, None]).long()).sum())
        start += len(row.ids)
    add_summed_loss(model)
    batch = lay_end_to_end(rows)
    del batch["tokens"]
    with attention(model, ROWS):
        assert float(model(**batch).loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
        ("mamba", {"state_size": 8}),
        ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128}),
    ],
)
def test_other_families_are_padded_and_refuse_to_be_asked(family: str, changes: dict[str, Any]) -> None:
    model = tiny(family, **changes)
    chosen = choose_layout(model, "auto", "fp32")
    assert not chosen.padding_free
    assert family in chosen.reason
    with pytest.raises(MachineError, match=family):
        choose_layout(model, True, "fp32")


def test_a_family_that_lets_rows_see_each_other_is_found_by_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "why_padded", lambda config: None)  # as if it had been put on the list by mistake
    model = tiny("lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3)
    chosen = choose_layout(model, "auto", "fp32")
    assert not chosen.padding_free
    assert "change the logits" in chosen.reason


def test_the_probe_lets_the_families_of_the_list_pass() -> None:
    for family in ("llama", "gemma2", "qwen3_moe"):
        assert choose_layout(tiny(family), "auto", "fp32").padding_free


def flash(q: Any, k: Any, v: Any, bounds: Any, *more: Any, scale: Any, window_size: Any, enable_gqa: bool) -> Any:
    """What the kernel is documented to compute, by plain products: (tokens, heads, size), a window of (left, right)."""
    left, right = window_size
    groups = q.shape[1] // k.shape[1]
    assert enable_gqa == (groups > 1)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    output = torch.empty_like(q)
    for start, end in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
        for token in range(start, end):
            first, last = (start if left < 0 else max(start, token - left)), min(end - 1, token + right)
            scores = torch.einsum("hd,thd->ht", q[token], k[first : last + 1]) * scale
            output[token] = torch.einsum("ht,thd->hd", scores.softmax(-1), v[first : last + 1])
    return output


@pytest.mark.parametrize("window", [None, 3])
def test_the_kernel_for_gpus_is_asked_for_what_the_row_by_row_attention_computes(
    monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    import torch.nn.attention.varlen as varlen

    monkeypatch.setattr(varlen, "varlen_attn", flash)  # the kernel itself needs a GPU
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 12, 8), torch.randn(1, 2, 12, 8), torch.randn(1, 2, 12, 8)
    spans = {"cu_seq_lens_q": torch.tensor([0, 7, 8, 12], dtype=torch.int32), "max_length_q": 7}
    ours, _ = varlen_attention(None, q, k, v, None, scaling=0.3, sliding_window=window, **spans)
    wanted, _ = rows_attention(None, q, k, v, None, scaling=0.3, sliding_window=window, **spans)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="softcap"):
        varlen_attention(None, q, k, v, None, softcap=1.0, **spans)
    with pytest.raises(TypeError, match="dropout"):
        varlen_attention(None, q, k, v, None, dropout=0.1, **spans)


def test_an_argument_that_the_attention_does_not_know_is_refused() -> None:
    tensor = torch.zeros(1, 2, 4, 8)
    bounds = torch.tensor([0, 4])
    with pytest.raises(TypeError, match="s_aux"):
        rows_attention(None, tensor, tensor, tensor, None, cu_seq_lens_q=bounds, s_aux=torch.zeros(2))
    with pytest.raises(TypeError, match="mask"):
        rows_attention(None, tensor, tensor, tensor, torch.zeros(1), cu_seq_lens_q=bounds)
    with pytest.raises(TypeError, match="cu_seq_lens_q"):
        rows_attention(None, tensor, tensor, tensor, None)


def test_every_family_of_the_list_exists() -> None:
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) >= ROWS_APART
    assert why_padded({"model_type": "llava", "text_config": {"model_type": "llama"}}) is None
