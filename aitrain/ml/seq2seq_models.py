"""Encoder-decoder models: loading, what the decoder reads, what it makes of the true targets, and what it writes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from aitrain.data.seq2seq_encoding import LANGUAGE_KEYS, forced_bos_id, language_id
from aitrain.errors import ConfigError, Problem
from aitrain.evaluation.text import judge_texts
from aitrain.ml.loading import load_with_head

IGNORED = -100
"""Label of padding."""
KEPT = ("min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "repetition_penalty",
        "length_penalty", "early_stopping", "bad_words_ids", "suppress_tokens")  # fmt: skip
"""Settings of a model's own that change what it writes."""
DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Settings of a model's own that act only where tokens are drawn."""


def _is_of_output(name: str, model: Any) -> bool:
    """Whether a tensor belongs to what makes tokens of the decoder's states. Not every such model has its base under
    a name of its own."""
    return name.split(".")[0] in ("lm_head", "final_logits_bias")


load_seq2seq = partial(load_with_head, "AutoModelForSeq2SeqLM", of_head=_is_of_output)
"""A model that reads a text and writes one. Raises ConfigError."""


def base_of(model: Any) -> Any:
    """The model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def padded_labels(targets: Sequence[Sequence[int]]) -> Tensor:
    """(rows, longest) token ids, IGNORED behind the end of each."""
    labels = np.full((len(targets), max(len(ids) for ids in targets)), IGNORED, np.int64)
    for index, ids in enumerate(targets):
        labels[index, : len(ids)] = ids
    return torch.from_numpy(labels)


def shift_of(model: Any) -> Callable[[Tensor], Tensor]:
    """How labels become what the decoder reads: one place to the right, as the model itself does it.

    Raises ConfigError for a model that does not say what its decoder begins with.
    """
    inner = base_of(model)
    start, pad = inner.config.decoder_start_token_id, inner.config.pad_token_id
    own = getattr(inner, "prepare_decoder_input_ids_from_labels", None)
    if start is None and inner.generation_config.decoder_start_token_id is None:
        what = "its config.json names no decoder_start_token_id, with which every target begins"
        raise ConfigError(Problem("model.path", what, "name a model that is ready to write texts"))
    if own is not None:
        return lambda labels: own(labels=labels)

    def shift(labels: Tensor) -> Tensor:
        shifted = torch.cat([labels.new_full((len(labels), 1), start), labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORED, pad)

    return shift


# --- reading true targets ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What a model makes of the true targets of some rows, each (rows,), in float64 on the CPU."""

    losses: Tensor
    """Sum over the tokens of a target of their negative log-probability in nats."""
    right: Tensor
    """Tokens that are the likeliest ones."""
    tokens: Tensor


def read_targets(logits: Tensor, labels: Tensor) -> Read:
    """`logits` (rows, places, vocabulary), `labels` (rows, places)."""
    there = labels != IGNORED
    losses = cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    right = (logits.argmax(-1) == labels) & there
    return Read(*(each.double().sum(-1).cpu() for each in (losses, right, there)))


# --- writing -------------------------------------------------------------------------------------------------------


def writing_settings(model: Any, tokenizer: Any, section: Any) -> Any:
    """The model's GenerationConfig, changed as `task` says: always the likeliest text, no token is drawn.

    Raises ConfigError for a forced token that the tokenizer does not have.
    """
    inner = base_of(model)
    found = copy.deepcopy(inner.generation_config)
    changes: dict[str, Any] = {**dict.fromkeys(DRAWING), "do_sample": False, "use_cache": True}
    changes |= {"num_beams": section.num_beams, "max_new_tokens": None}
    changes["max_length"] = section.longest + 1  # the decoder's start counts
    if section.target_language is not None:
        spoken = language_id(tokenizer, section.target_language, LANGUAGE_KEYS[1])
        # Most begin a target with its language; the first mBART ends it so, and its decoder starts from there.
        begins = tokenizer(text_target="")["input_ids"][:1] == [spoken]
        changes["forced_bos_token_id" if begins else "decoder_start_token_id"] = spoken
    if (forced := forced_bos_id(tokenizer, section.forced_bos_token)) is not None:
        changes["forced_bos_token_id"] = forced
    if section.num_beams == 1:  # these are for the search alone
        changes |= {"early_stopping": None, "length_penalty": None}
    for name in ("min_length", "min_new_tokens"):
        if (getattr(found, name, None) or 0) > section.longest:
            changes[name] = None
    for name, ours in (("pad_token_id", tokenizer.pad_token_id), ("eos_token_id", tokenizer.eos_token_id),
                       ("decoder_start_token_id", inner.config.decoder_start_token_id)):  # fmt: skip
        if getattr(found, name, None) is None:
            changes.setdefault(name, ours)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def kept_settings(settings: Any) -> str:
    """What the model's own settings besides do to what it writes, in words; ''."""
    plain = (None, 0, 1, 1.0, False)
    kept = {name: getattr(settings, name, None) for name in KEPT}
    return ", ".join(f"{name}={value}" for name, value in kept.items() if value not in plain)


@torch.no_grad()
def write(model: Any, sources: Sequence[Sequence[int]], settings: Any, pad_id: int) -> list[list[int]]:
    """For each source, token ids, the text that the model writes: token ids without the decoder's start, with the end
    if it came to one. `model` is in evaluation mode."""
    longest = max(len(ids) for ids in sources)
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in sources], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sources], device=model.device)
    found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    return [_until_end(row[1:], ends) for row in found.tolist()]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    place = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: place + 1]


def texts_of_ids(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """The texts of token ids, without special tokens and outer white space."""
    return [text.strip() for text in tokenizer.batch_decode(list(rows), skip_special_tokens=True)]


# --- measures ------------------------------------------------------------------------------------------------------


def measures_of_targets(loss: float, accuracy: float) -> dict[str, float]:
    """Loss in nats a token, perplexity, and the share of tokens that are the likeliest ones."""
    perplexity = math.exp(loss) if loss < 700 else 1e304
    return {"loss": loss, "perplexity": perplexity, "token_accuracy": float(accuracy)}


def measures_of_texts(given: Sequence[str], targets: Sequence[str], ids: Sequence[Sequence[int]]) -> dict[str, float]:
    """What written texts are worth, and how many tokens they have on average, the end of a text counted."""
    length = sum(len(row) for row in ids) / len(ids)
    return {**judge_texts(given, [[target] for target in targets]), "generated_length": length}
