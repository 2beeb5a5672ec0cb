"""Token ids of many rows in flat files, read through memory maps: a million rows cost no Python objects."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenRow:
    """One row: token ids, and for each whether it carries loss (1) or not (0)."""

    ids: NDArray[np.int32]
    trained: NDArray[np.uint8]


class TokenTable:
    """Rows of token ids in a folder: `ids.bin` (int32), `trained.bin` (uint8), `offsets.npy`, `facts.json`."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        self.offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")
        self.ids = _map(folder / "ids.bin", np.int32)
        self.trained = _map(folder / "trained.bin", np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> TokenRow:
        start, end = self.offsets[index], self.offsets[index + 1]
        return TokenRow(self.ids[start:end], self.trained[start:end])

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        import numpy as np

        return np.diff(self.offsets)


def _map(path: Path, kind: Any) -> Any:
    import numpy as np

    if path.stat().st_size == 0:
        return np.empty(0, kind)
    return np.memmap(path, dtype=kind, mode="r")


def write_table(folder: Path, rows: Iterable[tuple[list[int], list[int]]], facts: dict[str, Any]) -> TokenTable:
    """Write rows as they come into a folder of another name, then rename it: a reader never sees half a table.

    `facts` is read after the last row, so that it may hold counts made on the way.
    """
    import numpy as np

    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        ends = [0]
        with (partial / "ids.bin").open("wb") as ids, (partial / "trained.bin").open("wb") as trained:
            for row_ids, row_trained in rows:
                ids.write(np.asarray(row_ids, np.int32).tobytes())
                trained.write(np.asarray(row_trained, np.uint8).tobytes())
                ends.append(ends[-1] + len(row_ids))
        np.save(partial / "offsets.npy", np.asarray(ends, np.int64))
        (partial / "facts.json").write_text(json.dumps(facts))
        try:
            os.rename(partial, folder)
        except OSError:
            if not (folder / "facts.json").is_file():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenTable(folder)


class Rows:
    """Chosen rows of a table, in a given order; the dataset a trainer reads."""

    def __init__(self, table: TokenTable, indices: NDArray[np.int64] | None = None) -> None:
        self.table = table
        self.indices = indices

    def __len__(self) -> int:
        return len(self.table) if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> TokenRow:
        return self.table[index if self.indices is None else int(self.indices[index])]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        lengths = self.table.lengths()
        return lengths if self.indices is None else lengths[self.indices]


class Blocks:
    """Rows laid end to end and cut into blocks of `size` tokens. The last block is shorter; no token is lost.

    A single token left over would have nothing to predict, so the block before it gives one up.
    """

    def __init__(self, rows: Rows, size: int) -> None:
        import numpy as np

        self.rows = rows
        self.size = size
        self.ends: NDArray[np.int64] = np.cumsum(rows.lengths())
        total = int(self.ends[-1]) if len(self.ends) else 0
        starts = np.arange(0, total if total > 1 else 0, size, dtype=np.int64)
        if len(starts) > 1 and total - starts[-1] == 1:
            starts[-1] -= 1
        self.bounds: NDArray[np.int64] = np.append(starts, total)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> TokenRow:
        import numpy as np

        start, end = int(self.bounds[index]), int(self.bounds[index + 1])
        first = int(np.searchsorted(self.ends, start, side="right"))
        ids, trained = [], []
        position = int(self.ends[first - 1]) if first else 0
        while position < end:
            row = self.rows[first]
            low, high = max(0, start - position), min(len(row.ids), end - position)
            ids.append(row.ids[low:high])
            trained.append(row.trained[low:high])
            position += len(row.ids)
            first += 1
        return TokenRow(np.concatenate(ids), np.concatenate(trained))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each block."""
        import numpy as np

        return np.diff(self.bounds)
