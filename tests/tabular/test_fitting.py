"""Fitting: equal to the plain libraries, searches that go on, rows held out, and what is told about failures."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from aitrain.config.estimator import Goal, Pick, Real
from aitrain.data.rows import Row
from aitrain.errors import ConfigError, DataError, Stopped, TrainingFailed
from aitrain.tabular import fitting
from aitrain.tabular.dataset import Dataset, prepare
from aitrain.tabular.fitting import Fitted, fit, looked_at
from aitrain.tabular.metrics import Predicted, score
from aitrain.tabular.pipeline import Preparation
from aitrain.tabular.rows import refuse_settings
from aitrain.tabular.schema import Wishes
from aitrain.tabular.search import Limits, best, search
from aitrain.tabular.splits import folds, hold_out

from .conftest import NAMES, as_conf

PENGUINS = ("penguins/penguins.csv", "species")
HOUSES = ("california_housing/housing.csv", "median_house_value")
PLAIN = as_conf(num_trials=0, folds=0, importance_repeats=0)
Rows = Callable[..., list[Row]]
Option = Callable[..., Any]
drawn = np.random.default_rng(7)
A, B = drawn.normal(size=(2, 160))
COLOURS = drawn.choice(["red", "green", "blue"], 160)


def made(rows_of: Rows, subtask: str = "binary") -> Dataset:
    """Rows whose target depends on `a` and, less, on `colour`."""
    noise = np.random.default_rng(3).normal(size=160) * 0.1
    signal_ = A + (COLOURS == "red") + noise
    targets: dict[str, list[Any]] = {
        "binary": {"y": np.where(signal_ > 0.3, "high", "low").tolist()},
        "multiclass": {"y": np.select([signal_ > 0.8, signal_ > -0.2], ["high", "mid"], "low").tolist()},
        "multilabel": {"y": (signal_ > 0).astype(int).tolist(), "z": (B > 0).astype(int).tolist()},
        "regression": {"y": signal_.tolist()},
        "several": {"y": signal_.tolist(), "z": (B - A).tolist()},
    }[subtask]  # type: ignore[assignment]
    blanked = [None if i % 11 == 0 else value for i, value in enumerate(A.tolist())]
    return prepare(rows_of(a=blanked, b=B.tolist(), colour=COLOURS.tolist(), **targets), Wishes(tuple(targets)))


def frame_of(rows: list[Row], target: str) -> tuple[pd.DataFrame, pd.Series, list[str], list[str]]:
    """The file as a user of the plain libraries has it, with its columns of numbers and of words."""
    table = pd.DataFrame([row.values for row in rows]).replace("NA", np.nan).replace("", np.nan)
    words = [name for name in table if name != target and not _is_number(table[name])]
    numbers = [name for name in table if name != target and name not in words]
    return table.astype({name: float for name in numbers}), table[target], numbers, words


def _is_number(values: pd.Series) -> bool:
    return pd.to_numeric(values.dropna(), errors="coerce").notna().all()


def plain_parts(fitted: Fitted, rows: list[Row], target: str) -> Any:
    """Training and held-out rows of the same split, as frames, and the columns."""
    table, y, numbers, words = frame_of(rows, target)
    train, test = ([place.number - 2 for place in sample.places] for sample in (fitted.train, fitted.held_out))
    return table.iloc[train], y.iloc[train], table.iloc[test], numbers, words


def scaled(numbers: list[str], words: list[str]) -> ColumnTransformer:
    filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer([("n", filled, numbers), ("c", OneHotEncoder(handle_unknown="ignore"), words)])


def numbered(numbers: list[str], words: list[str]) -> ColumnTransformer:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return ColumnTransformer([("n", SimpleImputer(strategy="median"), numbers), ("c", encoder, words)])


def as_categories(train: pd.DataFrame, test: pd.DataFrame, numbers: list[str], words: list[str]) -> Any:
    """The frames with pandas' own categories, which the boosting libraries read."""
    kinds = {name: pd.CategoricalDtype(sorted(train[name].dropna().unique())) for name in words}
    return train[[*numbers, *words]].astype(kinds), test[[*numbers, *words]].astype(kinds)


# --- equal to the plain libraries ----------------------------------------------------------------------------------


