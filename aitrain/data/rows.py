"""What every reader gives: rows with their places, bad rows with the reason, and how many there are."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from aitrain.errors import DataError, Problem

BUDGET = 64 << 20
"""Bytes of a text file that are read to count its rows exactly, about 0.3 s; a larger file is estimated."""
SAMPLE = 8 << 20
"""Bytes from the start of a larger file that the estimate stands on."""
UTF8_BOM = b"\xef\xbb\xbf"
NO_UTF8 = "is no UTF-8"
"""What is said of a line in another encoding; the whole file is in it then."""


class Place(NamedTuple):
    """Where a row stands: prints as `train.jsonl:17`, or `train.parquet row 17` where there are no lines."""

    file: str
    number: int
    """Physical line in text formats, row otherwise; from 1."""
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file} row {self.number}"


class Row(NamedTuple):
    """A row as the file has it: `for values, place in rows`."""

    values: dict[str, Any]
    place: Place


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read; what follows it can."""

    place: Place
    reason: str


Item = Row | BadRow


class Count(NamedTuple):
    """Rows, bad ones included and blank lines not; None where it is not known without a download."""

    rows: int | None
    exact: bool


@dataclass(frozen=True)
class DataFile:
    """A file and the names that messages use for it."""

    path: Path
    name: str
    key: str = "data.path"

    def refuse(self, reason: str, line: int | None = None, advice: str = "") -> DataError:
        """The error for a file that cannot be read on, whatever `data.on_bad_rows` says."""
        return DataError(Problem(self.key, f"{self.name}: {reason}", advice, f"{self.name}:{line}" if line else ""))

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The decompressed bytes after a UTF-8 byte order mark. Raises DataError for files that are no UTF-8 text."""
        with self.open_both() as (stream, _):
            yield stream

    @contextmanager
    def open_both(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """As `open`, with the stored file beside it, whose position tells how much of it was read."""
        try:
            with self.path.open("rb") as stored:
                stream = _decompressed(stored, self.path)
                self._check_start(stream)
                yield stream, stored
        except (OSError, EOFError, zlib.error) as error:
            raise self.refuse(f"cannot be read: {error}", advice="copy or download the file again") from error

    def _check_start(self, stream: io.BufferedReader) -> None:
        start = stream.peek(64)[:64]
        if start.startswith(UTF8_BOM):
            stream.read(len(UTF8_BOM))
        if start.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
            raise self.refuse(f"begins with the byte 0x{start[0]:02x} of UTF-16 or UTF-32", 1, "save it as UTF-8")
        if start.startswith(b"version https://git-lfs"):
            raise self.refuse("is a Git LFS pointer, not the data", advice="run git lfs pull")


def _decompressed(stored: io.BufferedReader, path: Path) -> io.BufferedReader:
    if path.suffix.lower() == ".gz":
        # GzipFile yields lines through Python code; a buffer in front of it is several times faster.
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stored)), 1 << 18)
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(stored, "zstd")), 1 << 18)
    return stored


def bytes_reason(raw: bytes) -> str:
    """Why a line is no UTF-8 text, with the column of the byte (from 1), or '' when it is."""
    if b"\0" in raw:
        return f"a NUL byte at column {raw.index(0) + 1}; is the file UTF-16 or binary?"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        return f"the byte 0x{byte:02x} at column {error.start + 1} {NO_UTF8}; save the file as UTF-8"
    return ""


class ColumnNames:
    """Column names without the space around them. `clean` is cheap for rows of a shape seen before."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def clean(self, row: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError when two names are equal once stripped."""
        names = tuple(row)
        if names in self._seen:
            return row
        stripped = strip_names(names)
        if stripped != names:
            return dict(zip(stripped, row.values(), strict=True))
        if len(self._seen) < 1024:  # rows of free shape must not fill the memory
            self._seen.add(names)
        return row


def strip_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names without the space around them. Raises ValueError when that, or anything, makes two equal."""
    stripped = tuple(name.strip() for name in names)
    twice = [name for name, times in Counter(stripped).items() if times > 1]
    if twice:
        why = "" if names.count(twice[0]) > 1 else " once the space around names is gone"
        raise ValueError(f"two columns are named {twice[0]!r}{why}")
    return stripped


def count_by_reading(
    file: DataFile, items: Callable[[BinaryIO], Iterable[object]], limit: int | None, cost: int = 1
) -> Count:
    """Counts what `items` finds in the bytes of the file; estimates from its start when it is larger than `limit`.

    `cost` is how many times longer a byte takes than in a file of lines: limit and estimate shrink by it. Raises
    DataError as reading does.
    """
    size = file.path.stat().st_size
    if file.path.suffix.lower() in {".gz", ".zst"}:
        cost *= 8  # text shrinks about so much
    whole = limit is None or size <= limit // cost
    sample = min(SAMPLE, BUDGET // cost)
    rows = position = 0
    with file.open_both() as (stream, stored):
        for _ in items(stream):
            rows += 1
            # Asking for the position costs as much as a short row.
            if whole or rows % 64:
                continue
            # Readers read ahead: only when they read on have the rows up to the last position been counted.
            if stored.tell() != position:
                if position >= sample:
                    return Count(round(rows * size / position), exact=False)
                position = stored.tell()
    return Count(rows, exact=True)


def full_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines that are not blank."""
    return (line for line in stream if not line.isspace())
