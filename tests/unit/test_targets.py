"""What is to be predicted of a row: classes, sets of them and numbers as files hold them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aitrain.data.fields import Field, find_fields, wrong_text
from aitrain.data.rows import Place, Row
from aitrain.data.sources import find
from aitrain.data.splits import choose_balanced, hold_out
from aitrain.data.targets import (
    Classes,
    ClassReader,
    NoTarget,
    class_name,
    in_order,
    learn_classes,
    learn_numbers,
    read_numbers,
    targets_from,
    wrong_class,
    wrong_numbers,
)
from aitrain.errors import DataError


def rows(*values: Any, column: str = "label") -> Iterator[Row]:
    for number, value in enumerate(values, 1):
        found = value if isinstance(value, Mapping) else {column: value}
        yield Row(dict(found), Place("rows.csv", number + 1))


def learnt(*values: Any, wanted: Sequence[str] | None = None, **reader: Any) -> Classes:
    found = ClassReader(("label",), reader.pop("multi_label", None), **reader)
    return learn_classes(found, rows(*values), [{"label": value} for value in values[:20]], wanted)


# --- classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "name"), [("joy", "joy"), (" joy ", "joy"), (3, "3"), (3.0, "3"), (True, "true"), ("007", "007")]
)
def test_a_class_has_a_name(value: Any, name: str) -> None:
    assert class_name(value) == name


@pytest.mark.parametrize("value", [None, "", "  ", 0.5, {"a": 1}, [1]])
def test_what_is_no_class_is_refused(value: Any) -> None:
    with pytest.raises(NoTarget, match="where a class is expected"):
        class_name(value)


def test_classes_are_in_order_of_size_or_of_the_alphabet() -> None:
    assert in_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert in_order(["b", "10", "a"]) == ["10", "a", "b"]


def test_classes_are_counted_and_rows_without_one_are_left_to_the_encoder() -> None:
    found = learnt("b", "a", "b", None, 0.5)
    assert (found.names, found.counts, found.rows, found.multi_label) == (("a", "b"), (1, 2), 3, False)
    assert targets_from(json.loads(json.dumps(found.to_dict()))) == found


def test_wanted_classes_keep_their_order_and_may_be_absent() -> None:
    assert learnt("b", "a", wanted=["b", "c", "a"]).counts == (1, 0, 1)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("a", "a", "a"), "holds one class only, 'a', in 3 rows"),
        ((None, None), "names a class in no row"),
        (tuple(f"text {number}" for number in range(60)), "60 different values in 60 rows, which are hardly classes"),
    ],
)
def test_a_column_that_tells_nothing_apart_is_refused(values: tuple[Any, ...], told: str) -> None:
    with pytest.raises(DataError, match=told):
        learnt(*values)


def test_many_classes_that_are_meant_are_taken() -> None:
    names = [f"text {number}" for number in range(60)]
    assert learnt(*names, wanted=names).names == tuple(names)


def test_wanted_classes_of_which_none_occurs_are_refused() -> None:
    with pytest.raises(DataError, match="none of them occurs; column 'label' holds 'a', 'b'"):
        learnt("a", "b", wanted=["x", "y"])


@pytest.mark.parametrize(
    "value", [["a", "b"], ("a", "b"), '["a", "b"]', "['a', 'b']", ["a", "b", "a"]], ids=["list", "tuple", "JSON",
                                                                                         "Python", "twice"]
)  # fmt: skip
def test_a_set_of_classes_may_be_a_list_or_its_text(value: Any) -> None:
    reader = ClassReader(("label",), None)
    assert reader.holds_sets([{"label": value}])
    assert reader.several({"label": value}) == ("a", "b")


def test_a_set_of_classes_may_have_signs_between_them() -> None:
    reader = ClassReader(("label",), None, separator=";")
    assert reader.several({"label": "a; b;"}) == ("a", "b")
    assert reader.several({"label": "a"}) == ("a",)


def test_several_columns_say_which_classes_are_there() -> None:
    reader = ClassReader(("rude", "loud"), None)
    assert reader.holds_sets([])
    assert reader.several({"rude": "1", "loud": 0}) == ("rude",)
    assert reader.several({"rude": False, "loud": "0.0"}) == ()
    with pytest.raises(NoTarget, match=r"column 'loud' holds a number \(2\) where 1 or 0 is expected"):
        reader.several({"rude": 1, "loud": 2})


def test_no_code_in_a_list_is_run() -> None:
    reader = ClassReader(("label",), True)
    assert reader.several({"label": "[__import__('os').getpid()]"}) == ("[__import__('os').getpid()]",)


def test_names_of_a_class_feature_stand_for_its_numbers() -> None:
    reader = ClassReader(("label",), None, names=("no", "yes"))
    assert [reader.one({"label": value}) for value in (1, 0, 1.0)] == ["yes", "no", "yes"]
    with pytest.raises(NoTarget, match="holds 2, and the file names 2 classes, from 0 on"):
        reader.one({"label": 2})


def test_a_class_feature_is_found_in_a_file(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "train.parquet")
    source = find(str(tmp_path / "train.parquet"), split="train", files=None, config=None, allow_downloads=False)
    assert source.class_names("label") == ("no", "yes")
    assert source.class_names("text") == ()


def test_wrong_values_are_told() -> None:
    assert wrong_class("a") == wrong_class(1) == wrong_class(["a"]) == ""
    assert "fraction" in wrong_class(0.5)
    assert wrong_numbers("1.5") == wrong_numbers([1, 2.5]) == wrong_numbers("[1, 2]") == ""
    assert wrong_numbers("high") == "text ('high')"


# --- numbers -------------------------------------------------------------------------------------------------------


def test_numbers_are_read_from_columns_and_lists() -> None:
    assert read_numbers(["a", "b"], {"a": "1.5", "b": -2}) == (1.5, -2.0)
    assert read_numbers(["a"], {"a": [1, 2]}) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("value", "told"),
    [("1,5", "write 1.5 for 1,5"), (None, "holds nothing"), ("nan", "no finite number"), (float("inf"), "holds inf")],
)
def test_what_is_no_number_is_refused(value: Any, told: str) -> None:
    with pytest.raises(NoTarget, match=told):
        read_numbers(["a"], {"a": value})


def test_numbers_are_described() -> None:
    found = learn_numbers(["label"], rows(1, 2, "x", 3))
    assert (found.mean, found.minimum, found.maximum, found.rows) == ((2.0,), (1.0,), (3.0,), 3)
    assert found.deviation == pytest.approx(((2 / 3) ** 0.5,))
    assert targets_from(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("values", "told"),
    [((5, 5, 5), "the same in each of 3 rows"), (([1, 2], [1]), "lists of 1 and of 2 numbers"), (("x",), "in no row")],
)
def test_numbers_that_tell_nothing_are_refused(values: tuple[Any, ...], told: str) -> None:
    with pytest.raises(DataError, match=told):
        learn_numbers(["label"], rows(*values))


# --- columns -------------------------------------------------------------------------------------------------------

FIELDS = (
    Field("text", ("text", "review"), "text", wrong_text),
    Field("text_pair", ("text_pair",), "text", wrong_text, required=False),
    Field("target", ("target", "label"), "a class", wrong_class),
)


def found(first: Mapping[str, Any], **chosen: Any) -> Any:
    return find_fields("text_target", FIELDS, list(first), [first], chosen)


def test_columns_are_found_by_name_and_the_reason_is_told() -> None:
    choice = found({"id": 1, "Review ": "good", "label": "x"})
    assert (choice.columns, choice.targets) == ({"text": "Review "}, ("label",))
    assert choice.reason == "text is 'Review ' (by its name), target is 'label' (by its name); not used: 'id'"


def test_the_only_column_left_is_taken() -> None:
    assert found({"id": 1, "said": "good", "label": "x"}).columns == {"text": "said"}


def test_of_two_columns_left_none_is_taken() -> None:
    with pytest.raises(DataError, match=r"columns\.text: no column found for it; there is 'said', 'heard', 'label'"):
        found({"said": "good", "heard": "bad", "label": "x"})


def test_two_columns_of_fitting_names_are_asked_about() -> None:
    with pytest.raises(DataError, match=r"columns\.text: may be 'review', 'Review'; set data\.columns\.text=review"):
        found({"review": "a", "Review": "b", "label": "x"})


def test_the_name_of_the_role_itself_wins() -> None:
    assert found({"text": "a", "review": "b", "label": "x"}).columns == {"text": "text"}


def test_a_named_column_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no column 'lable'; there is 'text', 'label'; did you mean 'label'\?"):
        found({"text": "a", "label": "x"}, target="lable")


def test_one_column_has_one_role() -> None:
    with pytest.raises(DataError, match=r"'text' is data\.columns\.text already"):
        found({"text": "a", "label": "x"}, text="text", target="text")


def test_values_of_another_kind_are_refused_with_their_row() -> None:
    with pytest.raises(DataError, match=r"column 'text' holds a number \(5\) in row 1, where text is expected"):
        found({"text": 5, "label": "x"})


# --- which rows ----------------------------------------------------------------------------------------------------


def test_each_class_has_its_share_among_the_rows_held_out() -> None:
    import numpy as np

    strata = np.array([0] * 70 + [1] * 20 + [2] * 9 + [3])
    split = hold_out(100, 0.2, 3, strata)
    assert np.bincount(strata[split.valid], minlength=4).tolist() == [14, 4, 2, 0]
    assert sorted([*split.train, *split.valid]) == list(range(100))
    assert np.array_equal(split.valid, hold_out(100, 0.2, 3, strata).valid)
    assert not np.array_equal(split.valid, hold_out(100, 0.2, 4, strata).valid)


def test_a_class_of_one_row_stays_with_the_training_rows() -> None:
    import numpy as np

    strata = np.arange(10)
    assert len(hold_out(10, 0.5, 0, strata).valid) == 0


@pytest.mark.parametrize(
    ("kinds", "most", "kept"),
    [
        ("aaaabb", 4, [0, 1, 4, 5]),
        ("aaaaab", 4, [0, 1, 2, 5]),
        ("abcabc", 4, [0, 1, 2, 3]),
        ("abc", 2, [0, 1]),
        ("aaabbbccc", 7, [0, 1, 2, 3, 4, 6, 7]),
    ],
)
def test_balanced_rows_are_the_first_of_each_class(kinds: str, most: int, kept: list[int]) -> None:
    found = choose_balanced(list(kinds), most)
    assert found is not None
    assert found.tolist() == kept


def test_balanced_rows_are_all_where_there_are_no_more() -> None:
    assert choose_balanced(list("ab"), 2) is None


def test_rows_of_no_class_take_no_part_in_a_balance() -> None:
    found = choose_balanced(["a", None, "b", None, "a", "b"], 4)
    assert found is not None
    assert found.tolist() == [0, 2, 4, 5]
