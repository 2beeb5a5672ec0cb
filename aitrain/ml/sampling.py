"""Sampling answers from a causal language model, row by row reproducible.

Each row draws its random numbers from a seed of its own, so an answer does not depend on the batch that it is made in,
nor on the number of processes. Rows that are done leave the batch. For the logits themselves the model's own forward
pass with its cache is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

LEAVE = 0.75
"""The batch is made smaller once at most this share of its rows still goes on: each time copies the cache."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when an answer ends."""

    max_new_tokens: int
    temperature: float = 1.0
    """0: always the most likely token."""
    top_k: int = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together have this probability."""
    end_ids: tuple[int, ...] = ()
    """Tokens that end an answer; they belong to it."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end an answer once it holds one; they belong to it."""


@dataclass(frozen=True)
class Answer:
    """Sampled token ids, with the token that ended them if one did."""

    ids: list[int]
    ended: bool
    """Whether the model ended it by itself, before `max_new_tokens`."""


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    settings: Sampling,
    *,
    chunk_size: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Answer] | None:
    """An answer to each prompt (token ids), in order; `seeds` has whole numbers for each. None once `interrupted`.

    `chunk_size` rows are written at once, those of similar prompt length together. The model must attend in its
    ordinary way (see `aitrain.ml.layout.Layout.generating`).
    """
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    answers: dict[int, Answer] = {}
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), chunk_size):
            chunk = order[start : start + chunk_size]
            batch = _Batch(model, tokenizer, [prompts[n] for n in chunk], [seeds[n] for n in chunk], settings)
            while batch.going_on():
                if interrupted():
                    return None
                batch.advance()
            answers |= dict(zip(chunk, batch.answers(), strict=True))
    finally:
        model.train(was_training)
    return [answers[number] for number in range(len(prompts))]


class _Batch:
    """Rows that are written together, padded on the left, as long as they go on."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: Sampling,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.device = model.device
        self.written: list[list[int]] = [[] for _ in prompts]
        self.ended = [False] * len(prompts)
        self.rows = list(range(len(prompts)))
        """Which of the prompts the rows of the batch are."""
        self.draws: NDArray[np.float64] = np.stack(
            [np.random.default_rng([*seed]).random(settings.max_new_tokens) for seed in seeds]
        )
        longest = max(len(prompt) for prompt in prompts)
        ids = np.zeros((len(prompts), longest), np.int64)
        mask = np.zeros_like(ids)
        for number, prompt in enumerate(prompts):
            ids[number, longest - len(prompt) :] = prompt
            mask[number, longest - len(prompt) :] = 1
        self.ids = torch.from_numpy(ids).to(self.device)
        self.mask = torch.from_numpy(mask).to(self.device)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.cache: Any = None
        self.ends = torch.tensor(settings.end_ids, device=self.device, dtype=torch.long)
        self.step = 0

    def going_on(self) -> bool:
        """Whether a row is not done yet."""
        return any(self._goes_on(row) for row in self.rows)

    def _goes_on(self, row: int) -> bool:
        return not self.ended[row] and len(self.written[row]) < self.settings.max_new_tokens

    def answers(self) -> list[Answer]:
        """What was written."""
        return [Answer(ids, ended) for ids, ended in zip(self.written, self.ended, strict=True)]

    def advance(self) -> None:
        """Write the next token of each row."""
        output = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        chosen = self._choose(output.logits[:, -1].float())
        for row, token in zip(self.rows, chosen.tolist(), strict=True):
            if self._goes_on(row):
                self.written[row].append(token)
                self.ended[row] = token in self.settings.end_ids or self._says_stop(row)
        self.ids = chosen[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.positions = self.positions[:, -1:] + 1
        self.step += 1
        self._let_go()

    def _choose(self, logits: Tensor) -> Tensor:
        settings = self.settings
        if settings.temperature == 0:
            return logits.argmax(-1)
        logits = logits / settings.temperature
        if 0 < settings.top_k < logits.shape[-1]:
            logits = TopKLogitsWarper(settings.top_k)(None, logits)
        if settings.top_p < 1:
            logits = TopPLogitsWarper(settings.top_p)(None, logits)
        draws = torch.from_numpy(self.draws[self.rows, self.step]).to(self.device)
        return pick(logits.softmax(-1), draws)

    def _says_stop(self, row: int) -> bool:
        if not self.settings.stop_strings:
            return False
        # A token is one character at least, so that many tokens hold any stop string that has just been ended.
        longest = max(len(text.encode()) for text in self.settings.stop_strings)
        tail = self.tokenizer.decode(self.written[row][-longest - 1 :])
        return any(text in tail for text in self.settings.stop_strings)

    def _let_go(self) -> None:
        """Drop the rows that are done, when there are enough of them."""
        going = [place for place, row in enumerate(self.rows) if self._goes_on(row)]
        if not going or len(going) > LEAVE * len(self.rows):
            return
        kept = torch.tensor(going, device=self.device)
        self.cache.reorder_cache(kept)
        self.ids, self.mask, self.positions = self.ids[kept], self.mask[kept], self.positions[kept]
        self.rows = [self.rows[place] for place in going]


def pick(probabilities: Tensor, draws: Tensor) -> Tensor:
    """The token at which the running sum of `probabilities` (rows, tokens) passes each of `draws` (rows,) in [0, 1)."""
    double = torch.float64 if probabilities.device.type != "mps" else torch.float32
    sums = probabilities.to(double).cumsum(-1)
    wanted = (draws.to(double) * sums[:, -1])[:, None]
    return torch.searchsorted(sums, wanted, right=True)[:, 0].clamp(max=probabilities.shape[-1] - 1)
