"""Penalty for saying the same again."""

from __future__ import annotations

from aitrain.rl.rewards.built_in import BuiltIn
from aitrain.rl.settings import option


class Repetition(BuiltIn):
    """0 where no run of words comes twice, towards -1 the more of them do: minus the share of repeated n-grams."""

    ngram: int = option(3, gt=0)
    """Words in a run. Fewer find more repetition, also where language needs it."""

    def score(self, text: str) -> float:
        words = text.casefold().split()
        runs = [tuple(words[i : i + self.ngram]) for i in range(len(words) - self.ngram + 1)]
        return len(set(runs)) / len(runs) - 1.0 if runs else 0.0
