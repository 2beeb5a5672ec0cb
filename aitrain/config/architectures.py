"""What is known of model families before torch loads: which may have rows laid end to end, by their `model_type`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LARGEST_LOGITS = 2**25
"""Logits that are made at once, 128 MiB in float32; more are made in chunks (see `aitrain.ml.heads`)."""
ROWS_APART = frozenset(
    {"llama", "mistral", "ministral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2",
     "gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmoe", "granite", "granitemoe", "smollm3", "starcoder2", "cohere",
     "glm", "glm4", "exaone4", "gpt_neox", "seed_oss"}
)  # fmt: skip
"""Families whose layers look across positions in attention alone, through transformers' attention interface, with the
window and the soft cap as arguments of it. `tests/ml/test_architectures.py` compares the logits of each with those of
single rows."""


def text_model_type(config: Mapping[str, Any]) -> str:
    """The family of the language model that a config describes."""
    inner = config.get("text_config")
    found = inner.get("model_type") if isinstance(inner, Mapping) else None
    return str(found or config.get("model_type"))


def why_padded(config: Mapping[str, Any]) -> str | None:
    """Why rows of this model cannot be laid end to end, or None if they can."""
    family = text_model_type(config)
    if family in ROWS_APART:
        return None
    return f"'{family}' is not among the families whose layers are known to keep rows apart"
