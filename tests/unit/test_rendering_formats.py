"""Chat formats against texts written by hand from the pages that publish them, and conversations as values."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aitrain.rendering.formats
from aitrain.compose import Request
from aitrain.errors import ConfigError, DataError, Refused
from aitrain.rendering import (
    ChatFormat,
    Conversation,
    Message,
    RenderConfig,
    RenderingError,
    convert_dataset_to_conversations,
    create_chat_template,
    detect_chat_format,
    get_renderer,
    stop_strings,
)
from aitrain.start import check

SYSTEM, ASKS, SAYS = ("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")
AGAIN, LAST = ("user", "And?"), ("assistant", "Done.")
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": "é"}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}


def talk(*turns: tuple[str, str], tools: Any = None) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns), tools)


GOLDEN: list[tuple[str, Conversation, str, list[str]]] = [
    (
        "chatml",
        talk(SYSTEM, ASKS, SAYS, AGAIN, LAST),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
        "<|im_start|>assistant\nDone.<|im_end|>\n",
        ["So.<|im_end|>", "Done.<|im_end|>"],
    ),
    (
        "llama",
        talk(SYSTEM, ASKS, ("assistant", " So.\n")),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>",
        ["So.<|eot_id|>"],
    ),
    (
        "zephyr",
        talk(SYSTEM, ASKS, SAYS),
        "<|system|>\nBe brief.</s>\n<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n",
        ["So.</s>"],
    ),
    (
        "mistral",
        talk(SYSTEM, ASKS, SAYS, AGAIN, LAST),
        "<s> [INST] Be brief.\n\nWhy? [/INST] So.</s> [INST] And? [/INST] Done.</s>",
        [" So.</s>", " Done.</s>"],
    ),
    (
        "vicuna",
        talk(ASKS, SAYS, AGAIN, LAST),
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Why? ASSISTANT: So.</s>"
        "USER: And? ASSISTANT: Done.</s>",
        [" So.</s>", " Done.</s>"],
    ),
    ("vicuna", talk(SYSTEM, ASKS, SAYS), "Be brief. USER: Why? ASSISTANT: So.</s>", [" So.</s>"]),
    (
        "alpaca",
        talk(ASKS, SAYS),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nWhy?\n\n### Response:\nSo.</s>",
        ["So.</s>"],
    ),
    (
        "alpaca",
        Conversation((Message("user", "Why?", input="2 + 2"), Message("assistant", "So."))),
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n"
        "### Instruction:\nWhy?\n\n### Input:\n2 + 2\n\n### Response:\nSo.</s>",
        ["So.</s>"],
    ),
    ("plain", talk(SYSTEM, ASKS, SAYS), "System: Be brief.\nUser: Why?\nAssistant: So.</s>\n", [" So.</s>"]),
    ("raw", talk(ASKS, SAYS), "Why?So.</s>", ["So.</s>"]),
]


@pytest.mark.parametrize(("name", "conversation", "text", "answers"), GOLDEN)
def test_a_format_reads_as_it_was_published(
    name: str, conversation: Conversation, text: str, answers: list[str]
) -> None:
    renderer = get_renderer(name)
    rendered = renderer.render(conversation)
    assert rendered.text == text
    assert [text[start:end] for start, end in rendered.answers] == answers
    asked = Conversation(conversation.messages[:-1])
    assert renderer.generation_prompt(asked) == text[: rendered.answers[-1][0]]


def test_tools_in_chatml_are_written_as_hermes_and_qwen_write_them() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "1 + é?"),
        Message("assistant", "Adding.", tool_calls=[CALL, {"name": "add", "arguments": '{"a": 2}'}]),
        Message("tool", "2"),
        Message("tool", "3"),
        Message("assistant", "2 and 3."),
    )
    text = get_renderer("chatml").render(Conversation(messages, (TOOL,))).text
    assert text == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n1 + é?<|im_end|>\n<|im_start|>assistant\nAdding.\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n2 and 3.<|im_end|>\n"
    )


@pytest.mark.parametrize("name", ["llama", "zephyr", "mistral", "vicuna", "alpaca", "plain"])
def test_what_a_format_cannot_hold_is_refused(name: str) -> None:
    renderer = get_renderer(name)
    calls = Conversation((Message("user", "Why?"), Message("assistant", None, tool_calls=[CALL])))
    with pytest.raises(RenderingError, match=f"the {name} format has no place for tools"):
        renderer.render(talk(ASKS, SAYS, tools=(TOOL,)))
    with pytest.raises(RenderingError, match="message 2 calls a tool"):
        renderer.render(calls)
    with pytest.raises(RenderingError, match="begins with an answer"):
        renderer.render(talk(SAYS, AGAIN))


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ((ASKS, AGAIN, SAYS), "message 2 is of the user, and in the {} format one of the assistant is due"),
        ((SYSTEM, ASKS, SAYS, LAST), "message 4 is of the assistant, and in the {} format one of the user is due"),
        ((ASKS, SYSTEM, SAYS), "message 2 is of the system, and in the {} format one of the assistant is due"),
    ],
)
@pytest.mark.parametrize("name", ["mistral", "vicuna", "alpaca"])
def test_turns_alternate_where_the_format_needs_it(name: str, turns: Any, words: str) -> None:
    with pytest.raises(RenderingError, match=words.format(name)):
        get_renderer(name).render(talk(*turns))


def test_alpaca_holds_one_question() -> None:
    with pytest.raises(RenderingError, match="message 4 is one more"):
        get_renderer("alpaca").render(talk(SYSTEM, ASKS, SAYS, AGAIN))
    with pytest.raises(RenderingError, match="no place for more than a prompt and a completion"):
        get_renderer("raw").render(talk(ASKS, SAYS, AGAIN))


def test_stop_strings() -> None:
    assert stop_strings("chatml") == ("<|im_end|>",)
    assert stop_strings("llama") == ("<|eot_id|>", "<|end_of_text|>")
    assert stop_strings("mistral") == ("</s>", "[INST]")
    assert stop_strings("zephyr")[:2] == ("</s>", "<|user|>")
    assert stop_strings("vicuna") == ("</s>", "USER:")
    assert stop_strings("alpaca") == ("</s>", "### Instruction:")


def test_names_stand_where_people_look_for_them_and_there_are_no_utils() -> None:
    for name in ("ChatML", "Alpaca", "Vicuna", "Zephyr", "Llama", "Mistral"):
        cls = getattr(aitrain.rendering, f"{name}Renderer")
        assert cls is getattr(aitrain.rendering.formats, f"{name}Renderer")
        assert isinstance(get_renderer(name.lower()), cls)
    assert importlib.util.find_spec("aitrain.rendering.utils") is None
    assert all(hasattr(aitrain.rendering, name) for name in aitrain.rendering.__all__)


def test_the_package_loads_nothing_heavy() -> None:
    script = "import sys, aitrain.rendering; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- formats told apart --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatml", "llama", "zephyr", "mistral", "vicuna", "alpaca", "plain"])
def test_a_format_is_told_by_its_text_and_by_its_template(name: str) -> None:
    assert detect_chat_format(get_renderer(name).render(talk(ASKS, SAYS)).text) == name
    assert detect_chat_format(create_chat_template(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Once upon a time",
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
        "<s>[INST] <<SYS>>\nBe.\n<</SYS>>\n\nHi [/INST] Yes",
    ],
)
def test_other_formats_are_not_taken_for_one_of_ours(text: str) -> None:
    assert detect_chat_format(text) is None


# --- values --------------------------------------------------------------------------------------------------------


def test_a_conversation_goes_to_plain_values_and_back() -> None:
    values = {
        "messages": [
            {"role": "user", "content": "1 + 1?", "name": "Ann"},
            {"role": "assistant", "content": "", "tool_calls": [CALL], "weight": 0},
            {"role": "tool", "content": "2", "tool_call_id": "7"},
            {"role": "assistant", "content": "It is 2.", "reasoning_content": "easy"},
        ],
        "tools": [TOOL],
    }
    conversation = Conversation.from_dict(values)
    assert conversation.messages[1].weight == 0
    assert conversation.messages[3].extra == {"reasoning_content": "easy"}
    assert conversation.to_dict() == values
    assert Conversation.from_dict(conversation.to_dict()) == conversation


def test_other_dialects_and_parts_are_read() -> None:
    parts = [{"type": "text", "text": "It "}, {"type": "text", "text": "is.", "weight": 0}]
    read = Conversation.from_dict([{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": parts}])
    assert [(m.role, m.content) for m in read.messages] == [("user", "Is it?"), ("assistant", "It is.")]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Conversation(()), "needs a message"),
        (lambda: Message("asistant", "Hi"), "did you mean 'assistant'"),
        (lambda: Message("user", None), "has no content"),
        (lambda: Message("user", 3), "is a int"),  # type: ignore[arg-type]
        (lambda: Message.from_dict({"role": "user", "content": None}), "has no 'content'"),
        (lambda: Message.from_dict({"role": "user", "content": [{"type": "image"}]}), "a part that is no text"),
        (lambda: Conversation.from_dict([]), "empty list"),
    ],
)
def test_what_is_no_conversation_is_refused(make: Any, words: str) -> None:
    with pytest.raises(RenderingError, match=words):
        make()


def test_configs_refuse_what_is_not_there() -> None:
    with pytest.raises(ConfigError, match="did you mean 'chatml'"):
        RenderConfig("chatmk")
    with pytest.raises(ConfigError, match=r"token_weights\.asistant: unknown role; did you mean 'assistant'"):
        RenderConfig(token_weights={"asistant": 1})
    with pytest.raises(ConfigError, match=r"token_weights\.user: is no number from 0 up"):
        RenderConfig(token_weights={"user": -1})
    with pytest.raises(ConfigError, match="takes the place of 'chatml'"):
        RenderConfig("chatml", template="{{ messages }}")
    with pytest.raises(ConfigError, match="is no template"):
        create_chat_template(ChatFormat.AUTO)
    with pytest.raises(ConfigError, match="needs one"):
        get_renderer("auto")


@pytest.mark.parametrize(
    ("row", "tools"),
    [
        ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, None),
        ({"conversations": [{"from": "human", "value": "Add.\n\n1 and 2"}, {"from": "gpt", "value": "3"}]}, None),
        ({"question": "Add.\n\n1 and 2", "answer": "3"}, None),
        ({"messages": [{"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}],
          "tools": [TOOL]}, (TOOL,)),
    ],
)  # fmt: skip
def test_datasets_of_the_usual_forms_become_conversations(row: dict[str, Any], tools: Any) -> None:
    (found,) = convert_dataset_to_conversations([row])
    expected = [{"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}]
    assert found.turns(input_apart=False) == expected
    assert found.tools == tools


def test_columns_can_be_named_and_a_bad_row_is_named() -> None:
    rows = [{"q": f"Say {n}.", "a": str(n)} for n in range(30)]
    found = list(convert_dataset_to_conversations(rows, {"prompt": "q", "completion": "a"}))
    assert [len(each.messages) for each in found] == [2] * 30
    assert found[25].messages[0].content == "Say 25."
    rows[24]["a"] = ""
    with pytest.raises(DataError, match="row 25: column 'a' is empty"):
        list(convert_dataset_to_conversations(rows, {"prompt": "q", "completion": "a"}))
    assert list(convert_dataset_to_conversations([])) == []


# --- data.chat_format, before anything is loaded -------------------------------------------------------------------


def refused(*words: str) -> list[str]:
    with pytest.raises(Refused) as error:
        check(Request(words))
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("word", "fix"),
    [("chatlm", "chatml"), ("ChatML", "chatml"), ("tokenizer", "auto"), ("none", "raw"), ("zephir", "zephyr")],
)
def test_an_unknown_format_is_refused_with_the_nearest_one(word: str, fix: str) -> None:
    assert refused(f"data.chat_format={word}") == [
        f"data.chat_format: there is no chat format '{word}'; did you mean '{fix}'?"
    ]


def test_a_template_file_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    good = tmp_path / "mine.jinja"
    good.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    check(Request((f"data.chat_format={good}",)))
    (missing,) = refused(f"data.chat_format={tmp_path}/mime.jinja")
    assert "no such file" in missing
    assert f"did you mean '{good}'?" in missing
    bad = tmp_path / "bad.jinja"
    bad.write_text("{% for m in messages %}\n{{ m.content }")
    (broken,) = refused(f"data.chat_format={bad}")
    assert "is no Jinja template" in broken
    assert broken.endswith(f"({bad}:2)")
    bad.write_text(" \n")
    assert "is empty" in refused(f"data.chat_format={bad}")[0]


def test_formats_and_weights_without_effect_are_refused() -> None:
    assert "has no effect with task=llm trainer=pretrain" in refused("trainer=pretrain", "data.chat_format=chatml")[0]
    found = refused("data.columns.text=prompt", "data.chat_format=zephyr")
    assert any("'zephyr' has no effect on rows of plain text" in line for line in found)
    assert refused("data.token_weights.assistant=0") == [
        "data.token_weights.assistant: 0, and no other role has a weight: no token would be trained; "
        "set it above 0, or weigh another role"
    ]
    assert "should be greater than or equal to 0" in refused("data.token_weights.user=-1")[0]
    assert "did you mean 'data.token_weights.assistant'?" in refused("data.token_weights.asistant=1")[0]


def test_weights_may_be_given_as_one_mapping() -> None:
    run = check(Request(("data.token_weights={assistant: 1.0, user: 0.1}",))).run
    assert run.data.token_weights.model_dump() == {"system": None, "user": 0.1, "assistant": 1.0, "tool": None}
