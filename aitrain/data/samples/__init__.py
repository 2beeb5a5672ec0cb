"""Samples: data and tiny models that aitrain makes itself, on any machine, with no network.

`data.path=sample:NAME` and `model.path=sample:NAME` name them. Each is made at first use, into the cache, and is the
same for the same Python and the same code of this folder. What needs torch is in `aitrain.ml.sample_models`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from aitrain.data.samples import derived, flats, opinions, passages, pydoc, skills, tokenizer
from aitrain.errors import ConfigError, DataError, Problem, did_you_mean

SCHEME = "sample:"
SKILL_ROWS = 20_000
# Two cores take tiny-llama twice through this in about a minute; 20 skill rows to a question keep the skills learnable.
TUTOR_SKILL_ROWS = 16_000
TUTOR_QUESTIONS = 800
TUTOR_LONGEST = 120
"""Characters of a question and its answer: a long row makes its whole batch long."""


@dataclass(frozen=True)
class SampleData:
    """Rows that can be made anywhere. `rows` makes them anew; `sample_file` keeps them."""

    name: str
    summary: str
    rows: Callable[[], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class SampleModel:
    """A tiny model. `config` is its config.json, so that its memory can be reckoned without torch."""

    name: str
    summary: str
    config: dict[str, Any]
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    """Whether it goes on from texts, reads them whole, or reads one and writes another; each with a tokenizer to
    match."""


def tutor_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """Skills with short questions about Python among them, shuffled once and for all."""
    rows = list(skills.some_skill_rows(TUTOR_SKILL_ROWS, seed))
    questions = [row for row in pydoc.question_rows() if len(row["prompt"] + row["completion"]) <= TUTOR_LONGEST]
    rng = random.Random(seed)
    rows += rng.sample(questions, min(TUTOR_QUESTIONS, len(questions)))
    rng.shuffle(rows)
    yield from rows


def _by_name(*items: Any) -> dict[str, Any]:
    return {item.name: item for item in items}


SAMPLE_DATA: dict[str, SampleData] = _by_name(
    SampleData("tutor", "small skills and questions about Python, mixed", tutor_rows),
    SampleData("skills", "small tasks with one right answer", lambda: skills.some_skill_rows(SKILL_ROWS)),
    SampleData("pydoc", "what a function of the standard library does", pydoc.question_rows),
    SampleData("pydoc-text", "docstrings of the standard library, for pretraining", pydoc.text_rows),
    SampleData("pydoc-classes", "docstrings with the module they belong to as a class", derived.class_rows),
    SampleData("flats", "a table of made-up flats, and whether their rent is cheap, fair or dear", flats.flat_rows),
    SampleData("rents", "the same table with the rent itself", flats.rent_rows),
    SampleData("opinions", "made-up opinions with a label and a score", opinions.opinion_rows),
    SampleData("passages", "made-up passages with questions that they answer", passages.passage_rows),
    SampleData("passages-open", "the same, with questions that they do not answer", passages.open_rows),
    SampleData("pydoc-tokens", "lines of source with the type of each token", derived.token_rows),
    SampleData("pydoc-pairs", "a function's own docstring preferred to another one's", derived.preference_rows),
    SampleData("skill-pairs", "a right answer preferred to a wrong one", derived.skill_pairs),
    SampleData("second-letter", "a small task that the skills are not about", derived.second_letters),
)


def _config(model_type: str, architecture: str, **sizes: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vocab_size": tokenizer.VOCABULARY,
        "max_position_embeddings": tokenizer.CONTEXT,
        "pad_token_id": tokenizer.PAD_ID,
        "bos_token_id": None,
        "eos_token_id": tokenizer.END_ID,
        "tie_word_embeddings": True,
    } | sizes


# Large enough to learn the skills, small enough for two cores and a minute; two layers learnt as well as four, in half
# the time. Weights drawn wider than the usual 0.02 learn several times faster at this width.
LEARNER = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "initializer_range": 0.06,
}
# As small as tests like.
SMALLEST = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}

# Reads both ways and averages over the tokens: from nothing that learns faster than a first token that gathers all.
ENCODER = {
    "model_type": "modernbert",
    "architectures": ["ModernBertModel"],
    "vocab_size": tokenizer.VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": tokenizer.CONTEXT,
    "pad_token_id": tokenizer.PAD_ID,
    "cls_token_id": tokenizer.ENCODER_TOKENS.index(tokenizer.CLS),
    "sep_token_id": tokenizer.ENCODER_TOKENS.index(tokenizer.SEP),
    "bos_token_id": None,
    "eos_token_id": None,
    "classifier_pooling": "mean",
    "initializer_range": 0.06,
    "reference_compile": False,
}

# Positions of its own learn to copy letters in a minute; distances alone, as T5 has them, did not in two.
PAIR = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "is_encoder_decoder": True,
    "vocab_size": tokenizer.VOCABULARY,
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "max_position_embeddings": tokenizer.CONTEXT // 2,
    "dropout": 0.0,
    "init_std": 0.06,
    "pad_token_id": tokenizer.PAD_ID,
    "bos_token_id": None,
    "eos_token_id": tokenizer.END_ID,
    "decoder_start_token_id": tokenizer.PAD_ID,
    "forced_eos_token_id": None,
}

SAMPLE_MODELS: dict[str, SampleModel] = _by_name(
    SampleModel("tiny-llama", "0.7 M weights, untrained", _config("llama", "LlamaForCausalLM", **LEARNER)),
    SampleModel(
        "taught-llama", "tiny-llama that has learnt the skills", _config("llama", "LlamaForCausalLM", **LEARNER)
    ),
    SampleModel("tiny-qwen3", "2 layers, untrained", _config("qwen3", "Qwen3ForCausalLM", **SMALLEST)),
    SampleModel(
        "tiny-mistral",
        "2 layers, untrained, with a sliding window",
        _config("mistral", "MistralForCausalLM", **SMALLEST, sliding_window=32),
    ),
    SampleModel(
        "tiny-gemma2",
        "2 layers, untrained, with soft caps",
        _config("gemma2", "Gemma2ForCausalLM", **SMALLEST, sliding_window=32, query_pre_attn_scalar=16),
    ),
    SampleModel(
        "tiny-lfm2",
        "2 layers, untrained, one of them a convolution",
        _config("lfm2", "Lfm2ForCausalLM", **SMALLEST, layer_types=["conv", "full_attention"], conv_L_cache=3),
    ),
    SampleModel("tiny-encoder", "0.7 M weights, an encoder, untrained", ENCODER, kind="encoder"),
    SampleModel("tiny-bart", "1.1 M weights, an encoder and a decoder, untrained", PAIR, kind="encoder-decoder"),
)


def cache_dir() -> Path:
    """Where aitrain keeps what it can make again: AITRAIN_CACHE, else XDG_CACHE_HOME/aitrain, else ~/.cache/aitrain."""
    if chosen := os.environ.get("AITRAIN_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aitrain"


@cache
def _edition() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{platform.python_version()}-{digest.hexdigest()[:12]}"


def samples_dir() -> Path:
    """The cache's folder for this Python and this code of the samples; another edition makes its own."""
    return cache_dir() / "samples" / _edition()