def test_logistic_regression_is_scikit_learns(real: Any, option: Option) -> None:
    rows = real(PENGUINS[0])
    fitted = fit(*option("logistic_regression", C=0.5), prepare(rows, Wishes((PENGUINS[1],))), PLAIN)
    train, y, test, numbers, words = plain_parts(fitted, rows, PENGUINS[1])
    plain = make_pipeline(scaled(numbers, words), LogisticRegression(C=0.5, max_iter=1000)).fit(train, y)
    ours = fitted.part.predict(fitted.held_out.x)
    assert ours.probabilities is not None
    assert_allclose(ours.probabilities, plain.predict_proba(test), atol=1e-9)
    assert [fitted.targets.classes[i] for i in ours.values] == plain.predict(test).tolist()


def test_random_forest_is_scikit_learns(real: Any, option: Option) -> None:
    rows = real(PENGUINS[0])
    fitted = fit(*option("random_forest", n_estimators=20), prepare(rows, Wishes((PENGUINS[1],))), PLAIN)
    train, y, test, numbers, words = plain_parts(fitted, rows, PENGUINS[1])
    plain = make_pipeline(numbered(numbers, words), RandomForestClassifier(20, random_state=42)).fit(train, y)
    ours = fitted.part.predict(fitted.held_out.x).probabilities
    assert ours is not None
    assert_allclose(ours, plain.predict_proba(test), atol=1e-12)


def test_ridge_and_histogram_boosting_are_scikit_learns(real: Any, option: Option) -> None:
    rows = real(HOUSES[0])
    dataset = prepare(rows, Wishes((HOUSES[1],)))
    ridge = fit(*option("ridge", alpha=2.0), dataset, PLAIN)
    train, y, test, numbers, words = plain_parts(ridge, rows, HOUSES[1])
    plain = make_pipeline(scaled(numbers, words), Ridge(alpha=2.0, random_state=42)).fit(train, y.astype(float))
    assert_allclose(ridge.part.predict(ridge.held_out.x).values, plain.predict(test), rtol=1e-9)

    hist = fit(*option("hist_gradient_boosting", max_iter=20), dataset, PLAIN)
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    columns = ColumnTransformer([("n", "passthrough", numbers), ("c", encoder, words)])
    boosted = HistGradientBoostingRegressor(max_iter=20, early_stopping=False, random_state=42)
    found = make_pipeline(columns, boosted).fit(train, y.astype(float)).predict(test)
    assert_allclose(hist.part.predict(hist.held_out.x).values, found, rtol=1e-9)


def test_xgboost_is_the_librarys(real: Any, option: Option) -> None:
    xgboost = pytest.importorskip("xgboost")
    rows = real(HOUSES[0])
    fitted = fit(*option("xgboost", n_estimators=20, max_depth=4), prepare(rows, Wishes((HOUSES[1],))), PLAIN)
    train, y, test, numbers, words = plain_parts(fitted, rows, HOUSES[1])
    train, test = as_categories(train, test, numbers, words)
    plain = xgboost.XGBRegressor(n_estimators=20, max_depth=4, enable_categorical=True, random_state=42, n_jobs=1)
    assert_allclose(
        fitted.part.predict(fitted.held_out.x).values, plain.fit(train, y.astype(float)).predict(test), rtol=1e-9
    )


def test_lightgbm_is_the_librarys(real: Any, option: Option) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rows = real(HOUSES[0])
    fitted = fit(*option("lightgbm", n_estimators=20), prepare(rows, Wishes((HOUSES[1],))), PLAIN)
    train, y, test, numbers, words = plain_parts(fitted, rows, HOUSES[1])
    train, test = as_categories(train, test, numbers, words)
    plain = lightgbm.LGBMRegressor(n_estimators=20, random_state=42, n_jobs=1, verbose=-1, force_row_wise=True)
    found = plain.fit(train, y.astype(float)).predict(test)
    assert_allclose(fitted.part.predict(fitted.held_out.x).values, found, rtol=1e-9)
    told = fitted.part.pipeline.named_steps["estimator"].booster_.model_to_string()
    assert "num_cat=0" in told
    assert "num_cat=1" in told or "num_cat=2" in told, "categories must reach the library"


