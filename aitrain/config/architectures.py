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

POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
"""What families call the longest input in config.json."""
UNLIMITED = frozenset({"bloom", "t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Families that know positions by distances alone, of which long ones are alike; T5 names the longest that it was
trained with, which is no limit."""


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


def positions(config: Mapping[str, Any]) -> int | None:
    """The longest input in tokens by a model's config, with its rotary scaling; None where nothing limits it or the
    config does not say."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    if config.get("model_type") in UNLIMITED or config.get("alibi"):
        return None
    most = next((config[name] for name in POSITIONS if isinstance(config.get(name), int)), None)
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if most is None or not isinstance(scaling, Mapping):
        return most
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings", most)
    if not isinstance(factor, int | float) or not isinstance(original, int):
        return most
    return max(most, int(original * factor))
