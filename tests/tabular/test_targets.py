"""Which sub-task targets make, and targets that nothing can be learnt from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from aitrain.data.rows import Row
from aitrain.errors import ConfigError, DataError
from aitrain.tabular.dataset import prepare
from aitrain.tabular.schema import Wishes
from aitrain.tabular.table import read_table
from aitrain.tabular.targets import Targets, find_targets

Rows = Callable[..., list[Row]]


def found(rows_of: Rows, wanted: Any = "auto", **columns: list[Any]) -> Targets:
    return find_targets(read_table(rows_of(**columns)), Wishes(tuple(columns)), wanted)


@pytest.mark.parametrize(
    ("values", "subtask", "classes"),
    [
        (["no", "yes", "no"], "binary", ("no", "yes")),
        (["t", "f", "t"], "binary", ("f", "t")),
        ([0, 1, 1], "binary", (0, 1)),
        (["b", "a", "c"], "multiclass", ("a", "b", "c")),
        ([3, 1, 2] * 10, "multiclass", (1, 2, 3)),
        (["3", "1.0", "2"] * 10, "multiclass", (1, 2, 3)),
        (list(range(15)) * 2, "regression", ()),
        ([1.5, 2.5, 1.5], "regression", ()),
        (["1,5", "2,25"], "regression", ()),
    ],
)
def test_one_column(rows_of: Rows, values: list[Any], subtask: str, classes: tuple[Any, ...]) -> None:
    targets = found(rows_of, y=values)
    assert (targets.subtask, targets.classes) == (subtask, classes)
    assert targets.reason
    assert Targets.from_json(json.loads(json.dumps(targets.to_json()))) == targets


def test_several_columns(rows_of: Rows) -> None:
    labels = found(rows_of, a=[0, 1, 1, 0], b=["yes", "no", "no", "yes"])
    assert labels.subtask == "multilabel"
    assert labels.encode(read_table(rows_of(a=[0], b=["yes"]))).tolist() == [[0, 1]]
    numbers = found(rows_of, a=[0, 1, 1, 0], b=["1,5", "2", "3", "4"])
    assert numbers.subtask == "regression"
    assert numbers.encode(read_table(rows_of(a=[2], b=["0,5"]))).tolist() == [[2, 0.5]]
    with pytest.raises(DataError, match="column 'b' is not as the others"):
        found(rows_of, a=[0, 1], b=["x", "y"])
    with pytest.raises(DataError, match="column 'b' is 1 in one row alone"):
        found(rows_of, a=[0, 1, 1, 0], b=[0, 0, 0, 1])


def test_what_is_asked_for_and_does_not_fit_is_refused(rows_of: Rows) -> None:
    assert found(rows_of, "regression", y=[0, 1, 1]).subtask == "regression"
    assert found(rows_of, "classification", y=[0.5, 1.5, 0.5]).classes == ("0.5", "1.5")
    with pytest.raises(ConfigError, match=r"3 classes, which is no binary; set task.subtask=multiclass"):
        found(rows_of, "binary", y=["a", "b", "c"])
    with pytest.raises(DataError, match=r"column 'y' has 'x', which is no number.*train.csv:4"):
        found(rows_of, "regression", y=[1, 2, "x"])
    with pytest.raises(ConfigError, match=r"multilabel predicts several columns .* set task.subtask=binary"):
        found(rows_of, "multilabel", y=[0, 1, 1])
    with pytest.raises(ConfigError, match="binary predicts one column"):
        found(rows_of, "binary", a=[0, 1], b=[1, 0])


def test_nothing_to_predict(rows_of: Rows) -> None:
    with pytest.raises(DataError, match="column 'y' is 'a' in all of 3 rows"):
        found(rows_of, y=["a"] * 3)
    with pytest.raises(DataError, match="an id or free text"):
        found(rows_of, y=[f"name {i}" for i in range(30)])
    with pytest.raises(DataError, match=r"may be 1234 or 1.234"):
        found(rows_of, y=["1,234", "2,345"])


def data(rows_of: Rows, y: list[Any], **told: Any) -> Any:
    return prepare(rows_of(a=[i * i for i in range(len(y))], y=y), Wishes(("y",)), **told)


def test_rows_without_a_target_are_refused_or_skipped(rows_of: Rows) -> None:
    with pytest.raises(
        DataError, match=r"column 'y', the target, has no value; set data.on_bad_rows=skip.*train.csv:4"
    ):
        data(rows_of, ["a", "b", None, "a", "b"])
    skipped = data(rows_of, ["a", "b", None, "a", "b"], on_bad="skip")
    assert skipped.train.y.tolist() == [0, 1, 0, 1]
    assert [place.number for place in skipped.train.places] == [2, 3, 5, 6]
    assert "1 rows without a target are skipped; the first is train.csv:4" in skipped.notes


def test_a_class_of_one_row_is_refused_or_skipped(rows_of: Rows) -> None:
    values = ["a", "b", "c", "a", "b"]
    with pytest.raises(DataError, match=r"no other row is of the class 'c'.*train.csv:4"):
        data(rows_of, values)
    skipped = data(rows_of, values, on_bad="skip")
    assert (skipped.targets.subtask, skipped.targets.classes) == ("binary", ("a", "b"))
    assert skipped.train.y.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match="1 classes of column 'y' have 2 rows"):
        data(rows_of, ["a", "a", "b"], on_bad="skip")


def test_validation_rows_of_a_class_that_training_lacks_are_refused_or_skipped(rows_of: Rows) -> None:
    valid = rows_of(a=[1, 2, 3], y=["a", "c", "b"])
    with pytest.raises(DataError, match=r"training has no row of class 'c'.*train.csv:3"):
        data(rows_of, ["a", "b", "a", "b"], valid=valid)
    dataset = data(rows_of, ["a", "b", "a", "b"], valid=valid, on_bad="skip")
    assert dataset.valid.y.tolist() == [0, 1]
    assert any("1 validation rows are not scored: training lacks their classes 'c'" in note for note in dataset.notes)
    with pytest.raises(DataError, match=r"training has no class of the validation rows, such as 'z'"):
        data(rows_of, ["a", "b", "a", "b"], valid=rows_of(a=[1], y=["z"]), on_bad="skip")


def test_ids_that_come_twice_are_refused_or_skipped(rows_of: Rows) -> None:
    rows = rows_of(id=["p", "q", "p", None, None, "r"], a=[1, 2, 3, 5, 7, 9], y=["a", "b", "a", "b", "a", "b"])
    with pytest.raises(DataError, match=r"id 'p' of column 'id' is that of train.csv:2 too.*train.csv:4"):
        prepare(rows, Wishes(("y",)))
    skipped = prepare(rows, Wishes(("y",)), valid=rows[:3], on_bad="skip")
    assert [place.number for place in skipped.train.places] == [2, 3, 5, 6, 7]
    assert skipped.valid is not None
    assert [place.number for place in skipped.valid.places] == [2, 3]
    told = "1 rows whose id came before are skipped; the first is train.csv:4, with 'p' of train.csv:2"
    assert told in skipped.notes
    assert f"validation: {told}" in skipped.notes
    assert len(prepare(rows, Wishes(("y",), ignored=("id",))).train) == 6


def test_validation_with_other_columns_is_refused_with_both_lists(rows_of: Rows) -> None:
    train = rows_of(id=[1, 2, 3, 4], a=[1, 2, 5, 4], b=[1, 3, 2, 7], y=["a", "b", "a", "b"])
    with pytest.raises(DataError) as error:
        prepare(train, Wishes(("y",)), valid=rows_of(a=[1], bb=[2], y=["a"]))
    text = str(error.value)
    assert "validation rows have no column 'b'; did you mean 'bb'?" in text
    assert "validation rows have a column 'bb' that training rows lack" in text
    assert "training: id, a, b, y; validation: a, bb, y" in text


def test_new_categories_of_validation_are_counted(rows_of: Rows) -> None:
    train = rows_of(c=["u", "v", "u", "v"], y=[1.5, 2, 3, 4])
    dataset = prepare(train, Wishes(("y",)), valid=rows_of(c=["u", "w"], y=[1, 2]))
    assert dataset.valid is not None
    assert dataset.valid.x.tolist() == [[0.0], [-1.0]]
    assert "1 validation rows have a category of column 'c' that training lacks" in dataset.notes