def test_catboost_is_the_librarys(real: Any, option: Option) -> None:
    catboost = pytest.importorskip("catboost")
    rows = real(PENGUINS[0])
    fitted = fit(*option("catboost", iterations=20), prepare(rows, Wishes((PENGUINS[1],))), PLAIN)
    train, y, test, numbers, words = plain_parts(fitted, rows, PENGUINS[1])
    encoder = OrdinalEncoder(encoded_missing_value=-2, dtype=np.int64).fit(train[words])
    train, test = (
        pd.concat([part[numbers], pd.DataFrame(encoder.transform(part[words]), part.index, words)], axis=1)
        for part in (train, test)
    )
    plain = catboost.CatBoostClassifier(
        iterations=20, random_seed=42, thread_count=1, verbose=False, allow_writing_files=False
    )
    ours = fitted.part.predict(fitted.held_out.x).probabilities
    assert ours is not None
    assert_allclose(ours, plain.fit(train, y, cat_features=words).predict_proba(test), atol=1e-9)


# --- every estimator -----------------------------------------------------------------------------------------------

SMALL = {"n_estimators": 15, "iterations": 15, "max_iter": 20}
SUBTASKS = ("binary", "multiclass", "multilabel", "regression", "several")


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subtask", SUBTASKS)
def test_every_estimator_learns_every_sub_task_it_names(rows_of: Rows, option: Option, name: str, subtask: str) -> None:
    estimator, section = option(name)
    small = {key: value for key, value in SMALL.items() if key in type(section).model_fields}
    small |= {"alpha": 0.01} if name == "lasso" else {}
    estimator, section = option(name, **small)
    dataset = made(rows_of, subtask)
    if dataset.targets.subtask not in estimator.subtasks:
        with pytest.raises(ConfigError, match=f"{name} cannot do {dataset.targets.subtask}"):
            fit(estimator, section, dataset, PLAIN)
        return
    fitted = fit(estimator, section, dataset, as_conf(num_trials=1, folds=2, importance_repeats=1))
    better = "rmse" if dataset.targets.subtask == "regression" else "accuracy"
    ours, theirs = fitted.scores.values[better], fitted.baseline.values[better]
    assert ours is not None
    assert theirs is not None
    assert ours < theirs if better == "rmse" else ours > theirs
    assert fitted.importance[0].mean > 0
    assert {each.column for each in fitted.importance} == {"a", "b", "colour"}
    space = estimator.search_space(section, fitted.recipe.goal)
    assert set(fitted.found) == {
        key for key, values in space.items() if isinstance(values, Pick) or values.first is not None
    }
    assert not set(small) & set(space), "a value that is set is never searched"
    json.dumps(fitted.report(), allow_nan=False)


def test_keys_without_effect_are_refused(rows_of: Rows, option: Option) -> None:
    with pytest.raises(ConfigError, match=r"trainer.class_weight: has no effect for regression"):
        fit(*option("random_forest", class_weight="balanced"), made(rows_of, "regression"), PLAIN)
    svm, section = option("svm")
    numbers, classes = made(rows_of, "regression").targets, made(rows_of).targets
    refuse_settings(svm, section, numbers, {"trainer.scale_target"})
    refuse_settings(svm, section, classes, {"trainer.probabilities"})
    with pytest.raises(ConfigError, match=r"trainer.probabilities: has no effect for regression"):
        refuse_settings(svm, section, numbers, {"trainer.probabilities"})
    with pytest.raises(ConfigError, match=r"trainer.scale_target: has no effect for binary"):
        refuse_settings(svm, section, classes, {"trainer.scale_target"})
    none = as_conf(num_trials=0, preparation=Preparation(numerical_imputer="none"))
    with pytest.raises(ConfigError, match="ridge cannot learn from those; choose mean, median"):
        fit(*option("ridge"), made(rows_of), none)


def test_a_classifier_without_probabilities_says_so(rows_of: Rows, option: Option) -> None:
    fitted = fit(*option("svm", probabilities=False), made(rows_of), as_conf(num_trials=1, folds=2))
    assert fitted.scores.values["logloss"] is None
    assert fitted.scores.reasons["logloss"] == "the estimator gives no probabilities"
    assert fitted.objective == "error"
    assert fitted.scores.values["accuracy"] is not None


