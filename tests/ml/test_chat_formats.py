"""Chat formats through a tokenizer: templates against the renderers, end tokens, masks and weights."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import run, words
from test_rendering import TOOLS, WITH_TOOLS, a_tokenizer, conversation, without_marks
from tokenizers import AddedToken, processors
from transformers import AutoTokenizer

from aitrain.commands.preview import preview
from aitrain.compose import Request
from aitrain.config.data import TokenWeights
from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import ConversationEncoder, Encoded, Outcome, Unusable, prompt_ids, template_notes
from aitrain.data.formats import use_format
from aitrain.data.rendering import ChatTemplate, RenderingError
from aitrain.data.tokens import TokenTable
from aitrain.errors import ConfigError, DataError
from aitrain.plan import plan
from aitrain.rendering import (
    Conversation,
    Message,
    RenderConfig,
    build_generation_prompt,
    build_supervised_example,
    create_chat_template,
    detect_chat_format,
    get_renderer,
    stop_strings,
)
from aitrain.start import check, opening, prepare_rows

NAMES = ("chatml", "llama", "zephyr", "mistral", "vicuna", "alpaca", "plain")
MESSAGES = ColumnChoice("messages", {"messages": "messages"}, "")
PAIRS = ColumnChoice("prompt_completion", {"prompt": "prompt", "completion": "completion"}, "")
ASKED = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


@pytest.fixture(scope="module")
def a_run() -> Run:
    return check(Request(tuple(words(None)))).run


def encode(made: Run, row: dict[str, Any], choice: ColumnChoice, tokenizer: Any, **data: Any) -> Outcome:
    if "token_weights" in data:
        weights = dict.fromkeys(TokenWeights.model_fields) | data["token_weights"]
        data["token_weights"] = TokenWeights.model_validate(weights)
    encoder = ConversationEncoder(replace(made, data=made.data.model_copy(update=data)))
    (outcome,) = encoder.encode(tokenizer, choice, [row])
    return outcome


def encoded(made: Run, messages: Any, tokenizer: Any, **data: Any) -> Encoded:
    outcome = encode(made, {"messages": messages}, MESSAGES, tokenizer, **data)
    assert isinstance(outcome, Encoded), outcome
    return outcome


def reason(made: Run, messages: Any, tokenizer: Any, **data: Any) -> str:
    outcome = encode(made, {"messages": messages}, MESSAGES, tokenizer, **data)
    assert isinstance(outcome, Unusable), outcome
    return outcome.reason


def pieces(tokenizer: Any, row: Encoded) -> list[tuple[str, float]]:
    """A row's text, cut where the weight changes."""
    weights = row.weights or [float(kept) for kept in row.trained]
    assert len(weights) == len(row.ids) == len(row.trained)
    assert [int(weight > 0) for weight in weights] == row.trained
    found: list[tuple[list[int], float]] = []
    for token, weight in zip(row.ids, weights, strict=True):
        if not found or found[-1][1] != weight:
            found.append(([], weight))
        found[-1][0].append(token)
    return [(tokenizer.decode(ids), weight) for ids, weight in found]


# --- tokenizers ----------------------------------------------------------------------------------------------------


def pad_is_eos() -> Any:
    tokenizer = a_tokenizer(None)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def llama_like() -> Any:
    """BOS before every text, `</s>` at the end, and no token for the marks of any format."""
    tokenizer = a_tokenizer(None)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def knows_marks() -> Any:
    """Llama 3's kind: the end of a turn is a special token, and another one than the end of a text."""
    tokenizer = llama_like()
    tokenizer.add_tokens([AddedToken("<|eot_id|>", special=True), AddedToken("<|im_end|>", special=True)])
    return tokenizer


TOKENIZERS = {each.__name__: each for each in (a_tokenizer, pad_is_eos, llama_like, knows_marks)}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


# --- templates against the renderers -------------------------------------------------------------------------------


