"""`trainer=kto`: TRL's own numbers, and the drift that is taken over a whole step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preferring import (
    Given,
    changes_for,
    loud_file,
    model_and_tokenizer,
    parts,
    plain_settings,
    run_one_batch,
    unpaired_file,
)
from runs import events, run
from trl import KTOConfig, KTOTrainer

from aitrain.data.tokens import Group, TokenRow
from aitrain.errors import ConfigError, Refused
from aitrain.ml.kto_trainer import Partnered, put_under
from aitrain.ml.length_groups import LengthGroupedBatches, grouped_order
from aitrain.ml.ordering import EvaluationBatches


class Plain(KTOTrainer):
    """TRL's trainer on token ids, with its own collator, order and loop."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


@pytest.mark.parametrize("settings", [
    {}, {"desirable_weight": 1.5, "undesirable_weight": 0.5, "beta": 0.3}, {"loss_type": "apo_zero_unpaired"},
])  # fmt: skip
@pytest.mark.parametrize("swapped", [False, True], ids=["drifts-down", "drifts-up"])
def test_a_step_equals_trls_own_trainer(tmp_path: Path, settings: dict[str, Any], swapped: bool) -> None:
    """With a reference far from the model, so that rewards and drift are not zero."""
    policy, reference = ("tiny-mistral", "tiny-qwen3") if swapped else ("tiny-qwen3", "tiny-mistral")
    groups = run_one_batch(
        tmp_path / "ours", "kto", 1, data__path=unpaired_file(tmp_path, 4), model__path=f"sample:{policy}",
        trainer__ref_model=f"sample:{reference}", **{f"trainer__{name}": value for name, value in settings.items()},
    )  # fmt: skip
    lengths = groups.lengths()
    order = grouped_order(lengths, global_batch=8, seed=42, epoch=0)
    rows = []
    for before, number in zip(np.roll(order, 1), order, strict=True):
        prompt, (answer,) = parts(groups[int(number)])
        _, (other,) = parts(groups[int(before)])
        label = bool(groups[int(number)].value)
        rows.append({"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": other, "label": label})
    model, tokenizer = model_and_tokenizer(policy)
    plain = Plain(
        model=model,
        ref_model=model_and_tokenizer(reference)[0],
        args=KTOConfig(**plain_settings(tmp_path / "theirs", 1, max_length=None, **settings)),
        train_dataset=Given.of(rows),
        processing_class=tokenizer,
    )
    plain.train()
    (theirs,) = [entry for entry in plain.state.log_history if "loss" in entry]
    (mine,) = events(tmp_path / "ours", "train")
    measures = ["rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"]
    for name in ["loss", *measures, *(["kl"] if not settings.get("loss_type") else [])]:
        assert abs(theirs[name] - mine[name]) <= 1e-5 * max(1, abs(mine[name])), name
    assert abs(theirs["grad_norm"] - mine["grad_norm"]) <= 1e-4 * mine["grad_norm"]
    if not settings.get("loss_type"):
        assert (mine["kl"] > 0.01) == swapped


def test_an_answer_is_put_under_another_prompt() -> None:
    def row(ids: list[int], first: int) -> Group:
        trained = np.arange(len(ids)) >= first
        return Group((TokenRow(np.array(ids, np.int32), trained.astype(np.uint8)),), 1.0)

    made = put_under(row([1, 2, 3, 4], 2), row([7, 8, 9], 1))
    assert made.ids.tolist() == [1, 2, 8, 9]
    assert made.trained.tolist() == [0, 0, 1, 1]


def test_every_example_has_a_partner_and_no_division_changes_it() -> None:
    lengths = np.random.Generator(np.random.PCG64(1)).integers(3, 90, 45)

    def partners(batch: int, accumulation: int, world: int) -> dict[int, int]:
        found = {}
        for rank in range(world):
            sampler = Partnered(LengthGroupedBatches(
                lengths, batch_size=batch, accumulation=accumulation, rank=rank, world=world, seed=3
            ))  # fmt: skip
            sampler.set_epoch(2)
            found.update({number: partner for batch in sampler for number, partner in batch if number >= 0})
        return found

    whole = partners(8, 1, 1)
    assert sorted(whole) == sorted(whole.values()) == list(range(45))
    assert all(number != partner for number, partner in whole.items())
    assert partners(1, 8, 1) == partners(2, 2, 2) == whole
    batches = EvaluationBatches(lengths, batch_size=7, rank=0, world=1)
    order = np.argsort(-lengths, kind="stable")
    assert dict(pair for batch in Partnered(batches, order) for pair in batch) == {
        int(number): int(order[place - 1]) for place, number in enumerate(order)
    }


def test_wanted_answers_rise_above_unwanted_ones(tmp_path: Path) -> None:
    path = loud_file(tmp_path, pairs=False)
    run(tmp_path / "r", trainer="kto", data__path=path, data__max_samples=None, data__valid_fraction=0.25,
        train__learning_rate=2e-3, train__max_steps=20)  # fmt: skip
    before, *_, after = events(tmp_path / "r", "eval")
    assert before["rewards/margins"] == 0.0
    assert after["rewards/margins"] > 0.2
    assert after["rewards/margins"] == pytest.approx(after["rewards/chosen"] - after["rewards/rejected"])
    assert after["loss"] < 0.48 < before["loss"]


@pytest.mark.parametrize("pairs", [False, True])
def test_the_answers_of_either_kind_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pairs: bool
) -> None:
    path = loud_file(tmp_path, pairs=pairs, count=30)
    made = run(tmp_path / "r", trainer="kto", data__path=path, data__valid_fraction=0.1, train__max_steps=1,
               run__progress="plain")  # fmt: skip
    data = made.values["data"]
    found = (data["wanted_rows"], data["unwanted_rows"])
    assert sum(found) == data["train_rows"]
    assert found == (27, 27) if pairs else {12, 13, 14, 15} > {*found}
    assert f"answers  {found[0]} wanted, {found[1]} unwanted to train on\n" in capsys.readouterr().out


def test_a_single_answer_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"train.batch_size: one answer a step"):
        run(tmp_path / "r", **changes_for("kto", tmp_path, train__batch_size=1))


def test_a_measure_that_the_validation_rows_cannot_give_is_refused(tmp_path: Path) -> None:
    changes = {"data__valid_fraction": 0.03, "train__metric_for_best_model": "rewards/margins"}
    with pytest.raises(ConfigError, match="all of one kind"):
        run(tmp_path / "r", **changes_for("kto", tmp_path, **changes))
