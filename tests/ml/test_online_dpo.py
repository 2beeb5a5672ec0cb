"""`trainer=online_dpo`: an update against a calculation by hand, keys that act."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import logps, plain, recording, training
from playing import ONLINE_DPO
from runs import distance, run, weights

from aitrain.errors import Refused
from aitrain.ml import online_dpo_trainer
from aitrain.ml.online_dpo_trainer import OnlineDPOFit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("online_dpo") / "whole"
    run(folder, **ONLINE_DPO)
    return folder


def test_an_update_reports_everything(whole: Path) -> None:
    for event in training(whole):
        assert {"score_margin", "pairs_alike"} <= {*event}
        assert event["pairs_alike"] == 1 or {"rewards/margins", "logps/chosen", "logps/rejected"} <= {*event}
        assert {"reward", "kl", "entropy", "length", "seconds/generation", "seconds/update"} <= {*event}
        assert event["optimizer_steps"] == 4


SETTINGS = {
    "model__path": "sample:tiny-llama",
    "trainer__ref_model": "sample:tiny-mistral",
    "trainer__beta": 0.4,
    "trainer__missing_eos_penalty": 0.5,
    "rl__temperature": 0.8,
    "rl__stop_strings": "[r]",
    "rl__max_new_tokens": 4,
    "train__max_steps": 1,
}


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_an_update_equals_a_calculation_by_hand(loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, on single rows and plain forward passes, at temperature 1: the pairs, and the last loss."""
    kept: dict[str, Any] = {}
    monkeypatch.setattr(online_dpo_trainer, "OnlineDPOFit", recording(OnlineDPOFit, kept))
    run(tmp_path / "r", **{**ONLINE_DPO, **SETTINGS, "trainer__loss_type": loss})
    model, reference = plain("sample:tiny-llama", kept["new"]), plain("sample:tiny-mistral")
    answers = {answer.number: answer for answer in kept["answers"]}
    assert {answer.ended for answer in answers.values()} == {True, False}
    losses, margins = [], []
    for pair in kept["batch"]:
        first = pair.chosen.number // 2 * 2
        one, other = answers[first], answers[first + 1]
        worth = [answer.score - (0 if answer.ended else 0.5) for answer in (one, other)]
        chosen, rejected = (one, other) if worth[0] >= worth[1] else (other, one)
        assert (pair.chosen.number, pair.rejected.number) == (chosen.number, rejected.number)
        apart = [sum(logps(model, a.row, 1.0)) - sum(logps(reference, a.row, 1.0)) for a in (chosen, rejected)]
        margin = apart[0] - apart[1]
        told = worth[0] != worth[1]
        of_pair = math.log1p(math.exp(-0.4 * margin)) if loss == "sigmoid" else (margin - 1 / 0.8) ** 2
        losses.append(of_pair if told else 0.0)
        margins += [0.4 * margin] if told else []
    assert any(losses)
    assert kept["measured"]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert kept["measured"]["rewards/margins"] == pytest.approx(np.mean(margins), rel=1e-4, abs=1e-4)


def test_pairs_that_are_worth_the_same_teach_nothing(tmp_path: Path) -> None:
    """A reward that every answer gets: the weights stay, and the report says why."""
    constant = {"rl__reward_fn": "{name: keyword, keywords: [QQQQ]}", "train__weight_decay": 0.0}
    run(tmp_path / "r", **{**ONLINE_DPO, **constant, "train__max_steps": 1})
    run(tmp_path / "none", **{**ONLINE_DPO, **constant, "train__max_steps": 1, "train__learning_rate": 1e-12})
    assert [event["pairs_alike"] for event in training(tmp_path / "r")] == [1.0]
    assert distance(weights(tmp_path / "r" / "model"), weights(tmp_path / "none" / "model")) == 0.0


EFFECTS: dict[str, dict[str, Any]] = {
    "beta": {"trainer__beta": 1.0},
    "loss_type": {"trainer__loss_type": "ipo"},
    "num_iterations": {"trainer__num_iterations": 1},
    "missing_eos_penalty": {"trainer__missing_eos_penalty": 2.0, "rl__stop_strings": "[a, e]", "rl__max_new_tokens": 4},
    "ref_model": {"trainer__ref_model": "sample:tiny-mistral"},
    "mini_batch_size": {"rl__mini_batch_size": 8},
    "temperature": {"rl__temperature": 0.5},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_changes_what_is_learnt(name: str, whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "r", **{**ONLINE_DPO, **EFFECTS[name]})
    if name == "missing_eos_penalty":
        whole = tmp_path / "without"
        run(whole, **{**ONLINE_DPO, "rl__stop_strings": "[a, e]", "rl__max_new_tokens": 4})
    assert distance(weights(tmp_path / "r" / "model"), weights(whole / "model")) > 1e-6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rl__mini_batch_size": 3}, "no whole pairs"),
        ({"train__batch_size": 7}, "no whole groups of 2"),
        ({"rl__kl_coef": 0.1}, "rl.kl_coef"),
        ({"rl__gamma": 0.9}, "rl.gamma"),
        ({"trainer__beta": 0.0}, "trainer.beta"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words):
        run(tmp_path / "r", **{**ONLINE_DPO, **changes})
    assert not (tmp_path / "r").exists()