def conversations(name: str) -> list[Conversation]:
    """Many: with a system message or none, of several lengths, with odd texts, and tools where the format has them."""
    drawn = random.Random(7)
    texts = [
        "Hi",
        "a\nb",
        " led by a blank",
        "ended by one ",
        "[INST] {{ x }} <|user|>",
        "ß 漢字 🙂",
        "'quoted' \"twice\"",
    ]
    found = []
    for turns in (1,) if name == "alpaca" else (1, 2, 3, 5):
        for system in (None, "Be brief.", "line\n\nline"):
            for is_asked in (True, False):
                said = [("user", "assistant")[place % 2] for place in range(2 * turns - is_asked)]
                messages = [Message(role, drawn.choice(texts)) for role in said]
                found.append(Conversation((*([Message("system", system)] if system else []), *messages)))
    if name == "alpaca":
        found.append(Conversation((Message("user", "Add.", input="1 and 2"), Message("assistant", "3"))))
    if name == "chatml":
        call = {"type": "function", "function": {"name": "add", "arguments": {"a": "é", "b": [1, None]}}}
        calls = Message("assistant", None, tool_calls=[call, {"name": "add", "arguments": '{"a": 1}'}])
        results = (Message("tool", "2"), Message("tool", "<3>"))
        first = (Message("user", "1?"), calls, *results, Message("assistant", "Both."))
        found += [
            Conversation(first, TOOLS),
            Conversation((Message("system", "S"), *first), TOOLS),
            Conversation(first),
        ]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_template_writes_what_its_renderer_writes(name: str, tokenizer: Any) -> None:
    renderer, template = get_renderer(name, tokenizer), create_chat_template(name, tokenizer)
    assert renderer.template() == template
    tokenizer.chat_template = template
    for talk in conversations(name):
        tools, turns = list(talk.tools or ()) or None, talk.turns()
        is_asked = turns[-1]["role"] == "user"
        text = tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=is_asked)
        assert text == (renderer.generation_prompt(talk) if is_asked else renderer.render(talk).text)
        if not is_asked:
            assert ChatTemplate(tokenizer).render(turns, tools) == renderer.render(talk)
    assert detect_chat_format(tokenizer) == name
    assert set(stop_strings("auto", tokenizer)) <= set(renderer.stop_strings)


@pytest.mark.parametrize("name", NAMES)
def test_a_published_template_without_a_tokenizer_is_the_published_text(name: str) -> None:
    tokenizer = llama_like()
    tokenizer.chat_template = create_chat_template(name)
    renderer = get_renderer(name)
    for talk in conversations(name):
        if talk.messages[-1].role == "assistant":
            text = tokenizer.apply_chat_template(talk.turns(), tools=list(talk.tools or ()) or None, tokenize=False)
            bos = "<|begin_of_text|>" if name == "llama" else ""
            assert text.removeprefix("<s>") == renderer.render(talk).text.removeprefix("<s>").removeprefix(bos)


@pytest.mark.parametrize("name", NAMES)
def test_refusals_of_a_template_name_the_message(name: str) -> None:
    tokenizer = use_format(a_tokenizer(), name)
    two_questions = [*ASKED, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}, ASKED[1]]
    for messages, tools in ((ASKED, TOOLS), (two_questions, None)):
        talk = Conversation.from_dict({"messages": messages, "tools": tools})
        try:
            expected = ""
            get_renderer(name, tokenizer).render(talk)
        except RenderingError as error:
            expected = str(error)
        if expected:
            with pytest.raises(RenderingError) as refused:
                ChatTemplate(tokenizer).render(messages, tools)
            assert str(refused.value) == f"the chat template refuses the conversation: {expected}"
        else:
            ChatTemplate(tokenizer).render(messages, tools)


# --- ends, beginnings, masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_ends_with_a_trained_token_that_stops_and_one_bos_begins(
    a_run: Run, name: str, tokenizer: Any
) -> None:
    use_format(tokenizer, name)
    turns = 1 if name == "alpaca" else 3
    row = encoded(a_run, conversation(turns, name != "vicuna"), tokenizer, chat_format=name)
    assert len(row.trained) == len(row.ids)
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [n for n, kept in enumerate(row.trained) if kept and (n + 1 == len(row.ids) or not row.trained[n + 1])]
    assert len(ends) == turns
    assert {row.ids[end] for end in ends} <= special
    if f"{tokenizer.eos_token}" == "</s>" and name in ("zephyr", "mistral", "vicuna", "alpaca", "plain"):
        assert {row.ids[end] for end in ends} == {tokenizer.eos_token_id}
    text = "".join(piece for piece, weight in pieces(tokenizer, row) if weight)
    assert all(f"{n}, of course.\nSo it is" in text for n in range(1, turns + 1))
    assert "What comes" not in text
    begins = tokenizer.bos_token_id is not None
    assert [n for n, token in enumerate(row.ids) if token == tokenizer.bos_token_id] == ([0] if begins else [])


