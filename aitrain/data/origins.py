"""Which row of which file an example was made of: so a mixture that names a file more than once, with another slice,
other columns or another `max_samples`, trains on no row that it validates on.

A row is known by the content of its file and its number in it. A copy of a file under another name holds the same rows;
equal rows of one file, or of two files that differ elsewhere, are different ones.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aitrain.data.rows import Item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDENTITIES, ENDS = "origins.npy", "origin_ends.npy"
Where = tuple[int, int]
"""Number of a file among those of a source, and of a row in it; from 0."""


def row_identity(file: str, number: int) -> int:
    """64 bits that tell a row from every other one. `file` stands for the content that the row is in."""
    return int.from_bytes(hashlib.blake2b(f"{file} {number}".encode(), digest_size=8).digest(), "little")


@dataclass
class Origins:
    """The rows of each example, noted while examples are made and kept beside them."""

    name: Callable[[Where], int]
    """The identity of a row."""
    waiting: deque[Where] = field(default_factory=deque)
    identities: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def follow(self, rows: Iterable[tuple[Where, Item]]) -> Iterator[Item]:
        """The rows as they are; `take` is told later, in their order, what became of them."""
        for where, item in rows:
            self.waiting.append(where)
            yield item

    def take(self, rows: int, examples: int) -> None:
        """So many of the next rows have become so many examples, each made of all of them."""
        taken = [self.waiting.popleft() for _ in range(rows)]
        identities = [self.name(where) for where in taken] if examples else []
        for _ in range(examples):
            self.identities.extend(identities)
            self.ends.append(len(self.identities))

    def save(self, folder: Path) -> None:
        """Write them into a folder, from which `Noted.read` reads them."""
        import numpy as np

        np.save(folder / IDENTITIES, np.asarray(self.identities, np.uint64))
        np.save(folder / ENDS, np.asarray(self.ends, np.int64))


@dataclass(frozen=True)
class Noted:
    """The rows of each example, read back."""

    identities: NDArray[np.uint64]
    ends: NDArray[np.int64]

    @classmethod
    def read(cls, folder: Path) -> Noted:
        """What `Origins.save` wrote."""
        import numpy as np

        return cls(np.load(folder / IDENTITIES), np.load(folder / ENDS))

    def rows_of(self, examples: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The rows that some examples are made of."""
        import numpy as np

        is_one = np.zeros(len(self.ends) - 1, bool)
        is_one[examples] = True
        return self.identities[np.repeat(is_one, np.diff(self.ends))]

    def without(self, examples: NDArray[np.int64], rows: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        """Those of the examples in which none of the rows is."""
        import numpy as np

        numbers = np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))
        has_one = np.zeros(len(self.ends) - 1, bool)
        has_one[numbers[np.isin(self.identities, np.concatenate(rows))]] = True
        return examples[~has_one[examples]]
