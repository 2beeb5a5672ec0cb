"""Rows that are the same one wherever they are read, and examples that hold one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aitrain.data import sources
from aitrain.data.origins import Noted, Origins
from aitrain.data.rows import BadRow
from aitrain.data.sources import Source


def find(path: Path, split: str = "train") -> Source:
    return sources.find(str(path), split=split, files=None, config=None, allow_downloads=False)


def identities(source: Source) -> list[int]:
    return [source.identity(where) for where, _ in source.numbered("skip")]


@pytest.mark.parametrize("form", ["lines", "one line", "parquet"])
def test_a_row_is_the_same_one_in_another_slice_and_in_a_copy(tmp_path: Path, form: str) -> None:
    """Also where all rows stand on one line, and where rows are equal."""
    rows = [{"n": number // 2} for number in range(10)]
    path = tmp_path / {"lines": "a.jsonl", "one line": "a.json", "parquet": "a.parquet"}[form]
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if form == "lines" else json.dumps(rows))
    whole = identities(find(path))
    assert len(set(whole)) == 10
    assert identities(find(path, "train[3:7]")) == whole[3:7]
    assert identities(find(path, "train[-30%:]")) == whole[7:]
    copy = tmp_path / "sub" / f"b{path.suffix}"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert identities(find(copy)) == whole


def test_bad_rows_count_and_files_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 1}\nnonsense\n{"n": 3}\n')
    (tmp_path / "b.jsonl").write_text('{"n": 1}\n{"n": 4}\n')
    both = find(tmp_path)
    assert [type(item) is BadRow for _, item in both.numbered("skip")] == [False, True, False, False, False]
    assert identities(both) == [*identities(find(tmp_path / "a.jsonl")), *identities(find(tmp_path / "b.jsonl"))]
    assert len(set(identities(both))) == 5


def test_examples_that_hold_a_row_are_found(tmp_path: Path) -> None:
    import numpy as np

    origins = Origins(lambda where: 100 + where[1])
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(7)))
    list(origins.follow(find(path).numbered("error")))
    for rows, examples in ((1, 1), (1, 0), (3, 1), (1, 2), (1, 1)):  # as it is, bad, merged, a pair, as it is
        origins.take(rows, examples)
    origins.save(tmp_path)
    noted = Noted.read(tmp_path)
    assert noted.rows_of(np.array([0, 1, 2])).tolist() == [100, 102, 103, 104, 105]
    everything = np.arange(5)
    assert noted.without(everything, [np.array([104], np.uint64)]).tolist() == [0, 2, 3, 4]
    assert noted.without(everything, [np.array([105], np.uint64), np.array([100], np.uint64)]).tolist() == [1, 4]
    assert noted.without(everything[1:3], [np.array([101, 999], np.uint64)]).tolist() == [1, 2]
