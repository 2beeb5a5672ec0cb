"""Greedy answers to fixed prompts, to watch a model learn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from aitrain.data.tokens import Blocks
from aitrain.ml.collating import TokenRows, padding_id
from aitrain.rendering import ChatFormat, RenderingError, stop_strings

PLACE = "QUESTION"


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, its text, and the answer in the data if there is one."""

    ids: list[int]
    text: str
    expected: str | None


def prompts_of_rows(rows: TokenRows, tokenizer: Any, count: int) -> list[Prompt]:
    """Evenly spaced rows, cut before their first trained token; that token run is the expected answer.

    Rows that are trained from the start (plain text) give their first half as prompt and expect nothing; of a block
    that begins inside a row it is the first half of the next one, or what follows the first word.
    """
    found = []
    for number in range(min(count, len(rows))):
        row = rows[number * len(rows) // min(count, len(rows))]
        ids, trained = row.ids.tolist(), row.trained.tolist()
        first = trained.index(1)
        if first > 1:
            end = next((i for i in range(first, len(ids)) if not trained[i]), len(ids))
            expected = tokenizer.decode(ids[first:end], skip_special_tokens=True).strip() or None
            found.append(Prompt(ids[:first], question_of(tokenizer, ids[:first]), expected))
            continue
        place = number * len(rows) // min(count, len(rows))
        start, end = _whole_text(ids, rows.beginnings(place) if isinstance(rows, Blocks) else [0], tokenizer)
        asked = ids[start : start + max(1, min((end - start) // 2, LONGEST))]
        found.append(Prompt(asked, question_of(tokenizer, asked), None))
    return found


LONGEST, SHORTEST = 32, 8
"""Tokens of a prompt that is cut out of plain text, and those that a text has at least to be cut."""
SPACES = ("Ġ", "▁", "Ċ", "ĉ", " ", "\n", "\t")
"""How tokens begin that begin a word: with a space or a line's end, as the kinds of tokenizers write them."""


def _whole_text(ids: list[int], beginnings: list[int], tokenizer: Any) -> tuple[int, int]:
    """Where in a block to cut a prompt out: the first row that begins there, else from its first whole word on."""
    for start, end in pairwise([*beginnings, len(ids)]):
        if end - start >= SHORTEST:
            return start, end
    if 0 in beginnings:
        return 0, len(ids)
    words = (i for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids)) if token.startswith(SPACES))
    return next((i for i in words if len(ids) - i >= SHORTEST), 0), len(ids)


def question_of(tokenizer: Any, ids: list[int]) -> str:
    """A prompt as a person would write it: without the words that the chat format puts around a single question."""
    from aitrain.data.rendering import RenderingError, prompt_text

    whole = tokenizer.decode(ids)
    try:
        before, _, after = prompt_text(tokenizer, [{"role": "user", "content": PLACE}]).partition(PLACE)
    except RenderingError:
        before, after = "", ""
    if whole.startswith(before) and whole.endswith(after) and len(whole) > len(before) + len(after):
        inner = whole[len(before) : len(whole) - len(after)]
        if not (before.strip() and before.strip() in inner):
            return inner.strip()
    return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def end_ids(tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the end of a text, and the end of a turn where the chat format has a token for it."""
    special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    stops: tuple[str, ...] = ()
    if tokenizer.chat_template:
        with suppress(RenderingError):  # a template may refuse the plain conversation that it is asked to write
            stops = stop_strings(ChatFormat.AUTO, tokenizer)
    ends = [special[text] for text in stops if text in special]
    return list(dict.fromkeys([*([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]), *ends]))


@torch.no_grad()
def answer(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[dict[str, Any]]:
    """Each prompt with the model's greedy answer, and whether it equals the expected one."""
    if not prompts:
        return []
    longest = max(len(prompt.ids) for prompt in prompts)
    pad = padding_id(tokenizer)
    ids = torch.tensor([[pad] * (longest - len(p.ids)) + p.ids for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p.ids)) + [1] * len(p.ids) for p in prompts], device=model.device)
    was_training = model.training
    model.eval()
    try:
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=end_ids(tokenizer) or None,
        )
    finally:
        model.train(was_training)
    texts = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
    return [
        {
            "prompt": prompt.text,
            "expected": prompt.expected,
            "text": text.strip(),
            "correct": None if prompt.expected is None else text.strip() == prompt.expected,
        }
        for prompt, text in zip(prompts, texts, strict=True)
    ]
