"""Judges a model by its folder, with plain transformers, knowing nothing of the run that made it."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TOGETHER = 64
"""Rows in one forward pass."""
LONGEST_ANSWER = 12


@dataclass(frozen=True)
class Verdict:
    """What a model makes of pairs. All tensors are (pairs,)."""

    chosen: Tensor
    """Log-probability of the better answer, its end token included."""
    rejected: Tensor
    chosen_mean: Tensor
    """The same a token."""
    rejected_mean: Tensor
    right: float
    """Share of prompts to which the most likely answer, token by token, is the better one to the letter."""

    @property
    def in_order(self) -> Tensor:
        """Whether the better answer is the likelier one, each pair."""
        return self.chosen > self.rejected


def judge(folder: Path, pairs: list[dict[str, str]]) -> Verdict:
    """Read a model and judge it by pairs: `prompt`, the first turn of a conversation, `chosen` and `rejected`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    turns = [[{"role": "user", "content": pair["prompt"]}] for pair in pairs]
    prompts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    with torch.no_grad():
        sums, means = zip(*(_log_probabilities(model, tokenizer, prompts, pairs, side) for side in SIDES), strict=True)
        right = _right(model, tokenizer, prompts, pairs)
    return Verdict(*sums, *means, right)


SIDES = ("chosen", "rejected")


def _log_probabilities(
    model: Any, tokenizer: Any, prompts: list[str], pairs: list[dict[str, str]], side: str
) -> tuple[Tensor, Tensor]:
    """Of each answer under its prompt, in all and a token."""
    import torch

    asked = tokenizer(prompts, add_special_tokens=False).input_ids
    told = tokenizer([pair[side] + tokenizer.eos_token for pair in pairs], add_special_tokens=False).input_ids
    sums = []
    for start in range(0, len(pairs), TOGETHER):
        some = list(zip(asked, told, strict=True))[start : start + TOGETHER]
        longest = max(len(question) + len(answer) for question, answer in some)
        ids = torch.zeros(len(some), longest, dtype=torch.long)
        answers = torch.zeros(len(some), longest)
        for row, (question, answer) in enumerate(some):
            end = len(question) + len(answer)
            ids[row, :end] = torch.tensor(question + answer)
            answers[row, len(question) : end] = 1
        logits = model(input_ids=ids).logits[:, :-1]  # what stands behind a row cannot be seen by it
        found = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        sums.append((found * answers[:, 1:]).sum(1))
    total = torch.cat(sums)
    return total, total / torch.tensor([len(answer) for answer in told])


def _right(model: Any, tokenizer: Any, prompts: list[str], pairs: list[dict[str, str]]) -> float:
    right = 0
    for start in range(0, len(pairs), TOGETHER):
        part = tokenizer(prompts[start : start + TOGETHER], add_special_tokens=False, return_tensors="pt", padding=True)
        found = model.generate(
            input_ids=part["input_ids"], attention_mask=part["attention_mask"], max_new_tokens=LONGEST_ANSWER,
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        texts = tokenizer.batch_decode(found[:, part["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(text == pair["chosen"] for text, pair in zip(texts, pairs[start:], strict=False))
    return right / len(pairs)


def chance(better: Tensor, worse: Tensor) -> float:
    """How likely so many pairs are put right, against those put wrong, by a coin (one-sided sign test)."""
    gained, lost = int((better & ~worse).sum()), int((worse & ~better).sum())
    return sum(comb(gained + lost, count) for count in range(gained, gained + lost + 1)) / 2 ** (gained + lost)
