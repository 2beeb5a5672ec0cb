"""`trainer=dpo`: TRL's own numbers, the reference model, and the keys that change the loss."""

from __future__ import annotations

import json
import math
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
    parts,
    plain_settings,
    run_one_batch,
)
from runs import assert_same_run, distance, events, run, run_stopped_at, weights
from trl import DPOConfig, DPOTrainer

from aitrain.errors import ConfigError, Refused

MEASURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
            "logps/rejected", "mean_token_accuracy")  # fmt: skip


class Plain(DPOTrainer):
    """TRL's trainer on token ids, with its own collator, order and loop."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "hinge": {"loss_type": "hinge", "beta": 0.5},
    "several": {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 0.3]},
    "smoothed": {"loss_type": "robust", "label_smoothing": 0.1},
    "weighted": {"use_weighting": True, "ld_alpha": 0.4},
    "divergence": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
    "discopop": {"loss_type": "discopop", "discopop_tau": 0.1},
    "moving": {"sync_ref_model": True, "ref_model_mixup_alpha": 0.7, "ref_model_sync_steps": 1},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_equals_trls_own_trainer(tmp_path: Path, kind: str) -> None:
    settings = SETTINGS[kind]
    typed = {f"trainer__{name}": str(value).replace("'", "").replace(" ", "") for name, value in settings.items()}
    reference = "tiny-qwen3" if "sync_ref_model" in settings else "tiny-mistral"
    groups = run_one_batch(tmp_path / "ours", "dpo", trainer__ref_model=f"sample:{reference}", **typed)
    rows = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for prompt, (chosen, rejected) in (parts(groups[i]) for i in range(8))
    ]
    model, tokenizer = model_and_tokenizer()
    plain = Plain(
        model=model,
        ref_model=model_and_tokenizer(reference)[0],
        args=DPOConfig(**plain_settings(tmp_path / "theirs", 3, max_length=None, **settings)),
        train_dataset=Given.of(rows),
        processing_class=tokenizer,
    )
    assert_trained_alike(tmp_path / "ours", plain, measures=MEASURES)
    assert json.loads((tmp_path / "ours" / "lock.json").read_text())["ref_model"]["path"] == f"sample:{reference}"


def test_before_the_first_step_the_loss_is_that_of_a_coin(tmp_path: Path) -> None:
    run(tmp_path / "r", **changes_for("dpo", tmp_path, train__max_steps=1))
    first = events(tmp_path / "r", "train")[0]
    before = events(tmp_path / "r", "eval")[0]
    for event in (first, before):
        assert abs(event["loss"] - math.log(2)) < 1e-6
        assert event["rewards/margins"] == 0.0
        assert event["rewards/accuracies"] == 0.5, "the model is its own reference, and prefers no answer"


# --- the reference model --------------------------------------------------------------------------------------------

RESUMED = {"train__batch_size": 4, "train__max_steps": 8, "train__save_steps": 3, "train__gradient_accumulation": 2}


@pytest.mark.parametrize("more", [
    {}, {"peft": "lora", "peft.r": 4}, {"trainer__ref_model": "sample:tiny-mistral"},
    {"trainer__sync_ref_model": True, "trainer__ref_model_sync_steps": 2},
], ids=["start", "adapter", "given", "moving"])  # fmt: skip
def test_a_continued_run_is_held_to_the_same_reference(tmp_path: Path, more: dict[str, Any]) -> None:
    changes = changes_for("dpo", tmp_path, **RESUMED, **more)
    run(tmp_path / "whole", **changes)
    run_stopped_at(9, tmp_path / "r", **changes)
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_same_run(tmp_path / "r", tmp_path / "whole")
    margins = [event["rewards/margins"] for event in events(tmp_path / "whole", "train")]
    assert len(set(margins)) >= 7, "the run does move away from the reference"


def test_an_adapters_reference_is_the_model_below_it(tmp_path: Path) -> None:
    """The rewards that an adapter run reports are those that two models loaded apart give."""
    from peft import PeftModel
    from preferring import trained_rows
    from trl.trainer.utils import selective_log_softmax

    changes = changes_for("dpo", tmp_path, peft="lora", train__batch_size=8, data__valid_fraction=0.2)
    run(tmp_path / "r", **{**changes, "train__max_steps": 4})
    base, _ = model_and_tokenizer()
    policy = PeftModel.from_pretrained(model_and_tokenizer()[0], tmp_path / "r" / "model").eval()
    rows = trained_rows(tmp_path / "r")
    held = held_out(tmp_path / "r", len(rows))
    rewards = []
    for number in held:
        for row in rows[number].rows:
            ids = torch.tensor([row.ids.tolist()])
            kept = torch.tensor(row.trained[1:] == 1)
            logps = [
                selective_log_softmax(m(input_ids=ids).logits[:, :-1], ids[:, 1:])[0][kept].sum()
                for m in (policy, base)
            ]
            rewards.append(0.1 * float((logps[0] - logps[1]).detach()))
    last = events(tmp_path / "r", "eval")[-1]
    assert last["rewards/chosen"] == pytest.approx(sum(rewards[::2]) / len(held), abs=1e-5)
    assert last["rewards/rejected"] == pytest.approx(sum(rewards[1::2]) / len(held), abs=1e-5)
    assert abs(last["rewards/margins"]) > 1e-4


def held_out(folder: Path, examples: int, fraction: float = 0.2) -> list[int]:
    from aitrain.data.splits import hold_out

    return hold_out(examples, fraction, 42).valid.tolist()


def test_the_saved_adapter_is_one_adapter(tmp_path: Path) -> None:
    run(tmp_path / "r", **changes_for("dpo", tmp_path, peft="lora", train__max_steps=2))
    assert not (tmp_path / "r/model/ref").exists()
    assert not any(".ref." in name for name in weights(tmp_path / "r/model"))


def test_layers_that_a_user_froze_stay_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aitrain.adapters import lora

    original = lora.apply

    def frozen(model: Any, section: Any) -> Any:
        adapted = original(model, section)
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)
        return adapted

    from dataclasses import replace

    from aitrain import registry

    monkeypatch.setitem(registry.ADAPTERS, "lora", replace(registry.ADAPTERS["lora"], apply=frozen))
    changes = changes_for("dpo", tmp_path, peft="lora", train__max_grad_norm=0.1)
    run(tmp_path / "one", **changes, train__max_steps=1)
    run(tmp_path / "four", **changes, train__max_steps=4)
    first, last = weights(tmp_path / "one/model"), weights(tmp_path / "four/model")
    for name in first:
        assert ("lora_A" in name) == torch.equal(first[name], last[name]), name


def test_a_reference_of_another_kind_cannot_move(tmp_path: Path) -> None:
    changes = {"trainer__ref_model": "sample:tiny-mistral", "trainer__sync_ref_model": True}
    with pytest.raises(ConfigError, match=r"trainer.sync_ref_model"):
        run(tmp_path / "r", **changes_for("dpo", tmp_path, **changes))


def test_a_reference_that_reads_other_tokens_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"trainer.ref_model"):
        run(tmp_path / "r", **changes_for("dpo", tmp_path, trainer__ref_model=tmp_path / "other"))


def test_a_reference_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"trainer.ref_model: .*empty does not load"):
        run(tmp_path / "r", **changes_for("dpo", tmp_path, trainer__ref_model=tmp_path / "empty"))


def test_an_adapter_on_the_head_is_refused(tmp_path: Path) -> None:
    for targets in ("[q_proj,lm_head]", "'.*(q_proj|lm_head)'"):
        with pytest.raises(Refused, match=r"peft.target_modules.*never be trained"):
            run(tmp_path / "r", **changes_for("dpo", tmp_path, peft="lora", **{"peft.target_modules": targets}))


# --- everything in train acts ---------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path) -> None:
    for more in ({}, {"peft": "lora", "peft.dropout": 0}):
        found = []
        for on in (False, True):
            folder = tmp_path / f"{len(more)}{on}"
            run(folder, **changes_for("dpo", tmp_path, train__max_steps=4, train__gradient_checkpointing=on, **more))
            found.append(folder)
        first, second = ([event["loss"] for event in events(folder, "train")] for folder in found)
        assert max(abs(a - b) for a, b in zip(first, second, strict=True)) <= 1e-6
        assert distance(*(weights(folder / "model") for folder in found)) <= 1e-5


def test_bf16_stays_near_fp32(tmp_path: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        run(folder, **changes_for("dpo", tmp_path, train__max_steps=4, train__precision=precision))
        found[precision] = [event["loss"] for event in events(folder, "train")]
    assert found["fp32"] != found["bf16"]
    assert max(abs(a - b) for a, b in zip(*found.values(), strict=True)) < 0.05
    assert {tensor.dtype for tensor in weights(tmp_path / "bf16/model").values()} == {torch.float32}


def test_one_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    made = run(tmp_path / "r", **changes_for("dpo", tmp_path, train__overfit_batch=True, train__max_steps=40,
                                             train__scheduler="constant", train__learning_rate=3e-3))  # fmt: skip
    assert made.losses[-1] < 0.05 < 0.69 < made.losses[0]
    assert events(tmp_path / "r", "train")[-1]["rewards/accuracies"] == 1.0


def test_the_best_is_what_the_chosen_measure_says(tmp_path: Path) -> None:
    run(tmp_path / "r", **changes_for(
        "dpo", tmp_path, train__max_steps=12, train__eval_steps=2, train__save_steps=2, train__load_best=True,
        train__metric_for_best_model="rewards/margins", data__valid_fraction=0.3, train__early_stopping_patience=2,
        train__save_total_limit="null", train__learning_rate=3e-3,
    ))  # fmt: skip
    evaluations = events(tmp_path / "r", "eval")[1:]
    best = max(evaluations, key=lambda event: event["rewards/margins"])
    folder = tmp_path / f"r/checkpoints/step-{best['step']:06d}"
    assert distance(weights(folder), weights(tmp_path / "r/model")) == 0.0


# --- what it is for -------------------------------------------------------------------------------------------------


def test_held_out_pairs_are_told_apart(tmp_path: Path) -> None:
    """Answers in capitals are preferred: after a few steps the model prefers them in pairs that it never saw."""
    path = loud_file(tmp_path)
    run(tmp_path / "r", trainer="dpo", data__path=path, data__max_samples=None, data__valid_fraction=0.25,
        train__learning_rate=2e-3, train__max_steps=20)  # fmt: skip
    before, *_, after = events(tmp_path / "r", "eval")
    assert (before["rewards/margins"], before["rewards/accuracies"]) == (0.0, 0.5)
    assert after["rewards/accuracies"] > 0.9
    assert after["rewards/margins"] > 0.2
    assert after["loss"] < 0.6 < before["loss"]


def test_prompts_are_answered_and_nothing_is_called_right(tmp_path: Path) -> None:
    from aitrain.rundir.events import read_events

    run(tmp_path / "r", **changes_for("dpo", tmp_path, generate__count=2, train__max_steps=1))
    made = [event for event in read_events(tmp_path / "r") if event["event"] == "generate"]
    assert len(made) == 2
    assert all(len(event["samples"]) == 2 for event in made)
    assert {sample["correct"] for event in made for sample in event["samples"]} == {None}
    run(tmp_path / "p", **changes_for("dpo", tmp_path, generate__count=None, generate__prompts="[Who?]",
                                      train__max_steps=1))  # fmt: skip
    made = [event for event in read_events(tmp_path / "p") if event["event"] == "generate"]
    assert [sample["prompt"] for event in made for sample in event["samples"]] == ["Who?", "Who?"]
