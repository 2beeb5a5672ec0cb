"""`generate.prompts` begin as training rows do: the same template, the same first token, and no end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import run, words
from test_rendering import a_tokenizer
from tokenizers import processors

from aitrain.compose import Request
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import BlockEncoder, ConversationEncoder, Encoded, Encoder, prompt_ids
from aitrain.data.formats import use_format
from aitrain.data.tokens import Blocks, Rows, TokenRow
from aitrain.ml.causal import CausalTrainer
from aitrain.ml.generating import end_ids, prompts_of_rows
from aitrain.start import check, prepare_rows

PAIRS = ColumnChoice("prompt_completion", {"prompt": "prompt", "completion": "completion"}, "")
TEXT = ColumnChoice("text", {"text": "text"}, "")


def bos_and_eos_added() -> Any:
    """A tokenizer without a template that puts a token before and one after each text."""
    tokenizer = a_tokenizer()
    tokenizer.chat_template = None
    begin, end = "<|im_start|>", tokenizer.eos_token
    tokenizer.bos_token = begin
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=ids
    )
    return tokenizer


def encoders() -> tuple[ConversationEncoder, BlockEncoder]:
    made = check(Request(tuple(words(None)))).run
    everything = replace(made, data=made.data.model_copy(update={"train_on": "all"}))
    return ConversationEncoder(everything), BlockEncoder(made)


@pytest.mark.parametrize("template", [True, False])
@pytest.mark.parametrize("choice", [PAIRS, TEXT])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_prompt_is_the_beginning_of_a_row(template: bool, choice: ColumnChoice, blocks: bool) -> None:
    if blocks and choice is PAIRS:
        pytest.skip("blocks are of plain text")
    tokenizer = a_tokenizer() if template else use_format(bos_and_eos_added(), "plain")
    encoder: Encoder = encoders()[1 if blocks else 0]
    row = {"prompt": "Say seven", "completion": "7", "text": "Say seven"}
    (outcome,) = encoder.encode(tokenizer, choice, [row])
    assert isinstance(outcome, Encoded)
    (ids,) = prompt_ids(tokenizer, ["Say seven"], encoder, choice.shape)
    assert outcome.ids[: len(ids)] == ids
    assert len(ids) < len(outcome.ids)
    assert ids[-1] != tokenizer.eos_token_id
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert "Say seven" in text
    assert text.endswith("Say seven") == (choice is TEXT)
    if not template:
        assert (ids[0] == tokenizer.bos_token_id) == (not blocks)


@pytest.mark.parametrize(("changes", "chat"), [({}, True), ({"trainer": "pretrain", "data__block_size": 32}, False)])
def test_prompts_of_a_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], chat: bool) -> None:
    seen: list[list[int]] = []
    original = CausalTrainer.train

    def train(self: CausalTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.extend(prompt.ids for prompt in self.prompts)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CausalTrainer, "train", train)
    if not chat:
        data = tmp_path / "texts.jsonl"
        data.write_text("".join(f'{{"text": "Line {n} of a text"}}\n' for n in range(40)))
        changes = {**changes, "data__path": data}
    run(tmp_path / "r", train__max_steps=1, generate__count=None, generate__prompts="[Say seven]",
        generate__max_new_tokens=2, **{"generate.count": None}, **changes)  # fmt: skip
    tokenizer = a_tokenizer()
    wanted = tokenizer("Say seven", add_special_tokens=False)["input_ids"]
    if chat:
        asked = [{"role": "user", "content": "Say seven"}]
        wanted = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert seen == [wanted]


@pytest.mark.parametrize(("strategy", "same"), [("first", True), ("even", True), ("random", False)])
def test_the_seed_is_part_of_the_caches_key_only_where_rows_are_drawn(strategy: str, same: bool) -> None:
    chosen = [f"data.max_samples_strategy={strategy}", "data.max_samples=7"]
    folders = [
        prepare_rows(check(Request((*words(None, **{"data.max_samples": None}), *chosen, f"run.seed={seed}")))).tokens
        for seed in (1, 2)
    ]
    assert (folders[0]["train"] == folders[1]["train"]) == same


def test_answers_end_with_the_end_of_a_text_or_of_a_turn() -> None:
    tokenizer = a_tokenizer()
    end, start = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|im_start|>"))
    assert end_ids(tokenizer) == [end]
    tokenizer.eos_token = "<|im_start|>"  # as in Llama 3, where another token ends a turn
    assert end_ids(tokenizer) == [start, end]
    tokenizer.chat_template = None
    assert end_ids(tokenizer) == [start]


def test_a_prompt_of_a_block_begins_with_a_row_or_else_with_a_word() -> None:
    tokenizer = a_tokenizer()
    _, encoder = encoders()
    texts = [f"Chapter {number} tells of unforgettable adventures in faraway countries." for number in range(40)]
    outcomes = [o for o in encoder.encode(tokenizer, TEXT, [{"text": text} for text in texts])]
    sizes = [len(outcome.ids) for outcome in outcomes]

    def prompts(size: int) -> list[str]:
        rows = Rows(ListOfRows(outcomes))  # type: ignore[arg-type]
        blocks = Blocks(rows, size)
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        for index in range(len(blocks)):
            begin = int(blocks.bounds[index])
            assert blocks.beginnings(index) == [
                s - begin for s in starts if begin <= s < begin + len(blocks[index].ids)
            ]
        return [prompt.text for prompt in prompts_of_rows(blocks, tokenizer, 8)]

    assert all(text.startswith("Chapter ") for text in prompts(3 * max(sizes)))
    words = {word for text in texts for word in text.split()}
    assert all(text.split()[0] in words for text in prompts(max(16, min(sizes) // 2)))


class ListOfRows:
    """A table of encoded rows in memory."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TokenRow:
        row = self.rows[index]
        return TokenRow(np.array(row.ids, np.int32), np.array(row.trained, np.uint8))

    def lengths(self) -> Any:
        return np.array([len(row.ids) for row in self.rows])
