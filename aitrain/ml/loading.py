"""Models from folders, the Hub or samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def model_location(path: str) -> str:
    """The folder of a sample (made at first use), or the path or Hub id as it is."""
    if path.startswith("sample:"):
        from aitrain.ml.sample_models import sample_model

        return str(sample_model(path.removeprefix("sample:")))
    return path


def load_causal_lm(
    path: str, *, revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A causal language model with its weights in `dtype` ('auto': as the file has them)."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        model_location(path),
        revision=revision,
        dtype=DTYPES.get(dtype, "auto"),
        trust_remote_code=trust_remote_code,
        local_files_only=not allow_downloads or Path(path).exists(),
    )


def count_parameters(model: Any) -> tuple[int, int]:
    """All parameters and the trainable ones."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)
