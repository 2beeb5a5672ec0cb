"""`task=seq2seq`: the loss of plain transformers, texts of plain `generate`, any division of the work, its use."""

from __future__ import annotations

import csv
import functools
import json
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting import texts, write_rows
from rouge_score.rouge_scorer import RougeScorer
from runs import assert_same_run, distance, events, losses, report, run, run_stopped_at, weights
from sacrebleu.metrics import BLEU, CHRF
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.m2m_100.modeling_m2m_100 import shift_tokens_right

from aitrain.cli import main
from aitrain.errors import Refused, Stopped
from aitrain.ml import seq2seq
from aitrain.ml.sample_models import sample_model
from aitrain.ml.seq2seq_models import IGNORED, padded_labels, shift_of

COMMON = {"task": "seq2seq", "model__path": "sample:tiny-bart", "data__max_samples": None, "generate__count": 2,
          "train__epochs": None, "train__batch_size": 8, "task__generation_max_length": 12,
          "task__generate_rows": "null"}  # fmt: skip


def small(folder: Path, data: Path, **changes: Any) -> None:
    """Train a small run in this process."""
    run(folder, **{**COMMON, "data__path": data, "train__max_steps": 3, **changes})


def pairs(count: int, seed: int = 0) -> list[dict[str, str]]:
    """A text, and its first word and some others of it."""
    rng = random.Random(seed)
    rows = []
    for text in texts(count, seed):
        told = text.split()
        rows.append({"source": text, "target": " ".join([told[0], *rng.sample(told, rng.randint(0, len(told)) // 2)])})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "valid.jsonl", pairs(21, seed=1))
    write_rows(folder / "train.jsonl", pairs(37))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Far enough for texts that differ from row to row."""
    folder = tmp_path_factory.mktemp("trained") / "r"
    small(folder, data, data__valid_split="valid", train__max_steps=60, train__logging_steps=20, train__eval_steps=60,
          task__source_prefix="say: ", train__learning_rate=3e-3)  # fmt: skip
    return folder


@functools.lru_cache
def plain(folder: Path, dtype: str = "float32") -> tuple[Any, Any]:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def plain_log_probabilities(folder: Path, row: dict[str, str], prefix: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """(places, vocabulary) in float64 of the row alone, as the model itself reads its labels; and the labels."""
    model, tokenizer = plain(folder, "float64")
    inputs = tokenizer(prefix + row["source"], return_tensors="pt")
    labels = tokenizer(text_target=row["target"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).logits
    return logits[0].log_softmax(-1), labels[0]


def plain_text(folder: Path, source: str, **settings: Any) -> str:
    """What plain `generate` writes for one text, by itself."""
    model, tokenizer = plain(folder)
    written = model.generate(**tokenizer(source, return_tensors="pt"), **settings)
    return tokenizer.decode(written[0], skip_special_tokens=True).strip()


# --- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_step_is_the_mean_over_target_tokens(
    smoothing: float, trained: Path, data: Path, tmp_path: Path
) -> None:
    small(tmp_path / "r", data / "train.jsonl", model__path=trained / "model", data__valid_fraction=0,
          generate__count=None, task__generate_rows=None, train__max_steps=1, train__batch_size=16,
          train__gradient_accumulation=3, task__label_smoothing=smoothing, task__source_prefix="say: ")  # fmt: skip
    total, tokens = 0.0, 0
    for row in pairs(37):
        found, labels = plain_log_probabilities(trained / "model", row, "say: ")
        right = found[torch.arange(len(labels)), labels]
        total -= float(((1 - smoothing) * right + smoothing * found.mean(-1)).sum())
        tokens += len(labels)
    assert losses(tmp_path / "r") == [pytest.approx(total / tokens, rel=1e-5)]


def test_validation_equals_plain_transformers(trained: Path) -> None:
    total, right, tokens = 0.0, 0, 0
    for row in pairs(21, seed=1):
        found, labels = plain_log_probabilities(trained / "model", row, "say: ")
        total -= float(found[torch.arange(len(labels)), labels].sum())
        right += int((found.argmax(-1) == labels).sum())
        tokens += len(labels)
    after = report(trained)["metrics"]["after"]
    assert after["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert after["perplexity"] == pytest.approx(np.exp(total / tokens), rel=1e-5)
    assert after["token_accuracy"] == pytest.approx(right / tokens)


def t5(folder: Path) -> Path:
    """A tiny T5, whose decoder ends in scaled states and whose halves share their embedding."""
    AutoTokenizer.from_pretrained(sample_model("tiny-bart")).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=2048, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0,
                      decoder_start_token_id=0, feed_forward_proj="gated-gelu")  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_t5_trains_and_is_saved_whole(data: Path, tmp_path: Path) -> None:
    folder = t5(tmp_path / "t5")
    small(tmp_path / "r", data, model__path=folder, data__valid_split="valid", train__max_steps=2,
          train__batch_size=37)  # fmt: skip
    found = [plain_log_probabilities(folder, row) for row in pairs(37)]
    total = -sum(float(log[torch.arange(len(labels)), labels].sum()) for log, labels in found)
    assert losses(tmp_path / "r")[0] == pytest.approx(total / sum(len(labels) for _, labels in found), rel=1e-5)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "r/model", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.generation_config.max_length == 13


def test_labels_move_one_place_as_the_model_moves_them() -> None:
    labels = padded_labels([[7, 8, 1], [9, 1]])
    config = M2M100Config(vocab_size=32, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
                          decoder_ffn_dim=8, encoder_attention_heads=1, decoder_attention_heads=1, pad_token_id=3,
                          decoder_start_token_id=2)  # fmt: skip
    model = M2M100ForConditionalGeneration(config)
    assert not hasattr(model, "prepare_decoder_input_ids_from_labels")
    assert shift_of(model)(labels).tolist() == [[2, 7, 8], [2, 9, 1]]
    assert torch.equal(shift_of(model)(labels), shift_tokens_right(labels, 3, 2))
    bart = AutoModelForSeq2SeqLM.from_pretrained(sample_model("tiny-bart"))
    assert shift_of(bart)(labels).tolist() == [[0, 7, 8], [0, 9, 1]]
    assert labels[1, 2] == IGNORED


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_plain_generate_row_by_row(
    beams: int, trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained), str(data / "valid.jsonl"), f"task.num_beams={beams}", "train.eval_batch_size=5"]
    assert main(["predict", *words, f"output={tmp_path / 'out.jsonl'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [row["source"] for row in pairs(21, seed=1)]
    more = {} if beams == 1 else {"num_beams": beams}
    wanted = [plain_text(trained / "model", f"say: {row['source']}", **more) for row in rows]
    assert [row["prediction"] for row in rows] == wanted
    assert len(set(wanted)) > 5


def test_measures_are_those_of_the_libraries_on_the_written_texts(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained), str(data / "valid.jsonl"), f"output={tmp_path / 'out.csv'}"]) == 0
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    given, wanted = [row["prediction"] for row in rows], [row["target"] for row in rows]
    after = report(trained)["metrics"]["after"]
    assert after["bleu"] == pytest.approx(BLEU(force=True).corpus_score(given, [wanted]).score)
    assert after["chrf"] == pytest.approx(CHRF().corpus_score(given, [wanted]).score)
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    scores = [scorer.score(target, text) for target, text in zip(wanted, given, strict=True)]
    for name in ("rouge1", "rougeL"):
        assert after[name] == pytest.approx(100 * np.mean([score[name].fmeasure for score in scores]))
    assert after["exact_match"] == pytest.approx(np.mean([a == b for a, b in zip(given, wanted, strict=True)]))
    assert 0 < after["rougeL"] < 100
    lengths = [len(AutoTokenizer.from_pretrained(trained / "model")(text)["input_ids"]) for text in given]
    cut = [min(length, 12) for length in lengths]  # the end is no longer written at the longest length
    assert after["generated_length"] == pytest.approx(np.mean(cut), abs=0.5)


def test_evaluate_gives_what_the_run_measured_last(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained), str(data / "valid.jsonl")]) == 0
    kept = json.loads((trained / "evaluations/valid.json").read_text())
    assert kept["measures"] == pytest.approx(report(trained)["metrics"]["after"], rel=1e-5)
    assert kept["details"]["worst"] == report(trained)["details"]["worst"]


def test_the_report_shows_texts_beside_simple_guesses(trained: Path) -> None:
    found = report(trained)
    rows = pairs(21, seed=1)
    copied = CHRF().corpus_score([row["source"] for row in rows], [[row["target"] for row in rows]]).score
    assert found["metrics"]["baselines"]["copied"]["chrf"] == pytest.approx(copied)
    assert set(found["metrics"]["baselines"]["frequent"]) == set(found["metrics"]["baselines"]["copied"])
    details = found["details"]
    assert details["kind"] == "texts"
    assert details["best"][0]["chrf"] >= details["worst"][-1]["chrf"] >= details["worst"][0]["chrf"]
    for entry in (*details["best"], *details["worst"]):
        assert (entry["source"], entry["wanted"]) == (rows[entry["row"]]["source"], rows[entry["row"]]["target"])
        assert entry["exact"] == (entry["given"] == entry["wanted"])
    numbers = [entry["row"] for entry in (*details["best"], *details["worst"])]
    assert len(set(numbers)) == len(numbers) > 5
    assert not any(entry["exact"] for entry in details["worst"])
    assert "Furthest from the target" in (trained / "report.html").read_text()
    shown = [event["samples"] for event in _raw(trained) if event["event"] == "generate"]
    assert [len(samples) for samples in shown] == [2, 2]
    assert shown[-1][0]["text"] == plain_text(trained / "model", f"say: {rows[0]['source']}")


def _raw(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_saved_model_writes_as_the_run_did(data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, data__valid_split="valid", task__num_beams=2, task__generate_rows=5,
          task__forced_bos_token="<|im_start|>", task__generation_max_length=7)  # fmt: skip
    settings = GenerationConfig.from_pretrained(tmp_path / "r/model")
    assert (settings.num_beams, settings.max_length, settings.forced_bos_token_id) == (2, 8, 2)
    model, tokenizer = plain(tmp_path / "r/model")
    written = model.generate(**tokenizer("sun and rain", return_tensors="pt"))[0].tolist()
    assert written[:2] == [0, 2]
    assert len(written) <= 8
    notes = json.loads((tmp_path / "r/model/targets.json").read_text())
    assert notes == {"kind": "texts", "source_prefix": None, "max_source_length": 512, "max_target_length": 128}
    shown = report(tmp_path / "r")["details"]
    assert {entry["row"] for entry in (*shown["best"], *shown["worst"])} == {0, 4, 8, 12, 16}


def nllb(folder: Path) -> Path:
    """A tiny model of several languages, whose tokens begin sources and targets."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = M2M100Config(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
                          decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, dropout=0.0,
                          attention_dropout=0.0, activation_dropout=0.0, max_position_embeddings=512, pad_token_id=1,
                          bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)  # fmt: skip
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_languages_begin_sources_targets_and_written_texts(data: Path, tmp_path: Path) -> None:
    folder = nllb(tmp_path / "nllb")
    words = {"model__path": folder, "data__valid_split": "valid", "task__target_language": "fra_Latn"}
    with pytest.raises(Refused, match=r"task\.source_language: 'german' is no language of the tokenizer"):
        small(tmp_path / "r", data, **words, task__source_language="german")
    with pytest.raises(Refused, match=r"task\.target_language: the tokenizer tells no languages apart"):
        small(tmp_path / "r", data, **{**words, "model__path": "sample:tiny-bart"})
    small(tmp_path / "r", data, **words, task__source_language="deu_Latn", train__batch_size=37,
          train__max_steps=1)  # fmt: skip
    plain_tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="deu_Latn", tgt_lang="fra_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="float64")
    total, tokens = 0.0, 0
    for row in pairs(37):
        inputs = plain_tokenizer(row["source"], text_target=row["target"], return_tensors="pt")
        with torch.no_grad():
            count = inputs["labels"].numel()
            total, tokens = total + float(model(**inputs).loss) * count, tokens + count
    assert losses(tmp_path / "r") == [pytest.approx(total / tokens, rel=1e-5)]
    saved, tokenizer = plain(tmp_path / "r/model")
    french, german = tokenizer.convert_tokens_to_ids(["fra_Latn", "deu_Latn"])
    asked = tokenizer("sun", return_tensors="pt")
    assert asked["input_ids"][0, 0] == german
    assert saved.generate(**asked)[0, :2].tolist() == [2, french]
    assert main(["evaluate", str(tmp_path / "r"), str(data / "valid.jsonl")]) == 0
    kept = json.loads((tmp_path / "r/evaluations/valid.json").read_text())["measures"]
    assert kept == pytest.approx(report(tmp_path / "r")["metrics"]["after"], rel=1e-5)


def test_nothing_is_written_where_that_is_not_wanted(data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, data__valid_split="valid", task__generate_on_eval="false", task__generate_rows=None,
          generate__count=None)  # fmt: skip
    found = report(tmp_path / "r")
    assert list(found["metrics"]["after"]) == ["loss", "perplexity", "token_accuracy"]
    assert "details" not in found
    assert found["metrics"]["baselines"] == {}


def test_an_easy_rule_is_learnt(tmp_path: Path) -> None:
    rows = [{"source": text, "target": text.split()[0]} for text in dict.fromkeys(texts(1500))]
    small(tmp_path / "r", write_rows(tmp_path / "rows.jsonl", rows), train__max_steps=90, train__batch_size=32,
          task__generate_rows=60, train__eval_on_start="false", train__eval_steps=90, train__logging_steps=30,
          train__learning_rate=2e-3, task__generation_max_length=6)  # fmt: skip
    found = report(tmp_path / "r")["metrics"]
    assert found["after"]["exact_match"] >= 0.9
    assert found["after"]["rougeL"] > 2 * found["baselines"]["copied"]["rougeL"]


# --- division, stopping, adapters ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(trained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "r"
    small(folder, data, **division(trained), train__batch_size=12)
    return folder


def division(trained: Path) -> dict[str, Any]:
    return {"data__valid_split": "valid", "model__path": trained / "model", "train__max_steps": 5,
            "train__learning_rate": 1e-3, "train__save_steps": 2, "train__eval_steps": 2}  # fmt: skip


@pytest.mark.parametrize(
    "divided",
    [
        {"train__batch_size": 3, "train__gradient_accumulation": 4},
        {"hardware": "cpu_x2", "train__batch_size": 6},
    ],
)
def test_any_division_of_a_step_learns_and_writes_the_same(
    divided: dict[str, Any], whole: Path, trained: Path, data: Path, tmp_path: Path
) -> None:
    small(tmp_path / "other", data, **{**division(trained), **divided})
    assert losses(tmp_path / "other") == pytest.approx(losses(whole), abs=1e-5)
    # Attention does not change with a bias of its keys, so that theirs are moved by rounding errors alone.
    found, wanted = ({name: each for name, each in weights(folder / "model").items() if "k_proj.bias" not in name}
                     for folder in (whole, tmp_path / "other"))  # fmt: skip
    assert distance(found, wanted) < 1e-4
    other, one = report(tmp_path / "other"), report(whole)
    assert other["metrics"]["after"] == pytest.approx(one["metrics"]["after"], rel=1e-4)
    assert [entry["given"] for entry in other["details"]["worst"]] == [
        entry["given"] for entry in one["details"]["worst"]
    ]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(whole: Path, trained: Path, data: Path, tmp_path: Path) -> None:
    words = {**COMMON, "data__path": data, **division(trained), "train__batch_size": 12}
    run_stopped_at(3, tmp_path / "r", **words)
    run(tmp_path / "r", **words, run__resume="auto")
    assert_same_run(tmp_path / "r", whole)
    assert report(tmp_path / "r")["metrics"]["after"] == report(whole)["metrics"]["after"]


def test_a_stop_while_texts_are_written_repeats_the_evaluation(
    whole: Path, trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {**COMMON, "data__path": data, **division(trained), "train__batch_size": 12}
    seen = 0
    original = seq2seq.write

    def stopping(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 3:  # the first of the evaluation at step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(seq2seq, "write", stopping)
    with pytest.raises(Stopped):
        run(tmp_path / "r", **words)
    assert [event["step"] for event in events(tmp_path / "r", "eval")] == [0]
    monkeypatch.undo()
    run(tmp_path / "r", **words, run__resume="auto")
    assert_same_run(tmp_path / "r", whole)


def test_an_adapter_learns_and_is_used(trained: Path, data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, data__valid_split="valid", model__path=trained / "model", peft="lora",
          train__max_steps=8, train__learning_rate=5e-3, task__source_prefix="say: ")  # fmt: skip
    assert json.loads((tmp_path / "r/model/adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    found = report(tmp_path / "r")["metrics"]
    assert found["before"]["loss"] == pytest.approx(report(trained)["metrics"]["after"]["loss"], rel=1e-5)
    assert losses(tmp_path / "r")[-1] < losses(tmp_path / "r")[0]
    assert main(["evaluate", str(tmp_path / "r"), str(data / "valid.jsonl")]) == 0
    kept = json.loads((tmp_path / "r/evaluations/valid.json").read_text())["measures"]
    assert kept == pytest.approx(found["after"], rel=1e-4)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ({"source": " "}, "rows.jsonl:2.*column 'source' is empty"),
        ({"target": ""}, "rows.jsonl:2.*column 'target' is empty"),
        ({"target": None}, "rows.jsonl:2.*column 'target' holds nothing, no text"),
        ({"target": 7}, "data.columns.target: column 'target' holds a number .7. in row 2, where text is expected"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(spoilt: dict[str, Any], reason: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*pairs(6)]
    rows[1] = {**rows[1], **spoilt}
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(Refused) as refused:
        small(tmp_path / "r", path)
    assert any(_matches(reason, problem) for problem in refused.value.problems), refused.value
    if spoilt == {"source": " "}:
        words = {"data__on_bad_rows": "skip", "data__max_bad_rows": 0.5, "data__valid_fraction": 0.2}
        small(tmp_path / "r", path, **words, train__max_steps=1)
        assert report(tmp_path / "r")["data"]["bad_rows"] == 1


def _matches(reason: str, problem: Any) -> bool:
    return re.search(reason, f"{problem.where} {problem}", re.DOTALL) is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model__path": "sample:tiny-qwen3"}, r"sample:tiny-qwen3 \(qwen3\) is no encoder-decoder model"),
        ({"model__path": "sample:tiny-encoder"}, "is no encoder-decoder model"),
        ({"task__forced_bos_token": "de_DE"}, "task.forced_bos_token: 'de_DE' is no token of the tokenizer"),
        ({"task__max_target_length": 600}, "task.max_target_length: 600 tokens, but the decoder .* 512 positions"),
        ({"task__generation_max_length": 513}, "task.generation_max_length: 513 tokens"),
        ({"data__max_length": 600}, "data.max_length: 600 tokens, but .* 512 positions"),
        ({"task__source_prefix": "so " * 9, "data__max_length": 8}, "task.source_prefix: it has .* is 8"),
        ({"data__columns__target": "[target, source]"}, "data.columns"),
        ({"task__max_target_length": 2, "data__truncation": "error"}, "its target has .* task.max_target_length=2"),
        ({"data__max_length": 2, "data__truncation": "error"}, "rows are longer than 2 tokens"),
        ({"task__generate_on_eval": "false", "train__metric_for_best_model": "chrf", "task__generate_rows": None},
         "train.metric_for_best_model: chrf is not measured"),
        ({"task__generate_on_eval": "false"}, "task.generate_rows: has no effect"),
        ({"train__metric_for_best_model": "generated_length"}, "train.metric_for_best_model"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes: dict[str, Any], reason: str, data: Path, tmp_path: Path) -> None:
    if changes == {"task__generate_on_eval": "false"}:
        changes = {**changes, "task__generate_rows": 5}
    with pytest.raises(Refused, match=reason):
        small(tmp_path / "r", data, data__valid_split="valid", **changes)
    assert not (tmp_path / "r/model").exists()


def test_a_package_that_is_missing_is_named_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aitrain import machine

    find = machine.util.find_spec
    monkeypatch.setattr(machine.util, "find_spec", lambda name: None if name == "sacrebleu" else find(name))
    with pytest.raises(Refused, match=r"needs the package 'sacrebleu'; pip install 'aitrain\[evaluation\]'"):
        small(tmp_path / "r", data, data__valid_split="valid")
    assert not (tmp_path / "r").exists()
    small(tmp_path / "r", data, data__valid_split="valid", task__generate_on_eval="false", task__generate_rows=None,
          generate__count=None, train__max_steps=1)  # fmt: skip


def test_words_that_rouge_does_not_know_cannot_choose_the_best(tmp_path: Path) -> None:
    rows = [{"source": f"雨 {number}", "target": "雨が降る"} for number in range(8)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(Refused, match="rougeL knows the letters a-z"):
        small(tmp_path / "r", path, train__metric_for_best_model="rougeL", data__valid_fraction=0.5)
    small(tmp_path / "chrf", path, train__metric_for_best_model="chrf", data__valid_fraction=0.5)
    assert "rougeL" not in report(tmp_path / "chrf")["metrics"]["after"]
