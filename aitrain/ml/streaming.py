"""Rows read and tokenised while training, for data that should not be prepared beforehand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from aitrain.data.encoding import Encoded, TooLong, Unusable
from aitrain.data.extension import BATCH, encode_rows
from aitrain.data.mixture import FoundSource, full_weights, interleave
from aitrain.data.prepare import unusable
from aitrain.data.rows import Item, Place
from aitrain.data.tokens import TokenRow
from aitrain.errors import DataError, Problem
from aitrain.ml.collating import pad, padding_id

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.ml.job import Stream

T = TypeVar("T")


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
        pad_id = padding_id(tokenizer)
        self.collate: Callable[[Sequence[TokenRow]], dict[str, Any]] = lambda rows: pad(rows, pad_id)
        """Makes a batch of rows; the trainer may choose another way."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        size = self.run.train.batch_size
        rows = self._rows()
        for _ in range(self.start):
            _take(rows, size * self.world)
        while True:
            batch = _take(rows, size * self.world)
            yield self.collate(batch[self.rank * size : (self.rank + 1) * size])

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
        seed = (self.run.run.seed << 32) + epoch
        rows = shuffled(self._mixed(epoch), self.run.data.shuffle_buffer, seed=seed)
        size = getattr(self.stream.encoder, "block_size", None)
        return rows if size is None else _blocks(rows, size)

    def _mixed(self, epoch: int) -> Iterator[TokenRow]:
        """The rows of all sources. Without weights each comes once, spread by how many rows it has."""
        sources = self.stream.sources
        if len(sources) == 1:
            return self._encoded(sources[0])
        shares = full_weights([source.chosen.weight for source in sources])
        sizes = [source.train_count.rows for source in sources]
        weights = [float(share) for share in shares] if shares else [float(n or 1) if None not in sizes else 1.0
                                                                    for n in sizes]  # fmt: skip
        ending = self.run.data.mixture_stopping if shares else None
        makers = [partial(self._encoded, source) for source in sources]
        return interleave(makers, weights, ending, seed=f"{self.run.run.seed} {epoch}")

    def _items(self, source: FoundSource) -> Iterator[Item]:
        items = source.train.rows(on_bad=self.run.data.on_bad_rows)
        return islice(items, source.chosen.max_samples)

    def _encoded(self, source: FoundSource) -> Iterator[TokenRow]:
        assert source.choice is not None
        extension, key = source.chosen.conversation_extension, f"{source.chosen.key}.path"
        results = encode_rows(self.stream.encoder, self.tokenizer, source.choice, self._items(source), extension)
        for number, (place, outcome, rows) in enumerate(results, 1):
            self.counts["read"] += rows
            if isinstance(outcome, Encoded):
                self.counts["truncated"] += outcome.truncated
                yield token_row(outcome)
            elif isinstance(outcome, TooLong):
                self._too_long(outcome, str(place))
            elif isinstance(outcome, Unusable):
                self._bad(outcome, rows, key, place)
            if number % BATCH == 0:  # a share means little of the first few rows
                self._limit_bad()
        self._limit_bad()

    def _too_long(self, outcome: TooLong, place: str) -> None:
        if self.run.data.truncation != "drop":
            what = f"a row has {outcome.tokens} tokens, more than {self.run.data.max_length}"
            advice = "raise data.max_length, or set data.truncation=right, left or drop"
            raise DataError(Problem("data.max_length", what, advice, place))
        self.counts["dropped"] += 1

    def _bad(self, outcome: Unusable, rows: int, key: str, place: Place) -> None:
        if self.run.data.on_bad_rows == "error":
            raise DataError(unusable(key, outcome, place))
        self.counts["bad"] += rows

    def _limit_bad(self) -> None:
        bad, read, limit = self.counts["bad"], self.counts["read"], self.run.data.max_bad_rows
        if bad > limit * read:
            what = f"{bad} of the first {read} rows are bad, more than {limit:.1%}"
            raise DataError(Problem("data.max_bad_rows", what, "repair the data, or raise data.max_bad_rows"))


def token_row(encoded: Encoded) -> TokenRow:
    """A row as a table would give it."""
    weights = None if encoded.weights is None else np.asarray(encoded.weights, np.float32)
    return TokenRow(np.asarray(encoded.ids, np.int32), np.asarray(encoded.trained, np.uint8), weights)


def _blocks(rows: Iterator[TokenRow], size: int) -> Iterator[TokenRow]:
    """Rows laid end to end and cut as `aitrain.data.tokens.Blocks` does, so that no token is lost."""
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


def shuffled(items: Iterator[T], size: int, *, seed: int) -> Iterator[T]:
    """Items in an order that a buffer of `size` allows: a random one of the buffer goes, and the next one enters."""
    generator = random.Random(seed)
    buffer = list(islice(items, size))
    for item in items:
        place = generator.randrange(len(buffer))
        yield buffer[place]
        buffer[place] = item
    generator.shuffle(buffer)
    yield from buffer
