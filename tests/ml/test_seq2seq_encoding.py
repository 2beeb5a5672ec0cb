"""Pairs of texts to token ids: ends, cuts, prefixes, what is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from predicting import write_rows
from transformers import AutoTokenizer

from aitrain.cli import main
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import TooLong, Unusable
from aitrain.data.samples import sample_tokenizer
from aitrain.data.seq2seq_encoding import Seq2SeqEncoder, cut_middle
from aitrain.data.tokens import EncodedGroup
from aitrain.errors import DataError
from aitrain.tasks.seq2seq import encoder, find_columns

CHOICE = ColumnChoice("text_target", {"text": "s"}, "", ("t",))
ROW = {"s": "ABCDEFGH", "t": "STUVWXYZ"}
"""The tokenizer gives each capital a token."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(sample_tokenizer("tiny-bart"))


def encode(tokenizer: Any, encoder: Seq2SeqEncoder, row: dict[str, Any]) -> Any:
    (found,) = encoder.encode(tokenizer, CHOICE, [row])
    return found


@pytest.fixture
def made(run_of: Callable[..., Any]) -> Callable[..., Seq2SeqEncoder]:
    return lambda *words: encoder(run_of("task=seq2seq", *words))


def read(tokenizer: Any, found: EncodedGroup) -> list[str]:
    return [tokenizer.decode(row.ids) for row in found.rows]


def test_both_sides_end_and_only_the_target_is_trained(tokenizer: Any, made: Callable[..., Any]) -> None:
    found = encode(tokenizer, made(), ROW)
    assert read(tokenizer, found) == ["ABCDEFGH<|im_end|>", "STUVWXYZ<|im_end|>"]
    assert [sum(row.trained) for row in found.rows] == [0, 9]
    assert [json.loads(row.record) for row in found.rows] == ["ABCDEFGH", "STUVWXYZ"]
    assert found.value == (0.0, 0.0)


def test_a_target_ends_where_the_tokenizer_ends_none(made: Callable[..., Any]) -> None:
    chatty = AutoTokenizer.from_pretrained(sample_tokenizer("tiny-llama"))
    assert chatty(text_target="A")["input_ids"][-1] != chatty.eos_token_id
    found = encode(chatty, made("task.max_target_length=4"), ROW)
    assert read(chatty, found) == ["ABCDEFGH", "STU<|im_end|>"]


@pytest.mark.parametrize(
    ("side", "wanted"),
    [("right", ["go: AB<|im_end|>", "ST<|im_end|>"]), ("left", ["go: GH<|im_end|>", "YZ<|im_end|>"])],
)
def test_cutting_leaves_the_prefix_and_the_ends(
    side: str, wanted: list[str], tokenizer: Any, made: Callable[..., Any]
) -> None:
    prefix = len(tokenizer("go: ", add_special_tokens=False)["input_ids"])
    words = [f"data.truncation={side}", "task.source_prefix='go: '", f"data.max_length={prefix + 3}",
             "task.max_target_length=3"]  # fmt: skip
    found = encode(tokenizer, made(*words), ROW)
    assert read(tokenizer, found) == wanted
    assert found.value == (1.0, 1.0)
    assert all(row.truncated for row in found.rows)


def test_a_text_that_is_too_long_may_be_left_out_or_refused(tokenizer: Any, made: Callable[..., Any]) -> None:
    assert encode(tokenizer, made("data.truncation=drop", "data.max_length=8"), ROW) == TooLong(9)
    assert encode(tokenizer, made("data.truncation=drop", "task.max_target_length=8"), ROW) == TooLong(9)
    found = encode(tokenizer, made("data.truncation=error", "task.max_target_length=8"), ROW)
    assert isinstance(found, Unusable)
    assert "9 tokens, more than task.max_target_length=8" in found.reason
    assert isinstance(encode(tokenizer, made("data.truncation=error", "task.max_target_length=9"), ROW), EncodedGroup)


def test_a_cut_keeps_both_ends() -> None:
    assert cut_middle([*range(10)], 2, 1, 6, "right") == [0, 1, 2, 3, 4, 9]
    assert cut_middle([*range(10)], 2, 1, 6, "left") == [0, 1, 6, 7, 8, 9]
    assert cut_middle([*range(10)], 0, 0, 3, "left") == [7, 8, 9]
    assert cut_middle([*range(10)], 2, 1, 3, "left") == [0, 1, 9]


@pytest.mark.parametrize(
    ("names", "source", "target"),
    [
        (["prompt", "completion"], "prompt", "completion"),
        (["id", "article", "highlights"], "article", "highlights"),
        (["mr", "ref"], "mr", "ref"),
        (["dialogue", "Summary", "id"], "dialogue", "Summary"),
        (["english", "translation"], "english", "translation"),
    ],
)
def test_columns_are_found_by_their_names(names: list[str], source: str, target: str) -> None:
    found = find_columns(names, [dict.fromkeys(names, "text")], {})
    assert (found.columns["text"], found.targets) == (source, (target,))


def test_a_target_is_one_text() -> None:
    rows = [{"a": "x", "b": "y", "c": "z"}]
    with pytest.raises(DataError, match=r"data\.columns\.target: names several columns"):
        find_columns(["a", "b", "c"], rows, {"text": "a", "target": ["b", "c"]})


def test_preview_shows_both_sides_and_a_run_counts_what_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"source": "AB", "target": letters} for letters in ("S", "STUV")])
    words = [f"data.path={path}", "task.max_target_length=3", "data.valid_fraction=0", "task=seq2seq"]
    assert main(["preview", *words]) == 0
    shown = capsys.readouterr().out
    assert "rows.jsonl:2, source: 3 tokens, 0 trained" in shown
    assert "rows.jsonl:2, target: 3 tokens, cut, 3 trained" in shown
    assert "[[ST<|im_end|>]]" in shown
    settings = [
        "train.max_steps=1",
        "hardware=cpu",
        "hardware.threads=1",
        "run.progress=plain",
        f"run.dir={tmp_path / 'r'}",
    ]
    assert main([*words, *settings]) == 0
    assert "of 2 rows 1 target is cut to task.max_target_length=3" in (tmp_path / "r/log.txt").read_text()