@contextmanager
def made_aside(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` at the end; the first of several makers at once wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as beside:
        aside = Path(beside, target.name)
        aside.mkdir()
        yield aside
        try:
            os.replace(aside, target)
        except OSError:
            if not target.is_dir():
                raise


@contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Others that would make `target` too wait, so that what takes a minute is not made twice at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, also by a killed process
        yield


def _unknown(key: str, name: str, known: dict[str, Any]) -> Problem:
    advice = did_you_mean(SCHEME + name, [SCHEME + each for each in known])
    return Problem(key, f"there is no '{SCHEME}{name}'", advice)


def sample_file(name: str) -> Path:
    """The sample's rows as a JSONL file, made at first use.

    Raises DataError when there is no such sample, or when this Python lacks the library source that it is made from.
    """
    if name not in SAMPLE_DATA:
        raise DataError(_unknown("data.path", name, SAMPLE_DATA))
    path = samples_dir() / f"{name}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as beside:
            aside = Path(beside, path.name)
            with aside.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in SAMPLE_DATA[name].rows())
            os.replace(aside, path)
    return path


def known_model(name: str) -> SampleModel:
    """The sample model of that name. Raises ConfigError when there is none."""
    if name not in SAMPLE_MODELS:
        raise ConfigError(_unknown("model.path", name, SAMPLE_MODELS))
    return SAMPLE_MODELS[name]


def sample_tokenizer(name: str) -> Path:
    """A folder with the tokenizer of the sample model `name`, which `AutoTokenizer.from_pretrained` reads."""
    folder_name, write = {
        "decoder": ("tokenizer", tokenizer.write_tokenizer),
        "encoder": ("encoder-tokenizer", tokenizer.write_encoder_tokenizer),
        "encoder-decoder": ("pair-tokenizer", tokenizer.write_pair_tokenizer),
    }[known_model(name).kind]
    folder = samples_dir() / folder_name
    if not folder.exists():
        with made_aside(folder) as aside:
            write(aside, _tokenizer_texts())
    return folder


def _tokenizer_texts() -> Iterator[str]:
    with sample_file("tutor").open(encoding="utf-8") as lines:
        for line in islice(lines, 4000):
            row = json.loads(line)
            yield f"user\n{row['prompt']}"
            yield f"assistant\n{row['completion']}"
    with sample_file("pydoc-text").open(encoding="utf-8") as lines:
        yield from (json.loads(line)["text"] for line in lines)
