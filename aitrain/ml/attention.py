"""Attention over rows laid end to end: each row sees itself alone, as if it were the only one.

Registered with transformers' attention interface (https://huggingface.co/docs/transformers/attention_interface) under
names of our own. Where a row begins comes with the batch, as `cu_seq_lens_q`, under the names that transformers' flash
attention uses. What an implementation does not know it refuses: an argument passed over would be a window or a cap that
is not applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

ROWS = "aitrain_rows"
"""Causal attention row by row with torch's own kernel, which needs no mask. Exact on any device."""
VARLEN = "aitrain_varlen"
"""One kernel for all rows, on CUDA in half precision."""
WITHOUT_MEANING = frozenset(
    {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "return_dict", "cache_position",
     "past_key_values", "cu_seq_lens_k", "max_length_k", "output_router_logits", "is_causal"}
)  # fmt: skip
"""Arguments that change nothing here: what they say is settled by the spans, or they are about outputs."""


def rows_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each row. query: (1, heads, tokens, size); key and value may have fewer heads.

    Returns (1, tokens, heads, size). `sliding_window` w lets a token see itself and the w - 1 before it; `softcap` c
    turns a score s into c tanh(s / c) (Gemma 2). Raises TypeError for an argument it does not know.
    """
    _refuse_unknown(attention_mask, others)
    bounds = _bounds(cu_seq_lens_q)
    parts = []
    for start, end in pairwise(bounds):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        parts.append(_one_row(q, k, v, scaling, dropout, sliding_window, softcap))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _one_row(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, dropout: float, window: int | None, cap: float | None
) -> Tensor:
    length = q.shape[2]
    narrow = window is not None and length > window
    if cap is None:
        mask = _band(length, int(window or 0), q.device) if narrow else None
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=not narrow and length > 1, scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / cap) * cap
    seen = _band(length, int(window) if narrow and window is not None else length, q.device)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return F.dropout(weights, dropout, training=dropout > 0) @ v


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """True where token i (row) sees token j (column): j <= i < j + window."""
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


def varlen_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The same as `rows_attention`, by torch's variable-length kernel. Raises TypeError for a soft cap or dropout."""
    from torch.nn.attention.varlen import varlen_attn

    _refuse_unknown(attention_mask, {**others, "softcap": softcap, "dropout": dropout or None})
    if cu_seq_lens_q is None or max_length_q is None:
        raise TypeError("rows laid end to end need cu_seq_lens_q and max_length_q")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    output = varlen_attn(
        q, k, v, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling, window_size=window,
        enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    assert isinstance(output, Tensor)
    return output[None], None


def _refuse_unknown(attention_mask: Tensor | None, others: dict[str, Any]) -> None:
    if attention_mask is not None:
        raise TypeError("rows laid end to end take no attention mask")
    unknown = [name for name, value in others.items() if name not in WITHOUT_MEANING and value is not None]
    if unknown:
        raise TypeError(f"attention over rows laid end to end does not know {', '.join(sorted(unknown))}")


def _bounds(cu_seq_lens: Tensor | None) -> list[int]:
    if cu_seq_lens is None:
        raise TypeError("rows laid end to end need cu_seq_lens_q, the place where each row begins")
    return [int(bound) for bound in cu_seq_lens.tolist()]


AttentionInterface.register(ROWS, rows_attention)
AttentionInterface.register(VARLEN, varlen_attention)


@contextmanager
def attention(model: Any, name: str) -> Iterator[None]:
    """Let a model attend by another implementation for a while."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
