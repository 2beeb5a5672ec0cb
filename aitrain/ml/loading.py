"""Models from folders, the Hub or samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aitrain.config.run import Run
from aitrain.data.targets import Classes
from aitrain.errors import ConfigError, Problem, nearest
from aitrain.ml.collating import padding_id

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


NEW_WEIGHTS = "new_weights"
"""Attribute of a model: the names of its tensors that were drawn at random."""


def load_classifier(
    path: str, *, classes: Classes, revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A sequence classifier of these classes: the model's own head if it is for as many, else a new one.

    Raises ConfigError when the folder holds a model that classifies no sequences, or not all of its weights.
    """
    names = dict(enumerate(classes.names))
    problem = "multi_label_classification" if classes.multi_label else "single_label_classification"
    return load_with_head(
        "AutoModelForSequenceClassification",
        path,
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_downloads=allow_downloads,
        num_labels=len(names),
        id2label=names,
        label2id={name: number for number, name in names.items()},
        problem_type=problem,
    )


def load_regressor(
    path: str, *, names: Sequence[str], revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A model with an output for each of these numbers; otherwise as `load_classifier`."""
    return load_with_head(
        "AutoModelForSequenceClassification",
        path,
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_downloads=allow_downloads,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        problem_type="regression",
    )


def load_answerer(
    path: str, *, revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A model that says of each token whether an answer begins and ends there; otherwise as `load_classifier`."""
    return load_with_head(
        "AutoModelForQuestionAnswering",
        path,
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_downloads=allow_downloads,
        num_labels=2,
    )


def load_tagger(
    path: str, *, names: Sequence[str], revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A model that gives each token one of these tags; otherwise as `load_classifier`."""
    return load_with_head(
        "AutoModelForTokenClassification",
        path,
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        allow_downloads=allow_downloads,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )


def load_with_head(
    kind: str,
    path: str,
    *,
    revision: str | None,
    dtype: str,
    trust_remote_code: bool,
    allow_downloads: bool,
    of_head: Callable[[str, Any], bool] | None = None,
    **config: Any,
) -> Any:
    """A model of transformers' class `kind` with `config` changed so. What its head lacks, or has in another size, is
    drawn anew and named in NEW_WEIGHTS. `of_head` says whether a tensor of this name belongs to the head of a model.

    Raises ConfigError when weights of the model itself are missing or of another size, or when there is no such class
    for it.
    """
    import transformers

    try:
        model, info = getattr(transformers, kind).from_pretrained(
            model_location(path),
            revision=revision,
            dtype=DTYPES.get(dtype, "auto"),
            trust_remote_code=trust_remote_code,
            local_files_only=not allow_downloads or Path(path).exists(),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **config,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        advice = f"name a model that transformers loads as {kind}"
        raise ConfigError(Problem("model.path", f"{path} does not load: {first_line(error)}", advice)) from error
    new = sorted({*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])})
    if missing := [name for name in new if not (of_head or _is_of_head)(name, model)]:
        what = f"{path} lacks {len(missing)} of the model's tensors, such as {missing[0]}"
        raise ConfigError(Problem("model.path", what, "name a model with all of its weights"))
    drawn = {name for name, _ in model.named_parameters(remove_duplicate=False)}  # buffers begin as constants
    setattr(model, NEW_WEIGHTS, [name for name in new if name in drawn])
    return model


def _is_of_head(name: str, model: Any) -> bool:
    """Whether a tensor belongs to what stands on top of the model that reads. A pooler is made for one head alone."""
    if not hasattr(model, model.base_model_prefix):  # T5 has its parts beside the head
        return not name.startswith(("shared.", "encoder.", "decoder."))
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def new_modules(model: Any) -> list[str]:
    """The parts of a model that were drawn at random."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return list(dict.fromkeys(name.rpartition(".")[0] for name in getattr(inner, NEW_WEIGHTS, ())))


def set_padding(model: Any, tokenizer: Any) -> None:
    """Tell a model what its batches are padded with: a decoder reads its score at the last token before padding."""
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = padding_id(tokenizer)


def load_trained(run: Run, folder: Path, tokenizer: Any, load: Callable[..., Any]) -> Any:
    """The trained model in `folder`: its weights, or the model it began with and the adapter.

    `load` is one of the functions above. Raises ConfigError for a folder that does not hold all that was trained.
    """
    is_adapter = (folder / ADAPTER_SETTINGS).is_file()
    model = load(
        run.model.path if is_adapter else str(folder),
        revision=run.model.revision if is_adapter else None,
        dtype="float32",
        trust_remote_code=run.model.trust_remote_code,
        allow_downloads=run.run.allow_downloads,
    )
    set_padding(model, tokenizer)
    saved = _saved_by_adapter(folder) if is_adapter else set()
    if lacking := [name for name in getattr(model, NEW_WEIGHTS, ()) if name not in saved]:
        what = f"lacks {len(lacking)} tensors that were drawn at random for training, such as {lacking[0]}"
        raise ConfigError(Problem(str(folder), what, "train it again"))
    return _with_adapter(model, folder) if is_adapter else model


ADAPTER_SETTINGS = "adapter_config.json"
"""What peft keeps beside the weights of an adapter."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
AROUND = "base_model.model."
"""What peft puts before the names of a model's own tensors."""


def _saved_by_adapter(folder: Path) -> set[str]:
    """The names of the tensors that an adapter's file has, as the model without adapter calls them.

    Raises ConfigError for a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as tensors:
            return {name.removeprefix(AROUND) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(Problem(str(folder), f"{ADAPTER_WEIGHTS} does not load: {first_line(error)}")) from error


def _with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder around it. Raises ConfigError for an adapter of another model."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        what = f"the adapter does not load: {first_line(error)}"
        raise ConfigError(Problem(str(folder), what, "name the folder of a run that ended")) from error


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
