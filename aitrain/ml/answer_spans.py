"""Scores of where an answer begins and ends, to the answer that is given.

The score of a span is that of its start plus that of its end; the score of giving no answer is that of the first token
as both (Devlin et al. 2018, section 4.3, https://arxiv.org/abs/1810.04805).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aitrain.data.windows import AskedRow

OF_SPAN = 3
"""Numbers of a span: score, first token, last token."""


@dataclass(frozen=True)
class Choosing:
    """How an answer is chosen."""

    n_best: int
    """The likeliest starts and ends of a window that are tried with each other."""
    longest: int
    """Tokens of the longest answer."""
    unanswerable: bool
    threshold: float
    """No answer is given where its score is larger by more than this."""

    @property
    def width(self) -> int:
        """Numbers that `of_windows` says of a window."""
        return 1 + OF_SPAN * self.n_best

    def of_windows(self, starts: Tensor, ends: Tensor, first: Tensor, past: Tensor) -> Tensor:
        """For each window the score of no answer, then the best spans from the best on: (windows, width), float64.

        `starts` and `ends` are scores, (windows, tokens); the context goes from token `first` to before `past`. Spans
        that are fewer than `n_best` are followed by ones with a score of minus infinity.
        """
        starts, ends = starts.double(), ends.double()
        null = starts[:, :1] + ends[:, :1]
        places = torch.arange(starts.shape[1], device=starts.device)
        outside = (places < first[:, None]) | (places >= past[:, None])
        starts, ends = starts.masked_fill(outside, -torch.inf), ends.masked_fill(outside, -torch.inf)
        low, high, scores = self._pairs(starts, ends)
        best, order = scores.topk(min(self.n_best, scores.shape[1]))
        spans = torch.stack([best, low.gather(1, order).double(), high.gather(1, order).double()], -1).flatten(1)
        found = torch.full((len(spans), self.width), -torch.inf, dtype=torch.float64, device=spans.device)
        found[:, :1] = null
        found[:, 1 : 1 + spans.shape[1]] = spans
        found[:, 2::OF_SPAN].clamp_(min=0)  # the places of spans that are not there
        found[:, 3::OF_SPAN].clamp_(min=0)
        return found

    def _pairs(self, starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First token, last token and score of the spans that are tried: (windows, spans) each.

        The last one is the best single token, for where no start that is tried comes before an end.
        """
        count = min(self.n_best, starts.shape[1])
        top_starts, low = starts.topk(count)
        top_ends, high = ends.topk(count)
        scores = top_starts[:, :, None] + top_ends[:, None, :]
        tokens = high[:, None, :] - low[:, :, None] + 1
        scores = scores.masked_fill((tokens < 1) | (tokens > self.longest), -torch.inf).flatten(1)
        single, place = (starts + ends).max(1, keepdim=True)
        single = single.masked_fill(scores.isfinite().any(1, keepdim=True), -torch.inf)
        lows = low[:, :, None].expand(-1, -1, count).flatten(1)
        highs = high[:, None, :].expand(-1, count, -1).flatten(1)
        return torch.cat([lows, place], 1), torch.cat([highs, place], 1), torch.cat([scores, single], 1)

    def answer(self, context: str, windows: Sequence[NDArray[np.float64]], offsets: Sequence[Offsets]) -> Given:
        """The answer from what `of_windows` says of the windows of one question."""
        null = min(float(window[0]) for window in windows)
        spans: dict[tuple[int, int], float] = {}
        for window, places in zip(windows, offsets, strict=True):
            for score, low, high in window[1:].reshape(-1, OF_SPAN):
                if np.isfinite(score):
                    span = places.characters(int(low), int(high))
                    spans[span] = max(score, spans.get(span, -np.inf))
        ranked = sorted(spans.items(), key=lambda pair: -pair[1])[: self.n_best]
        (start, end), best = ranked[0]
        scores = np.array([score for _, score in ranked] + ([null] if self.unanswerable else []))
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        text = context[start:end]
        begin = start + len(text) - len(text.lstrip())
        none = float(chances[-1]) if self.unanswerable else None
        return Given(text.strip(), begin, float(chances[0]), null - best, none, self)


@dataclass(frozen=True)
class Offsets:
    """Which characters the tokens of a window stand for."""

    first: int
    """Place of the first token of the context."""
    pairs: NDArray[np.int32]
    """(tokens of the context, 2): first character and the one after the last."""

    def characters(self, low: int, high: int) -> tuple[int, int]:
        """The characters from the token `low` to the token `high`, both counted from the start of the window."""
        return int(self.pairs[low - self.first, 0]), int(self.pairs[high - self.first, 1])


@dataclass(frozen=True)
class Given:
    """The answer that a model gives to a question."""

    best: str
    """The best span, also where none is given."""
    start: int
    """Its first character."""
    score: float
    """Its probability among the spans that were tried, and no answer where that is possible."""
    null_difference: float
    """Score of no answer less that of the best span."""
    no_answer: float | None
    """Probability of no answer; None where each question has one."""
    choosing: Choosing

    @property
    def text(self) -> str:
        """The answer; '' for none."""
        none = self.choosing.unanswerable and self.null_difference > self.choosing.threshold
        return "" if none else self.best


def answers_of(
    rows: Sequence[AskedRow], offsets: Sequence[Offsets], predictions: NDArray[np.float64], choosing: Choosing
) -> list[Given]:
    """The answer to each question, from what was said of all windows, (windows, width) in their order."""
    return [
        choosing.answer(
            row.context,
            list(predictions[row.examples.start : row.examples.stop]),
            offsets[row.examples.start : row.examples.stop],
        )
        for row in rows
    ]