def test_the_end_token_follows_a_mark_that_the_tokenizer_does_not_know() -> None:
    talk = Conversation.from_dict(ASKED)
    for name, mark in (("chatml", "<|im_end|>"), ("llama", "<|eot_id|>")):
        rendered = get_renderer(name, knows_marks()).render(talk)
        assert rendered.text[slice(*rendered.answers[0])] == f"So.{mark}"
    strange = get_renderer("llama", llama_like()).render(talk)
    assert strange.text[slice(*strange.answers[0])] == "So.<|eot_id|></s>"
    nothing = a_tokenizer(None)
    nothing.eos_token = None
    with pytest.raises(ConfigError, match=r"data\.chat_format: the tokenizer has no end-of-sequence token"):
        use_format(nothing, "zephyr")


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_those_that_transformers_reads_off_the_marks(a_run: Run, name: str, tokenizer: Any) -> None:
    use_format(tokenizer, name)
    for turns in (1,) if name == "alpaca" else (1, 2, 4):
        messages = conversation(turns, True)
        wanted = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        row = encoded(a_run, messages, tokenizer, chat_format=name)
        assert (row.ids, row.trained) == (wanted["input_ids"], wanted["assistant_masks"])
        tokenizer.chat_template = without_generation(tokenizer.chat_template)
        assert encoded(a_run, messages, tokenizer, chat_format=name) == row
        use_format(tokenizer, name)


