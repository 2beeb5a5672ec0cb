"""What columns mean: kinds, decimal signs, dates, and the precise refusal of what has no clear meaning."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from aitrain.data.rows import Place, Row
from aitrain.errors import ConfigError, DataError
from aitrain.tabular.cells import number
from aitrain.tabular.schema import Schema, Wishes, find_schema
from aitrain.tabular.table import read_table

TARGET = Wishes(("y",))
Rows = Callable[..., list[Row]]


def schema_of(rows: list[Row], **wishes: Any) -> Schema:
    return find_schema(read_table(rows), Wishes(("y",), **wishes))


def column(rows_of: Rows, values: list[Any], **wishes: Any) -> tuple[Any, list[float]]:
    """Kind and numbers of a column `a` beside another; a decided column has one feature."""
    count = len(values)
    table = read_table(rows_of(a=values, other=[i * 1.5 + i % 2 for i in range(count)], y=list(range(count))))
    schema = find_schema(table, Wishes(("y",), **wishes))
    found = schema.encode(table)
    return schema.columns[0], found[:, schema.blocks()["a"][0]].tolist() if "a" in schema.blocks() else []


def refusal(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value)


@pytest.mark.parametrize("word", [None, "", "NA", "n/a", "NaN", "null", "?", "-", "  ", float("nan")])
def test_words_for_nothing_are_missing(rows_of: Rows, word: Any) -> None:
    found, numbers = column(rows_of, ["1.5", word, "3"])
    assert found.kind == "numerical"
    assert numbers[0] == 1.5
    assert np.isnan(numbers[1])


@pytest.mark.parametrize(
    ("word", "decimal", "value"),
    [
        ("3,14", ",", 3.14),
        ("1.234,5", ",", 1234.5),
        ("1.234.567", ",", 1234567),
        ("1,234.5", ".", 1234.5),
        ("1'234.5", ".", 1234.5),
        ("12 345,6", ",", 12345.6),
        ("-1e3", ".", -1000),
        ("1,23,456", ".", None),
        ("1,234", ".", 1234),
        ("0,234", ".", None),
        ("1_000", ".", None),
        ("inf", ".", None),
        ("1e999", ".", None),
        ("12,345.6", ",", None),
    ],
)
def test_numbers_and_what_is_none(word: str, decimal: Any, value: float | None) -> None:
    assert number(word, decimal) == value


def test_decimal_commas_are_found_for_the_whole_column(rows_of: Rows) -> None:
    found, numbers = column(rows_of, ["1.234", "3,14", "5"])
    assert (found.kind, found.decimal, numbers) == ("numerical", ",", [1234.0, 3.14, 5.0])


def test_a_column_of_points_has_points_for_decimals(rows_of: Rows) -> None:
    assert column(rows_of, ["1.234", "5.678"])[1] == [1.234, 5.678]


def test_commas_that_read_in_two_ways_are_refused_and_decided_by_the_user(rows_of: Rows) -> None:
    values = ["1,234", "5,678", "12"]
    with pytest.raises(DataError, match=r"column 'a': '1,234' may be 1234 or 1.234.*task.decimal.*train.csv:2"):
        column(rows_of, values)
    assert column(rows_of, values, decimal=",")[1] == [1.234, 5.678, 12.0]
    assert column(rows_of, values, decimal=".")[1] == [1234.0, 5678.0, 12.0]


def test_a_decimal_sign_for_all_does_not_spoil_columns_that_have_another(rows_of: Rows) -> None:
    found, numbers = column(rows_of, ["3.14", "2.5"], decimal=",")
    assert (found.kind, found.decimal, numbers) == ("numerical", ".", [3.14, 2.5])


def test_a_word_among_numbers_is_refused_with_its_row(rows_of: Rows) -> None:
    with pytest.raises(DataError, match=r"column 'a' has 'twelve'.*2 of 3.*columns\.categorical.*train.csv:4"):
        column(rows_of, ["10", "11", "twelve"])
    assert column(rows_of, ["10", "11", "twelve"], categorical=("a",))[0].categories == ("10", "11", "twelve")


def test_a_word_in_a_column_listed_as_numerical_is_refused(rows_of: Rows) -> None:
    with pytest.raises(DataError, match=r"data.columns.numerical: column 'a' has 'x'.*train.csv:3"):
        column(rows_of, ["1", "x", "y", "z"], numerical=("a",))


@pytest.mark.parametrize("words", [("true", "false"), ("Yes", "no"), (True, False), ("1", "0"), (1, 0)])
def test_yes_and_no(rows_of: Rows, words: tuple[Any, Any]) -> None:
    found, numbers = column(rows_of, [words[0], words[1], words[0]])
    assert (found.kind, numbers) == ("boolean", [1.0, 0.0, 1.0])


def test_postal_codes_are_no_numbers(rows_of: Rows) -> None:
    assert column(rows_of, ["01067", "10115", "01067"])[0].kind == "categorical"


@pytest.mark.parametrize(
    "words",
    [
        ["2024-02-29", "2023-12-31"],
        ["29.02.2024", "31.12.2023"],
        ["29/02/2024", "31/12/2023"],
        ["02/29/2024", "12/31/2023"],
        ["Feb 29, 2024", "Dec 31, 2023"],
        ["29 February 2024", "31 December 2023"],
        [date(2024, 2, 29), date(2023, 12, 31)],
    ],
)
def test_dates_become_their_parts(rows_of: Rows, words: list[Any]) -> None:
    table = read_table(rows_of(a=words, y=[1, 2]))
    schema = find_schema(table, TARGET)
    assert schema.features == ("a.year", "a.month", "a.day", "a.weekday", "a.elapsed_days")
    assert schema.encode(table).tolist() == [[2024, 2, 29, 3, 19782], [2023, 12, 31, 6, 19722]]


def test_a_time_of_day_and_its_zone_count(rows_of: Rows) -> None:
    table = read_table(rows_of(a=["2024-01-01T01:30:00+02:00", "2024-01-01T12:00:00Z"], y=[1, 2]))
    schema = find_schema(table, TARGET)
    assert schema.features[-1] == "a.hour"
    assert schema.encode(table)[0, [0, 1, 2, 5]].tolist() == [2023, 12, 31, 23.5]


def test_days_and_months_that_may_be_swapped_are_refused(rows_of: Rows) -> None:
    values = ["03/04/2024", "05/06/2024"]
    with pytest.raises(DataError, match=r"'03/04/2024' may be 03 April 2024 or 04 March 2024.*date_order.*train.csv:2"):
        column(rows_of, values)
    table = read_table(rows_of(a=values, y=[1, 2]))
    months = [
        find_schema(table, Wishes(("y",), date_order=o)).encode(table)[0, 1] for o in ("day_first", "month_first")
    ]  # type: ignore[arg-type]
    assert months == [4, 3]


def test_a_date_written_in_another_way_is_refused_with_its_row(rows_of: Rows) -> None:
    with pytest.raises(DataError, match=r"column 'a' has '4 March', which is no date.*train.csv:4"):
        column(rows_of, ["2024-01-01", "2024-01-02", "4 March"])


def test_columns_without_information_are_left_out_and_told(rows_of: Rows) -> None:
    count = 30
    rows = rows_of(
        empty=["NA"] * count,
        same=["x"] * count,
        note=[f"text {i}" for i in range(count)],
        counter=list(range(count)),
        good=[i % 7 + 0.5 for i in range(count)],
        y=list(range(count)),
    )
    schema = schema_of(rows)
    assert [found.name for found in schema.used] == ["good"]
    text = "\n".join(schema.notes)
    for piece in (
        "'empty' is left out: no row",
        "'same' is left out: every value is 'x'",
        "30 different values in 30 rows",
    ):
        assert piece in text
    assert "'counter' is left out: it counts the rows" in text
    assert {found.name for found in schema_of(rows, categorical=("note",), numerical=("counter",)).used} == {
        "note",
        "counter",
        "good",
    }


def test_no_column_left_is_refused_with_the_reason_of_each(rows_of: Rows) -> None:
    with pytest.raises(DataError, match=r"no column is left to learn from \(a: every value is 'x'\)"):
        schema_of(rows_of(a=["x", "x"], y=[1, 2]))


def test_an_empty_column_that_is_wished_for_is_refused(rows_of: Rows) -> None:
    with pytest.raises(DataError, match="column 'a' has no value in any row"):
        column(rows_of, ["", ""], numerical=("a",))


def test_ids_are_kept_apart(rows_of: Rows) -> None:
    schema = schema_of(rows_of(ID=["p", "q", "r", ""], a=[1, 2, 3, 5], y=[1, 2, 3, 4]))
    assert schema.id == "ID"
    assert schema.features == ("a",)
    assert "1 rows have no id; the first is train.csv:5" in schema.notes
    assert schema_of(rows_of(key=["p", "q"], a=[1, 3], y=[1, 2]), id="key").id == "key"


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match=r"two columns are named 'a'.*train.csv:2"):
        read_table([Row({"a": 1, " a": 2}, Place("train.csv", 2))])


def test_a_list_is_no_value() -> None:
    rows = [Row({"a": 1}, Place("t.jsonl", 1)), Row({"a": [1]}, Place("t.jsonl", 2))]
    with pytest.raises(DataError, match=r"column 'a': a list is no single value.*t.jsonl:2"):
        read_table(rows)


def test_infinity_is_refused() -> None:
    with pytest.raises(DataError, match=r"inf is no number.*t.jsonl:1"):
        read_table([Row({"a": float("inf")}, Place("t.jsonl", 1))])


def test_no_row_is_refused() -> None:
    with pytest.raises(DataError, match="there is no row"):
        read_table([])


def test_keys_that_some_rows_lack_are_missing_there() -> None:
    rows = [Row(values, Place("t.jsonl", i + 1)) for i, values in enumerate([{"a": 1}, {"b": 2}, {"a": 3, "b": 4}])]
    assert read_table(rows).columns == {"a": ["1", None, "3"], "b": [None, "2", "4"]}


def test_wishes_that_name_no_column_get_the_nearest(rows_of: Rows) -> None:
    with pytest.raises(ConfigError) as error:
        find_schema(
            read_table(rows_of(weight=[1, 2], y=[1, 2])),
            Wishes(("y",), categorical=("wieght",), numerical=("weight",), ignored=("weight",)),
        )
    assert "data.columns.categorical: there is no column 'wieght'; did you mean 'weight'?" in refusal(error)
    assert "data.columns.ignored: 'weight' is named in data.columns.numerical already" in refusal(error)


def test_a_schema_survives_json_and_meets_new_rows(rows_of: Rows) -> None:
    train = rows_of(
        colour=["red", "blue", "red"], size=["1,5", "2", "3"], when=["2024-01-01"] * 2 + ["2024-02-01"], y="abc"
    )
    schema = schema_of(train)
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    new = read_table(rows_of(extra=[1], colour=["green"], size=["0,5"], when=["2025-01-01"]))
    assert again.encode(new)[0, :2].tolist() == [-1.0, 0.5]
    assert again.surplus(new, ("y",)) == ["extra"]
    assert again.unknown_categories(new) == {"colour": 1}


def test_new_rows_without_a_column_or_with_another_kind_are_refused(rows_of: Rows) -> None:
    schema = schema_of(rows_of(colour=["red", "blue", "red"], size=[1, 2, 4], y="abc"))
    with pytest.raises(DataError, match=r"no column 'size', which the model needs; did you mean 'sizes'"):
        schema.encode(read_table(rows_of(colour=["red"], sizes=[1])))
    with pytest.raises(DataError, match=r"column 'size' has 'big', and the column is numerical.*train.csv:3"):
        schema.encode(read_table(rows_of(colour=["red"] * 2, size=[1, "big"])))


def test_many_problems_are_counted(rows_of: Rows) -> None:
    schema = schema_of(rows_of(a=[1, 2, 4], y=[1, 2, 3]))
    with pytest.raises(DataError) as error:
        schema.encode(read_table(rows_of(a=[f"w{i}" for i in range(8)])))
    assert len(error.value.problems) == 6
    assert "and 3 more" in refusal(error)
