"""Rows of every format, their places, and what is wrong with broken ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aitrain.data import rows as rows_module
from aitrain.data.readers import format_of
from aitrain.data.rows import BadRow, DataFile, Item, Row
from aitrain.errors import DataError


def read(path: Path) -> Iterator[Item]:
    kind = format_of(path)
    assert kind is not None
    return kind.read(DataFile(path, path.name))


def values_of(path: Path) -> list[dict[str, object]]:
    items = list(read(path))
    assert not [item for item in items if isinstance(item, BadRow)]
    return [item.values for item in items if isinstance(item, Row)]


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


AB = [{"a": "x", "b": "y"}, {"a": "ü", "b": "z"}]

GOOD = [
    ("t.jsonl", '{"a": "x", "b": "y"}\n{"a": "ü", "b": "z"}\n', ["t.jsonl:1", "t.jsonl:2"]),
    ("t.ndjson", '{"a": "x", "b": "y"}\r\n\r\n  {"a": "ü", "b": "z"}', ["t.ndjson:1", "t.ndjson:3"]),
    ("bom.jsonl", b'\xef\xbb\xbf{"a": "x", "b": "y"}\n{"a": "\xc3\xbc", "b": "z"}', ["bom.jsonl:1", "bom.jsonl:2"]),
    ("space.jsonl", '{" a": "x", "b ": "y"}\n{"a": "\\u00fc", "b": "z"}', ["space.jsonl:1", "space.jsonl:2"]),
    ("pair.JSONL", '{"a": "x", "b": "y"}\n{"a": "ü", "b": "z"}\n', ["pair.JSONL:1", "pair.JSONL:2"]),
    ("t.json", '[{"a": "x", "b": "y"}, {"a": "ü", "b": "z"}]', ["t.json:1", "t.json:1"]),
    ("t.json", '\n[\n  {"a": "x",\n   "b": "y"},\n  {"a": "ü", "b": "z"}\n]\n', ["t.json:3", "t.json:5"]),
    ("t.json", '{"a": "x", "b": "y"}\n{"a": "ü", "b": "z"}\n', ["t.json:1", "t.json:2"]),
    ("t.json", '\n{"a": "x", "b": "y"}\n\n{"a": "ü", "b": "z"}\n', ["t.json:2", "t.json:4"]),
    ("t.json", '{"a": ["x", "ü"],\n "b": ["y", "z"]}', ["t.json row 1", "t.json row 2"]),
    ("t.csv", "a,b\nx,y\nü,z\n", ["t.csv:2", "t.csv:3"]),
    ("t.csv", b"\xef\xbb\xbf a , b\r\nx,y\r\n\r\n\xc3\xbc,z", ["t.csv:2", "t.csv:4"]),
    ("t.tsv", "a\tb\nx\ty\nü\tz\n", ["t.tsv:2", "t.tsv:3"]),
]


@pytest.mark.parametrize(("name", "content", "places"), GOOD)
def test_rows_and_places(tmp_path: Path, name: str, content: bytes | str, places: list[str]) -> None:
    items = list(read(written(tmp_path, name, content)))
    assert [item.values for item in items if isinstance(item, Row)] == AB
    assert [str(item.place) for item in items] == places


@pytest.mark.parametrize(("name", "content", "places"), GOOD)
def test_count_is_the_number_of_rows(tmp_path: Path, name: str, content: bytes | str, places: list[str]) -> None:
    path = written(tmp_path, name, content)
    kind = format_of(path)
    assert kind is not None
    assert kind.count(DataFile(path, name), None) == (2, True)


def test_compressed_text(tmp_path: Path) -> None:
    import pyarrow as pa

    lines = b'{"a": "x", "b": "y"}\n{"a": "\xc3\xbc", "b": "z"}\n'
    with pa.CompressedOutputStream(str(tmp_path / "t.jsonl.zst"), "zstd") as stream:
        stream.write(lines)
    assert values_of(written(tmp_path, "t.jsonl.gz", gzip.compress(lines))) == AB
    assert values_of(written(tmp_path, "t.csv.gz", gzip.compress("a,b\nx,y\nü,z".encode()))) == AB
    assert values_of(tmp_path / "t.jsonl.zst") == AB
    assert format_of(Path("t.parquet.gz")) is None
    assert format_of(Path("t.gz")) is None


def test_text_lines(tmp_path: Path) -> None:
    items = list(read(written(tmp_path, "t.txt", "one\n\n  two \r\n\t\nthree")))
    assert [(item.values, str(item.place)) for item in items if isinstance(item, Row)] == [
        ({"text": "one"}, "t.txt:1"),
        ({"text": "  two "}, "t.txt:3"),
        ({"text": "three"}, "t.txt:5"),
    ]


def test_csv_fields_in_quotes_may_hold_anything(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", 'a,b\n"x, ""y""\nz",2\n3,4\n')
    items = list(read(path))
    assert [item.values for item in items if isinstance(item, Row)] == [
        {"a": 'x, "y"\nz', "b": "2"},
        {"a": "3", "b": "4"},
    ]
    assert [str(item.place) for item in items] == ["t.csv:2", "t.csv:4"]
    assert len(values_of(written(tmp_path, "long.csv", f"a\n{'x' * 200_000}\n"))) == 1


@pytest.mark.parametrize("kind", ["parquet", "file.arrow", "stream.arrow", "feather"])
def test_columnar_files(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    table = pa.table({" a": ["x", "ü"], "b": ["y", "z"]})
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=1)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        open_writer = pa.ipc.new_file if kind == "file.arrow" else pa.ipc.new_stream
        with open_writer(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    items = list(read(path))
    assert [item.values for item in items if isinstance(item, Row)] == AB
    assert [str(item.place) for item in items] == [f"{path.name} row 1", f"{path.name} row 2"]
    found = format_of(path)
    assert found is not None
    assert found.count(DataFile(path, path.name), 0) == (2, True)


BAD_ROWS = [
    ("t.jsonl", '{"a": 1}\n{"a": 1,}\n{"a": 2}\n', 2, " at column "),
    ("t.jsonl", '{"a": 1}\n  {"a" 1}\n', 2, "Expecting ':' delimiter at column 8"),
    ("t.jsonl", '{"a": 1}\n{"a": "cut o', 2, "is the file cut off?"),
    ("t.jsonl", "{'a': 1}\n", 1, "double quotes at column 2"),
    ("t.jsonl", '{"a": 1} {"a": 2}\n', 1, "Extra data at column 10"),
    ("t.jsonl", '{"a": 1, "a": 2}\n', 1, "the key 'a' stands twice"),
    ("t.jsonl", '{"m": [{"role": "x", "role": "y"}]}\n', 1, "the key 'role' stands twice"),
    ("t.jsonl", '{" a": 1, "a": 2}\n', 1, "two columns are named 'a' once the space around names is gone"),
    ("t.jsonl", '{"a": NaN}\n', 1, "NaN is no JSON"),
    ("t.jsonl", '{"a": -Infinity}\n', 1, "-Infinity is no JSON"),
    ("t.jsonl", "[1, 2]\n", 1, "this is a list"),
    ("t.jsonl", '"text"\n', 1, "this is text"),
    ("t.jsonl", "null\n", 1, "this is null"),
    ("t.jsonl", "12\n", 1, "this is a number"),
    ("t.jsonl", '{"a": "\\ud83d"}\n', 1, "half a character"),
    ("t.jsonl", "[" * 100_000 + "\n", 1, "nested too deeply"),
    ("t.jsonl", b'{"a": "x"}\n{"a": "caf\xe9"}\n', 2, "the byte 0xe9 at column 11 is no UTF-8"),
    ("t.jsonl", b'{"a": "x\0y"}\n', 1, "a NUL byte at column 9"),
    ("t.jsonl", '{"a": "x\ty"}\n', 1, "Invalid control character at column 9"),
    ("t.json", '[{"a": 1},\n 2,\n {"a": 3}]', 2, "this is a number"),
    ("t.json", '[{"a": 1},\n {"a": 1, "a": 2},\n {"a": 3}]', 2, "stands twice"),
    ("t.json", '[{"a": 1},\n {"a": NaN},\n {"a": 3}]', 2, "NaN is no JSON"),
    ("t.json", '[{"a": 1},\n {"a": "\\udc00"},\n {"a": 3}]', 2, "half a character"),
    ("t.json", '{"a": 1}\n{"a": }\n{"a": 3}\n', 2, "Expecting value at column 7"),
    ("t.json", '{"a": }\n{"a": 1}\n{"a": 3}\n', 1, "Expecting value at column 7"),
    ("t.csv", "a,b\n1,2\n1,2,3\n1,2\n", 3, "3 fields where the header has 2"),
    ("t.csv", "a,b\n1\n1,2\n", 2, "1 field where the header has 2"),
    ("t.csv", 'a,b\n"x"y,2\n1,2\n', 2, "text after a closing quote"),
    ("t.csv", "a,b\nx\ry,2\n1,2\n", 2, "a carriage return"),
    ("t.csv", b"a,b\n1,2\ncaf\xe9,2\n1,2\n", 3, "the byte 0xe9 at column 4"),
    ("t.csv", b"a,b\n\0,2\n", 2, "a NUL byte at column 1"),
    ("t.txt", b"one\ntw\xff\n", 2, "the byte 0xff at column 3"),
    ("t.txt", b"one\nt\0w\n", 2, "a NUL byte at column 2"),
]


@pytest.mark.parametrize(("name", "content", "line", "says"), BAD_ROWS)
def test_a_bad_row_is_named_and_the_next_rows_still_read(
    tmp_path: Path, name: str, content: bytes | str, line: int, says: str
) -> None:
    path = written(tmp_path, name, content)
    items = list(read(path))
    bad = [item for item in items if isinstance(item, BadRow)]
    assert len(bad) == 1
    assert str(bad[0].place) == f"{name}:{line}"
    assert says in bad[0].reason
    text = content if isinstance(content, bytes) else content.encode()
    header = name.endswith(".csv")
    assert len(items) == text.count(b"\n") + (not text.endswith(b"\n")) - header


BAD_FILES = [
    ("t.jsonl", b"\xff\xfe{\0", "1", "begins with the byte 0xff of UTF-16"),
    ("t.csv", "a,b".encode("utf-16"), "1", "save it as UTF-8"),
    ("t.parquet", b"PAR1 not really", "", "cannot be read as Parquet"),
    ("t.arrow", b"nothing of the kind", "", "cannot be read as Arrow"),
    ("t.feather", b"FEA1....", "", "is Feather version 1"),
    ("t.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "", "git lfs pull"),
    ("t.jsonl.gz", b"no gzip", "", "cannot be read"),
    ("t.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-12], "", "cannot be read"),
    ("t.json", "  \n", "", "is empty"),
    ("t.json", "hello", "1", "begins with 'h'"),
    ("t.json", '\n[{"a": 1},\n {"a": 2', "3", "is the file cut off?"),
    ("t.json", '[{"a": 1},\n {"a": 2}\n', "3", "the list is not closed"),
    ("t.json", '[{"a": 1},\n {"a" 2}, {"a": "a long value that follows"}]', "2", "Expecting ':' delimiter at column 7"),
    ("t.json", '[{"a": 1},\n {"a": 2},\n]', "3", "a comma before the end"),
    ("t.json", '[{"a": 1}\n {"a": 2}]', "2", "'{' where a comma"),
    ("t.json", '[{"a": 1}]\n[{"a": 2}]', "2", "more text after the end of the list"),
    ("t.json", b'[{"a": 1},\n{"a": "\xe9"}]', "2", "the byte 0xe9"),
    ("t.json", '{"data": [{"a": 1}, {"a": 2}]}', "", "whose key 'data' holds a list of 2 records"),
    ("t.json", '{"version": "1",\n "data": [{"a": 1}]}', "", "keep only that list"),
    ("t.json", '{"a": {"b": 1},\n "c": 2}', "", "no table: 'a' an object, 'c' a number"),
    ("t.json", '{"a": [1, 2],\n "b": [1]}', "", "columns of different length: 'a' 2, 'b' 1"),
    ("t.json", '{"a": [1, 2],\n "a": [1, 3]}', "", "the key 'a' stands twice"),
    ("t.json", '{\n"a": 1\n}\n{\n"a": 2\n}', "4", "a record a line"),
    ("t.json", "{}", "", "it is empty"),
    ("t.csv", 'a,b\n1,2\n3,"open\n5,6\n', "3", "a quote opened in this row is never closed"),
    ("t.csv", "a,a\n1,2\n", "1", "two columns are named 'a'"),
    ("t.csv", "a, a\n1,2\n", "1", "two columns are named 'a' once the space"),
    ("t.csv", "a;b\n1;2\n", "1", "seems to be divided by a semicolon, not by a comma"),
    ("t.csv", "a\tb\n1\t2\n", "1", "name it .tsv"),
    ("t.tsv", "a,b\n1,2\n", "1", "name it .csv"),
    ("t.csv", "\n\n", "", "a header line is needed"),
    ("t.csv", b"a,\xe9\n1,2\n", "1", "the byte 0xe9 at column 3"),
]


@pytest.mark.parametrize(("name", "content", "line", "says"), BAD_FILES)
def test_a_file_that_cannot_be_read_on_is_refused(
    tmp_path: Path, name: str, content: bytes | str, line: str, says: str
) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(DataError) as refused:
        list(read(path))
    assert says in str(refused.value)
    assert refused.value.problems[0].where == (f"{name}:{line}" if line else "")


def test_a_column_of_records_beside_others_is_a_table(tmp_path: Path) -> None:
    assert values_of(written(tmp_path, "t.json", '{"a": [1],\n "b": [{"c": 2}]}')) == [{"a": 1, "b": {"c": 2}}]
    assert values_of(written(tmp_path, "t.json", '{"a": "x"}')) == [{"a": "x"}]


def test_two_parquet_columns_with_one_name(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        list(read(tmp_path / "t.parquet"))


def test_a_long_json_list_is_streamed(tmp_path: Path) -> None:
    """Values that lie across the ends of chunks, one of them longer than a chunk."""
    rows = [{"i": i, "text": f"{i} ü ]}}, " * (i % 50)} for i in range(3000)] + [{"i": -1, "text": "ü" * 3_000_000}]
    path = written(tmp_path, "t.json", json.dumps(rows, ensure_ascii=False, indent=1))
    items = list(read(path))
    assert [item.values for item in items if isinstance(item, Row)] == rows
    assert [item.place.number for item in items] == [2 + 4 * i for i in range(3001)]


def test_a_broken_value_in_a_long_list_is_found_before_the_rest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "t.json", '[{"a": 1},\n{"a": tru},' + '{"a": 2},' * 500_000 + '{"a": 2}]')
    items = read(path)
    assert isinstance(next(items), Row)
    with pytest.raises(DataError, match="Expecting value at column 7"):
        next(items)


@pytest.mark.parametrize(
    ("name", "row", "between"),
    [("t.jsonl", '{"a": "some text"}', "\n"), ("t.json", '{"a": "some text"}', ","), ("t.csv", "1,some text", "\n")],
)
def test_large_files_are_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, row: str, between: str
) -> None:
    monkeypatch.setattr(rows_module, "SAMPLE", 200_000)
    content = between.join([row] * 250_000)
    path = written(tmp_path, name, {"t.json": f"[{content}]", "t.csv": f"a,b\n{content}"}.get(name, content))
    kind = format_of(path)
    assert kind is not None
    count = kind.count(DataFile(path, name), 10_000)
    assert not count.exact
    assert count.rows == pytest.approx(250_000, rel=0.05)


def test_columnar_text_that_is_no_utf8(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    bad = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"a": bad}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="rows 1 to 2: 'utf-8' codec can't decode byte 0xe9"):
        list(read(tmp_path / "t.parquet"))
