"""Tables of token ids: what is written is read, whole or not at all; blocks hold every token once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from aitrain.data.tokens import (
    Blocks,
    Encoded,
    EncodedGroup,
    Groups,
    JoinedTables,
    Rows,
    TokenRow,
    TokenTable,
    write_table,
)

Pairs = list[tuple[list[int], list[int]]]


def some_rows(lengths: list[int], seed: int = 0) -> Pairs:
    """Rows of given lengths; every token of them all has an id of its own."""
    draw, ids = random.Random(seed), iter(range(sum(lengths)))
    return [([next(ids) for _ in range(n)], [draw.randrange(2) for _ in range(n)]) for n in lengths]


def table(folder: Path, lengths: list[int], seed: int = 0) -> TokenTable:
    return write_table(folder / f"table-{seed}", encoded(some_rows(lengths, seed)), {})


def encoded(rows: Pairs) -> list[Encoded]:
    return [Encoded(ids, trained) for ids, trained in rows]


def read(rows: Rows | Blocks | TokenTable) -> Pairs:
    return [(row.ids.tolist(), row.trained.tolist()) for row in map(rows.__getitem__, range(len(rows)))]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = some_rows([3, 1, 0, 7])
    facts: dict[str, int] = {}

    def counting() -> Iterator[Encoded]:
        for row in encoded(rows):
            facts["rows"] = facts.get("rows", 0) + 1
            yield row

    made = write_table(tmp_path / "t", counting(), facts)
    assert read(made) == rows
    assert read(TokenTable(tmp_path / "t")) == rows
    assert made.lengths().tolist() == [3, 1, 0, 7]
    assert made.facts == {"rows": 4, "group": 1}
    assert (made.ids.dtype, made.trained.dtype) == (np.int32, np.uint8)
    chosen = Rows(made, np.asarray([3, 0]))
    assert read(chosen) == [rows[3], rows[0]]
    assert chosen.lengths().tolist() == [7, 3]


def test_weights_are_kept_beside_the_mask(tmp_path: Path) -> None:
    rows = [Encoded([1, 2, 3], [0, 1, 1], weights=[0.0, 0.5, 1.0]), Encoded([4, 5], [0, 1])]
    made = write_table(tmp_path / "t", rows, {}, weighted=True)
    assert [row.weights.tolist() for row in map(made.__getitem__, (0, 1)) if row.weights is not None] == [
        [0.0, 0.5, 1.0],
        [0.0, 1.0],
    ]
    assert write_table(tmp_path / "u", rows, {})[0].weights is None


def test_rows_that_are_one_example_stay_together(tmp_path: Path) -> None:
    rows = encoded(some_rows([3, 1, 2, 7, 4, 4]))
    groups = [EncodedGroup((rows[i], rows[i + 1]), value=i / 2) for i in (0, 2, 4)]
    made = write_table(tmp_path / "t", groups, {}, group=2)
    assert (len(made), made.examples()) == (6, 3)
    chosen = Groups(made, np.asarray([2, 0]))
    assert [[row.ids.tolist() for row in chosen[n].rows] for n in (0, 1)] == [
        [rows[4].ids, rows[5].ids],
        [rows[0].ids, rows[1].ids],
    ]
    assert [chosen[0].value, chosen[1].value] == [2.0, 0.0]
    assert chosen.lengths().tolist() == [4, 3]
    assert Groups(made).lengths().tolist() == [3, 7, 4]


def test_joined_tables_read_as_one(tmp_path: Path) -> None:
    rows = some_rows([3, 0, 2, 7, 1, 5, 4])
    parts = [rows[:3], [], rows[3:4], rows[4:]]
    tables = [write_table(tmp_path / f"t{n}", encoded(part), {}) for n, part in enumerate(parts)]
    joined, whole = JoinedTables(tables), write_table(tmp_path / "whole", encoded(rows), {})
    assert (len(joined), joined.examples()) == (7, 7)
    assert read(Rows(joined)) == rows
    assert joined.lengths().tolist() == [3, 0, 2, 7, 1, 5, 4]
    order = np.asarray([6, 0, 3, 3, 2])
    assert read(Rows(joined, order)) == read(Rows(whole, order))
    assert read(Blocks(Rows(joined, order), 4)) == read(Blocks(Rows(whole, order), 4))


def test_examples_of_several_rows_stay_together_in_joined_tables(tmp_path: Path) -> None:
    rows = encoded(some_rows([3, 1, 2, 7, 4, 5]))
    groups = [EncodedGroup((rows[i], rows[i + 1]), value=i / 2) for i in (0, 2, 4)]
    tables = [write_table(tmp_path / f"t{n}", part, {}, group=2) for n, part in enumerate((groups[:1], groups[1:]))]
    chosen = Groups(JoinedTables(tables), np.asarray([2, 0]))
    assert [[row.ids.tolist() for row in chosen[n].rows] for n in (0, 1)] == [
        [rows[4].ids, rows[5].ids],
        [rows[0].ids, rows[1].ids],
    ]
    assert [chosen[0].value, chosen[1].value] == [2.0, 0.0]
    assert chosen.lengths().tolist() == [5, 3]


def test_an_empty_table(tmp_path: Path) -> None:
    made = table(tmp_path, [])
    assert len(made) == len(Rows(made)) == len(Blocks(Rows(made), 4)) == 0
    assert made.lengths().tolist() == []


def test_a_table_is_whole_or_absent(tmp_path: Path) -> None:
    def broken() -> Iterator[Encoded]:
        yield Encoded([1, 2], [0, 1])
        assert not (tmp_path / "t").exists()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_table(tmp_path / "t", broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    first = encoded(some_rows([2, 3]))

    def slower() -> Iterator[Encoded]:
        write_table(tmp_path / "t", first, {"by": "first"})
        yield from first

    assert write_table(tmp_path / "t", slower(), {"by": "second"}).facts["by"] == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_folder_that_is_no_table_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "something").write_text("else")
    with pytest.raises(OSError):
        write_table(tmp_path / "t", encoded(some_rows([2])), {})
    assert json.loads(json.dumps([path.name for path in tmp_path.iterdir()])) == ["t"]


def assert_blocks_hold_all(rows: Rows, size: int) -> None:
    blocks = Blocks(rows, size)
    found, wanted = read(blocks), read(rows)
    for part in (0, 1):  # ids, trained
        assert list(chain.from_iterable(row[part] for row in found)) == list(
            chain.from_iterable(row[part] for row in wanted)
        )
    lengths = [len(ids) for ids, _ in found]
    assert blocks.lengths().tolist() == lengths
    total = sum(lengths)
    assert len(blocks) == -(-total // size)
    # All are full but the last, and the one before it where a single token would have been left.
    single = total > size and total % size == 1
    assert lengths[:-2] == [size] * (len(lengths) - 2)
    assert lengths[-2:-1] in ([], [size - single])
    assert lengths[-1] == (2 if single else (total - 1) % size + 1)


@pytest.mark.parametrize("seed", range(60))
def test_blocks_hold_every_token_once_over_odd_sizes(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.choice([0, 1, 1, 2, 3, 8, 9, 30]) for _ in range(draw.randrange(1, 25))]
    lengths[draw.randrange(len(lengths))] += 2
    made = table(tmp_path, lengths, seed)
    order = np.asarray(draw.sample(range(len(lengths)), len(lengths)))
    for size in (2, 3, 5, 8, 64):
        assert_blocks_hold_all(Rows(made), size)
        assert_blocks_hold_all(Rows(made, order), size)


def test_no_block_is_longer_than_asked_when_one_token_is_left(tmp_path: Path) -> None:
    """A model of 8 positions has no ninth."""
    blocks = Blocks(Rows(table(tmp_path, [17])), 8)
    assert blocks.lengths().tolist() == [8, 7, 2]
    assert isinstance(blocks[2], TokenRow)


def test_a_text_of_one_token_makes_no_block(tmp_path: Path) -> None:
    assert len(Blocks(Rows(table(tmp_path, [1])), 8)) == 0
