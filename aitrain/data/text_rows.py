"""Plain text: one row a line, in the column `text`. Blank lines are no rows; space around a line is kept."""

from __future__ import annotations

from collections.abc import Iterator

from aitrain.data.rows import BadRow, Count, DataFile, Item, Place, Row, bytes_reason, count_by_reading, full_lines


def read(file: DataFile) -> Iterator[Item]:
    with file.open() as stream:
        for number, raw in enumerate(stream, 1):
            if raw.isspace():
                continue
            place = Place(file.name, number)
            reason = bytes_reason(raw)
            yield BadRow(place, reason) if reason else Row({"text": raw.decode().rstrip("\r\n")}, place)


def count(file: DataFile, limit: int | None) -> Count:
    return count_by_reading(file, full_lines, limit)
