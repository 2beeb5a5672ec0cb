"""`task=text_regression`: losses in scaled units, measures in those of the data, any division of the work, its use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting import plain_logits, small, weather, write_rows
from runs import distance, losses, report, weights
from sklearn.metrics import mean_squared_error, r2_score
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from aitrain.cli import main
from aitrain.errors import Refused

TWO = {"data__columns__target": "[words, suns]"}
LOSSES = {"mse": mse_loss, "mae": l1_loss, "huber": huber_loss}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "valid.jsonl", weather(23, seed=1))
    return write_rows(folder / "train.jsonl", weather(37))


@pytest.fixture(scope="module")
def splits(data: Path) -> dict[str, Any]:
    return {"task": "text_regression", "data__valid_split": "valid", "data__path": data.parent, **TWO}


@pytest.fixture(scope="module")
def trained(data: Path, splits: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "r"
    small(folder, data, train__max_steps=12, train__learning_rate=2e-3, train__logging_steps=4, **splits)
    return folder


def truth_of(rows: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([[row["words"], row["suns"]] for row in rows], dtype=torch.float64)


def scale() -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the training rows."""
    truth = truth_of(weather(37))
    return truth.mean(0), truth.std(0, correction=0)


def test_measures_are_in_the_units_of_the_data(trained: Path) -> None:
    rows = weather(23, seed=1)
    mean, deviation = scale()
    predicted, truth = plain_logits(trained / "model", rows) * deviation + mean, truth_of(rows)
    found = report(trained)["metrics"]["after"]
    assert found["mse"] == pytest.approx(mean_squared_error(truth, predicted), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-5)
    rmse = float((predicted[:, 1] - truth[:, 1]).square().mean().sqrt())
    assert found["rmse_suns"] == pytest.approx(rmse, rel=1e-5)
    always_mean = (truth - mean).square().mean(0).sqrt().mean()
    assert report(trained)["metrics"]["baselines"]["mean"]["rmse"] == pytest.approx(float(always_mean), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scaled", [True, False])
def test_the_loss_of_a_step_is_the_mean_over_rows_and_targets(
    loss: str, scaled: bool, trained: Path, data: Path, tmp_path: Path
) -> None:
    words = {"task": "text_regression", "model__path": trained / "model", "data__valid_fraction": 0,
             "train__max_steps": 1, "train__batch_size": 16, "train__gradient_accumulation": 3,
             "task__loss": loss, "task__scale_targets": scaled, **TWO}  # fmt: skip
    small(tmp_path / "r", data, **words)
    mean, deviation = scale() if scaled else (torch.zeros(2), torch.ones(2))
    wanted = LOSSES[loss](plain_logits(trained / "model", weather(37)), (truth_of(weather(37)) - mean) / deviation)
    assert losses(tmp_path / "r") == [pytest.approx(float(wanted), rel=1e-5)]


@pytest.mark.parametrize(
    "division",
    [
        {"train__batch_size": 3, "train__gradient_accumulation": 4},
        {"hardware": "cpu_x2", "train__batch_size": 6},
    ],
)
def test_any_division_of_a_step_learns_the_same(
    division: dict[str, Any], trained: Path, splits: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    words = {**splits, "model__path": trained / "model", "train__max_steps": 5, "train__learning_rate": 1e-3}
    small(tmp_path / "whole", data, **words, train__batch_size=12)
    small(tmp_path / "other", data, **{**words, **division})
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert distance(weights(tmp_path / "whole/model"), weights(tmp_path / "other/model")) < 1e-4
    after = [report(tmp_path / name)["metrics"]["after"] for name in ("whole", "other")]
    assert after[1] == pytest.approx(after[0], rel=1e-4)


def test_the_sample_is_learnt(tmp_path: Path) -> None:
    small(tmp_path / "r", Path("sample:opinions"), "text_regression", train__max_steps=None, train__epochs=4,
          train__batch_size=32, train__learning_rate=3e-3, train__logging_steps=50,
          train__eval_on_start="false")  # fmt: skip
    assert report(tmp_path / "r")["metrics"]["after"]["r2"] > 0.9


def test_evaluate_and_predict_speak_in_the_units_of_the_data(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained), str(data.parent / "valid.jsonl")]) == 0
    kept = json.loads((trained / "evaluations/valid.json").read_text())["measures"]
    after = {name: value for name, value in report(trained)["metrics"]["after"].items() if name != "loss"}
    assert kept == pytest.approx(after, rel=1e-5)
    (tmp_path / "new.csv").write_text("text\nsun and rain\nstorm\n")
    assert main(["predict", str(trained), str(tmp_path / "new.csv"), f"output={tmp_path / 'out.csv'}"]) == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "text,prediction.words,prediction.suns,not_predicted"
    mean, deviation = scale()
    wanted = plain_logits(trained / "model", [{"text": "sun and rain"}, {"text": "storm"}]) * deviation + mean
    found = [[float(value) for value in line.split(",")[1:3]] for line in lines[1:]]
    assert np.allclose(found, wanted.numpy(), atol=1e-4)


def test_columns_of_several_numbers_must_be_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"column 'label' holds text \('\w+'\) in row 1, where a number is expected"):
        small(tmp_path / "r", data, "text_regression")
