"""Prompts to token ids: every form of a prompt, where it ends, and the columns that go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aitrain.data.columns import find_columns
from aitrain.data.encoding import TooLong, Unusable, load_tokenizer
from aitrain.data.prompt_encoding import PromptEncoder, continuation
from aitrain.data.rendering import ChatTemplate, RenderingError
from aitrain.data.tokens import Encoded, Prompts, write_table
from aitrain.ml.loading import model_location


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(model_location("sample:tiny-llama"), None, trust_remote_code=False, allow_downloads=False)


def encode(tokenizer: Any, run_of: Any, rows: list[dict[str, Any]], *words: str) -> list[Any]:
    encoder = PromptEncoder(run_of("trainer=ppo", *words))
    choice = find_columns(list(rows[0]), rows, {}, ("prompts", "messages"))
    return list(encoder.encode(tokenizer, choice, rows))


QUESTION = {"role": "user", "content": "What is 2 plus 2?"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is 2 plus 2?", "answer": "4"},
        {"question": "What is 2 plus 2?", "answer": "4"},
        {"prompt": [QUESTION], "answer": "4"},
        {"messages": [QUESTION], "answer": "4"},
        {"messages": [QUESTION, {"role": "assistant", "content": "4"}], "answer": "4"},
        {"conversations": [{"from": "human", "value": "What is 2 plus 2?"}], "answer": "4"},
    ],
    ids=lambda row: "-".join(row),
)
def test_every_form_becomes_the_same_prompt(tokenizer: Any, run_of: Any, row: dict[str, Any], tmp_path: Path) -> None:
    (found,) = encode(tokenizer, run_of, [row])
    wanted = tokenizer.apply_chat_template([QUESTION], add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(found.ids) == wanted
    assert not any(found.trained)
    prompts = Prompts(write_table(tmp_path / "t", [found, found], {}))
    assert len(prompts) == 2
    assert prompts[1].ids.tolist() == found.ids
    assert prompts[1].record["prompt"] == [QUESTION]
    assert prompts[1].record["answer"] == "4"


def test_raw_prompts_are_texts(tokenizer: Any, run_of: Any, tmp_path: Path) -> None:
    (found,) = encode(tokenizer, run_of, [{"prompt": "Once upon", "n": 3}], "data.chat_format=raw")
    assert tokenizer.decode(found.ids) == "Once upon"
    record = Prompts(write_table(tmp_path / "t", [found], {}))[0].record
    assert record == {"prompt": "Once upon", "n": 3}
    rows = [{"prompt": [QUESTION, {"role": "assistant", "content": "4"}, QUESTION]}]
    (refused,) = encode(tokenizer, run_of, rows, "data.chat_format=raw")
    assert isinstance(refused, Unusable)


def test_long_prompts_are_refused_dropped_or_lose_their_beginning(tokenizer: Any, run_of: Any) -> None:
    row = {"prompt": "What is 2 plus 2? " * 9}
    (whole,) = encode(tokenizer, run_of, [row])
    for truncation in ("error", "drop"):
        words = ("data.max_prompt_length=20", f"data.truncation={truncation}")
        assert encode(tokenizer, run_of, [row], *words) == [TooLong(len(whole.ids))]
    (cut,) = encode(tokenizer, run_of, [row], "data.max_prompt_length=20", "data.truncation=left")
    assert isinstance(cut, Encoded)
    assert cut.truncated
    assert cut.ids == whole.ids[-20:]


def test_an_empty_prompt_is_a_fault_without_a_tokenizer_too(tokenizer: Any, run_of: Any) -> None:
    rows = [{"prompt": "x", "answer": "1"}, {"prompt": " ", "answer": "1"}]
    _, empty = encode(tokenizer, run_of, rows)
    assert isinstance(empty, Unusable)
    choice = find_columns(["prompt", "answer"], rows, {}, ("prompts", "messages"))
    encoder = PromptEncoder(run_of("trainer=ppo"))
    assert encoder.fault(choice, rows[0]) == ""
    assert encoder.fault(choice, rows[1]) == empty.reason


def test_what_stands_between_two_answers(tokenizer: Any) -> None:
    turns = [QUESTION, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Try again."}]
    template = ChatTemplate(tokenizer)
    before, after = template.prompt(turns[:1]), template.prompt(turns)
    assert f"{before}5{continuation(template, turns)}" == after
    with pytest.raises(RenderingError):
        continuation(ChatTemplate(tokenizer, "{% for m in messages %}{{ m['role'] }}{% endfor %}"), turns)
