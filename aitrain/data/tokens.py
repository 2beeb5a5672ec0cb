"""Token ids of many rows in flat files, read through memory maps: a million rows cost no Python objects."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS, VALUES, TYPES, LABELS = "weights.bin", "values.npy", "types.bin", "labels.bin"
NO_LABEL = -100
"""Of a token that has nothing to be predicted of it."""
RECORDS, RECORD_ENDS = "records.bin", "records.npy"


@dataclass(frozen=True)
class Encoded:
    """One row as the trainer sees it."""

    ids: list[int]
    trained: list[int]
    """1 where the token carries loss, else 0; as long as `ids`."""
    truncated: bool = False
    weights: list[float] | None = None
    """How much each token's loss counts; as long as `ids`, 0 where it is not trained. None: all trained ones alike."""
    record: str | None = None
    """JSON text that goes with the row, for trainers that need more of it than tokens."""
    types: list[int] | None = None
    """For each token the text it belongs to, 0 or 1, where a row is two texts and the model tells them apart."""
    labels: list[int] | None = None
    """For each token the number of what is to be predicted of it, or NO_LABEL; None where nothing is."""


@dataclass(frozen=True)
class EncodedGroup:
    """Rows that are one example, such as a prompt with its chosen and its rejected answer."""

    rows: tuple[Encoded, ...]
    value: float | tuple[float, ...] | None = None
    """What belongs to the example: a margin, 1 for wanted and 0 for unwanted, a class's number, or several numbers."""


@dataclass(frozen=True)
class TokenRow:
    """One row: token ids, and for each whether it carries loss (1) or not (0)."""

    ids: NDArray[np.int32]
    trained: NDArray[np.uint8]
    weights: NDArray[np.float32] | None = None
    """How much each token's loss counts; None where all trained ones count alike."""
    types: NDArray[np.uint8] | None = None
    """The text that each token belongs to, 0 or 1; None where nothing tells them apart."""
    labels: NDArray[np.int32] | None = None
    """The number of what is to be predicted of each token, or NO_LABEL; None where nothing is."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt as token ids, and the row of the data that it comes from."""

    ids: NDArray[np.int32]
    record: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """An example of several rows, and the number or numbers that belong to it."""

    rows: tuple[TokenRow, ...]
    value: Any = None


class Table(Protocol):
    """Rows of token ids, of which `group` rows that follow each other are one example."""

    @property
    def group(self) -> int: ...
    @property
    def values(self) -> NDArray[np.float64] | None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TokenRow: ...
    def record(self, index: int) -> str: ...
    def examples(self) -> int: ...
    def lengths(self) -> NDArray[np.int64]: ...


