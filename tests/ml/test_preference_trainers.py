"""What holds for every trainer on preferences: a step is the same however it is divided, and so is a run continued."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dying import run_until_death
from preferring import changes_for
from runs import assert_same_run, distance, events, losses, report, run, run_stopped_at, weights, words

from aitrain.data.tokens import Group, TokenRow
from aitrain.errors import Refused, Stopped
from aitrain.ml import preference
from aitrain.ml.examples import Example, Examples, Totals, lengths_of
from aitrain.ml.preference import padded, pair_counts, right_order
from aitrain.registry import TRAINERS

ALL = ("dpo", "orpo", "cpo", "simpo", "kto", "reward")
EIGHT = {"train__batch_size": 8, "train__max_steps": 8, "train__max_grad_norm": 0.5, "train__weight_decay": 0.1}
"""Two epochs of 38 examples (34 of kto) in steps of 8: step 5 has 6 (2)."""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for trainer in ALL:
        folders[trainer] = tmp_path_factory.mktemp("eight") / trainer
        run(folders[trainer], **changes_for(trainer, folders[trainer].parent, **EIGHT))
    return folders


def assert_alike(folder: Path, reference: Path) -> None:
    assert len(losses(folder)) == len(losses(reference)) == 8
    assert max(abs(a - b) for a, b in zip(losses(folder), losses(reference), strict=True)) <= 1e-5
    assert distance(weights(folder / "model"), weights(reference / "model")) <= 1e-4
    for mine, other in zip(events(folder), events(reference), strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            if isinstance(value, float) and name != "epoch":  # a partial step counts by its micro-batches
                assert abs(value - other[name]) <= 2e-4 * max(1, abs(value)), (name, mine["step"])


def test_a_tie_is_half_right() -> None:
    rewards = torch.tensor([1.0, 2.0, 0.5, 0.5]), torch.tensor([0.0, 3.0, 0.5, 0.5])
    assert right_order(*rewards) == 0.5
    assert right_order(rewards[0], rewards[0]) == 0.5
    assert right_order(rewards[0] + 9, rewards[1]) == 1.0
    assert right_order(*(reward[:3] for reward in rewards)) == 0.5
    assert right_order(torch.zeros(1), torch.ones(1)) == 0.0


@pytest.mark.parametrize("trainer", ALL)
def test_a_step_is_the_same_however_it_is_divided(trainer: str, eight: dict[str, Path], tmp_path: Path) -> None:
    for batch, accumulation in ((4, 2), (1, 8)):
        folder = tmp_path / f"{batch}x{accumulation}"
        changes = {**EIGHT, "train__batch_size": batch, "train__gradient_accumulation": accumulation}
        run(folder, **changes_for(trainer, tmp_path, **changes))
        assert_alike(folder, eight[trainer])


@pytest.mark.parametrize("trainer", ["dpo", "orpo", "kto", "reward"])
def test_two_processes_train_as_one_does(trainer: str, eight: dict[str, Path], tmp_path: Path) -> None:
    """In the last step of an epoch the second process has no row for one of its micro-batches."""
    changes = {**EIGHT, "hardware": "cpu_x2", "train__batch_size": 2, "train__gradient_accumulation": 2}
    run(tmp_path / "two", **changes_for(trainer, tmp_path, **changes))
    assert_alike(tmp_path / "two", eight[trainer])


def test_two_processes_take_an_adapter_off_alike(tmp_path: Path) -> None:
    changes = changes_for("dpo", tmp_path, peft="lora", **EIGHT)
    run(tmp_path / "one", **changes)
    run(tmp_path / "two", **{**changes, "hardware": "cpu_x2", "train__batch_size": 4})
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("trainer", ALL)
def test_a_run_stopped_in_a_step_goes_on_to_the_last_bit(trainer: str, eight: dict[str, Path], tmp_path: Path) -> None:
    changes = changes_for(trainer, tmp_path, **EIGHT)
    stopped = run_stopped_at(3, tmp_path / "r", **changes)
    assert stopped.checkpoint is not None
    run(tmp_path / "r", run__resume="auto", **changes)
    if trainer == "kto":  # its rows lie in another file here
        assert losses(tmp_path / "r") == losses(eight[trainer])
    assert_same_run(tmp_path / "r", eight[trainer])


@pytest.mark.parametrize(("trainer", "point", "number"), [
    ("dpo", "training", 5), ("kto", "rename", 2), ("reward", "manifest", 1), ("orpo", "training", 8),
])  # fmt: skip
def test_a_killed_run_goes_on_to_the_last_bit(
    trainer: str, point: str, number: int, eight: dict[str, Path], tmp_path: Path
) -> None:
    changes = changes_for(trainer, tmp_path, **EIGHT, train__save_steps=2)
    run_until_death(words(tmp_path / "r", **changes), point, number)
    assert not (tmp_path / "r/report.json").exists() or report(tmp_path / "r")["status"] != "finished"
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_same_run(tmp_path / "r", eight[trainer])


@pytest.mark.parametrize("trainer", ["kto", "reward"])
def test_one_batch_is_learnt_by_heart(trainer: str, tmp_path: Path) -> None:
    made = run(tmp_path / "r", **changes_for(trainer, tmp_path, train__overfit_batch=True, train__max_steps=30,
                                             train__scheduler="constant", train__learning_rate=3e-3))  # fmt: skip
    assert made.losses[-1] < 0.2 < made.losses[0]


@contextmanager
def signal_in_evaluation(number: int) -> Iterator[None]:
    """SIGTERM arrives as the number-th evaluation of this process begins."""
    original, seen = preference.PreferenceLoop.measure, 0

    def measure(self: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preference.PreferenceLoop, "measure", measure)
        yield


@pytest.mark.parametrize("trainer", ["dpo", "kto"])
def test_a_run_stopped_in_an_evaluation_goes_on(trainer: str, eight: dict[str, Path], tmp_path: Path) -> None:
    changes = changes_for(trainer, tmp_path, **EIGHT)
    with signal_in_evaluation(2), pytest.raises(Stopped):
        run(tmp_path / "r", **changes)
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_same_run(tmp_path / "r", eight[trainer])


@pytest.mark.parametrize("trainer", ALL)
def test_an_evaluation_is_the_same_in_batches_of_any_size(trainer: str, tmp_path: Path) -> None:
    found = {}
    for size in (1, 3, 16):
        changes = {"data__valid_fraction": 0.4, "train__max_steps": 2, "train__eval_batch_size": size}
        run(tmp_path / str(size), **changes_for(trainer, tmp_path, **changes))
        found[size] = events(tmp_path / str(size), "eval")
    for one, three, sixteen in zip(*found.values(), strict=True):
        for name, value in one.items():
            if isinstance(value, float):
                # The drift is a difference of sums a thousand times as large.
                wanted = pytest.approx(value, rel=2e-5, abs=5e-5 if name == "kl" else 2e-6)
                assert three[name] == wanted, name
                assert sixteen[name] == wanted, name


@pytest.mark.parametrize("trainer", ALL)
def test_every_measure_that_may_choose_the_best_is_reported(trainer: str, eight: dict[str, Path]) -> None:
    for event in events(eight[trainer], "eval"):
        assert set(TRAINERS[trainer].metrics) <= event.keys()
        assert all(math.isfinite(value) for value in event.values() if isinstance(value, float))
    assert report(eight[trainer])["metrics"]["after"].keys() >= set(TRAINERS[trainer].metrics)


def test_lines_of_metrics_are_means_over_the_steps_since_the_last_one(eight: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path / "r", **changes_for("dpo", tmp_path, **EIGHT, train__logging_steps=4))
    every = events(eight["dpo"], "train")
    examples = [8, 8, 8, 8, 6, 8, 8, 8]
    for line, start in zip(events(tmp_path / "r", "train"), (0, 4), strict=True):
        for name in ("rewards/chosen", "rewards/margins", "rewards/accuracies"):
            values = [event[name] for event in every[start : start + 4]]
            wanted = np.average(values, weights=examples[start : start + 4])
            assert line[name] == pytest.approx(wanted, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize(("trainer", "typed", "key"), [
    ("dpo", {"trainer__loss_type": "[sigmoid,sigmoid]"}, "trainer.loss_type: .* name each loss once"),
    ("dpo", {"trainer__loss_weights": "[0.5]"}, "trainer.loss_weights: has no effect with a single loss"),
    ("dpo", {"trainer__loss_type": "[sigmoid,sft]", "trainer__loss_weights": "[0.5]"}, "1 weights for 2 losses"),
    ("dpo", {"trainer__label_smoothing": 0.1}, "trainer.label_smoothing: has no effect with sigmoid"),
    ("dpo", {"trainer__loss_type": "exo_pair"}, "trainer.label_smoothing: exo_pair needs more than 0"),
    ("dpo", {"trainer__loss_type": "robust", "trainer__label_smoothing": 0.5}, "robust needs less than 0.5"),
    ("dpo", {"trainer__discopop_tau": 0.1}, "trainer.discopop_tau: has no effect with loss_type=sigmoid"),
    ("dpo", {"trainer__f_alpha_divergence_coef": 0.1}, "trainer.f_alpha_divergence_coef: has no effect"),
    ("dpo", {"trainer__f_divergence_type": "forward_kl", "trainer__loss_type": "apo_zero"}, "not for apo_zero"),
    ("dpo", {"trainer__use_weighting": True, "trainer__loss_type": "aot"}, "trainer.use_weighting: aot sorts"),
    ("dpo", {"trainer__ref_model_sync_steps": 3}, "trainer.ref_model_sync_steps: has no effect"),
    ("dpo", {"trainer__sync_ref_model": True, "peft": "lora"}, "trainer.sync_ref_model: with peft=lora"),
    ("dpo", {"trainer__ref_model": "/nowhere/at/all"}, "trainer.ref_model: there is no folder"),
    ("dpo", {"trainer__ref_model": "sample:tiny-lama"}, "trainer.ref_model: .*tiny-llama"),
    ("dpo", {"data__columns__margin": "m"}, "data.columns.margin: has no effect"),
    ("dpo", {"data__streaming": True, "train__max_steps": 3}, "data.streaming: has no effect"),
    ("dpo", {"data__train_on": "all"}, "data.train_on: has no effect"),
    ("dpo", {"train__metric_for_best_model": "perplexity"}, "does not report 'perplexity'"),
    ("orpo", {"train__padding_free": True}, "train.padding_free: has no effect"),
    ("dpo", {"train__padding_free": False}, "train.padding_free: has no effect"),
    ("cpo", {"trainer__loss_type": "hinge", "trainer__label_smoothing": 0.1}, "trainer.label_smoothing: has no effect"),
    ("cpo", {"trainer__loss_type": "simpo"}, "trainer.loss_type: .*choose trainer=simpo"),
    ("cpo", {"trainer__cpo_alpha": 0.0, "train__metric_for_best_model": "nll_loss"}, "nll_loss is not computed"),
    ("simpo", {"trainer__loss_type": "sigmoid"}, "trainer.loss_type"),
    ("kto", {"trainer__loss_type": "apo_zero_unpaired", "train__metric_for_best_model": "kl"}, "not measured"),
])  # fmt: skip
def test_what_has_no_effect_is_refused(trainer: str, typed: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=key):
        run(tmp_path / "r", **changes_for(trainer, tmp_path, **typed))
    assert not (tmp_path / "r").exists()


def test_nothing_leaves_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL tells the Hub of every run it begins, and writes cards."""
    import trl.trainer.base_trainer as base

    sent: list[Any] = []
    monkeypatch.setattr(base, "send_telemetry", lambda *args, **kwargs: sent.append(kwargs))
    monkeypatch.delenv("CI", raising=False)
    run(tmp_path / "r", **changes_for("dpo", tmp_path, train__max_steps=1))
    assert sent == []
    assert not list((tmp_path / "r/checkpoints").rglob("README.md"))


