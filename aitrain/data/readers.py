"""The file formats that rows are read from, by the end of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from aitrain.data import arrow_rows, conll_rows, csv_rows, json_rows, text_rows
from aitrain.data.rows import Count, DataFile, Item

COMPRESSED = (".gz", ".zst")
TEXT_FAMILIES = frozenset({"json", "csv", "text", "conll"})
"""Those that may be compressed, and whose rows are counted by reading."""


@dataclass(frozen=True)
class Format:
    """How the rows of one kind of file are read and counted. Files of one family may stand together in a split."""

    family: Literal["json", "csv", "text", "conll", "parquet", "arrow"]
    read: Callable[[DataFile], Iterator[Item]]
    count: Callable[[DataFile, int | None], Count]
    """Rows of a file; exact when it has at most so many bytes (None: any), an estimate otherwise."""


_LINES = Format("json", json_rows.read_lines, json_rows.count_lines)
_CONLL = Format("conll", conll_rows.read, conll_rows.count)
_ARROW = Format("arrow", arrow_rows.read_arrow, arrow_rows.count_arrow)

FORMATS: dict[str, Format] = {
    ".jsonl": _LINES,
    ".ndjson": _LINES,
    ".json": Format("json", json_rows.read_json, json_rows.count_json),
    ".csv": Format("csv", partial(csv_rows.read, delimiter=","), partial(csv_rows.count, delimiter=",")),
    ".tsv": Format("csv", partial(csv_rows.read, delimiter="\t"), partial(csv_rows.count, delimiter="\t")),
    ".txt": Format("text", text_rows.read, text_rows.count),
    ".conll": _CONLL,
    ".iob": _CONLL,
    ".bio": _CONLL,
    ".parquet": Format("parquet", arrow_rows.read_parquet, arrow_rows.count_parquet),
    ".arrow": _ARROW,
    ".feather": _ARROW,
}


def format_of(path: Path) -> Format | None:
    """The format of a file by its name, or None when it is no data file. Text formats may end in .gz or .zst too."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        found = FORMATS.get("".join(suffixes[-2:-1]))
        return found if found and found.family in TEXT_FAMILIES else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def stem_of(path: Path) -> str:
    """A data file's name without its ending: `train` for `train.jsonl.gz`."""
    name = path.name
    for ending in (*COMPRESSED, *FORMATS):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
