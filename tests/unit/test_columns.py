"""Which column means what, and conversations in both dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aitrain.data.columns import ColumnChoice, MessagesError, Shape, check_messages, find_columns
from aitrain.errors import DataError

ALL: tuple[Shape, ...] = ("messages", "prompt_completion", "text")
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def find(row: dict[str, Any], accepts: tuple[Shape, ...] = ALL, **chosen: str | None) -> ColumnChoice:
    return find_columns(list(row), [row], chosen, accepts)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("prompt completion", {"prompt": "prompt", "completion": "completion"}),
        ("prompt response", {"prompt": "prompt", "completion": "response"}),
        ("instruction output", {"prompt": "instruction", "completion": "output"}),
        ("instruction input output", {"prompt": "instruction", "input": "input", "completion": "output"}),
        ("instruction context response", {"prompt": "instruction", "input": "context", "completion": "response"}),
        ("input output", {"prompt": "input", "completion": "output"}),
        ("question answer id", {"prompt": "question", "completion": "answer"}),
        ("query response", {"prompt": "query", "completion": "response"}),
        ("system prompt completion", {"system": "system", "prompt": "prompt", "completion": "completion"}),
        ("Instruction Response", {"prompt": "Instruction", "completion": "Response"}),
        ("text id", {"text": "text"}),
        ("CONTENT", {"text": "CONTENT"}),
    ],
)
def test_text_columns_are_found_by_name(names: str, columns: dict[str, str]) -> None:
    choice = find(dict.fromkeys(names.split(), "x"))
    assert choice.columns == columns
    assert choice.shape == ("text" if "text" in columns else "prompt_completion")


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation", "dialog", "dialogue", "chat"])
@pytest.mark.parametrize("value", [TURNS, json.dumps(TURNS), [{"from": "human", "value": "hi"}]])
def test_messages_are_found_by_name_and_value(name: str, value: Any) -> None:
    choice = find({"id": "1", name: value})
    assert (choice.shape, choice.columns) == ("messages", {"messages": name})
    assert choice.reason == f"messages is '{name}' (by its name); not used: 'id'"


def test_only_shapes_that_the_trainer_takes_are_looked_for() -> None:
    row = {"messages": TURNS, "prompt": "a", "completion": "b", "text": "c"}
    assert find(row, accepts=("text",)).columns == {"text": "text"}
    assert find(row, accepts=("prompt_completion",)).columns == {"prompt": "prompt", "completion": "completion"}


def test_a_name_whose_value_is_no_conversation_does_not_count() -> None:
    assert find({"chat": "How are you?", "prompt": "a", "completion": "b"}).shape == "prompt_completion"
    assert find({"chat": "How are you?", "messages": TURNS}).columns == {"messages": "messages"}


def test_chosen_columns() -> None:
    row = {"q": "a", "a": "b", "text": "c", "prompt": "d", "completion": "e"}
    assert find(row, prompt="q", completion="a").columns == {"prompt": "q", "completion": "a"}
    choice = find(row, completion="A")
    assert choice.columns == {"prompt": "prompt", "completion": "a"}
    assert "completion is 'a' (set)" in choice.reason
    assert find(row, text="text", prompt=None).columns == {"text": "text"}
    assert find({"instruction": "a", "input": "b", "output": "c"}, prompt="input").columns == {
        "prompt": "input",
        "completion": "output",
    }


REFUSED: list[tuple[dict[str, Any], dict[str, str], str, list[str]]] = [
    (
        {"messages": TURNS, "prompt": "a", "completion": "b"},
        {},
        "data.columns",
        ["two answers", "columns.prompt=prompt"],
    ),
    ({"text": "a", "prompt": "a", "completion": "b"}, {}, "data.columns", ["'text'", "data.columns.text=text"]),
    (
        {"prompt": "a", "output": "b", "response": "c"},
        {},
        "data.columns.completion",
        ["completion=output", "=response"],
    ),
    ({"question": "a", "prompt": "b", "answer": "c"}, {}, "data.columns.prompt", ["prompt=question", "prompt=prompt"]),
    ({"Prompt": "a", "prompt": "b", "answer": "c"}, {}, "data.columns.prompt", ["prompt=Prompt"]),
    ({"instruction": "a", "input": "b", "context": "c", "output": "d"}, {}, "data.columns.input", ["input=context"]),
    ({"messages": TURNS, "chat": TURNS}, {}, "data.columns.messages", ["messages=chat"]),
    ({"text": "a", "content": "b"}, {}, "data.columns.text", ["text=text or data.columns.text=content"]),
    ({"promt": "a", "complet": "b"}, {}, "data.columns", ["'promt', 'complet'", "data.columns.prompt ('promt'?)"]),
    ({"prompt": "a", "label": "b"}, {}, "data.columns.completion", ["no column found", "'prompt', 'label'"]),
    ({"a": "a", "b": "b"}, {}, "data.columns", ["no column says what it is; there is 'a', 'b'", "data.columns.text"]),
    ({"chat": "How are you?"}, {}, "data.columns", ["'chat' holds text ('How are you?'), not messages"]),
    ({"chat": "{}"}, {}, "data.columns", ["'chat' holds JSON text of an object"]),
    (
        {"prompt": "a", "completion": "b"},
        {"prompt": "promt"},
        "data.columns.prompt",
        ["no column 'promt'", "'prompt'?"],
    ),
    ({"prompt": "a", "label": "b"}, {"prompt": "prompt"}, "data.columns.completion", ["no column found for it"]),
    ({"A": "a", "a ": "b"}, {"text": "a"}, "data.columns.text", ["may be 'A', 'a '"]),
    (
        {"a": "a", "b": "b"},
        {"prompt": "a", "completion": "a"},
        "data.columns.completion",
        ["data.columns.prompt already"],
    ),
    ({"a": "a", "b": "b"}, {"prompt": "a", "text": "b"}, "data.columns.text", ["beside data.columns.prompt"]),
    ({"text": "a", "b": "b"}, {"text": "text", "system": "b"}, "data.columns.system", ["has no effect"]),
    ({"messages": TURNS, "b": "b"}, {"messages": "messages", "input": "b"}, "data.columns.input", ["has no effect"]),
    ({"prompt": "a", "completion": 3}, {}, "data.columns.completion", ["a number (3) in row 1", "text is expected"]),
    ({"prompt": ["a"], "completion": "b"}, {}, "data.columns.prompt", ["'prompt' holds a list of 1 in row 1"]),
    ({"text": True}, {}, "data.columns.text", ["true or false"]),
    ({"text": {"a": 1}}, {}, "data.columns.text", ["an object in row 1"]),
    ({"text": None}, {}, "data.columns.text", ["null in each of the first 1 rows"]),
    ({"a": "x"}, {"messages": "a"}, "data.columns.messages", ["text ('x') in row 1, where a list of messages"]),
    ({"a": [["u"]]}, {"messages": "a"}, "data.columns.messages", ["a list with a list of 1 in it"]),
]


@pytest.mark.parametrize(("row", "chosen", "key", "says"), REFUSED)
def test_columns_that_cannot_be_decided_are_refused(
    row: dict[str, Any], chosen: dict[str, str], key: str, says: list[str]
) -> None:
    with pytest.raises(DataError) as refused:
        find_columns(list(row), [row], chosen, ALL)
    assert refused.value.problems[0].key == key
    assert [part for part in says if part not in str(refused.value)] == []


def test_a_shape_that_the_trainer_does_not_take_is_refused() -> None:
    with pytest.raises(DataError, match="rows hold a column of messages, and this trainer takes a column of text"):
        find({"messages": TURNS}, accepts=("text",))
    with pytest.raises(DataError, match="takes a column of text, not a column of messages"):
        find({"messages": TURNS}, accepts=("text",), messages="messages")


def test_all_wrong_choices_are_reported_at_once() -> None:
    with pytest.raises(DataError) as refused:
        find({"prompt": "a", "completion": "b"}, prompt="promt", completion="compltion")
    assert [problem.key for problem in refused.value.problems] == ["data.columns.prompt", "data.columns.completion"]
    assert refused.value.problems[0].fix == "data.columns.prompt=prompt"


def test_the_row_with_the_wrong_type_is_named_and_single_nulls_are_left_to_the_rows() -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}, {"text": None}, {"text": 3.5}]
    with pytest.raises(DataError, match=r"a number \(3\.5\) in row 3"):
        find_columns(["text"], rows, {}, ALL)
    assert find_columns(["text"], rows[:2], {}, ALL).columns == {"text": "text"}


CALL = [{"type": "function", "function": {"name": "f", "arguments": {}}}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (TURNS, TURNS),
        (json.dumps(TURNS), TURNS),
        ([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], TURNS),
        ([{"role": "User", "content": "hi"}, {"from": "assistant", "value": "hello"}], TURNS),
        ([{"role": "system", "content": ""}], [{"role": "system", "content": ""}]),
        (
            [{"role": "assistant", "content": None, "tool_calls": CALL}],
            [{"role": "assistant", "content": None, "tool_calls": CALL}],
        ),
        (
            [{"role": "function", "name": "f", "content": "1", "tool_calls": None}],
            [{"role": "tool", "content": "1", "name": "f"}],
        ),
        (
            [{"role": "tool", "tool_call_id": "7", "content": "1"}],
            [{"role": "tool", "content": "1", "tool_call_id": "7"}],
        ),
    ],
)
def test_messages_of_both_dialects(value: Any, expected: list[dict[str, Any]]) -> None:
    assert check_messages(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "null where a list of messages is expected"),
        ("hello", "text ('hello') where a list of messages"),
        ("{}", "an object where a list"),
        (7, "a number (7) where a list"),
        ([], "an empty list of messages"),
        (["hi"], "message 1 is text ('hi'), not an object"),
        ([TURNS[0], {"content": "x"}], "message 2 has neither 'role' nor 'from'; it has 'content'"),
        ([{"role": "bot", "content": "x"}], "message 1 has the unknown role 'bot'; there is system, user, human"),
        ([{"role": 3, "content": "x"}], "unknown role 3"),
        ([{"role": "user"}], "message 1 has no 'content'; it has 'role'"),
        ([{"role": "user", "value": "x"}], "has no 'content'; it has 'role', 'value'"),
        ([{"from": "human", "value": None}], "message 1 has no 'value'"),
        ([{"role": "user", "content": 3}], "message 1 has a number (3) as its 'content'"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "has no 'content'"),
    ],
)
def test_what_is_no_conversation_is_refused(value: Any, says: str) -> None:
    with pytest.raises(MessagesError) as refused:
        check_messages(value, place="train.jsonl:17")
    assert str(refused.value).startswith("train.jsonl:17: ")
    assert says in str(refused.value)
