"""What a caller chooses: the format, the turns that carry loss, the weights, the longest example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from aitrain.data.columns import CHAT_ROLES
from aitrain.data.encoding import Truncation
from aitrain.data.formats import FILES, read_template, template_of
from aitrain.data.rendering import ChatTemplate
from aitrain.data.weights import Learning, TrainOn
from aitrain.errors import ConfigError, Problem, did_you_mean


class ChatFormat(StrEnum):
    """A way of writing a conversation; see docs/rendering.md for what each one looks like."""

    AUTO = "auto"
    """The tokenizer's own chat template."""
    CHATML = "chatml"
    ALPACA = "alpaca"
    VICUNA = "vicuna"
    ZEPHYR = "zephyr"
    LLAMA = "llama"
    """Llama 3."""
    MISTRAL = "mistral"
    PLAIN = "plain"
    """`User: …` and `Assistant: …` lines."""
    RAW = "raw"
    """A prompt and its completion, with nothing around them."""


@dataclass(frozen=True)
class RenderConfig:
    """How conversations are written, and which of their tokens carry loss. The names are those of `data.*` keys."""

    format: ChatFormat | str = ChatFormat.AUTO
    train_on: TrainOn = "assistant"
    token_weights: Mapping[str, float] | None = None
    """What a token counts, by role (system, user, assistant, tool). None: every trained token counts 1."""
    max_length: int | None = None
    """Longest example in tokens. None: no limit."""
    template: str | None = None
    """A Jinja chat template, as text or as the path of a file, in place of a format."""
    truncation: Truncation = "error"
    """What happens to a longer example: refuse it, or cut its start (`left`) or end (`right`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", format_of(self.format))
        if self.template is not None and self.format != ChatFormat.AUTO:
            what = f"has no effect beside template, which takes the place of '{self.format}'"
            raise ConfigError(Problem("format", what, "set one of the two"))
        roles = sorted(set(CHAT_ROLES.values()))
        unknown = [role for role in self.token_weights or () if role not in roles]
        if unknown:
            problems = [Problem(f"token_weights.{role}", "unknown role", did_you_mean(role, roles)) for role in unknown]
            raise ConfigError(problems)
        negative = [role for role, weight in (self.token_weights or {}).items() if not 0 <= weight < float("inf")]
        if negative:
            raise ConfigError(Problem(f"token_weights.{role}", "is no number from 0 up") for role in negative)
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError(Problem("max_length", f"{self.max_length} tokens hold no example", "use 2 or more"))

    @property
    def learning(self) -> Learning:
        """Which turns carry loss, and how much."""
        return Learning(self.train_on, None if self.token_weights is None else dict(self.token_weights))

    def template_for(self, tokenizer: Any) -> ChatTemplate | None:
        """The chat template to use with a tokenizer, which is left as it is; None for `raw`.

        Raises ConfigError when the tokenizer has no chat template and no format was chosen.
        """
        if self.template is not None:
            is_file = self.template.endswith(FILES) or ("{" not in self.template and Path(self.template).is_file())
            return ChatTemplate(tokenizer, read_template(self.template) if is_file else self.template)
        if self.format == ChatFormat.RAW:
            return None
        if self.format != ChatFormat.AUTO:
            return ChatTemplate(tokenizer, template_of(str(self.format), tokenizer))
        if not tokenizer.chat_template:
            what = "the tokenizer has no chat template of its own"
            raise ConfigError(Problem("format", what, f"choose one of {', '.join(ChatFormat)}"))
        return ChatTemplate(tokenizer)


def format_of(word: ChatFormat | str) -> ChatFormat:
    """The format of that name. Raises ConfigError naming the nearest one when there is none."""
    try:
        return ChatFormat(word)
    except ValueError:
        raise ConfigError(
            Problem("format", f"there is no chat format '{word}'", did_you_mean(str(word).lower(), list(ChatFormat)))
        ) from None
