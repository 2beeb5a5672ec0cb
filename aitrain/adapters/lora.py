"""`peft=lora`: low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

A frozen weight W becomes W + (alpha / r) B A, where A and B have rank r and are all that is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


class Lora(OptionSection):
    """Low-rank adapters."""

    name: Literal["lora"]
    """The PEFT method; choose it with `peft=lora`."""
    r: int = key(gt=0)
    """Rank of the update."""
    alpha: float = key(gt=0)
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with `peft.use_rslora`)."""
    dropout: float = key(ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | list[str] | None
    """Layers that get an adapter: names, or a regular expression. null: every linear layer but the output head."""
    modules_to_save: list[str] | None = key(visibility="advanced")
    """Further layers that are trained and saved whole, such as `embed_tokens`."""
    bias: Literal["none", "all", "lora_only"] = key(visibility="advanced")
    """Biases that are trained."""
    use_rslora: bool = key(visibility="advanced")
    """Scale by alpha / sqrt(r) (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732)."""
    use_dora: bool = key(visibility="advanced")
    """Train the weight's length apart from its direction (Liu et al. 2024, https://arxiv.org/abs/2402.09353)."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if isinstance(self.target_modules, list) and not self.target_modules:
            yield Problem("peft.target_modules", "names no layer", "use null for every linear layer")
        if isinstance(self.target_modules, str):
            try:
                re.compile(self.target_modules)
            except re.error as error:
                yield Problem("peft.target_modules", f"is no regular expression: {error}", "or give a list of names")


def apply(model: Any, section: Lora) -> Any:
    """The model with adapters in place; only they (and `modules_to_save`) are trained."""
    from peft import LoraConfig, get_peft_model

    whole = _whole(model, section.modules_to_save or ())
    config = LoraConfig(
        task_type=_task_type(model),
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules or "all-linear",
        modules_to_save=[*(section.modules_to_save or ()), *whole] or None,
        exclude_modules=rf"(?:{'|'.join(map(re.escape, whole))})(?:\..*)?" if whole else None,
        bias=section.bias,
        use_rslora=section.use_rslora,
        use_dora=section.use_dora,
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}
"""What peft calls models by the end of their class's name; others write texts."""


def _task_type(model: Any) -> str:
    name = type(model).__name__
    writes = "SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else "CAUSAL_LM"
    return next((kind for ending, kind in TASK_TYPES.items() if name.endswith(ending)), writes)


def _whole(model: Any, chosen: Sequence[str]) -> list[str]:
    """Parts that are trained and saved whole besides those `chosen`: heads, and what was drawn at random, which would
    be drawn otherwise the next time that the model is loaded."""
    from aitrain.ml.loading import new_modules

    task = _task_type(model)
    found = _heads(model) if task in ("QUESTION_ANS", "TOKEN_CLS") else []
    known = [*chosen, *(("classifier", "score") if task == "SEQ_CLS" else ())]  # peft saves these of its own accord
    for name in sorted(new_modules(model), key=lambda name: name.count(".")):
        if name and not _is_within(name, [*known, *found]):
            found.append(name)
    return found


def _is_within(name: str, others: Sequence[str]) -> bool:
    """Whether a module is one of the others or a part of it. Like peft, a module is meant by the end of its name."""
    parts = name.split(".")
    above = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return any(module.endswith(other) for module in above for other in others)


def _heads(model: Any) -> list[str]:
    """What stands on top of the model that reads; of a head that answers peft knows one name alone."""
    children = model.named_children()
    return [name for name, part in children if name != model.base_model_prefix and any(True for _ in part.parameters())]
