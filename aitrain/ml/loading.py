"""Models from folders, the Hub or samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from aitrain.errors import ConfigError, Problem, nearest

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
    """A causal language model with its weights in `dtype` ('auto': as the file has them).

    Raises ConfigError when the folder holds another kind of model, or not all of its weights.
    """
    from transformers import AutoModelForCausalLM

    location = model_location(path)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            location,
            revision=revision,
            dtype=DTYPES.get(dtype, "auto"),
            trust_remote_code=trust_remote_code,
            local_files_only=not allow_downloads or Path(path).exists(),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        advice = "name a causal language model with all of its files"
        raise ConfigError(Problem("model.path", f"{path} does not load: {first_line(error)}", advice)) from error
    if missing := sorted(info["missing_keys"]):  # transformers would draw them at random
        what = f"{path} lacks {len(missing)} of the model's tensors, such as {missing[0]}"
        raise ConfigError(Problem("model.path", what, "name a causal language model with all of its weights"))
    return model


HEAD_IS_NEW = "head_is_new"
"""Attribute of a model whose head was drawn at random."""


def load_scorer(path: str, *, revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool) -> Any:
    """A sequence classifier with one output: the model's own head if it has such a one, else a new one (HEAD_IS_NEW).

    Raises ConfigError when the folder holds a classifier of several classes, another kind of model, or not all of its
    weights.
    """
    from transformers import AutoModelForSequenceClassification

    location = model_location(path)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            location,
            revision=revision,
            num_labels=1,
            dtype=DTYPES.get(dtype, "auto"),
            trust_remote_code=trust_remote_code,
            local_files_only=not allow_downloads or Path(path).exists(),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        advice = "name a language model, or a classifier with one output"
        raise ConfigError(Problem("model.path", f"{path} does not load: {first_line(error)}", advice)) from error
    head = {name for name in info["missing_keys"] if name.split(".")[0] in ("score", "classifier")}
    if missing := sorted(set(info["missing_keys"]) - head):
        what = f"{path} lacks {len(missing)} of the model's tensors, such as {missing[0]}"
        raise ConfigError(Problem("model.path", what, "name a model with all of its weights"))
    setattr(model, HEAD_IS_NEW, bool(head))
    return model


def adapted(model: Any, adapt: Callable[[Any], Any], section: Mapping[str, Any]) -> Any:
    """The model with its adapter in place. Raises ConfigError for layers that it does not have or that take none."""
    layers = {name: isinstance(module, torch.nn.Linear) for name, module in model.named_modules() if name}
    linear = {name.rpartition(".")[2] for name, is_linear in layers.items() if is_linear}
    every = {name.rpartition(".")[2] for name in layers}
    # peft passes over a name that nothing has, as long as another one is found.
    problems = [
        Problem(f"peft.{key}", f"the model has no layer '{name}'", _layers(name, known))
        for key, known in (("target_modules", linear), ("modules_to_save", every))
        for name in (section.get(key) if isinstance(section.get(key), list) else None) or ()
        if not any(f".{layer}".endswith(f".{name}") for layer in layers)
    ]
    if problems:
        raise ConfigError(problems)
    try:
        return adapt(model)
    except (ValueError, re.error) as error:  # peft's own errors are ValueErrors too
        raise ConfigError(Problem("peft.target_modules", first_line(error), _layers("", linear))) from error


def _layers(name: str, known: set[str]) -> str:
    near = nearest(name, known)
    listed = ", ".join(sorted(known)[:10])
    return f"did you mean '{near}'? There is {listed}" if near else f"there is {listed}"


def first_line(error: BaseException) -> str:
    """What a library has to say, without the pages after it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def count_parameters(model: Any) -> tuple[int, int]:
    """All parameters and the trainable ones."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)
