"""Conversations as text: the marked answers are what transformers itself marks, where a template tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoTokenizer

from aitrain.data.rendering import ChatTemplate, RenderingError, prompt_text, render
from aitrain.data.samples import sample_tokenizer

WITH_TOOLS = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{%- if message['content'] %}{{- message['content'] }}{%- endif %}
{%- for call in message.get('tool_calls', []) %}{{- '\\ncall ' + call | tojson }}{%- endfor %}
{{- '<|im_end|>' }}
{%- endgeneration %}
{%- else %}{{- message['content'] + '<|im_end|>' }}{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
REWRITING = """\
{%- for message in messages %}
{%- if message['role'] == 'assistant' and not loop.last %}{{- 'assistant: ' + message['content'][:2] + '\\n' }}
{%- else %}{{- message['role'] + ': ' + message['content'] + '\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}
"""
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
    }
]


def a_tokenizer(template: str | None = "") -> Any:
    """A fresh tokenizer of the samples: its own template, another one, or none (None)."""
    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer("tiny-qwen3"))
    if template != "":
        tokenizer.chat_template = template
    return tokenizer


def without_marks(template: str) -> str:
    return template.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")


def conversation(turns: int, system: bool) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for number in range(turns):
        messages.append({"role": "user", "content": f"What comes after {number}?"})
        messages.append({"role": "assistant", "content": f"{number + 1}, of course.\nSo it is"})
    return messages


def marked(tokenizer: Any, messages: list[dict[str, Any]], tools: Any = None) -> list[str]:
    rendered = render(tokenizer, messages, tools)
    return [rendered.text[start:end] for start, end in rendered.answers]


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("system", [False, True])
def test_the_text_is_what_transformers_renders(turns: int, system: bool) -> None:
    tokenizer, messages = a_tokenizer(), conversation(turns, system)
    rendered = render(tokenizer, messages)
    assert rendered.text == tokenizer.apply_chat_template(messages, tokenize=False)
    assert marked(tokenizer, messages) == [f"{n + 1}, of course.\nSo it is<|im_end|>" for n in range(turns)]


def test_a_template_without_marks_gives_the_same_answers() -> None:
    marks = a_tokenizer()
    plain = a_tokenizer(without_marks(marks.chat_template))
    assert "generation %}" not in plain.chat_template
    assert render(plain, conversation(3, True)) == render(marks, conversation(3, True))


def test_tools_are_in_the_text_and_calls_are_answers() -> None:
    tokenizer = a_tokenizer(WITH_TOOLS)
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
    rendered = render(tokenizer, messages, TOOLS)
    assert rendered.text == tokenizer.apply_chat_template(messages, tools=TOOLS, tokenize=False)
    first, second = marked(tokenizer, messages, TOOLS)
    assert first.startswith("\ncall ")
    assert first.endswith("<|im_end|>")
    assert second == "It is 2.<|im_end|>"


CALLING = (  # what stands at ARGUMENTS is the template's own
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for call in m.tool_calls or [] %}"
    "{% set call = call.function or call %}{{ call.name }} ARGUMENTS{% endfor %}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


ADDENDS = {"a": "é", "b": [1]}


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ("{{ call.arguments | tojson }}", '{"a": "é", "b": [1]}'),
        ("{% if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson }}{% endif %}",
         '{"a": "é", "b": [1]}'),
        ("{% for name, value in call.arguments | items %}{{ name }}={{ value }};{% endfor %}", "a=é;b=[1];"),
        ("{{ call.arguments }}", '{"a": "é", "b": [1]}'),  # of an object it would write Python's own form
        ("{{ '' + call.arguments }}", '{"a": "é", "b": [1]}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inside", [True, False], ids=["function", "name"])
def test_arguments_of_calls_are_written_once_whether_they_are_text_or_an_object(
    arguments: str, written: str, inside: bool
) -> None:
    tokenizer = a_tokenizer(CALLING.replace("ARGUMENTS", arguments))
    for given in (ADDENDS, json.dumps(ADDENDS, ensure_ascii=False)):
        call = {"name": "add", "arguments": given}
        calls = [{"type": "function", "function": call}] if inside else [call]
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
        assert marked(tokenizer, turns) == [f"add {written}<|im_end|>"]
        assert call["arguments"] is given, "the row is left as it is"


def test_arguments_are_written_alike_however_their_text_is_spaced() -> None:
    found = set()
    for chat_format in ("", WITH_TOOLS):
        for given in (ADDENDS, json.dumps(ADDENDS), json.dumps(ADDENDS, separators=(",", ":"))):
            calls = [{"type": "function", "function": {"name": "add", "arguments": given}}]
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
            found.add((chat_format, *marked(a_tokenizer(chat_format), turns)))
    assert len(found) == 2
    assert all('{"a": "é", "b": [1]}' in answer for _, answer in found)


@pytest.mark.parametrize("given", ['"text"', "[1]", "no json", "{", ""])
def test_arguments_that_are_no_object_are_left_to_the_template(given: str) -> None:
    tokenizer = a_tokenizer(CALLING.replace("ARGUMENTS", "{{ call.arguments | tojson }}"))
    calls = [{"name": "add", "arguments": given}]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    assert marked(tokenizer, turns) == [f"add {json.dumps(given)}<|im_end|>"]


def test_a_header_that_the_template_does_not_write_for_an_answer_is_known() -> None:
    headless = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    assert ChatTemplate(a_tokenizer(headless)).unopened() == "<assistant>"
    assert marked(a_tokenizer(headless), conversation(1, False))[0].startswith("<assistant>\n1, of course")
    whole = headless + "{% if add_generation_prompt %}<assistant>\n{% endif %}"
    thinking = whole.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    )
    for template in ("", WITH_TOOLS, whole, thinking, "{{ raise_exception('no') }}"):
        assert ChatTemplate(a_tokenizer(template)).unopened() == ""


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    tokenizer = a_tokenizer(REWRITING)
    assert marked(tokenizer, conversation(1, False)) == ["1, of course.\nSo it is\n<|im_end|>"]
    with pytest.raises(RenderingError, match=r"rewrites turn 2 .* data\.train_on=last"):
        render(tokenizer, conversation(2, False))
    last = ChatTemplate(tokenizer).render(conversation(2, False), only_last=True)
    assert [last.text[start:end] for start, end in last.answers] == ["2, of course.\nSo it is\n<|im_end|>"]


def test_the_line_break_after_the_end_token_of_a_turn_is_no_answer() -> None:
    """Gemma's kind: the token that ends a turn is not the tokenizer's end token."""
    tokenizer = a_tokenizer()
    tokenizer.eos_token = "<|pad|>"
    assert marked(tokenizer, conversation(2, False))[0].endswith("So it is<|im_end|>")


def test_a_conversation_that_begins_with_an_answer_is_refused() -> None:
    with pytest.raises(RenderingError, match="begins with an answer"):
        render(a_tokenizer(), [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hi."}])


@pytest.mark.parametrize("template", ["{{ messages[0].content + 1 }}", "{{ raise_exception('no system turns') }}"])
def test_what_a_template_refuses_is_refused_with_its_words(template: str) -> None:
    with pytest.raises(RenderingError, match="the chat template refuses"):
        render(a_tokenizer(template), conversation(1, False))


def test_a_tokenizer_without_template_gets_plain_lines() -> None:
    tokenizer = a_tokenizer(None)
    rendered = render(tokenizer, conversation(1, True))
    assert rendered.text == (
        "System: Be brief.\nUser: What comes after 0?\nAssistant: 1, of course.\nSo it is<|im_end|>\n"
    )
    assert marked(tokenizer, conversation(1, True)) == [" 1, of course.\nSo it is<|im_end|>"]


@pytest.mark.parametrize("template", ["", None])
def test_the_prompt_is_the_text_before_the_answer(template: str | None) -> None:
    tokenizer, messages = a_tokenizer(template), conversation(2, False)
    rendered = render(tokenizer, messages)
    assert rendered.text[: rendered.answers[-1][0]] == prompt_text(tokenizer, messages[:-1])


def test_tools_without_a_template_are_refused() -> None:
    calls = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": None, "tool_calls": [{"a": 1}]}]
    with pytest.raises(RenderingError, match="tools need"):
        render(a_tokenizer(None), calls)
    with pytest.raises(RenderingError, match="tools need"):
        render(a_tokenizer(None), conversation(1, False), TOOLS)


def test_a_template_that_leaves_tool_calls_out_is_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer("tiny-llama"))
    call = {"type": "function", "function": {"name": "find_table", "arguments": {"seats": 2}}}
    messages = [{"role": "user", "content": "a table"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert "find_table" in render(tokenizer, messages).text
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    with pytest.raises(RenderingError, match="leaves the tool call 'find_table' out"):
        render(tokenizer, messages)
