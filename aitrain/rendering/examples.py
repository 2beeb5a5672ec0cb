"""One conversation as token ids: what a model is asked, and what it learns from. The same code prepares runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aitrain.data.encoding import TooLong, Unusable, encoded, one_bos, tokenize_texts
from aitrain.data.rendering import RenderingError
from aitrain.data.weights import weigh, weigh_pair
from aitrain.rendering.config import RenderConfig
from aitrain.rendering.conversations import Conversation

IGNORED = -100
"""Label of a token that carries no loss, as in torch's cross entropy."""


@dataclass(frozen=True)
class SupervisedExample:
    """Three lists of one length."""

    ids: list[int]
    labels: list[int]
    """The token ids where they carry loss, else -100; not shifted."""
    token_weights: list[float]
    """What each token's loss counts; 0 where it carries none."""


def build_generation_prompt(
    conversation: Conversation, tokenizer: Any, config: RenderConfig | None = None
) -> list[int]:
    """Token ids after which the model writes the next answer, begun with one BOS token at most.

    Raises RenderingError when the conversation ends with an answer, cannot be rendered, or is longer than
    `config.max_length` (`truncation="left"` keeps its end), and ConfigError when there is no template.
    """
    config = config or RenderConfig()
    template = config.template_for(tokenizer)
    if conversation.messages[-1].role == "assistant":
        raise RenderingError("the conversation ends with an answer, where the turn to answer is expected")
    turns = conversation.turns(input_apart=template is not None and template.has_place_for_input)
    if template is not None:
        text = template.prompt(turns, _tools(conversation))
    elif [turn["role"] for turn in turns] == ["user"]:
        text = turns[0]["content"]
    else:
        raise RenderingError("the raw format has no place for more than a prompt and a completion")
    ((ids, _, added),) = tokenize_texts(tokenizer, [text], template is None)
    end = len(ids)
    while end and added[end - 1]:  # an end of sequence, after which nothing would be written
        end -= 1
    ids, _ = one_bos(tokenizer, ids[:end], [0] * end)
    if config.max_length is not None and len(ids) > config.max_length:
        if config.truncation != "left":
            raise RenderingError(f"the prompt has {len(ids)} tokens, more than {config.max_length}")
        ids = ids[-config.max_length :]
    return ids


def build_supervised_example(
    conversation: Conversation, tokenizer: Any, config: RenderConfig | None = None
) -> SupervisedExample:
    """Token ids of a conversation, with labels and weights on what is to be learnt.

    Each trained answer ends with a labelled end token. Raises RenderingError when the conversation cannot be rendered,
    nothing in it is trained, or it is longer than `config.max_length`, and ConfigError when there is no template.
    """
    config = config or RenderConfig()
    template = config.template_for(tokenizer)
    turns = conversation.turns(input_apart=template is not None and template.has_place_for_input)
    if template is None:
        weighed = weigh_pair(turns, tokenizer.eos_token, config.learning)
    else:
        weighed = weigh(template, turns, _tools(conversation), config.learning)
    (tokens,) = tokenize_texts(tokenizer, [weighed.text], template is None)
    row = encoded(tokenizer, weighed, tokens, config.max_length, config.truncation, weighted=True)
    if isinstance(row, TooLong):
        raise RenderingError(f"the conversation has {row.tokens} tokens, more than {config.max_length}")
    if isinstance(row, Unusable):
        raise RenderingError(row.reason)
    labels = [token if kept else IGNORED for token, kept in zip(row.ids, row.trained, strict=True)]
    return SupervisedExample(row.ids, labels, row.weights or [float(kept) for kept in row.trained])


def _tools(conversation: Conversation) -> list[dict[str, Any]] | None:
    return list(conversation.tools) if conversation.tools else None