def test_a_token_that_begins_with_the_blank_before_an_answer_is_trained(a_run: Run) -> None:
    """As transformers has it: else the first word of every answer would never be learnt."""
    tokenizer = a_tokenizer(
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content + eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    messages = conversation(3, True)
    wanted = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    for weights in ({}, {"token_weights": {"assistant": 1.0}}):
        row = encoded(a_run, messages, tokenizer, **weights)
        assert (row.ids, row.trained) == (wanted["input_ids"], wanted["assistant_masks"])
    text = "an answer begins so"
    row = encoded(a_run, [ASKED[0], {"role": "assistant", "content": text}], tokenizer)
    assert pieces(tokenizer, row)[1] == (f" {text}<|im_end|>", 1)


def without_generation(template: str) -> str:
    found = template.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    assert found != template
    return found


def test_a_template_without_end_tokens_gets_one_at_the_last_answer(a_run: Run) -> None:
    tokenizer = a_tokenizer(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = encoded(a_run, ASKED, tokenizer)
    assert pieces(tokenizer, row) == [("user: Why?\nassistant:", 0), (" So.\n<|im_end|>", 1)]
    assert "no end token after the answer in message 2" in reason(a_run, conversation(2, False), tokenizer)
    last = encoded(a_run, conversation(2, False), tokenizer, train_on="last")
    assert pieces(tokenizer, last)[-1] == ("2, of course.\nSo it is\n<|im_end|>", 1)
    tokenizer.eos_token = None
    assert "no end-of-sequence token" in reason(a_run, ASKED, tokenizer)


def test_layouts_give_what_prefixes_give() -> None:
    """The remembered layout is a shortcut: with it switched off the answers are the same."""
    tokenizer = a_tokenizer()
    odd = ["Hi", " a ", "<|im_end|>\n<|im_start|>assistant\nHi", "assistant", "\ue0a71\ue0a8", "x\n", "\n"]
    plain = create_chat_template("plain", tokenizer)
    looks_at_texts = plain + "{% if messages[3] and 'H' in messages[3]['content'] %}!{% endif %}"
    for template in (
        tokenizer.chat_template,
        without_marks(WITH_TOOLS),
        looks_at_texts,
        create_chat_template("llama", tokenizer),
    ):
        for first in odd:
            for second in odd:
                messages = [
                    {"role": "user", "content": first},
                    {"role": "assistant", "content": second},
                    {"role": "user", "content": second},
                    {"role": "assistant", "content": first},
                ]
                chat = ChatTemplate(tokenizer, template)
                text = chat._text(messages, None)
                wanted = chat._answers_by_prefixes(messages, None, text, False)
                assert chat._answers_by_layout(messages, None, text, False) in (None, wanted)
                assert chat.render(messages).answers[0] == wanted[0]
    assert chat._answers_by_layout(ASKED, None, chat._text(ASKED, None), False) is not None


# --- train_on and weights ------------------------------------------------------------------------------------------

THREE = [
    {"role": "system", "content": "Be."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Done."},
]


def heads(*weights: float) -> list[tuple[str, float]]:
    """What THREE is in the sample's format when the five messages weigh so much and the rest nothing."""
    found: list[tuple[str, float]] = []
    for message, weight in zip(THREE, weights, strict=True):
        for text, own in (
            (f"<|im_start|>{message['role']}\n", 0.0), (f"{message['content']}<|im_end|>", weight), ("\n", 0.0),
        ):  # fmt: skip
            if found and found[-1][1] == own:
                found[-1] = (found[-1][0] + text, own)
            else:
                found.append((text, own))
    return found


@pytest.mark.parametrize(
    ("token_weights", "train_on", "weights"),
    [
        ({"assistant": 0.5}, "assistant", (0, 0, 0.5, 0, 0.5)),
        ({"user": 0.25}, "assistant", (0, 0.25, 1, 0.25, 1)),
        ({"system": 2.0, "user": 0.0, "assistant": 1.0}, "assistant", (2, 0, 1, 0, 1)),
        ({"assistant": 0.5, "user": 0.25}, "last", (0, 0.25, 0, 0.25, 0.5)),
        ({"assistant": 0.0, "user": 1.0}, "assistant", (0, 1, 0, 1, 0)),
    ],
)
def test_weights_by_role(a_run: Run, token_weights: Any, train_on: str, weights: Any) -> None:
    tokenizer = a_tokenizer()
    row = encoded(a_run, THREE, tokenizer, token_weights=token_weights, train_on=train_on)
    assert row.weights is not None
    assert pieces(tokenizer, row) == heads(*weights)


def test_weights_with_everything_trained(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    row = encoded(a_run, THREE, tokenizer, token_weights={"user": 0.5, "assistant": 2.0}, train_on="all")
    assert pieces(tokenizer, row) == [(text, {0: 1.0}.get(w, w)) for text, w in heads(0, 0.5, 2, 0.5, 2)]


def test_weights_of_messages_multiply(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    weighed = [{**message, "weight": weight} for message, weight in zip(THREE, (1, 4, 0, 1, 3), strict=True)]
    row = encoded(a_run, weighed, tokenizer, token_weights={"user": 0.25, "assistant": 0.5})
    assert pieces(tokenizer, row) == heads(0, 1, 0, 0.25, 1.5)


def test_weights_of_0_and_1_in_the_data_need_no_setting(a_run: Run) -> None:
    """OpenAI's fine-tuning format: 0 leaves an answer untrained."""
    tokenizer = a_tokenizer()
    messages = [*THREE[:2], {**THREE[2], "weight": 0}, THREE[3], {**THREE[4], "weight": 1}]
    row = encoded(a_run, messages, tokenizer)
    assert row.weights is None
    assert pieces(tokenizer, row) == heads(0, 0, 0, 0, 1)
    assert row.ids == encoded(a_run, THREE, tokenizer).ids
    whole = encoded(a_run, messages, tokenizer, train_on="all")
    assert [text for text, weight in pieces(tokenizer, whole) if not weight] == ["So.<|im_end|>"]
    messages[4]["weight"] = 0
    assert reason(a_run, messages, tokenizer) == "every token of it has the weight 0"
    messages[4]["weight"] = 0.5
    assert "message 5 has the weight 0.5; weights other than 0 and 1 count when data.token_weights is set" in reason(
        a_run, messages, tokenizer
    )


@pytest.mark.parametrize("weight", ["1", True, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(a_run: Run, weight: Any) -> None:
    messages = [ASKED[0], {**ASKED[1], "weight": weight}]
    assert "message 2 has the weight" in reason(a_run, messages, a_tokenizer(), token_weights={"assistant": 1.0})


def test_weights_of_parts(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    parts = [
        {"type": "text", "text": "One.", "weight": 0},
        {"type": "text", "text": " Two.", "weight": 2},
        {"type": "text", "text": " Three."},
    ]
    said = json.dumps([ASKED[0], {"from": "gpt", "value": parts}])
    for messages in ([ASKED[0], {"role": "assistant", "content": parts}], said):
        row = encoded(a_run, messages, tokenizer, token_weights={"assistant": 0.5})
        before = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nOne."
        assert pieces(tokenizer, row) == [(before, 0), (" Two.", 1), (" Three.<|im_end|>", 0.5), ("\n", 0)]
    parts[1]["weight"] = 0
    assert encoded(a_run, [ASKED[0], {"role": "assistant", "content": parts}], tokenizer).weights is None
    plain = [{"type": "text", "text": "S"}, {"type": "text", "text": "o."}]
    assert encoded(a_run, [ASKED[0], {"role": "assistant", "content": plain}], tokenizer) == encoded(
        a_run, ASKED, tokenizer
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "alpaca"])
def test_turns_are_found_in_every_format(a_run: Run, name: str) -> None:
    tokenizer = use_format(llama_like(), name)
    weights = {"system": 2.0, "user": 3.0}
    row = encoded(a_run, THREE, tokenizer, chat_format=name, token_weights=weights)
    found = [(text.strip(), weight) for text, weight in pieces(tokenizer, row) if weight]
    assert [weight for _, weight in found] == [2.0, 3.0, 1.0, 3.0, 1.0]
    assert [text.split("<")[0].strip() for text, _ in found] == [message["content"] for message in THREE]


def test_turns_are_found_where_a_template_trims_them(a_run: Run) -> None:
    tokenizer = use_format(llama_like(), "llama")
    messages = [{"role": "user", "content": "  Why?\n"}, {"role": "assistant", "content": "\nSo. "}]
    row = encoded(a_run, messages, tokenizer, token_weights={"user": 0.5})
    assert [text for text, weight in pieces(tokenizer, row) if weight] == ["Why?", "So.<|eot_id|></s>"]


def test_weights_stay_with_their_tokens_when_a_second_bos_goes(a_run: Run) -> None:
    tokenizer = use_format(llama_like(), "plain")
    once = encoded(a_run, THREE, tokenizer, token_weights={"user": 0.5})
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    assert encoded(a_run, THREE, tokenizer, token_weights={"user": 0.5}) == once


def test_turns_that_a_template_rewrites_cannot_be_weighed(a_run: Run) -> None:
    tokenizer = a_tokenizer(
        "{% for m in messages %}{{ m.role }}: {{ m.content | upper if m.role == 'user' else m.content }}"
        "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert encoded(a_run, ASKED, tokenizer).weights is None
    assert "changes the messages' texts" in reason(a_run, ASKED, tokenizer, token_weights={"user": 0.5})


def test_weights_follow_their_tokens_when_a_row_is_cut(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    full = encoded(a_run, THREE, tokenizer, token_weights={"user": 0.25})
    assert full.weights is not None
    for truncation, cut in (("left", slice(7, None)), ("right", slice(len(full.ids) - 7))):
        row = encoded(
            a_run, THREE, tokenizer, token_weights={"user": 0.25}, truncation=truncation, max_length=len(full.ids) - 7
        )
        assert (row.ids, row.trained, row.weights) == (full.ids[cut], full.trained[cut], full.weights[cut])


def test_a_table_keeps_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": THREE}) + "\n" for _ in range(5)))
    for change, weights in (({"data__token_weights__user": 0.25}, (0, 0.25, 1, 0.25, 1)), ({}, None)):
        made = check(Request(tuple(words(None, data__path=path, data__max_samples=None, **change))))
        table = TokenTable(Path(str(prepare_rows(made).tokens["train"])))
        row = table[3]
        if weights is None:
            assert row.weights is None
        else:
            assert row.weights is not None
            plain = Encoded(row.ids.tolist(), row.trained.tolist(), False, np.asarray(row.weights).tolist())
            assert pieces(a_tokenizer(), plain) == heads(*weights)


def test_another_format_or_weight_is_another_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {n}", "completion": f"{n}"}) + "\n" for n in range(5)))
    changes: list[dict[str, Any]] = [
        {}, {"data__chat_format": "raw"}, {"data__chat_format": "zephyr"}, {"data__token_weights__user": 0.5},
        {"data__token_weights__user": 0.25},
    ]  # fmt: skip
    tables = set()
    for change in changes:
        made = check(Request(tuple(words(None, data__path=path, data__max_samples=None, **change))))
        tables.add(str(prepare_rows(made).tokens["train"]))
    assert len(tables) == len(changes)


# --- rows that cannot be used --------------------------------------------------------------------------------------


def test_rows_out_of_order_or_empty_name_the_message(a_run: Run) -> None:
    mistral = use_format(a_tokenizer(), "mistral")

    def wrong(*turns: tuple[str, str | None], tokenizer: Any = mistral) -> str:
        return reason(a_run, [{"role": role, "content": content} for role, content in turns], tokenizer)

    asks, says = ("user", "a"), ("assistant", "b")
    assert "message 2 is of the user" in wrong(asks, asks, says)
    for tokenizer in (mistral, a_tokenizer()):
        assert "message 3 is a system message" in wrong(asks, says, ("system", "s"), tokenizer=tokenizer)
        assert "messages 2 and 3 are both answers" in wrong(asks, says, says, tokenizer=tokenizer)
        assert "begins with an answer" in wrong(says, asks, tokenizer=tokenizer)
    assert "an answer is empty (message 2)" in wrong(asks, ("assistant", " "))
    assert "message 3, of the user, is empty" in wrong(asks, says, ("user", ""), says)
    assert "has no 'content'" in wrong(asks, ("assistant", None))
    assert "empty list" in wrong()


def test_a_format_that_the_rows_cannot_take_is_refused(a_run: Run) -> None:
    text = ColumnChoice("text", {"text": "text"}, "")
    for tokenizer, choice, chat_format, expected in (
        (a_tokenizer(None), MESSAGES, "auto", "the tokenizer has no chat template of its own"),
        (a_tokenizer(None), PAIRS, "auto", "choose one: chatml, llama, zephyr, mistral, vicuna, alpaca, plain, raw"),
        (a_tokenizer(), MESSAGES, "raw", "'raw' writes a prompt and its completion as they are"),
        (a_tokenizer(), text, "zephyr", "'zephyr' has no effect on rows of plain text"),
    ):
        with pytest.raises(DataError) as refused:
            encode(a_run, {}, choice, tokenizer, chat_format=chat_format)
        (problem,) = refused.value.problems
        assert problem.key == "data.chat_format"
        assert expected in str(problem)
    with pytest.raises(DataError, match=r"data\.token_weights\.user: has no effect on rows of plain text"):
        encode(a_run, {"text": "a"}, text, a_tokenizer(), token_weights={"user": 1.0})


HEADLESS = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
HEADED = HEADLESS + "{% if add_generation_prompt %}<assistant>\n{% endif %}"


def notes(tokenizer: Any, chat_format: str) -> list[str]:
    return list(template_notes(use_format(tokenizer, chat_format), chat_format))


def test_a_template_of_the_users_that_is_odd_is_told(tmp_path: Path) -> None:
    for name, text in (("headless", HEADLESS), ("headed", HEADED), ("with_bos", "{{ bos_token }}" + HEADED)):
        (tmp_path / f"{name}.jinja").write_text(text)
    headless, headed, with_bos = (str(tmp_path / f"{name}.jinja") for name in ("headless", "headed", "with_bos"))
    what = f"the template {headless} does not write '<assistant>' for add_generation_prompt"
    why = "it is trained at the beginning of every answer, and the model has to write it"
    assert notes(a_tokenizer(), headless) == [f"{what}: {why}"]
    assert notes(a_tokenizer(), headed) == notes(llama_like(), with_bos) == []
    assert notes(llama_like(), headed) == [
        f"the template {headed} writes no <s>, with which the tokenizer begins every other text"
    ]
    own = a_tokenizer(HEADLESS)
    assert notes(own, "auto")[0].startswith("the tokenizer's chat template does not write '<assistant>'")
    for name in (*NAMES, "raw"):
        assert notes(a_tokenizer(None), name) == notes(llama_like(), name) == []


def test_who_writes_the_bos_token_of_a_users_template(tmp_path: Path, a_run: Run) -> None:
    """The template alone: what a tokenizer puts before plain text it does not put before a conversation."""
    for text, count in ((HEADED, 0), ("{{ bos_token }}" + HEADED, 1), ("{{ bos_token + bos_token }}" + HEADED, 1)):
        (tmp_path / "t.jinja").write_text(text)
        for chat_format in (str(tmp_path / "t.jinja"), "auto"):
            tokenizer = llama_like()
            tokenizer.chat_template = text
            found = encoded(a_run, ASKED, use_format(tokenizer, chat_format), chat_format=chat_format)
            assert found.ids.count(tokenizer.bos_token_id) == count


def test_notes_open_a_run(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(HEADLESS)
    rows = "".join(json.dumps({"prompt": f"q {n}", "completion": "a"}) + "\n" for n in range(9))
    (tmp_path / "rows.jsonl").write_text(rows)
    asked = {"data__path": tmp_path / "rows.jsonl", "data__max_samples": None, "data__valid_fraction": 0}
    for chat_format, count in ((tmp_path / "t.jinja", 1), ("auto", 0)):
        checked = check(Request(tuple(words(None, **asked, data__chat_format=chat_format))))
        done = prepare_rows(checked)
        made = plan(checked.run, done.rows, checked.machine, tmp_path, done.tokens)
        lines = list(opening(checked.run, made, done.facts))
        assert len([line for line in lines if line.startswith("note     the template ")]) == count


def test_raw_is_the_prompt_the_completion_and_the_end(a_run: Run) -> None:
    tokenizer = llama_like()
    row = {"prompt": "Say seven:", "completion": " 7 "}
    outcome = encode(a_run, row, PAIRS, tokenizer, chat_format="raw")
    assert isinstance(outcome, Encoded)
    assert pieces(tokenizer, outcome) == [("<s>Say seven:", 0), (" 7 </s>", 1)]
    weighed = encode(a_run, row, PAIRS, tokenizer, chat_format="raw", token_weights={"user": 0.5})
    assert isinstance(weighed, Encoded)
    assert pieces(tokenizer, weighed) == [("<s>", 0), ("Say seven:", 0.5), (" 7 </s>", 1)]
    encoder = ConversationEncoder(replace(a_run, data=a_run.data.model_copy(update={"chat_format": "raw"})))
    (ids,) = prompt_ids(tokenizer, ["Say seven:"], encoder, "messages")
    assert outcome.ids[: len(ids)] == ids
    system = ColumnChoice("prompt_completion", {**PAIRS.columns, "system": "system"}, "")
    refused = encode(a_run, {**row, "system": "Be."}, system, tokenizer, chat_format="raw")
    assert isinstance(refused, Unusable)
    assert "no place for more than a prompt and a completion" in refused.reason


def test_alpacas_input_has_its_own_place(a_run: Run) -> None:
    tokenizer = use_format(a_tokenizer(), "alpaca")
    choice = ColumnChoice("prompt_completion", {**PAIRS.columns, "input": "input"}, "")
    row = {"prompt": "Add.", "input": "1 and 2", "completion": "3"}
    outcome = encode(a_run, row, choice, tokenizer, chat_format="alpaca")
    assert isinstance(outcome, Encoded)
    assert tokenizer.decode(outcome.ids).endswith(
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n3<|im_end|>"
    )


# --- through the command line --------------------------------------------------------------------------------------


def test_preview_shows_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": THREE}) + "\n")
    small = ["model.path=sample:tiny-qwen3", f"data.path={path}", "data.valid_fraction=0"]
    assert preview([*small, "data.chat_format=vicuna"]) == 0
    shown = capsys.readouterr().out
    assert "rendering  the vicuna format" in shown
    assert "Be. USER: Why? ASSISTANT:[[ So.<|im_end|>]]USER: And? ASSISTANT:[[ Done.<|im_end|>]]" in shown
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
                        "{% if add_generation_prompt %}<assistant>{% endif %}")  # fmt: skip
    assert preview([*small, f"data.chat_format={template}"]) == 0
    shown = capsys.readouterr().out
    assert "<user>Why?<|im_end|><assistant>[[So.<|im_end|>]]" in shown


def test_a_trained_model_keeps_its_format(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": THREE}) + "\n" for _ in range(8)))
    folder = tmp_path / "run"
    run(folder, data__path=path, data__chat_format="zephyr", data__token_weights__user=0.5, train__max_steps=1)
    saved = AutoTokenizer.from_pretrained(folder / "model")
    assert saved.apply_chat_template(ASKED[:1], tokenize=False, add_generation_prompt=True) == (
        "<|user|>\nWhy?<|im_end|>\n<|assistant|>\n"
    )
    assert detect_chat_format(saved) == "zephyr"


# --- the Python API ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", *NAMES, "raw"])
def test_an_example_is_the_row_that_training_sees(a_run: Run, name: str, tokenizer: Any) -> None:
    if name == "auto":
        tokenizer.chat_template = a_tokenizer().chat_template
    own = tokenizer.chat_template
    example = build_supervised_example(Conversation.from_dict(ASKED), tokenizer, RenderConfig(name))
    assert tokenizer.chat_template == own
    row = {"prompt": "Why?", "completion": "So."}
    outcome = encode(a_run, row, PAIRS, use_format(tokenizer, name), chat_format=name)
    assert isinstance(outcome, Encoded)
    assert example.ids == outcome.ids
    assert example.labels == [i if kept else -100 for i, kept in zip(outcome.ids, outcome.trained, strict=True)]
    assert example.token_weights == [float(kept) for kept in outcome.trained]
    prompt = build_generation_prompt(Conversation.from_dict(ASKED[:1]), tokenizer, RenderConfig(name))
    assert example.ids[: len(prompt)] == prompt
    assert example.labels[len(prompt)] != -100


def test_examples_have_a_longest_length_and_weights() -> None:
    tokenizer, talk = a_tokenizer(), Conversation.from_dict(THREE)
    full = build_supervised_example(talk, tokenizer, RenderConfig(token_weights={"user": 0.25}))
    assert set(full.token_weights) == {0, 0.25, 1}
    assert [label != -100 for label in full.labels] == [weight > 0 for weight in full.token_weights]
    size = len(full.ids)
    with pytest.raises(RenderingError, match=f"has {size} tokens, more than {size - 1}"):
        build_supervised_example(talk, tokenizer, RenderConfig(max_length=size - 1))
    left = build_supervised_example(talk, tokenizer, RenderConfig(max_length=size - 1, truncation="left"))
    assert left.ids == full.ids[1:]
    asked = Conversation(talk.messages[:-1])
    prompt = build_generation_prompt(asked, tokenizer)
    with pytest.raises(RenderingError, match="the prompt has"):
        build_generation_prompt(asked, tokenizer, RenderConfig(max_length=5))
    assert build_generation_prompt(asked, tokenizer, RenderConfig(max_length=5, truncation="left")) == prompt[-5:]
    with pytest.raises(RenderingError, match="ends with an answer"):
        build_generation_prompt(talk, tokenizer)
    with pytest.raises(ConfigError, match="no chat template"):
        build_generation_prompt(asked, a_tokenizer(None))
    tools = build_generation_prompt(Conversation(asked.messages, TOOLS), tokenizer)
    assert "Add." in tokenizer.decode(tools)


def test_the_examples_of_the_docs_run(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/rendering.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not (SHARED / "sft_chat/sgd_tools").is_dir(), reason="the shared data are not on this machine")
@pytest.mark.parametrize("chat_format", ["auto", "chatml"])
def test_real_conversations_with_tools(a_run: Run, chat_format: str) -> None:
    tokenizer = use_format(AutoTokenizer.from_pretrained(str(a_tokenizer().name_or_path)), chat_format)
    lines = (SHARED / "sft_chat/sgd_tools/train.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    calls = 0
    for line in lines:
        row = json.loads(line)
        outcome = encode(a_run, row, MESSAGES, tokenizer, max_length=100_000, chat_format=chat_format)
        assert isinstance(outcome, Encoded), outcome
        for message in row["messages"]:  # the data have arguments as JSON text, templates want objects
            for call in message.get("tool_calls") or ():
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
                calls += 1
        wanted = tokenizer.apply_chat_template(
            row["messages"], tools=row.get("tools"), return_assistant_tokens_mask=True, return_dict=True
        )
        assert (outcome.ids, outcome.trained) == (wanted["input_ids"], wanted["assistant_masks"])
    assert calls
