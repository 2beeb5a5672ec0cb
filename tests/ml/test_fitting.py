"""Whole runs against independent calculations: equal batches, a loop written out by hand, and what ends a run."""

from __future__ import annotations

import html
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import assert_same_run, distance, events, losses, report, run, weights, words
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import aitrain
from aitrain.cli import main
from aitrain.data.samples import sample_file
from aitrain.data.splits import hold_out
from aitrain.errors import TrainingFailed
from aitrain.ml.causal import CausalTrainer
from aitrain.ml.ordering import epoch_order
from aitrain.ml.sample_models import sample_model
from aitrain.report import summary
from aitrain.rundir.events import read_events

EIGHT = {"train__batch_size": 8, "train__max_steps": 8, "train__max_grad_norm": 0.5, "train__weight_decay": 0.1}
"""Two epochs of 38 rows in steps of 8, so that steps 5 and 10 are smaller."""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting") / "eight"
    run(folder, **EIGHT)
    return folder


# --- independent calculations ---------------------------------------------------------------------------------------


def rows_by_hand(count: int = 40, seed: int = 42, fraction: float = 0.05) -> tuple[list[Any], list[Any]]:
    """Token ids and labels of the sample's first rows, by transformers' own template and marks."""
    tokenizer = AutoTokenizer.from_pretrained(sample_model("tiny-qwen3"))
    rows = []
    for line in sample_file("tutor").read_text(encoding="utf-8").splitlines()[:count]:
        row = json.loads(line)
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        made = tokenizer.apply_chat_template(turns, return_assistant_tokens_mask=True, return_dict=True)
        labels = [i if kept else -100 for i, kept in zip(made["input_ids"], made["assistant_masks"], strict=True)]
        rows.append((made["input_ids"], labels))
    held = hold_out(count, fraction, seed)
    return [rows[i] for i in held.train], [rows[i] for i in held.valid]


def test_a_run_equals_a_loop_written_by_hand(eight: Path) -> None:
    torch.set_num_threads(1)
    rows, _ = rows_by_hand()
    model = AutoModelForCausalLM.from_pretrained(sample_model("tiny-qwen3"), dtype=torch.float32)
    model.train()
    decayed = [p for n, p in model.named_parameters() if "norm" not in n and not n.endswith("bias")]
    others = [p for n, p in model.named_parameters() if "norm" in n or n.endswith("bias")]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=2e-3
    )
    order = epoch_order(len(rows), 42, 0)
    for step, event in enumerate(events(eight, "train")[:5]):
        # One step of warm-up (3% of 8, rounded up), then down to zero at step 8.
        rate = 2e-3 * (step if step < 1 else (8 - step) / 7)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total, tokens = torch.tensor(0.0), 0
        for number in order[8 * step : 8 * step + 8]:  # row by row: no padding at all
            ids, labels = (torch.tensor([values]) for values in rows[number])
            logits = model(input_ids=ids).logits[0, :-1].float()
            total = total + torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum")
            tokens += int((labels[0, 1:] != -100).sum())
        loss = total / tokens
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        assert abs(loss.item() - event["loss"]) < 1e-6 * max(1, loss.item()) * 5, step
        assert abs(norm.item() - event["grad_norm"]) < 1e-4 * norm.item(), step
        assert event["learning_rate"] == pytest.approx(rate, rel=1e-9)
    seen = sum(len(ids) for ids, _ in rows)
    assert events(eight, "train")[4]["tokens"] == seen  # the first epoch, padding not counted