@pytest.mark.parametrize("scaler", ["none", "standard", "minmax", "maxabs", "robust", "normal"])
@pytest.mark.parametrize("imputer", ["mean", "median", "most_frequent"])
def test_every_preparation_is_its_own(rows_of: Rows, option: Option, scaler: Any, imputer: Any) -> None:
    dataset = made(rows_of, "regression")
    chosen = as_conf(num_trials=0, folds=0, importance_repeats=0, preparation=Preparation(imputer, "auto", scaler))
    steps = fit(*option("ridge"), dataset, chosen).part.pipeline.named_steps["columns"].named_transformers_
    text = str(steps["numbers"]).replace("\n", "")
    assert f"strategy='{imputer}'" in text or imputer == "mean"
    names = {"minmax": "MinMax", "maxabs": "MaxAbs", "standard": "Standard", "robust": "Robust", "normal": "Normalizer"}
    assert names.get(scaler, "SimpleImputer") in text


# --- deterministic, held out, told ---------------------------------------------------------------------------------


def test_a_seed_and_other_threads_give_the_same(rows_of: Rows, option: Option) -> None:
    dataset, forest = made(rows_of), option("random_forest", n_estimators=15)
    runs = [
        fit(*forest, dataset, as_conf(num_trials=3, folds=2, threads=threads, importance_repeats=1))
        for threads in (1, 2)
    ]
    assert [trial.params for trial in runs[0].trials] == [trial.params for trial in runs[1].trials]
    assert runs[0].scores == runs[1].scores
    assert runs[0].importance == runs[1].importance
    other = fit(*forest, dataset, as_conf(num_trials=3, folds=2, seed=1, importance_repeats=1))
    assert other.trials[1].params != runs[0].trials[1].params


def test_held_out_rows_are_never_learnt_from(rows_of: Rows, option: Option) -> None:
    """Spoiling the held-out targets changes their scores, and nothing else."""
    rows = rows_of(a=A.tolist(), b=B.tolist(), y=(A + 0.1 * B).tolist())
    settings = as_conf(num_trials=2, folds=2, importance_repeats=0)
    fitted = fit(*option("ridge"), prepare(rows, Wishes(("y",))), settings)
    held = {place.number for place in fitted.held_out.places}
    assert len(held) == 32
    spoilt = [
        Row({**row.values, "y": row.values["y"] + 100}, row.place) if row.place.number in held else row for row in rows
    ]
    again = fit(*option("ridge"), prepare(spoilt, Wishes(("y",))), settings)
    assert again.found == fitted.found
    assert again.cross_validation == fitted.cross_validation
    assert again.scores.values["rmse"] > 90  # type: ignore[operator]


def test_validation_rows_of_the_user_are_the_held_out(rows_of: Rows, option: Option) -> None:
    rows = rows_of(a=A.tolist(), y=(A * 2).tolist())
    dataset = prepare(rows[:100], Wishes(("y",)), valid=rows[100:])
    fitted = fit(*option("linear_regression"), dataset, as_conf(folds=2))
    assert (len(fitted.train), len(fitted.held_out)) == (100, 60)
    assert any("nothing was searched" in note for note in fitted.notes)


def test_splits_keep_classes_and_score_each_row_once() -> None:
    y = np.array([0] * 50 + [1] * 8 + [2] * 2)
    goal = Goal("multiclass", classes=3)
    learn, check = hold_out(goal, y, 0.2, seed=0)
    assert np.bincount(y[check]).tolist() == [10, 2, 1]
    assert sorted([*learn, *check]) == list(range(60))
    parts = folds(goal, y, 2, seed=0)
    assert sorted(np.concatenate([rows for _, rows in parts]).tolist()) == list(range(60))
    with pytest.raises(DataError, match="3 rows are too few"):
        hold_out(Goal("regression"), np.arange(3.0), 0.2, 0)


@pytest.mark.parametrize("name", ["xgboost", "ridge", "naive_bayes"])
def test_a_class_that_a_fold_lacks_does_not_break_it(rows_of: Rows, option: Option, name: str) -> None:
    y = ["a", "b"] * 30
    y[4], y[9] = "rare", "rare"
    dataset = prepare(rows_of(a=A[:60].tolist(), y=y), Wishes(("y",)))
    told = {"probabilities": False} if name == "ridge" else {}
    fitted = fit(*option(name, **told), dataset, as_conf(num_trials=0, folds=5, importance_repeats=0))
    assert any("2 folds instead of 5" in note for note in fitted.notes)
    assert fitted.scores.values["accuracy"] is not None


