"""Examples for a trainer, one row of token ids or several each, what they count, and sums over all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Dataset

from aitrain.data.tokens import Group

COUNTS = "counts"
"""Key of a batch under which stands what its measures are weighted by. TRL never sees it."""
EXAMPLES = "examples"
"""The count that weighs the loss."""


class ExampleRows(Protocol):
    """Examples by number: `aitrain.data.tokens.Groups`, or a list."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Group: ...


@dataclass(frozen=True)
class Example:
    """One example for a batch."""

    group: Group
    partner: Group | None = None
    """Another example, whose answer is put under this one's prompt."""
    counts: bool = True
    """False for a stand-in, which a rank without examples computes so that all ranks do the same work."""


class Examples(Dataset[Example]):
    """Examples for a DataLoader, by number, or by number and a partner's; -1 is a stand-in that counts nothing."""

    def __init__(self, rows: ExampleRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> Example:
        number, partner = index if isinstance(index, tuple) else (index, None)
        other = None if partner is None else self.rows[max(partner, 0)]
        return Example(self.rows[max(number, 0)], other, counts=number >= 0)


def lengths_of(rows: ExampleRows) -> NDArray[np.int64]:
    """Tokens of the longest row of each example."""
    if hasattr(rows, "lengths"):
        lengths: NDArray[np.int64] = rows.lengths()
        return lengths
    return np.array([max(len(row.ids) for row in rows[i].rows) for i in range(len(rows))], np.int64)


def counts_of(examples: Sequence[Example], **more: float) -> dict[str, float]:
    """What a batch counts, with `more` of a trainer's own; all zero for a stand-in."""
    if not examples[0].counts:
        return dict.fromkeys(("tokens", EXAMPLES, *more), 0)
    tokens = sum(len(row.ids) for example in examples for row in example.group.rows)
    return {"tokens": tokens, EXAMPLES: len(examples), **more}


class Totals:
    """Weighted sums of measures over batches and ranks, in float64."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.sums = {name: [0.0, 0.0] for name in self.names}

    def add(self, name: str, value: float, weight: float) -> None:
        """Count a mean over `weight` things."""
        if weight:
            self.sums[name][0] += value * weight
            self.sums[name][1] += weight

    def take(self, world: int, device: torch.device) -> dict[str, tuple[float, float]]:
        """Sum and weight of each measure over all ranks; begins anew. Collective."""
        sums = torch.tensor([self.sums[name] for name in self.names], dtype=torch.float64)
        if world > 1:
            sums = sums.to(device)
            dist.all_reduce(sums)
        self.sums = {name: [0.0, 0.0] for name in self.names}
        return {name: (total, weight) for name, (total, weight) in zip(self.names, sums.tolist(), strict=True)}
