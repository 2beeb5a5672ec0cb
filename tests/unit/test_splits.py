"""Split names and slices, held-out rows, chosen rows."""

from __future__ import annotations

from typing import Any

import pytest

from aitrain.data.splits import Split, choose, hold_out
from aitrain.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        "train",
        "test_1",
        "my-split",
        "v1.0",
        "train[:10%]",
        "train[100:200]",
        "train[-5:]",
        "train[10%:-10%]",
        "train[:]",
    ],
)
def test_a_split_prints_as_it_was_written(text: str) -> None:
    assert str(Split.parse(text)) == text.removesuffix("[:]")


# Expected ranges are what datasets.ReadInstruction.to_absolute gives; see the next test.
RANGES = [
    ("train", 10, (0, 10)),
    ("train[:10%]", 1005, (0, 100)),  # 100.5 rounds to even
    ("train[:10%]", 1015, (0, 102)),
    ("train[50%:]", 7, (4, 7)),
    ("train[-10%:]", 100, (90, 100)),
    ("train[:-10%]", 15, (0, 13)),
    ("train[3:5]", 10, (3, 5)),
    ("train[3:50]", 10, (3, 10)),
    ("train[20:50]", 10, (10, 10)),
    ("train[-3:]", 10, (7, 10)),
    ("train[-30:]", 10, (0, 10)),
    ("train[:-3]", 10, (0, 7)),
    ("train[:-30]", 10, (0, 0)),
    ("train[:1%]", 10, (0, 0)),
]


@pytest.mark.parametrize(("text", "n_rows", "expected"), RANGES)
def test_range(text: str, n_rows: int, expected: tuple[int, int]) -> None:
    assert Split.parse(text).range(n_rows) == expected


def test_ranges_are_those_of_the_datasets_library() -> None:
    datasets = pytest.importorskip("datasets")
    for text, n_rows, expected in RANGES:
        absolute = datasets.ReadInstruction.from_spec(text).to_absolute({"train": n_rows})[0]
        assert (absolute.from_, absolute.to) == expected, text


def test_a_slice_that_ends_before_it_starts_is_empty() -> None:
    assert Split.parse("train[8:-5]").range(10) == (8, 8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train[:0.1]", "did you mean 'train[:10%]'?"),
        ("train[:.25]", "did you mean 'train[:25%]'?"),
        ("train[0.9:]", "did you mean 'train[90%:]'?"),
        ("train[10%]", "did you mean 'train[:10%]'?"),
        ("train[100]", "did you mean 'train[:100]'?"),
        ("train [:10%]", "did you mean 'train[:10%]'?"),
        ("train[: 10%]", "did you mean 'train[:10%]'?"),
        ("train(:10%)", "did you mean 'train[:10%]'?"),
        ("train[:10%", "did you mean 'train[:10%]'?"),
        ("train[5-9]", "did you mean 'train[5:9]'?"),
        ("train[::2]", "no step"),
        ("train+test", "name one split"),
        ("train[:10.5%]", "whole percents"),
        ("train[10%:200]", "mixes rows and percents"),
        ("train[:200%]", "between -100 and 100"),
        ("train[200:100]", "selects no rows"),
        ("train[-1:-5]", "selects no rows"),
        ("train[0:0]", "selects no rows"),
        ("", "write it as train"),
        ("[:10%]", "write it as train"),
        ("train[:10%](pct1_dropremainder)", "did you mean 'train[:10%]'?"),
    ],
)
def test_a_split_in_no_right_form_is_refused(text: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        Split.parse(text, key="data.valid_split")
    assert says in str(refused.value)
    assert refused.value.problems[0].key == "data.valid_split"


def test_hold_out_divides_all_rows_in_file_order() -> None:
    train, valid, reason = hold_out(1000, 0.1, seed=7)
    assert len(valid) == 100
    assert sorted([*train, *valid]) == list(range(1000))
    assert list(train) == sorted(train)
    assert list(valid) == sorted(valid)
    assert reason == "100 validation rows: 0.1 of 1000 rows"


def test_hold_out_is_the_same_everywhere_and_follows_the_seed() -> None:
    assert hold_out(20, 0.25, seed=42).valid.tolist() == EXPECTED_OF_SEED_42
    assert hold_out(20, 0.25, seed=43).valid.tolist() != EXPECTED_OF_SEED_42


EXPECTED_OF_SEED_42 = [1, 10, 13, 15, 17]


@pytest.mark.parametrize(
    ("n", "fraction", "sizes", "says"),
    [
        (10, 0.0, (10, 0), "data.valid_fraction is 0"),
        (10, 0.01, (10, 0), "0.01 of 10 rows is less than one"),
        (1, 0.9, (1, 0), "no training row"),
        (3, 0.99, (1, 2), "2 validation rows: 0.99 of 3 rows would leave no training row"),
        (0, 0.5, (0, 0), "less than one"),
    ],
)
def test_hold_out_empties_neither_side(n: int, fraction: float, sizes: tuple[int, int], says: str) -> None:
    held = hold_out(n, fraction, seed=0)
    assert (len(held.train), len(held.valid)) == sizes
    assert says in held.reason


def test_hold_out_of_a_million_rows_is_quick() -> None:
    train, valid, _ = hold_out(1_000_000, 0.05, seed=0)
    assert (len(train), len(valid)) == (950_000, 50_000)
    assert train.dtype == valid.dtype == "int64"


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_hold_out_takes_a_share_only(fraction: float) -> None:
    with pytest.raises(ValueError):
        hold_out(10, fraction, seed=0)


def test_choose() -> None:
    assert choose(5, None, "first", 0) is None
    assert choose(5, 5, "random", 0) is None
    first, even, drawn = (sorted_list(choose(10, 4, strategy, 0)) for strategy in ("first", "even", "random"))
    assert first == [0, 1, 2, 3]
    assert even == [0, 2, 5, 7]
    assert len(set(drawn)) == 4
    assert set(drawn) <= set(range(10))


def sorted_list(indices: Any) -> list[int]:
    found: list[int] = indices.tolist()
    assert found == sorted(found)
    return found


def test_choosing_and_holding_out_with_one_seed_are_unrelated() -> None:
    chosen = choose(1000, 100, "random", 3)
    assert chosen is not None
    assert len(set(chosen.tolist()) & set(hold_out(1000, 0.1, 3).valid.tolist())) < 30
