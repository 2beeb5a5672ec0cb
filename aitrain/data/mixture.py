"""Several sources as one set of rows: how many of each make an epoch, which ones, and in what order a stream has them.

The words are those of `datasets.interleave_datasets`; but the shares are exact, not drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aitrain.data.columns import ColumnChoice
from aitrain.data.rows import Count
from aitrain.data.sources import Source
from aitrain.data.splits import draw
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.data import DataSource
    from aitrain.data.targets import Targets

Stopping = Literal["first_exhausted", "all_exhausted"]
Item = TypeVar("Item")

MOST = 1 << 28
"""Examples of an epoch beyond which weights that hardly fit the sizes are refused; their numbers alone take 2 GiB."""
_ORDER_STREAM, _REST_STREAM = 3, 4


@dataclass(frozen=True)
class FoundSource:
    """One source of rows: what was chosen for it, and what was found. Counts are None where only a download tells."""

    chosen: DataSource
    train: Source
    valid: Source | None
    train_count: Count
    valid_count: Count
    choice: ColumnChoice | None
    """None for a Hub dataset that was not looked up."""
    first: Mapping[str, Any]
    """The first row."""
    unread: str = ""
    """Which of its rows were not looked at, in words; ''."""
    targets: Targets | None = None
    """What is predicted of its rows; None where that is not known yet, or nothing is."""

    @property
    def columns(self) -> str:
        """The columns by role, as they are printed."""
        assert self.choice is not None
        return self.choice.described


def may_share_rows(sources: Sequence[FoundSource]) -> bool:
    """Whether two sources read files of one size, which may be the same. Then rows on which one validates are left out
    of the other, and how many those are is only known once they are read."""
    seen: set[int] = set()
    for source in sources:
        found = {file.stat().st_size for file in source.train.files}
        if found & seen:
            return True
        seen |= found
    return False


def full_weights(weights: Sequence[float | None]) -> list[Fraction] | None:
    """Shares that add up to 1; a source without a weight has 1. None when no source has one."""
    if all(weight is None for weight in weights):
        return None
    parts = [Fraction(str(1 if weight is None else weight)) for weight in weights]
    return [part / sum(parts) for part in parts]


def epoch_counts(sizes: Sequence[int], weights: Sequence[float | None], stopping: Stopping) -> list[int]:
    """Examples of each source in an epoch, which is as long as the weights allow (`first_exhausted`) or no longer than
    it takes to hold every example (`all_exhausted`).

    Each source's part is its share of the whole, up to rounding by the largest remainder. Without weights all of each.
    """
    shares = full_weights(weights)
    if shares is None:
        return list(sizes)
    lengths = [Fraction(size) / share for size, share in zip(sizes, shares, strict=True)]
    total = math.floor(min(lengths)) if stopping == "first_exhausted" else math.ceil(max(lengths))
    exact = [share * total for share in shares]
    counts = [math.floor(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
    for number in by_remainder[: total - sum(counts)]:
        counts[number] += 1
    return counts


def compose_epoch(
    parts: Sequence[NDArray[np.int64]], weights: Sequence[float | None], stopping: Stopping, seed: int
) -> NDArray[np.int64]:
    """The examples of an epoch, of the example numbers of each source.

    Without weights those of the first source, then those of the second, and so on. With them a source that gives more
    than it has gives all of its examples so often, and then some that are drawn; the order is drawn too, so that blocks
    of plain text hold every source. The same numbers and seed give the same epoch on every machine.

    Raises DataError when the weights ask for more than MOST examples.
    """
    import numpy as np

    if full_weights(weights) is None:
        return np.concatenate(parts)
    counts = epoch_counts([len(part) for part in parts], weights, stopping)
    if sum(counts) > MOST:
        what = f"an epoch that holds every row would have {sum(counts):,} rows with these weights"
        raise DataError(Problem("data.mixture_stopping", what, "use first_exhausted, or weights nearer to the sizes"))
    taken = []
    for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
        whole, rest = divmod(count, len(part))
        taken += [part] * whole + [part[draw(len(part), rest, seed, _REST_STREAM, number)]]
    together = np.concatenate(taken)
    return together[draw(len(together), len(together), seed, _ORDER_STREAM)]


def interleave(
    sources: Sequence[Callable[[], Iterator[Item]]], weights: Sequence[float], ending: Stopping | None, seed: str
) -> Iterator[Item]:
    """Items of several streams, the next one each time from a stream drawn by weight; the same for equal seeds.

    `ending` None: every stream once, those at their end are left out. `first_exhausted`: to the first end of any.
    `all_exhausted`: until each was at its end, streams beginning again meanwhile. A stream of nothing is left out.
    """
    generator = random.Random(seed)
    streams = [make() for make in sources]
    live, unfinished = list(range(len(sources))), set(range(len(sources)))
    while unfinished:
        number = generator.choices(live, [weights[i] for i in live])[0]
        found = list(islice(streams[number], 1))
        if not found:
            unfinished.discard(number)
            if ending == "first_exhausted":
                return
            if unfinished and ending == "all_exhausted":
                streams[number] = sources[number]()
                found = list(islice(streams[number], 1))
            if not found:
                live.remove(number)
        yield from found
