"""An order of examples that puts those of similar length together, so that little of a batch is padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from aitrain.ml.ordering import epoch_order

WINDOW = 50
"""Optimizer steps whose examples are sorted together: enough for batches of one length, and still well mixed."""


Draw = Callable[[int], NDArray[np.int64]]
"""The examples of an epoch by its number, in random order; some may be there more than once."""


def grouped_order(
    lengths: NDArray[np.int64], *, global_batch: int, seed: int, epoch: int, draw: Draw | None = None
) -> NDArray[np.int64]:
    """A permutation of the examples, or of those that `draw` gives, cut by `global_batch` into batches of similar
    length in random order.

    The examples are shuffled, cut into windows of `WINDOW` batches, sorted by length within each (longest first), and
    the batches of all windows are shuffled. What does not fill a batch comes last. The order depends on lengths, size
    of the global batch, seed and epoch alone.
    """
    order = epoch_order(len(lengths), seed, epoch) if draw is None else draw(epoch)
    full = len(order) // global_batch * global_batch
    size = WINDOW * global_batch
    windows = [_sorted(order[start : min(start + size, full)], lengths) for start in range(0, full, size)]
    batches = np.concatenate([*windows, order[:0]]).reshape(-1, global_batch)
    shuffled = batches[np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(len(batches))]
    return np.concatenate([shuffled.ravel(), _sorted(order[full:], lengths)])


def _sorted(examples: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return examples[np.argsort(-lengths[examples], kind="stable")]


class LengthGroupedBatches(Sampler[list[int]]):
    """Micro-batches of example numbers for one rank, in the order of `grouped_order`.

    Micro-step k of an epoch covers examples [k B W, (k+1) B W) of the order, with B examples a rank and W ranks; rank r
    takes the r-th part. So an optimizer step sees the same examples however its batch is divided. At the end of an
    epoch a rank may have none left; it then yields [-1], a stand-in that counts nothing.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        batch_size: int,
        accumulation: int,
        rank: int,
        world: int,
        seed: int,
        draw: Draw | None = None,
    ) -> None:
        self.lengths = lengths
        self.draw = draw
        self.batch_size = batch_size
        self.global_batch = batch_size * accumulation * world
        self.rank = rank
        self.world = world
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[int]]:
        order = grouped_order(
            self.lengths, global_batch=self.global_batch, seed=self.seed, epoch=self.epoch, draw=self.draw
        )
        for step in range(len(self)):
            start = (step * self.world + self.rank) * self.batch_size
            yield order[start : start + self.batch_size].tolist() or [-1]
