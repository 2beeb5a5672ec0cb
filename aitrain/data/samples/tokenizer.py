"""The tokenizer of the sample models: byte-level BPE trained on the samples, with a ChatML-like template.

It needs the `tokenizers` library alone, no torch and no transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 2048
PAD, END, START = "<|pad|>", "<|im_end|>", "<|im_start|>"
SPECIAL_TOKENS = (PAD, END, START)
"""Their ids are their places: pad 0, end of turn and of text 1, start of turn 2."""
PAD_ID, END_ID = 0, 1
CLS, SEP, MASK = "[CLS]", "[SEP]", "[MASK]"
ENCODER_TOKENS = (PAD, CLS, SEP, MASK)
"""Of an encoder: padding 0 again, then what a text begins with, what it ends with, and what hides a token."""
CONTEXT = 1024
"""Tokens; the longest sequence of the sample models."""

# Capitals that begin no word and digits stand alone, so that spelling and arithmetic are visible; then words with the
# blank before them, runs of signs, and blanks. Names in camel case fall apart at their capitals.
PIECES = r"[A-Z](?![a-z])|\p{N}| ?[A-Z]?[^\s\p{N}\p{P}\p{S}A-Z]+| ?[\p{P}\p{S}]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\ntools: ' + (tools | tojson) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- (message['content'] or '') + ('call: ' + (message['tool_calls'] | tojson) if message['tool_calls'] else '') }}
{{- '<|im_end|>' }}
{%- endgeneration %}
{%- else %}
{{- message['content'] + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def write_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """Train on `texts` and write what `AutoTokenizer.from_pretrained(folder)` reads."""
    tokenizer = _trained(texts, SPECIAL_TOKENS)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def write_encoder_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """The same for an encoder: a text stands between [CLS] and [SEP], two texts have a [SEP] between them."""
    from tokenizers import processors

    tokenizer = _trained(texts, ENCODER_TOKENS)
    ends = [(token, ENCODER_TOKENS.index(token)) for token in (CLS, SEP)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(ENCODER_CONFIG, indent=2), encoding="utf-8")


def write_pair_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """The same for an encoder-decoder: a text ends with the token that ends what is written."""
    from tokenizers import processors

    tokenizer = _trained(texts, SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, END_ID)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(PAIR_CONFIG, indent=2), encoding="utf-8")


def _trained(texts: Iterable[str], special_tokens: Sequence[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "eos_token": END,
    "additional_special_tokens": [START],
    "model_max_length": CONTEXT,
    "padding_side": "right",
    "clean_up_tokenization_spaces": False,
}
ENCODER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "cls_token": CLS,
    "sep_token": SEP,
    "mask_token": MASK,
    "model_max_length": CONTEXT,
    "padding_side": "right",
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
}
PAIR_CONFIG = {**TOKENIZER_CONFIG, "model_input_names": ["input_ids", "attention_mask"]}
