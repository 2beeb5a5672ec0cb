"""A saved model: predicts as before from raw columns, and files that name foreign types are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from aitrain.data.rows import Row
from aitrain.errors import DataError
from aitrain.tabular.dataset import prepare
from aitrain.tabular.fitting import Fitted, fit
from aitrain.tabular.saving import PIPELINE, SCHEMA, load, model_of, save
from aitrain.tabular.schema import Wishes

from .conftest import NAMES, as_conf
from .test_fitting import PLAIN, SMALL, SUBTASKS, made

Rows = Callable[..., list[Row]]
Option = Callable[..., Any]
NEW = {"colour": ["red", "violet", None], "a": ["0.5", None, "-1"], "surplus": [1, 2, 3], "b": [0, 1, 2.5]}


@pytest.fixture
def saved(rows_of: Rows, option: Option, tmp_path: Path) -> tuple[Path, Fitted]:
    rows = rows_of(id=list("abcdefgh"), size=["1,5", "2", "3", "4"] * 2, y=["low", "low", "high", "high"] * 2)
    fitted = fit(*option("decision_tree"), prepare(rows, Wishes(("y",))), PLAIN)
    save(tmp_path / "model", fitted)
    return tmp_path / "model", fitted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subtask", SUBTASKS)
def test_a_saved_model_predicts_as_before(
    rows_of: Rows, option: Option, tmp_path: Path, name: str, subtask: str
) -> None:
    estimator, section = option(name)
    estimator, section = option(name, **{k: v for k, v in SMALL.items() if k in type(section).model_fields})
    dataset = made(rows_of, subtask)
    if dataset.targets.subtask not in estimator.subtasks:
        pytest.skip(f"{name} does not learn {subtask}")
    fitted = fit(estimator, section, dataset, PLAIN)
    save(tmp_path, fitted)
    model = load(tmp_path, estimator)
    assert model.notes == ()
    found = model.predict(rows_of(**NEW))
    assert found == model_of(fitted).predict(rows_of(**NEW))
    assert len(found) == 3
    if dataset.targets.subtask != "regression":
        assert all(0 <= share <= 1 for row in found for share in row["probabilities"].values())


def test_predictions_carry_ids_labels_and_probabilities(saved: Any, rows_of: Rows, option: Option) -> None:
    folder, _ = saved
    model = load(folder, option("decision_tree")[0])
    found = model.predict(rows_of(id=["n1", ""], size=["1,4", "9"]))
    assert [row["id"] for row in found] == ["n1", ""]
    assert [row["prediction"] for row in found] == ["low", "high"]
    assert list(found[0]["probabilities"]) == ["high", "low"]
    assert "id" not in model.predict(rows_of(size=["1,4"]))[0]
    with pytest.raises(DataError, match="no column 'size', which the model needs"):
        model.predict(rows_of(sise=[1]))


def test_a_file_that_names_a_foreign_type_is_refused(saved: Any, option: Option, tmp_path: Path) -> None:
    folder, fitted = saved
    marker = tmp_path / "ran"
    spoilt = Pipeline([("columns", FunctionTransformer(Path.touch)), ("estimator", fitted.part.pipeline)])
    skops.io.dump(spoilt, folder / PIPELINE)
    with pytest.raises(DataError, match=r"pathlib.*which no pipeline of ours holds, and nothing of it was loaded"):
        load(folder, option("decision_tree")[0])
    assert not marker.exists()


def test_broken_folders_are_refused(saved: Any, option: Option, tmp_path: Path) -> None:
    folder, _ = saved
    tree = option("decision_tree")[0]
    with pytest.raises(DataError, match=r"schema.json cannot be read"):
        load(tmp_path / "none", tree)
    with pytest.raises(DataError, match="holds 'decision_tree', not ridge"):
        load(folder, option("ridge")[0])
    kept = (folder / PIPELINE).read_bytes()
    (folder / PIPELINE).write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"pipeline.skops is missing or no skops file"):
        load(folder, tree)
    (folder / PIPELINE).write_bytes(kept)
    told = json.loads((folder / SCHEMA).read_text())
    for key, value in (("format", 99), ("targets", {}), ("schema", {"columns": [{"name": 1}]})):
        (folder / SCHEMA).write_text(json.dumps({**told, key: value}))
        with pytest.raises(DataError, match=r"schema.json"):
            load(folder, tree)


def test_other_versions_are_told(saved: Any, option: Option) -> None:
    folder, fitted = saved
    told = json.loads((folder / SCHEMA).read_text())
    told["versions"]["sklearn"] = "1.2.3"
    (folder / SCHEMA).write_text(json.dumps(told))
    model = load(folder, option("decision_tree")[0])
    assert any(note.startswith("saved with sklearn 1.2.3, this is ") for note in model.notes)
    assert fitted.recipe.estimator.name == model.estimator


@pytest.mark.parametrize(("name", "keys"), [("knn", {"p": 1.5}), ("knn", {"p": 1.0}), ("svm", {"kernel": "poly"})])
def test_other_insides_are_trusted_too(
    rows_of: Rows, option: Option, tmp_path: Path, name: str, keys: dict[str, Any]
) -> None:
    fitted = fit(*option(name, **keys), made(rows_of), PLAIN)
    save(tmp_path, fitted)
    found = load(tmp_path, option(name)[0]).predict(rows_of(**NEW))
    assert found == model_of(fitted).predict(rows_of(**NEW))


def test_no_file_is_a_pickle(saved: Any) -> None:
    folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == [PIPELINE, SCHEMA]


def test_integer_classes_come_back_as_integers(rows_of: Rows, option: Option, tmp_path: Path) -> None:
    rows = rows_of(a=[0, 0.5, 0, 9, 9, 9.5] * 5, y=[3, 3, 3, 7, 7, 7] * 5)
    fitted = fit(*option("decision_tree"), prepare(rows, Wishes(("y",))), as_conf(num_trials=0, folds=0))
    save(tmp_path, fitted)
    found = load(tmp_path, option("decision_tree")[0]).predict(rows_of(a=[0, 9]))
    assert [row["prediction"] for row in found] == [3, 7]
    assert found[0]["probabilities"] == {"3": 1.0, "7": 0.0}
