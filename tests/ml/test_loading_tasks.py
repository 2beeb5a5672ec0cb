"""Models of tasks that predict: what is drawn at random, what rows are padded with, and weights that diverge."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting import small, weather, write_rows
from runs import report, weights
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from aitrain.adapters.lora import _whole
from aitrain.cli import main
from aitrain.data.targets import Classes
from aitrain.errors import ConfigError, TrainingFailed
from aitrain.ml.loading import load_classifier, new_modules
from aitrain.ml.sample_models import sample_model
from aitrain.ml.seq2seq_models import load_seq2seq
from aitrain.ml.text_classification import TextClassifierFit

OFFLINE: dict[str, Any] = {"revision": None, "dtype": "float32", "trust_remote_code": False, "allow_downloads": False}
SIZES: dict[str, Any] = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                         "intermediate_size": 64, "initializer_range": 0.3}  # fmt: skip


def saved(model: PreTrainedModel, folder: Path, sample: str = "tiny-encoder") -> Path:
    """The model with a sample's tokenizer beside it."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(sample_model(sample)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "valid.jsonl", weather(23, seed=1))
    write_rows(folder / "train.jsonl", weather(37))
    return folder


SPLITS = {"data__train_split": "train", "data__valid_split": "valid"}


# --- what was drawn at random --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model, which has no pooler."""
    torch.manual_seed(0)
    return saved(BertForMaskedLM(BertConfig(**SIZES, pad_token_id=0)), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def adapter(bert: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained an adapter and all that the model had not."""
    folder = tmp_path_factory.mktemp("adapter") / "r"
    small(folder, data, model__path=bert, peft="lora", train__learning_rate=1e-2, **SPLITS)
    return folder


def test_an_adapter_brings_all_that_was_drawn_at_random(adapter: Path, data: Path) -> None:
    names = {name for name in weights(adapter / "model") if "lora" not in name}
    parts = ("bert.pooler.dense", "classifier")
    assert names == {f"base_model.model.{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert not any("pooler" in name and "lora" in name for name in weights(adapter / "model"))
    after = {name: value for name, value in report(adapter)["metrics"]["after"].items() if name != "loss"}
    for seed in (1, 2):
        torch.manual_seed(seed)
        assert main(["evaluate", str(adapter), str(data / "valid.jsonl")]) == 0
        kept = json.loads((adapter / "evaluations/valid.json").read_text())["measures"]
        assert kept == pytest.approx(after, abs=1e-9)


def test_an_adapter_without_what_was_drawn_at_random_is_refused(
    adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(adapter, tmp_path / "r") / "model"
    tensors = {name: tensor for name, tensor in weights(folder).items() if "pooler" not in name}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    assert main(["predict", str(tmp_path / "r"), str(data / "valid.jsonl"), f"output={tmp_path / 'out.jsonl'}"]) != 0
    assert "lacks 2 tensors that were drawn at random" in " ".join(capsys.readouterr().err.split())


def test_parts_of_what_is_saved_anyway_are_not_saved_twice(bert: Path) -> None:
    classes = Classes(names=("a", "b"), counts=(1, 1), multi_label=False, rows=2)
    model = load_classifier(str(bert), classes=classes, **OFFLINE)
    assert new_modules(model) == ["bert.pooler.dense", "classifier"]
    assert _whole(model, []) == ["bert.pooler.dense"]
    assert _whole(model, ["pooler"]) == []


# --- padding -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose config does not say what short rows are filled with; its tokenizer does."""
    config, model = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[request.param]
    torch.manual_seed(0)
    made = model(config(**SIZES, num_key_value_heads=2, head_dim=16, pad_token_id=None, eos_token_id=1))
    folder = saved(made, tmp_path_factory.mktemp(request.param), "tiny-qwen3")
    assert json.loads((folder / "config.json").read_text()).get("pad_token_id") is None
    return folder


def test_a_row_is_scored_alike_alone_and_beside_longer_ones(decoder: Path, data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, model__path=decoder, peft="lora", train__max_steps=1, **SPLITS)
    found = {}
    for size in (1, 23):
        out = tmp_path / f"{size}.jsonl"
        words = [f"output={out}", f"train.eval_batch_size={size}"]
        assert main(["predict", str(tmp_path / "r"), str(data / "valid.jsonl"), *words]) == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        found[size] = np.array([list(row["probabilities"].values()) for row in rows])
    assert np.ptp(found[1], axis=0).max() > 0.01
    np.testing.assert_allclose(found[23], found[1], rtol=0, atol=1e-5)


def test_an_evaluation_before_training_reads_rows_alike_too(
    decoder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    original = TextClassifierFit.train

    def train(self: TextClassifierFit, *args: Any, **kwargs: Any) -> Any:
        found.append(self.predict_rows(self.valid)[0])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TextClassifierFit, "train", train)
    for size in (1, 23):
        words: dict[str, Any] = {
            "model__path": decoder,
            "peft": "lora",
            "train__max_steps": 1,
            "train__eval_batch_size": size,
        }
        small(tmp_path / str(size), data, **words, **SPLITS)
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)


# --- encoder-decoder models ----------------------------------------------------------------------------------------


def t5(**changes: Any) -> T5Config:
    return T5Config(**{"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2,
                       "decoder_start_token_id": 0, **changes})  # fmt: skip


def test_an_encoder_alone_writes_no_texts(tmp_path: Path) -> None:
    T5EncoderModel(t5()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks \d+ of the model's tensors, such as decoder"):
        load_seq2seq(str(tmp_path), **OFFLINE)


def test_an_output_layer_may_be_drawn_anew(tmp_path: Path) -> None:
    config = BartConfig(vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
                        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
                        tie_word_embeddings=False)  # fmt: skip
    model = BartForConditionalGeneration(config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("lm_head")}
    model.save_pretrained(tmp_path, state_dict=tensors)
    found = load_seq2seq(str(tmp_path), **OFFLINE)
    assert new_modules(found) == ["lm_head"]
    assert _whole(found, []) == ["lm_head"]


# --- weights that diverge ------------------------------------------------------------------------------------------


TASKS: dict[str, dict[str, Any]] = {
    "text_classification": {"model__path": "sample:tiny-encoder"},
    "text_regression": {"model__path": "sample:tiny-encoder", "data__columns__target": "words"},
    "seq2seq": {"model__path": "sample:tiny-bart", "data__columns__text": "text", "data__columns__target": "label",
                "generate__count": 0},
    "token_classification": {"model__path": "sample:tiny-encoder"},
    "extractive_qa": {"model__path": "sample:tiny-encoder"},
}  # fmt: skip


def rows_of(task: str) -> list[dict[str, Any]]:
    rows = weather(30)
    if task == "token_classification":
        sentences = [row["text"].split() for row in rows]
        return [{"tokens": words, "tags": [f"B-{word[0]}" for word in words]} for words in sentences]
    if task == "extractive_qa":
        return [{"question": "which?", "context": row["text"], "answers": {"text": [row["text"].split()[0]],
                 "answer_start": [0]}} for row in rows]  # fmt: skip
    return rows


@pytest.mark.parametrize("task", TASKS)
def test_diverged_weights_end_a_run_with_words(task: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of(task))
    begin = partial(small, tmp_path / "r", data, task, train__max_steps=1, train__warmup_ratio=0)
    with pytest.raises(TrainingFailed, match="the validation loss is nan at step 1"):
        begin(train__learning_rate=1e30, **TASKS[task])
