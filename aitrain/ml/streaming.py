"""Rows read and tokenised while training, for data that should not be prepared beforehand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from aitrain.data.encoding import Encoded, TooLong
from aitrain.data.prepare import BATCH
from aitrain.data.rows import BadRow, Item
from aitrain.data.tokens import TokenRow
from aitrain.errors import DataError, Problem
from aitrain.ml.collating import pad, padding_id

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.ml.job import Stream


class StreamBatches(IterableDataset[dict[str, Tensor]]):
    """Padded micro-batches of one rank from a stream of rows.

    Every rank reads the same rows in the same order and takes its part of each global micro-batch, so the number of
    processes does not change what a step sees. The stream begins again, in another order, when it ends. A row that is
    too long or bad is left out where the config allows it, else DataError is raised with its place.
    """

    def __init__(self, run: Run, stream: Stream, tokenizer: Any, *, rank: int, world: int) -> None:
        self.run = run
        self.stream = stream
        self.tokenizer = tokenizer
        self.rank = rank
        self.world = world
        self.start = 0
        """Micro-batches of the run that are already trained on."""
        self.counts = {"read": 0, "bad": 0, "truncated": 0, "dropped": 0}
        self.pad_id = padding_id(tokenizer)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        size = self.run.train.batch_size
        rows = self._rows()
        for _ in range(self.start):
            _take(rows, size * self.world)
        while True:
            batch = _take(rows, size * self.world)
            yield pad(batch[self.rank * size : (self.rank + 1) * size], self.pad_id)

    def _rows(self) -> Iterator[TokenRow]:
        epoch = 0
        while True:
            kept = 0
            for row in self._epoch(epoch):
                kept += 1
                yield row
            if kept == 0:  # going round again would never end
                raise DataError(Problem("data.path", "the stream holds no row to train on"))
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[TokenRow]:
        items = shuffled(self._items(), self.run.data.shuffle_buffer, seed=(self.run.run.seed << 32) + epoch)
        rows = self._encoded(items)
        return self._blocks(rows) if self.run.trainer.name == "pretrain" else rows

    def _items(self) -> Iterator[Item]:
        items = self.stream.source.rows(on_bad=self.run.data.on_bad_rows)
        return islice(items, self.run.data.max_samples) if self.run.data.max_samples else items

    def _encoded(self, items: Iterator[Item]) -> Iterator[TokenRow]:
        while batch := list(islice(items, BATCH)):
            self.counts["read"] += len(batch)
            good = [item for item in batch if not isinstance(item, BadRow)]
            self.counts["bad"] += len(batch) - len(good)
            outcomes = self.stream.encoder.encode(self.tokenizer, self.stream.choice, [row.values for row in good])
            for row, outcome in zip(good, outcomes, strict=True):
                if isinstance(outcome, Encoded):
                    self.counts["truncated"] += outcome.truncated
                    yield TokenRow(np.asarray(outcome.ids, np.int32), np.asarray(outcome.trained, np.uint8))
                elif isinstance(outcome, TooLong):
                    self._too_long(outcome, str(row.place))
                else:
                    self._bad(outcome.reason, str(row.place))
            self._limit_bad()

    def _too_long(self, outcome: TooLong, place: str) -> None:
        if self.run.data.truncation != "drop":
            what = f"a row has {outcome.tokens} tokens, more than {self.run.data.max_length}"
            advice = "raise data.max_length, or set data.truncation=right, left or drop"
            raise DataError(Problem("data.max_length", what, advice, place))
        self.counts["dropped"] += 1

    def _bad(self, reason: str, place: str) -> None:
        if self.run.data.on_bad_rows == "error":
            advice = "repair it, or set data.on_bad_rows=skip"
            raise DataError(Problem("data.path", f"row cannot be used: {reason}", advice, place))
        self.counts["bad"] += 1

    def _limit_bad(self) -> None:
        bad, read, limit = self.counts["bad"], self.counts["read"], self.run.data.max_bad_rows
        if bad > limit * read:
            what = f"{bad} of the first {read} rows are bad, more than {limit:.1%}"
            raise DataError(Problem("data.max_bad_rows", what, "repair the data, or raise data.max_bad_rows"))

    def _blocks(self, rows: Iterator[TokenRow]) -> Iterator[TokenRow]:
        """Rows laid end to end and cut as `aitrain.data.tokens.Blocks` does, so that no token is lost."""
        size = self.run.data.block_size
        held = np.empty(0, np.int32)
        for row in rows:
            held = np.concatenate([held, row.ids])
            while len(held) > size + 1:
                yield TokenRow(held[:size], np.ones(size, np.uint8))
                held = held[size:]
        cut = size - 1 if len(held) == size + 1 else 0  # a single token left over would have nothing to predict
        for block in (held[:cut], held[cut:]):
            if len(block):
                yield TokenRow(block, np.ones(len(block), np.uint8))


def _take(rows: Iterator[TokenRow], count: int) -> list[TokenRow]:
    return list(islice(rows, count))


def shuffled(items: Iterator[Item], size: int, *, seed: int) -> Iterator[Item]:
    """Items in an order that a buffer of `size` allows: a random one of the buffer goes, and the next one enters."""
    generator = random.Random(seed)
    buffer = list(islice(items, size))
    for item in items:
        place = generator.randrange(len(buffer))
        yield buffer[place]
        buffer[place] = item
    generator.shuffle(buffer)
    yield from buffer
