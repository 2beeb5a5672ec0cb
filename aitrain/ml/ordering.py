"""Which row comes when: the same for any number of processes and any split of the global batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the rows that depends on seed and epoch alone."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


class RankBatches(Sampler[list[int]]):
    """Micro-batches of row numbers for one rank.

    Micro-step k of an epoch covers rows [k B W, (k+1) B W) of the epoch's order, with B rows a rank and W ranks; rank r
    takes the r-th part. So one optimizer step of `accumulation` micro-steps sees the same rows however the global batch
    is divided. At the end of an epoch a rank may have fewer rows, or none; it then yields [-1], a row without loss, so
    that all ranks take part in the same number of collective operations.
    """

    def __init__(self, rows: int, *, batch_size: int, rank: int, world: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.rows / (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.rows, self.seed, self.epoch)
        for step in range(len(self)):
            start = (step * self.world + self.rank) * self.batch_size
            yield order[start : start + self.batch_size].tolist() or [-1]


class EvaluationBatches(Sampler[list[int]]):
    """Every row once, longest first so that little is padded, dealt out to the ranks in turn."""

    def __init__(self, lengths: NDArray[np.int64], *, batch_size: int, rank: int, world: int) -> None:
        order = np.argsort(-lengths, kind="stable")
        self.batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)][rank::world]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches
