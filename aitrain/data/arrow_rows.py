"""Parquet, and Arrow's own file and stream formats (.arrow, .feather), a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aitrain.data.rows import Count, DataFile, Place, Row, strip_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 1024


def read_parquet(file: DataFile) -> Iterator[Row]:
    with _parquet(file) as parquet:
        yield from rows_of(file, parquet.iter_batches(batch_size=_BATCH))


def count_parquet(file: DataFile, limit: int | None) -> Count:
    del limit  # the footer knows
    with _parquet(file) as parquet:
        return Count(parquet.metadata.num_rows, exact=True)


def read_arrow(file: DataFile) -> Iterator[Row]:
    with _batches(file) as batches:
        yield from rows_of(file, batches)


def count_arrow(file: DataFile, limit: int | None) -> Count:
    del limit  # batches are mapped, not read
    with _batches(file) as batches:
        return Count(sum(batch.num_rows for batch in batches), exact=True)


def rows_of(file: DataFile, batches: Iterator[pa.RecordBatch], start: int = 0) -> Iterator[Row]:
    """The rows of Arrow batches as Python values; `start` rows stand before them."""
    number = start
    names: tuple[str, ...] | None = None
    for batch in batches:
        if names is None:
            try:
                names = strip_names(batch.schema.names)
            except ValueError as error:
                raise file.refuse(str(error), advice="give each column a name of its own") from None
        renamed = batch.rename_columns(list(names))
        # A batch of an Arrow file may be all of it; Python values are made for a part at a time.
        for offset in range(0, renamed.num_rows, _BATCH):
            part = renamed.slice(offset, _BATCH)
            try:
                part_rows = part.to_pylist()
            except ValueError as error:  # text that is no UTF-8, a date beyond Python's
                raise file.refuse(f"rows {number + 1} to {number + part.num_rows}: {error}") from error
            for values in part_rows:
                number += 1
                yield Row(values, Place(file.name, number, "row"))


def class_names(file: DataFile, column: str) -> tuple[str, ...]:
    """The names that stand for the whole numbers of a column, as `datasets` writes them into a file; () without."""
    if file.path.suffix == ".parquet":
        with _parquet(file) as parquet:
            metadata = parquet.schema_arrow.metadata
    else:
        with _batches(file) as batches:
            first = next(batches, None)
            metadata = None if first is None else first.schema.metadata
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return names_of_feature(features[column])
    except (ValueError, KeyError, TypeError):
        return ()


def names_of_feature(feature: Any) -> tuple[str, ...]:
    """The names in a class feature, or in a list of them; () for any other."""
    while isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


@contextmanager
def _parquet(file: DataFile) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, "Parquet", error) from error


@contextmanager
def _batches(file: DataFile) -> Iterator[Iterator[pa.RecordBatch]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file.path)) as mapped:
            magic = mapped.read(6)
            mapped.seek(0)
            if magic.startswith(b"FEA1"):
                raise file.refuse("is Feather version 1", advice="write it as version 2 (the default) or as Parquet")
            if magic == b"ARROW1":
                reader = pa.ipc.open_file(mapped)
                yield (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                yield iter(pa.ipc.open_stream(mapped))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, "Arrow", error) from error


def _unreadable(file: DataFile, kind: str, error: Exception) -> Exception:
    return file.refuse(f"cannot be read as {kind}: {str(error).splitlines()[0]}", advice="copy the file again")