class TokenTable:
    """Rows of token ids in a folder: `ids.bin` (int32), `trained.bin` (uint8), `offsets.npy`, `facts.json`.

    `weights.bin` (float32, one a token), `types.bin` (uint8, one a token), `labels.bin` (int32, one a token),
    `values.npy` (float64, one or several an example) and `records.bin` with `records.npy` (JSON text, one a row, and
    where each ends) are there where examples have them.
    `group` rows that follow each other are one example.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        self.group = int(self.facts.get("group", 1))
        self.offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")
        self.ids = _map(folder / "ids.bin", np.int32)
        self.trained = _map(folder / "trained.bin", np.uint8)
        self.weights = _map(folder / WEIGHTS, np.float32) if (folder / WEIGHTS).exists() else None
        self.types = _map(folder / TYPES, np.uint8) if (folder / TYPES).exists() else None
        self.labels = _map(folder / LABELS, np.int32) if (folder / LABELS).exists() else None
        self.values: NDArray[np.float64] | None = np.load(folder / VALUES) if (folder / VALUES).exists() else None
        has_records = (folder / RECORDS).exists()
        self.records = _map(folder / RECORDS, np.uint8) if has_records else None
        self.record_ends: NDArray[np.int64] | None = np.load(folder / RECORD_ENDS) if has_records else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def record(self, index: int) -> str:
        """The JSON text that goes with a row."""
        assert self.records is not None
        assert self.record_ends is not None
        return bytes(self.records[self.record_ends[index] : self.record_ends[index + 1]]).decode()

    def __getitem__(self, index: int) -> TokenRow:
        start, end = self.offsets[index], self.offsets[index + 1]
        weights = None if self.weights is None else self.weights[start:end]
        types = None if self.types is None else self.types[start:end]
        labels = None if self.labels is None else self.labels[start:end]
        return TokenRow(self.ids[start:end], self.trained[start:end], weights, types, labels)

    def examples(self) -> int:
        """How many examples the rows make."""
        return len(self) // self.group

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        import numpy as np

        return np.diff(self.offsets)


class JoinedTables:
    """Tables that lie in several folders, read as one: the rows of the first, then those of the second, and so on."""

    def __init__(self, tables: Sequence[TokenTable]) -> None:
        import numpy as np

        assert len({table.group for table in tables}) == 1
        self.tables = tables
        self.group = tables[0].group
        self.ends: NDArray[np.int64] = np.cumsum([len(table) for table in tables])
        parts = [table.values for table in tables if table.values is not None]
        assert len(parts) in (0, sum(len(table) > 0 for table in tables)), "every table has values, or none"
        self.values: NDArray[np.float64] | None = np.concatenate(parts) if parts else None

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> TokenRow:
        table, place = self._found(index)
        return table[place]

    def record(self, index: int) -> str:
        """The JSON text that goes with a row."""
        table, place = self._found(index)
        return table.record(place)

    def _found(self, index: int) -> tuple[TokenTable, int]:
        number = int(self.ends.searchsorted(index, side="right"))
        table = self.tables[number]
        return table, index - int(self.ends[number]) + len(table)

    def examples(self) -> int:
        """How many examples the rows make."""
        return len(self) // self.group

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        import numpy as np

        return np.concatenate([table.lengths() for table in self.tables])


def _map(path: Path, kind: Any) -> Any:
    import numpy as np

    if path.stat().st_size == 0:
        return np.empty(0, kind)
    return np.memmap(path, dtype=kind, mode="r")


def write_table(
    folder: Path,
    examples: Iterable[Encoded | EncodedGroup],
    facts: dict[str, Any],
    *,
    group: int = 1,
    weighted: bool = False,
    beside: Callable[[Path], None] | None = None,
) -> TokenTable:
    """Write examples as they come into a folder of another name, then rename it: a reader never sees half a table.

    Each example is `group` rows. `weighted` keeps a weight for each token. `facts` is read after the last row, so that
    it may hold counts made on the way; `beside` may write further files then.
    """
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        _write_rows(partial, examples, group, weighted)
        if beside is not None:
            beside(partial)
        (partial / "facts.json").write_text(json.dumps({**facts, "group": group}))
        try:
            os.rename(partial, folder)
        except OSError:
            if not (folder / "facts.json").is_file():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenTable(folder)


def _write_rows(folder: Path, examples: Iterable[Encoded | EncodedGroup], group: int, weighted: bool) -> None:
    import numpy as np

    ends, values, record_ends = [0], [], [0]
    with ExitStack() as stack:
        ids, trained = (stack.enter_context((folder / name).open("wb")) for name in ("ids.bin", "trained.bin"))
        weights = stack.enter_context((folder / WEIGHTS).open("wb")) if weighted else None
        records, types, labels = (stack.enter_context((folder / name).open("wb")) for name in (RECORDS, TYPES, LABELS))
        for example in examples:
            rows = example.rows if isinstance(example, EncodedGroup) else (example,)
            assert len(rows) == group
            if isinstance(example, EncodedGroup) and example.value is not None:
                values.append(example.value)
            for row in rows:
                ids.write(np.asarray(row.ids, np.int32).tobytes())
                trained.write(np.asarray(row.trained, np.uint8).tobytes())
                if weights is not None:
                    counts = row.trained if row.weights is None else row.weights
                    weights.write(np.asarray(counts, np.float32).tobytes())
                ends.append(ends[-1] + len(row.ids))
                types.write(bytes(row.types or ()))
                labels.write(np.asarray(row.labels or (), np.int32).tobytes())
                if row.record is not None:
                    record_ends.append(record_ends[-1] + records.write(row.record.encode()))
    for name in (TYPES, LABELS):
        if (folder / name).stat().st_size == 0:
            (folder / name).unlink()
    if len(record_ends) == 1:
        (folder / RECORDS).unlink()
    else:
        assert len(record_ends) == len(ends), "either every row has a record, or none"
        np.save(folder / RECORD_ENDS, np.asarray(record_ends, np.int64))
    np.save(folder / "offsets.npy", np.asarray(ends, np.int64))
    if values:
        assert len(values) * group == len(ends) - 1, "either every example has a value, or none"
        np.save(folder / VALUES, np.asarray(values, np.float64))


class Rows:
    """Chosen rows of a table, in a given order; the dataset a trainer reads."""

    def __init__(self, table: Table, indices: NDArray[np.int64] | None = None) -> None:
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


def _number(value: Any) -> Any:
    """A float of a single number; several as they are."""
    return value if value.ndim else float(value)


class Groups:
    """Chosen examples of a table, each of one or more rows, in a given order."""

    def __init__(self, table: Table, indices: NDArray[np.int64] | None = None) -> None:
        self.table = table
        self.indices = indices

    def __len__(self) -> int:
        return self.table.examples() if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> Group:
        example = index if self.indices is None else int(self.indices[index])
        first, size = example * self.table.group, self.table.group
        value = None if self.table.values is None else _number(self.table.values[example])
        return Group(tuple(self.table[row] for row in range(first, first + size)), value)

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of the longest row of each example."""
        lengths = self.table.lengths().reshape(-1, self.table.group).max(axis=1)
        return lengths if self.indices is None else lengths[self.indices]


class Prompts:
    """Chosen prompts of a table, each with its row of the data, in a given order."""

    def __init__(self, table: Table, indices: NDArray[np.int64] | None = None) -> None:
        self.table = table
        self.indices = indices

    def __len__(self) -> int:
        return len(self.table) if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> PromptRow:
        number = index if self.indices is None else int(self.indices[index])
        return PromptRow(self.table[number].ids, json.loads(self.table.record(number)))

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each prompt."""
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

    def beginnings(self, index: int) -> list[int]:
        """Where in a block rows begin."""
        start, end = int(self.bounds[index]), int(self.bounds[index + 1])
        first, last = (int(place) for place in self.ends.searchsorted([start, end]))
        inside = [int(place) - start for place in self.ends[first:last]]
        return inside if start or not end else [0, *inside]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each block."""
        import numpy as np

        return np.diff(self.bounds)
