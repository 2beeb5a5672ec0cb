"""`trainer=reward`: TRL's own numbers, margins, the head, and what is saved."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from preferring import (
    Given,
    assert_trained_alike,
    changes_for,
    loud_file,
    model_and_tokenizer,
    plain_settings,
    run_one_batch,
    trained_rows,
)
from runs import distance, events, run, weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from aitrain.errors import ConfigError, Refused
from aitrain.rundir.events import read_events


class Plain(RewardTrainer):
    """TRL's trainer with its own collator, order and loop."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


def scorer(folder: Path) -> Path:
    """A sequence classifier with one output."""
    from aitrain.ml.sample_models import sample_model

    torch.manual_seed(0)
    name = sample_model("tiny-qwen3")
    AutoModelForSequenceClassification.from_pretrained(name, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scorer(tmp_path_factory.mktemp("scorer"))


def file_with_margins(folder: Path) -> Path:
    rows = [{"prompt": f"q{n}", "chosen": "good " * (1 + n % 3), "rejected": "bad " * (1 + n % 4), "margin": n / 4}
            for n in range(8)]  # fmt: skip
    path = folder / "margins.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["plain", "centred", "margins"])
def test_a_run_equals_trls_own_trainer(tmp_path: Path, start: Path, kind: str) -> None:
    settings = {"center_rewards_coefficient": 0.05} if kind == "centred" else {}
    changes: dict[str, Any] = {f"trainer__{name}": value for name, value in settings.items()}
    if kind == "margins":
        changes["data__path"] = file_with_margins(tmp_path)
    groups = run_one_batch(tmp_path / "ours", "reward", model__path=start, **changes)
    rows = []
    for number in range(8):
        group = groups[number]
        row: dict[str, Any] = {"chosen_ids": group.rows[0].ids.tolist(), "rejected_ids": group.rows[1].ids.tolist()}
        if kind == "margins":
            row["margin"] = number / 4
        rows.append(row)
    plain = Plain(
        model=AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32),
        args=RewardConfig(**plain_settings(tmp_path / "theirs", 3, max_length=None, **settings)),
        train_dataset=Given.of(rows),
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    assert_trained_alike(tmp_path / "ours", plain, measures=("accuracy", "margin", "mean_reward"))


def test_the_evaluation_is_that_of_the_saved_model(tmp_path: Path) -> None:
    """The saved folder is a classifier whose scores, row by row and without padding, give the reported numbers."""
    run(tmp_path / "r", **changes_for("reward", tmp_path, train__max_steps=4, data__valid_fraction=0.3))
    from aitrain.data.splits import hold_out

    rows = trained_rows(tmp_path / "r")
    model, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "r/model", dtype=torch.float64, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert model.config.num_labels == 1
    scores = []
    for number in hold_out(len(rows), 0.3, 42).valid:
        scores.append([model(input_ids=torch.tensor([row.ids.tolist()])).logits.item() for row in rows[number].rows])
    chosen, rejected = torch.tensor(scores, dtype=torch.float64).T
    last = events(tmp_path / "r", "eval")[-1]
    assert last["loss"] == pytest.approx(-torch.nn.functional.logsigmoid(chosen - rejected).mean().item(), abs=1e-5)
    assert last["margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-5)
    assert last["accuracy"] == pytest.approx((chosen > rejected).double().mean().item())
    assert last["mean_reward"] == pytest.approx(torch.tensor(scores).mean().item(), abs=1e-5)


def test_scores_that_are_equal_are_half_right(tmp_path: Path, start: Path) -> None:
    """A head of zeros tells nothing apart."""
    model = AutoModelForSequenceClassification.from_pretrained(start)
    model.score.weight.data.zero_()
    model.save_pretrained(tmp_path / "flat")
    AutoTokenizer.from_pretrained(start).save_pretrained(tmp_path / "flat")
    run(tmp_path / "r", **changes_for("reward", tmp_path, train__max_steps=1, model__path=tmp_path / "flat"))
    for event in (events(tmp_path / "r", "eval")[0], events(tmp_path / "r", "train")[0]):
        assert (event["accuracy"], event["margin"], event["mean_reward"]) == (0.5, 0.0, 0.0)


def test_nothing_of_a_score_is_called_better_or_a_trained_token(tmp_path: Path) -> None:
    made = run(tmp_path / "r", **changes_for("reward", tmp_path, train__max_steps=4))
    assert made.values["aims"] == {"loss": "min", "accuracy": "max", "margin": "max"}
    assert made.values["data"]["answer_tokens"] > 0
    assert "trained_tokens" not in made.values["data"]
    page = (tmp_path / "r/report.html").read_text()
    assert "tokens of the answers" in page
    assert "carry loss" not in page
    (row,) = re.findall(r'<th scope="row">mean reward</th>.*?</tr>', page)
    assert "better" not in row
    assert "worse" not in row


def test_a_new_head_is_reported_and_an_old_one_is_used(tmp_path: Path, start: Path) -> None:
    def notes(folder: Path) -> list[str]:
        return [event["text"] for event in read_events(folder) if event["event"] == "note"]

    run(tmp_path / "new", **changes_for("reward", tmp_path, train__max_steps=1))
    assert notes(tmp_path / "new") == ["the head that gives a score is new"]
    run(tmp_path / "old", **changes_for("reward", tmp_path, train__max_steps=1, model__path=start))
    assert notes(tmp_path / "old") == []
    # The first step of the warm-up has a rate of zero, so one step changes nothing.
    assert distance(weights(tmp_path / "old/model"), weights(start)) == 0.0


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    model, tokenizer = model_and_tokenizer(cls=AutoModelForSequenceClassification)
    assert model.config.num_labels == 2
    model.save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"model.path"):
        run(tmp_path / "r", **changes_for("reward", tmp_path, model__path=tmp_path / "two"))


def test_an_adapter_trains_the_head_too(tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    changes = changes_for("reward", tmp_path, peft="lora", train__max_steps=6, data__valid_fraction=0.3)
    run(tmp_path / "r", **changes)
    saved = weights(tmp_path / "r/model")
    assert any("score" in name for name in saved)
    config = json.loads((tmp_path / "r/model/adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    before, *_, after = events(tmp_path / "r", "eval")
    assert before["loss"] != after["loss"]
    AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "r/model", num_labels=1)


def test_keys_of_models_that_write_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"generate.count: has no effect with task=llm trainer=reward"):
        run(tmp_path / "r", **changes_for("reward", tmp_path, generate__count=2))


def test_the_card_says_what_the_model_does(tmp_path: Path) -> None:
    run(tmp_path / "r", **changes_for("reward", tmp_path, train__max_steps=1))
    assert "pipeline_tag: text-classification" in (tmp_path / "r/model/README.md").read_text()


def test_held_out_pairs_are_told_apart(tmp_path: Path) -> None:
    path = loud_file(tmp_path)
    run(tmp_path / "r", trainer="reward", data__path=path, data__max_samples=None, data__valid_fraction=0.25,
        train__learning_rate=2e-3, train__max_steps=20, generate__count=None)  # fmt: skip
    assert events(tmp_path / "r", "eval")[-1]["accuracy"] > 0.9