def test_the_evaluation_is_a_float64_mean_over_tokens(tmp_path: Path) -> None:
    wide = {"data__max_samples": 60, "data__valid_fraction": 0.4, "train__max_steps": 1, "data__max_length": 512}
    found = {}
    for size in (1, 7, 64):
        run(tmp_path / str(size), **wide, train__eval_batch_size=size)
        found[size] = events(tmp_path / str(size), "eval")[0]
    _, valid = rows_by_hand(60, fraction=0.4)
    model = AutoModelForCausalLM.from_pretrained(sample_model("tiny-qwen3"), dtype=torch.float64)
    loss, right, tokens = 0.0, 0, 0
    for ids, labels in valid:
        scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1].detach(), -1)
        for position, target in enumerate(labels[1:]):
            if target != -100:
                loss -= scores[position, target].item()
                right += int(scores[position].argmax()) == target
                tokens += 1
    assert len({len(ids) for ids, _ in valid}) > 3, "rows of different length"
    for event in found.values():
        assert abs(event["loss"] - loss / tokens) < 1e-6 * loss / tokens
        assert event["tokens"] == tokens
        assert event["token_accuracy"] == right / tokens
        assert event["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)


def test_the_unigram_baseline_of_the_report(eight: Path) -> None:
    train, valid = rows_by_hand()
    counts = np.ones(2048)
    for _, labels in train:
        for target in labels[1:]:
            counts[target] += target != -100
    targets = [target for _, labels in valid for target in labels[1:] if target != -100]
    wanted = -sum(math.log(counts[t] / counts.sum()) for t in targets) / len(targets)
    assert report(eight)["metrics"]["baselines"]["unigram"] == pytest.approx(wanted, rel=1e-12)


# --- equal runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (1, 8), (3, 3)])
def test_batches_train_alike_however_they_are_divided(
    eight: Path, tmp_path: Path, batch: int, accumulation: int
) -> None:
    changes = {**EIGHT, "train__batch_size": batch, "train__gradient_accumulation": accumulation}
    reference = eight
    if batch * accumulation != 8:
        reference = tmp_path / "whole"
        run(reference, **{**EIGHT, "train__batch_size": batch * accumulation})
    run(tmp_path / "divided", **changes)
    ours, wanted = losses(tmp_path / "divided"), losses(reference)
    assert len(ours) == len(wanted) == 8
    assert max(abs(a - b) for a, b in zip(ours, wanted, strict=True)) <= 1e-5
    assert distance(weights(tmp_path / "divided" / "model"), weights(reference / "model")) <= 1e-4
    assert [e["tokens"] for e in events(tmp_path / "divided", "train")] == [
        e["tokens"] for e in events(reference, "train")
    ]


def test_a_seed_fixes_everything(eight: Path, tmp_path: Path) -> None:
    run(tmp_path / "again", **EIGHT)
    assert_same_run(eight, tmp_path / "again")
    run(tmp_path / "other", **EIGHT, run__seed=43)
    assert distance(weights(eight / "model"), weights(tmp_path / "other" / "model")) > 0


def test_command_line_recipe_and_python_are_the_same_run(eight: Path, tmp_path: Path) -> None:
    assert main(words(tmp_path / "typed", **EIGHT)) == 0
    tree: dict[str, Any] = {}
    for word in words(tmp_path / "recipe", **EIGHT):
        key, _, value = word.partition("=")
        if "." in key:
            section, _, leaf = key.partition(".")
            tree.setdefault(section, {})[leaf] = value
    lines = ["defaults:", "  - config", "  - override hardware: cpu", "  - _self_"]
    for section, leaves in tree.items():
        lines += [f"{section}:", *(f"  {leaf}: {value}" for leaf, value in leaves.items())]
    (tmp_path / "small.yaml").write_text("\n".join(lines) + "\n")
    aitrain.train(recipe=tmp_path / "small.yaml")
    values: dict[str, Any] = {
        "model.path": "sample:tiny-qwen3", "data.max_samples": 40, "hardware.threads": 1, "run.progress": "none",
        "generate.count": 0, "train.logging_steps": 1, "run.dir": str(tmp_path / "values"), "train.batch_size": 8,
        "train.max_steps": 8, "train.max_grad_norm": 0.5, "train.weight_decay": 0.1,
    }  # fmt: skip
    aitrain.train("hardware=cpu", values=values)
    for name in ("typed", "recipe", "values"):
        assert_same_run(eight, tmp_path / name)


def test_gradient_checkpointing_changes_no_loss(eight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    original = torch.utils.checkpoint.checkpoint

    def checkpoint(*args: Any, **kwargs: Any) -> Any:
        used.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", checkpoint)
    for module in (m for name, m in sys.modules.items() if name.startswith("transformers.")):
        if getattr(module, "checkpoint", None) is original:
            monkeypatch.setattr(module, "checkpoint", checkpoint)
    run(tmp_path / "g", **EIGHT, train__gradient_checkpointing=True)
    assert used, "activations were recomputed"
    assert max(abs(a - b) for a, b in zip(losses(tmp_path / "g"), losses(eight), strict=True)) <= 1e-6


@pytest.mark.parametrize("name", ["tiny-qwen3", "tiny-mistral", "tiny-gemma2"])
def test_bf16_stays_near_fp32(tmp_path: Path, name: str) -> None:
    for precision in ("fp32", "bf16"):
        run(tmp_path / precision, model__path=f"sample:{name}", train__max_steps=4, train__precision=precision)
    full, half = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert full != half
    assert max(abs(a - b) / a for a, b in zip(full, half, strict=True)) < 2e-2
    assert {tensor.dtype for tensor in weights(tmp_path / "bf16" / "model").values()} == {torch.float32}


def test_a_learning_model_beats_the_unigram_baseline_on_one_batch(tmp_path: Path) -> None:
    made = run(tmp_path / "o", train__overfit_batch=True, train__max_steps=60, train__scheduler="constant",
               train__learning_rate=5e-3, model__path="sample:tiny-llama")  # fmt: skip
    assert made.losses[-1] < 0.1 < 5 < made.losses[0]
    assert not events(tmp_path / "o", "eval")
    assert len({event["tokens"] for event in events(tmp_path / "o", "train")}) == 60


# --- what a report says ---------------------------------------------------------------------------------------------


def test_the_reports_numbers_come_from_the_run(eight: Path) -> None:
    found, evaluations = report(eight), events(eight, "eval")
    assert [event["step"] for event in evaluations] == [0, 5, 8]  # before, after each epoch of 5 steps, at the end
    for name, event in (("before", evaluations[0]), ("after", evaluations[-1])):
        assert found["metrics"][name] == {key: event[key] for key in ("loss", "perplexity", "token_accuracy", "tokens")}
    best = min(evaluations[1:], key=lambda event: event["loss"])
    assert (found["best"]["step"], found["best"]["loss"]) == (best["step"], best["loss"])
    assert (found["status"], found["ended_by"], found["steps"], found["epochs"]) == ("finished", "steps", 8, 1.6)
    train, valid = rows_by_hand()
    assert (found["data"]["train_rows"], found["data"]["valid_rows"]) == (len(train), len(valid))
    assert found["data"]["train_tokens"] == sum(len(ids) for ids, _ in train)
    total = sum(t.numel() for t in weights(eight / "model").values())
    assert found["parameters"] == {"total": total, "trainable": total}


def test_the_final_model_is_the_last_checkpoint_and_loads(eight: Path) -> None:
    assert distance(weights(eight / "model"), weights(eight / "checkpoints" / "step-000008")) == 0.0
    model = AutoModelForCausalLM.from_pretrained(eight / "model")
    assert model.config.use_cache
    assert AutoTokenizer.from_pretrained(eight / "model").chat_template


# --- what ends a run ------------------------------------------------------------------------------------------------


def worsen_after(monkeypatch: pytest.MonkeyPatch, step: int, by: float = 1.0) -> None:
    """After a step evaluation sees weights that grow worse."""
    original = CausalTrainer._evaluate_here

    def evaluate(self: CausalTrainer) -> int:
        if self.state.global_step > step:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.add_(by * torch.randn_like(parameter))
        return original(self)

    monkeypatch.setattr(CausalTrainer, "_evaluate_here", evaluate)


def notes(folder: Path) -> list[tuple[int, str]]:
    """Step and text of each note."""
    return [(event["step"], event["text"]) for event in read_events(folder) if event["event"] == "note"]


def test_the_last_weights_may_be_the_best(tmp_path: Path) -> None:
    made = run(tmp_path / "r", train__eval_steps=1, train__max_steps=2, train__load_best=True)
    value = events(made.folder, "eval")[-1]["loss"]
    assert notes(made.folder)[-1] == (2, f"step 2's weights kept, which are the best (loss {value:.4g})")
    assert made.values["weights_step"] == 2


def test_early_stopping_and_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worsen_after(monkeypatch, 3)
    made = run(tmp_path / "r", train__eval_steps=1, train__max_steps=20, train__early_stopping_patience=2,
               train__load_best=True, train__save_total_limit=1)  # fmt: skip
    found, evaluated = made.values, [event["loss"] for event in events(made.folder, "eval")]
    assert evaluated[1:4] == sorted(evaluated[1:4], reverse=True)
    best = 1 + evaluated[1:].index(min(evaluated[1:]))
    assert found["best"]["step"] == best
    assert (found["ended_by"], found["status"]) == ("early_stopping", "finished")
    assert found["steps"] == best + 2
    assert found["metrics"]["after"]["loss"] == found["best"]["loss"] == evaluated[best]
    why = f"loss has not improved in 2 evaluations (best {evaluated[best]:.4g} at step {best})"
    assert (found["ended_because"], found["weights_step"]) == (why, best)
    assert notes(made.folder)[-2:] == [
        (best + 2, f"stopped: {why}"),
        (best + 2, f"step {best}'s weights loaded, which are the best (loss {evaluated[best]:.4g})"),
    ]
    log = (made.folder / "log.txt").read_text()
    page = (made.folder / "report.html").read_text()
    for said in (f"stopped: {why}", f"step {best}'s weights loaded"):
        assert f"step {best + 2}/20  {said}" in log
        assert html.escape(said) in page
    assert why in summary(made)
    assert f"(step {best}'s weights)" in summary(made)
    assert distance(weights(made.folder / "model"), weights(made.folder / found["best"]["checkpoint"])) == 0.0
    kept = sorted(path.name for path in (made.folder / "checkpoints").iterdir())
    assert kept == [f"step-{best:06d}", f"step-{best + 2:06d}"]


def test_another_measure_says_which_evaluation_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CausalTrainer.measure

    def measure(self: CausalTrainer) -> dict[str, float]:
        """Accuracy has its peak at step 2, while the loss still falls."""
        accuracy = {0: 0.1, 1: 0.2, 2: 0.4, 3: 0.405}.get(self.state.global_step, 0.3)
        return {**original(self), "token_accuracy": accuracy}

    monkeypatch.setattr(CausalTrainer, "measure", measure)
    early = {"train__early_stopping_patience": 3, "train__early_stopping_threshold": 0.01, "train__load_best": True}
    judged = {"train__metric_for_best_model": "token_accuracy", "train__eval_steps": 1, "train__max_steps": 20}
    made = run(tmp_path / "r", **judged, **early)
    found = made.values
    # 0.405 is the best, but not by the threshold: patience counts from step 2.
    assert (found["best"]["step"], found["best"]["metric"], found["best"]["value"]) == (3, "token_accuracy", 0.405)
    assert (found["ended_by"], found["steps"]) == ("early_stopping", 5)
    why = "token accuracy has not improved by more than 0.01 in 3 evaluations (best 0.405 at step 3)"
    assert found["ended_because"] == why
    assert (5, "step 3's weights loaded, which are the best (token accuracy 0.405)") in notes(made.folder)
    assert distance(weights(made.folder / "model"), weights(made.folder / "checkpoints" / "step-000003")) == 0.0


def test_without_load_best_the_last_weights_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worsen_after(monkeypatch, 2)
    made = run(tmp_path / "r", train__eval_steps=1, train__max_steps=4)
    assert made.values["best"]["step"] == 2
    assert (made.values["weights_step"], made.values["ended_because"]) == (4, None)
    assert not any("weights" in text or "stopped" in text for _, text in notes(made.folder))
    assert made.values["metrics"]["after"]["loss"] == events(made.folder, "eval")[-1]["loss"]
    assert distance(weights(made.folder / "model"), weights(made.folder / "checkpoints" / "step-000004")) == 0.0


def test_max_minutes_saves_and_can_be_continued(tmp_path: Path) -> None:
    made = run(tmp_path / "r", train__max_steps=6, train__max_minutes=1e-9)
    assert (made.status, made.values["ended_by"], made.values["steps"]) == ("stopped", "minutes", 1)
    assert made.values["ended_because"] == "train.max_minutes=1e-09 are over"
    assert [event["step"] for event in events(made.folder, "eval")] == [0, 1]
    assert distance(weights(made.folder / "model"), weights(made.folder / "checkpoints" / "step-000001")) == 0.0
    whole = run(tmp_path / "whole", train__max_steps=6)
    continued = run(made.folder, train__max_steps=6, run__resume="auto")
    assert (continued.status, continued.values["ended_by"]) == ("finished", "steps")
    assert distance(weights(continued.folder / "model"), weights(whole.folder / "model")) == 0.0


# --- losses that are no numbers -------------------------------------------------------------------------------------


def failed(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    """Exit code 1, a failed report, no traceback; returns what is said."""
    assert main(words(folder, **changes)) == 1
    said = capsys.readouterr().err
    assert said.startswith("failed: ")
    assert "Traceback" not in said
    assert report(folder)["status"] == "failed"
    assert report(folder)["error"] in said
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return said


def test_an_absurd_learning_rate_fails_before_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stepped = []
    original = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        stepped.append(1)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        said = failed(tmp_path / "r", capsys, train__learning_rate=1e30, train__warmup_ratio=0.0)
    broken_at = int(said.split("at step ")[1].split(";")[0])
    assert len(stepped) == broken_at - 1
    assert [event["step"] for event in events(tmp_path / "r", "train")] == list(range(1, broken_at))


def test_an_evaluation_that_is_no_number_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worsen_after(monkeypatch, 1, by=float("nan"))
    said = failed(tmp_path / "r", capsys, train__eval_steps=1, train__save_steps=1)
    assert "the validation loss is nan at step 2" in said
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "r" / "checkpoints" / "step-000001").values())
    assert not (tmp_path / "r" / "checkpoints" / "step-000002").exists()


def test_poisoned_weights_fail_at_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(sample_model("tiny-qwen3"), model)
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    said = failed(tmp_path / "r", capsys, model__path=model, train__eval_on_start=False)
    assert "loss is nan at step 1; the weights are still those of step 0" in said


def test_a_gradient_that_is_no_number_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = CausalTrainer.training_step

    def training_step(self: CausalTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, model, *args, **kwargs)
        if self.state.global_step == 2:
            next(model.parameters()).grad[0, 0] = float("inf")
        return loss

    monkeypatch.setattr(CausalTrainer, "training_step", training_step)
    with pytest.raises(TrainingFailed, match=r"gradient's length is inf at step 3; .* step 2"):
        run(tmp_path / "r", train__save_steps=2)
    assert all(torch.isfinite(t).all() for t in weights(tmp_path / "r" / "checkpoints" / "step-000002").values())


# --- weights of tokens ----------------------------------------------------------------------------------------------


def test_weights_of_tokens_count_in_training_and_evaluation(tmp_path: Path) -> None:
    """Only their ratio matters, since the mean is over weights; a role's weight mixes its own loss in by its share."""
    steps = {"train__max_steps": 4, "train__eval_steps": 2, "train__gradient_accumulation": 2, "train__batch_size": 4}
    cases = {
        "plain": {},
        "double": {"data__token_weights__assistant": 2.0},
        "all": {"data__train_on": "all"},
        "mixed": {"data__token_weights__user": 0.5},
    }
    for name, changes in cases.items():
        run(tmp_path / name, **steps, **changes)
    plain, double = (events(tmp_path / name) for name in ("plain", "double"))
    for mine, wanted in zip(double, plain, strict=True):
        assert mine["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    assert distance(weights(tmp_path / "double" / "model"), weights(tmp_path / "plain" / "model")) <= 1e-5
    before = {name: events(tmp_path / name, "eval")[0] for name in cases}
    assert before["mixed"]["loss"] != pytest.approx(before["plain"]["loss"], rel=1e-4)
    assert before["mixed"]["tokens"] > before["plain"]["tokens"], "the user's words are predicted too"
    assert before["mixed"]["tokens"] < before["all"]["tokens"], "but not what the template writes around them"