def test_a_rarest_class_too_small_for_probabilities_is_refused(rows_of: Rows, option: Option) -> None:
    y = ["a", "b"] * 30
    y[4], y[9] = "rare", "rare"
    dataset = prepare(rows_of(a=A[:60].tolist(), y=y), Wishes(("y",)))
    with pytest.raises(DataError, match=r"trainer.probabilities=false"):
        fit(*option("ridge"), dataset, PLAIN)


# --- the search ----------------------------------------------------------------------------------------------------

SPACE = {"x": Real(-4.0, 4.0, first=3.0), "z": Real(1e-3, 1.0, log=True)}


def bowl(found: dict[str, Any]) -> float:
    return (found["x"] - 1) ** 2 + found.get("z", 0.5)


def made_with(trials: Any) -> list[tuple[dict[str, Any], float | None]]:
    return [(dict(trial.params), trial.value) for trial in trials]


def test_an_interrupted_search_goes_on_to_the_same_trials(tmp_path: Path) -> None:
    whole = search(SPACE, bowl, Limits(16), seed=5)
    assert whole[0].params == {"x": 3.0}, "a key without a default in its range is left out of the first trial"
    assert len({trial.params["x"] for trial in whole}) == 16
    assert best(whole).value < bowl({"x": 3.0, "z": 0.5})  # type: ignore[operator]

    calls = 0

    def stopping(found: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls in (1, 8, 14):  # in the middle of the first trial, of one that is drawn, and of one that is modelled
            raise Stopped(signal.SIGTERM)
        return bowl(found)

    journal = tmp_path / "trials.log"
    for _ in range(3):
        with pytest.raises(Stopped):
            search(SPACE, stopping, Limits(16), seed=5, journal=journal, made_of={"rows": 1})
    resumed = search(SPACE, stopping, Limits(16), seed=5, journal=journal, made_of={"rows": 1})
    assert made_with(resumed) == made_with(whole)
    assert calls == 16 + 3
    again = search(SPACE, stopping, Limits(16), seed=5, journal=journal, made_of={"rows": 1})
    assert made_with(again) == made_with(whole)
    assert calls == 19
    with pytest.raises(ConfigError, match="of other rows or settings"):
        search(SPACE, bowl, Limits(16), seed=5, journal=journal, made_of={"rows": 2})


def test_failed_trials_are_told_and_all_failed_is_a_failure(tmp_path: Path) -> None:
    def breaking(found: dict[str, Any]) -> float:
        if found["x"] > 0:
            raise ValueError("too large")
        return float("nan") if found["x"] < -2 else bowl(found)

    journal = tmp_path / "trials.log"
    trials = search(SPACE, breaking, Limits(8), seed=5, journal=journal)
    assert trials[0].error.startswith("ValueError: too large (test_fitting.py:")
    assert {trial.value is None for trial in trials} == {True, False}
    assert made_with(search(SPACE, breaking, Limits(8), seed=5, journal=journal)) == made_with(trials)
    with pytest.raises(TrainingFailed, match="all 2 trials failed; the first with ZeroDivisionError"):
        search(SPACE, lambda found: 1 / 0, Limits(2), seed=5)


def test_time_ends_a_search_but_not_before_one_trial() -> None:
    assert len(search(SPACE, bowl, Limits(50, seconds=0.0), seed=5)) == 1


def test_a_stop_between_fits_names_the_journal_and_the_run_goes_on(
    rows_of: Rows, option: Option, tmp_path: Path
) -> None:
    dataset = made(rows_of, "regression")
    settings = as_conf(num_trials=3, folds=2, importance_repeats=0)
    events: list[Any] = []
    journal = tmp_path / "search.log"

    def stop() -> int:
        return signal.SIGTERM if sum(event["event"] == "trial" for event in events) == 2 else 0

    with pytest.raises(Stopped) as stopped:
        fit(*option("ridge"), dataset, settings, journal=journal, on_event=events.append, stop=stop)
    assert (stopped.value.signum, stopped.value.checkpoint) == (signal.SIGTERM, str(journal))
    resumed = fit(*option("ridge"), dataset, settings, journal=journal, on_event=events.append)
    plain = fit(*option("ridge"), dataset, settings)
    assert made_with(resumed.trials) == made_with(plain.trials)
    assert resumed.scores == plain.scores
    told = [event for event in events if event["event"] == "trial"]
    assert [event["number"] for event in told] == [0, 1, 2]
    values = [trial.value for trial in plain.trials if trial.value is not None]
    assert [event["best"] for event in told] == [min(values[: count + 1]) for count in range(3)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subtask", ["multiclass", "regression"])
def test_the_first_trial_is_the_librarys_own_defaults(rows_of: Rows, option: Option, name: str, subtask: str) -> None:
    estimator, section = option(name)
    small = {key: value for key, value in SMALL.items() if key in type(section).model_fields}
    estimator, section = option(name, **small)
    dataset = made(rows_of, subtask)
    if dataset.targets.subtask not in estimator.subtasks or name == "linear_regression":
        pytest.skip("there is nothing to search")
    searched = fit(estimator, section, dataset, as_conf(num_trials=1, folds=0, importance_repeats=0))
    plain = fit(estimator, section, dataset, PLAIN)
    assert searched.scores == plain.scores


def test_a_search_on_one_part_takes_a_fifth_whatever_is_held_out(rows_of: Rows, option: Option) -> None:
    rows = rows_of(a=A.tolist(), y=(A * 2).tolist())
    dataset = prepare(rows[:100], Wishes(("y",)), valid=rows[100:])
    lengths = []
    estimator, section = option("ridge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "objective", lambda goal, y, predicted: float(lengths.append(len(y)) or 1))
        fit(estimator, section, dataset, as_conf(num_trials=1, folds=0, test_fraction=0, importance_repeats=0))
    assert lengths == [20]


def test_a_label_too_rare_for_the_folds_is_refused_before_anything_is_fitted(rows_of: Rows, option: Option) -> None:
    rare = [int(i in (3, 70)) for i in range(160)]
    dataset = prepare(rows_of(a=A.tolist(), y=(A > 0).astype(int).tolist(), z=rare), Wishes(("y", "z")))
    with pytest.raises(DataError, match=r"label 'z' is 1 in 1 of the rows to learn from"):
        looked_at(*option("decision_tree"), dataset, as_conf(folds=5))
    assert looked_at(*option("decision_tree"), dataset, PLAIN) > 0


# --- metrics -------------------------------------------------------------------------------------------------------


def test_metrics_without_a_value_have_a_reason() -> None:
    goal = Goal("binary", classes=2)
    found = score(goal, np.array([1, 1]), Predicted(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]])))
    assert found.values["auc"] is None
    assert "all of one class" in found.reasons["auc"]
    assert found.values["precision"] is None
    assert found.values["logloss"] == pytest.approx(-(np.log(0.1) + np.log(0.2)) / 2)

    numbers = score(Goal("regression"), np.array([1.0, 3.0]), Predicted(np.array([-1.0, 3.0])))
    assert numbers.values["rmsle"] == pytest.approx(np.log(2) / np.sqrt(2))
    assert numbers.reasons["rmsle"] == "1 predictions below 0 were taken as 0"
    assert numbers.values["mse"] == 2.0
    below = score(Goal("regression"), np.array([-1.0, -1.0]), Predicted(np.array([-1.0, 3.0])))
    assert below.values["rmsle"] is None
    assert below.values["r2"] is None


def test_averages_are_over_classes_of_truth_and_predictions() -> None:
    """As scikit-learn averages by default: a class that is only predicted is a mistake, not left out."""
    from sklearn.metrics import accuracy_score, f1_score

    from aitrain.config.estimator import Goal
    from aitrain.tabular.metrics import Predicted, score

    truth, guess = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    found = score(Goal("multiclass", 1, 3), truth, Predicted(guess, np.eye(3)[guess])).values
    assert found["f1_micro"] == pytest.approx(accuracy_score(truth, guess))
    assert found["f1_macro"] == pytest.approx(f1_score(truth, guess, average="macro"))