# --- parts ----------------------------------------------------------------------------------------------------------


def row(length: int, first: int) -> TokenRow:
    return TokenRow(np.arange(length, dtype=np.int32), (np.arange(length) >= first).astype(np.uint8))


def test_rows_are_padded_on_the_right() -> None:
    made = padded([row(3, 1), row(5, 4)], 9)
    assert made["input_ids"].tolist() == [[0, 1, 2, 9, 9], [0, 1, 2, 3, 4]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert made["completion_mask"].tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]


def test_a_stand_in_counts_nothing() -> None:
    rows = [Group((row(3, 1), row(5, 2))), Group((row(4, 1), row(9, 0)))]
    examples = Examples(rows)
    assert pair_counts([examples[0], examples[1]]) == {"tokens": 21, "examples": 2, "chosen": 5, "rejected": 11}
    assert set(pair_counts([examples[-1]]).values()) == {0}
    assert (examples[-1].group, examples[1, 0].partner) == (rows[0], rows[0])
    assert lengths_of(rows).tolist() == [5, 9]


def test_totals_weigh_and_begin_anew() -> None:
    import torch

    totals = Totals(("a", "b"))
    totals.add("a", 2.0, 3)
    totals.add("a", 5.0, 1)
    totals.add("b", math.nan, 0)
    assert totals.take(1, torch.device("cpu")) == {"a": (11.0, 4.0), "b": (0.0, 0.0)}
    assert totals.take(1, torch.device("cpu")) == {"a": (0.0, 0.0), "b": (0.0, 0.0)}


def test_an_example_is_plain() -> None:
    assert json.dumps(pair_counts([Example(Group((row(3, 1), row(5, 2))))]))
