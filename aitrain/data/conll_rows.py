"""CoNLL files: a token a line with its columns, a blank line between sentences; one row a sentence.

The first column is the token and the last its tag (Tjong Kim Sang and De Meulder 2003,
https://aclanthology.org/W03-0419/). Columns stand apart by a tab, or by blanks in lines without one. A file with one
column alone holds tokens without tags. Lines that begin with `-DOCSTART-` are no tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from aitrain.data.rows import BadRow, Count, DataFile, Item, Place, Row, bytes_reason, count_by_reading

DOCUMENT = b"-DOCSTART-"
Lines = list[tuple[int, bytes]]
"""The lines of a sentence, with their numbers in the file."""


def read(file: DataFile) -> Iterator[Item]:
    """A row a sentence, with `tokens` and `tags`, at the place of its first line; or at a line that is wrong."""
    with file.open() as stream:
        for lines in _sentences(stream):
            yield _row(file.name, lines)


def count(file: DataFile, limit: int | None) -> Count:
    """How many sentences there are."""
    return count_by_reading(file, _sentences, limit)


def _sentences(stream: BinaryIO) -> Iterator[Lines]:
    lines: Lines = []
    for number, raw in enumerate(stream, 1):
        if not raw.isspace() and not raw.startswith(DOCUMENT):
            lines.append((number, raw))
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _row(name: str, lines: Lines) -> Item:
    cells: list[list[str]] = []
    for number, raw in lines:
        reason = bytes_reason(raw)
        if not reason:
            cells.append(_cells(raw.decode().strip("\r\n")))
            reason = _fault(cells)
        if reason:
            return BadRow(Place(name, number), reason)
    found = {"tokens": _column(cells, 0)}
    return Row({**found, "tags": _column(cells, -1)} if len(cells[0]) > 1 else found, Place(name, lines[0][0]))


def _cells(line: str) -> list[str]:
    # Other blanks, such as one that does not break a line, may be tokens.
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _column(cells: Iterable[list[str]], place: int) -> list[str]:
    return [line[place] for line in cells]


def _fault(cells: list[list[str]]) -> str:
    """What is wrong with the last line of a sentence so far; ''."""
    last = cells[-1]
    if len(last) != len(cells[0]):
        columns = "1 column" if len(last) == 1 else f"{len(last)} columns"
        return f"{columns}, where the first line of its sentence has {len(cells[0])}"
    if not last[0] or not last[-1]:
        return f"the {'token' if not last[0] else 'tag'} is missing"
    return ""
