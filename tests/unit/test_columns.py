"""Which column means what, and conversations in both dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aitrain.data.columns import (
    NAMES,
    ColumnChoice,
    MessagesError,
    Shape,
    check_messages,
    find_columns,
    read_label,
    read_number,
)
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
    ({"prompt": "a", "completion": 3}, {}, "data.columns.completion", ["a number (3) in row 1", "text or messages"]),
    ({"prompt": ["a"], "completion": "b"}, {}, "data.columns.prompt", ["'prompt' holds a list with text ('a')"]),
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


SAID = [TURNS, "text", TURNS[0], json.dumps(TURNS)]


@pytest.mark.parametrize(
    ("names", "shape", "columns"),
    [
        ("prompt chosen rejected", "pairs", {}),
        ("chosen rejected", "pairs", {}),
        ("Question chosen_response rejected_response", "pairs", {
            "prompt": "Question", "chosen": "chosen_response", "rejected": "rejected_response"}),
        ("prompt preferred dispreferred", "pairs", {"chosen": "preferred", "rejected": "dispreferred"}),
        ("instruction input chosen rejected", "pairs", {"prompt": "instruction", "input": "input"}),
        ("input chosen rejected", "pairs", {"prompt": "input"}),
        ("system prompt chosen rejected margin", "pairs", {}),
        ("prompt completion label", "unpaired", {}),
        ("completion label", "unpaired", {}),
        ("instruction input output kto_tag", "unpaired", {
            "prompt": "instruction", "input": "input", "completion": "output", "label": "kto_tag"}),
        ("query response is_chosen system", "unpaired", {
            "prompt": "query", "completion": "response", "label": "is_chosen"}),
    ],
)  # fmt: skip
def test_preferences_are_found_by_name(names: str, shape: Shape, columns: dict[str, str]) -> None:
    row: dict[str, Any] = {
        name: TURNS if name in ("chosen", "rejected", "completion") else "x" for name in names.split()
    }
    row |= {name: 1 for name in ("label", "kto_tag", "is_chosen", "margin") if name in row}
    choice = find_columns(list(row), [row], {}, ("pairs", "unpaired"))
    assert choice.shape == shape
    known = {name: name for name in row if name in NAMES and name not in columns.values()}
    assert choice.columns == known | columns
    assert find_columns(list(row), [row], {}, (shape,)).columns == choice.columns


def test_names_of_preferences_do_not_change_what_other_trainers_find() -> None:
    row = {"prompt": "a", "completion": "b", "label": 1, "chosen": "c", "rejected": "d", "margin": 2}
    choice = find(row)
    assert (choice.shape, choice.columns) == ("prompt_completion", {"prompt": "prompt", "completion": "completion"})
    assert choice.reason.endswith("not used: 'label', 'chosen', 'rejected', 'margin'")


@pytest.mark.parametrize("prompt", SAID)
@pytest.mark.parametrize("answer", SAID)
def test_prompts_and_answers_of_preferences_may_be_text_or_messages(prompt: Any, answer: Any) -> None:
    row = {"p": prompt, "c": answer, "r": answer}
    assert find(row, ("pairs",), prompt="p", chosen="c", rejected="r").shape == "pairs"
    assert find({"prompt": prompt, "completion": answer, "label": False}, ("unpaired",)).shape == "unpaired"


def test_named_columns_say_which_shape_is_meant() -> None:
    row = {"prompt": "a", "completion": "b", "label": 1, "chosen": "c", "rejected": "d", "text": "e"}
    both: tuple[Shape, ...] = ("unpaired", "pairs")
    assert find(row, both, completion="completion").shape == "unpaired"
    assert find(row, both, label="label", prompt="text").columns["prompt"] == "text"
    assert find(row, both, chosen="text").columns == {"chosen": "text", "rejected": "rejected", "prompt": "prompt"}
    assert find(row, both, prompt="text", margin="label").columns["margin"] == "label"
    del row["label"]
    assert find(row, both, prompt="text").columns == {"chosen": "chosen", "rejected": "rejected", "prompt": "text"}
    assert find(row, ALL, prompt="text").shape == "prompt_completion"


def test_tools_of_preferences_count_as_used() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "tools": [], "id": 1}
    assert find(row, ("pairs",)).reason.endswith("not used: 'id'")


BOTH: tuple[Shape, ...] = ("pairs", "unpaired")
NO_PREFERENCE: list[tuple[dict[str, Any], tuple[Shape, ...], dict[str, str], str, list[str]]] = [
    ({"prompt": "a", "chosen": "b"}, ("pairs",), {}, "data.columns.rejected", ["no column found for it"]),
    ({"prompt": "a", "chosen": "b", "rejcted": "b"}, ("pairs",), {}, "data.columns.rejected", ["('rejcted'?)"]),
    ({"prompt": "a", "completion": "b"}, ("unpaired",), {}, "data.columns.label", ["no column found for it"]),
    (
        {"prompt": "a", "completion": "b", "label": True, "chosen": "b", "rejected": "c"},
        BOTH,
        {},
        "data.columns",
        ["two answers", "data.columns.chosen=chosen or data.columns.completion=completion"],
    ),
    ({"chosen": "b", "preferred": "c", "rejected": "d"}, BOTH, {}, "data.columns.chosen", ["chosen=chosen or"]),
    (
        {"chosen": "b", "rejected": "c", "asked": "d"},
        ("pairs",),
        {},
        "data.columns.prompt",
        ["'chosen', 'rejected' hold plain text, which does not say what it answers", "to one of 'asked'"],
    ),
    (
        {"completion": "b", "label": 1},
        BOTH,
        {},
        "data.columns.prompt",
        ["'completion' holds plain text", "add a column"],
    ),
    (
        {"chosen": TURNS, "rejected": TURNS, "a": "b"},
        ("pairs",),
        {"input": "a"},
        "data.columns.input",
        ["has no effect without a prompt"],
    ),
    (
        {"prompt": "a", "completion": "b", "label": "good"},
        BOTH,
        {},
        "data.columns.label",
        ["text ('good')", "or 1 or 0"],
    ),
    ({"prompt": "a", "completion": "b", "label": 2}, BOTH, {}, "data.columns.label", ["a number (2) in row 1"]),
    ({"prompt": "a", "chosen": 1, "rejected": "b"}, BOTH, {}, "data.columns.chosen", ["where text or messages is"]),
    (
        {"prompt": "a", "chosen": ["b"], "rejected": "b"},
        BOTH,
        {},
        "data.columns.chosen",
        ["a list with text ('b') in it"],
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "b", "margin": "big"},
        BOTH,
        {},
        "data.columns.margin",
        ["text ('big') in row 1, where a number is"],
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        ALL,
        {},
        "data.columns",
        [
            "rows hold a chosen and a rejected column, and this trainer takes a column of messages or",
            "or data.columns.text",
        ],
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        ALL,
        {"margin": "chosen"},
        "data.columns.margin",
        ["not a chosen and a rejected column"],
    ),
    (
        {"prompt": "a", "completion": "b"},
        ("pairs",),
        {"prompt": "prompt", "completion": "completion"},
        "data.columns.prompt",
        ["this trainer takes a chosen and a rejected column, not a prompt and a completion column"],
    ),
    (
        {"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"},
        ("pairs",),
        {"chosen": "chosen", "completion": "completion"},
        "data.columns",
        ["cannot be set beside"],
    ),
]


@pytest.mark.parametrize(("row", "accepts", "chosen", "key", "says"), NO_PREFERENCE)
def test_preferences_that_cannot_be_decided_are_refused(
    row: dict[str, Any], accepts: tuple[Shape, ...], chosen: dict[str, str], key: str, says: list[str]
) -> None:
    with pytest.raises(DataError) as refused:
        find_columns(list(row), [row], chosen, accepts)
    assert refused.value.problems[0].key.startswith(key)
    assert [part for part in says if part not in str(refused.value)] == []


TAKERS: dict[Shape, list[str]] = {
    "prompt_completion": ["trainer=sft"],
    "text": ["trainer=sft", "trainer=pretrain"],
    "pairs": ["trainer=dpo", "trainer=reward"],
    "unpaired": ["trainer=kto"],
}


@pytest.mark.parametrize(
    ("row", "accepts", "chosen", "advice", "fix"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ("text",), {}, "choose trainer=dpo (or reward), or set",
         "trainer=dpo"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ("text",), {"chosen": "chosen"},
         "choose trainer=dpo (or reward), or set", "trainer=dpo"),
        ({"prompt": "a", "completion": "b", "label": 1}, ("pairs",), {}, "choose trainer=kto, or", "trainer=kto"),
        ({"prompt": "a", "completion": "b"}, ("pairs",), {}, "choose trainer=sft, or set", "trainer=sft"),
        ({"prompt": "a", "completion": "b"}, ("unpaired",), {}, "to one of them, or choose trainer=sft", "trainer=sft"),
        ({"text": "a"}, ("pairs",), {}, "choose trainer=sft (or pretrain), or set", "trainer=sft"),
        ({"a": "b"}, ("pairs",), {}, "set data.columns.chosen and data.columns.rejected", ""),
    ],
)  # fmt: skip
def test_rows_of_another_shape_lead_to_the_trainer_that_takes_them(
    row: dict[str, Any], accepts: tuple[Shape, ...], chosen: dict[str, str], advice: str, fix: str
) -> None:
    takers = {shape: words for shape, words in TAKERS.items() if shape not in accepts}
    with pytest.raises(DataError) as refused:
        find_columns(list(row), [row], chosen, accepts, takers=takers)
    (problem,) = refused.value.problems
    assert advice in problem.advice
    assert problem.fix == fix


def test_a_context_without_a_prompt_is_no_part_of_whole_conversations() -> None:
    choice = find({"chosen": TURNS, "rejected": TURNS, "context": "b"}, ("pairs",))
    assert choice.columns == {"chosen": "chosen", "rejected": "rejected"}
    assert choice.reason.endswith("not used: 'context'")


ANSWERED = {"prompt": TURNS[:1], "completion": TURNS[1:]}


@pytest.mark.parametrize("row", [
    ANSWERED, {"prompt": TURNS[:1], "completion": "hello"}, {"prompt": "hi", "completion": TURNS[1]},
])  # fmt: skip
def test_a_prompt_and_a_completion_may_be_messages(row: dict[str, Any]) -> None:
    choice = find({**row, "tools": [], "id": 1})
    assert (choice.shape, choice.columns) == ("prompt_completion", {"prompt": "prompt", "completion": "completion"})
    assert choice.reason.endswith("not used: 'id'")
    assert find({"prompt": "a", "completion": "b", "tools": []}).reason.endswith("not used: 'tools'")


@pytest.mark.parametrize(
    ("row", "accepts", "advice"),
    [
        ({"prompt": "a", "completion": 3}, ALL, "convert the column"),
        ({"prompt": "a", "completion": 3, "id": 1}, ALL, "convert the column"),
        ({"prompt": "a", "completion": 3, "said": "b"}, ALL, "set data.columns.completion to another column ('said')"),
        (
            {"prompt": "a", "completion": "b", "label": "yes", "stars": 5},
            ("unpaired",),
            "write true or false (or 1 or 0) in it",
        ),
        (
            {"prompt": "a", "completion": "b", "label": "yes", "good": 1},
            ("unpaired",),
            "write true or false (or 1 or 0) in it, or set data.columns.label to another column ('good')",
        ),
    ],
)
def test_a_column_of_the_wrong_type_has_a_cure_that_helps(
    row: dict[str, Any], accepts: tuple[Shape, ...], advice: str
) -> None:
    """A column that has a role already is none to take instead."""
    with pytest.raises(DataError) as refused:
        find(row, accepts)
    assert [problem.advice for problem in refused.value.problems] == [advice]


def test_a_column_that_was_said_for_all_sources_is_named_by_its_key() -> None:
    rows, key = [{"q": "a", "completion": "b"}], "data.mixture[1].columns"
    with pytest.raises(DataError) as refused:
        find_columns(["q", "completion"], rows, {"prompt": "ask"}, ALL, key, {"prompt": "data.columns.prompt"})
    (problem,) = refused.value.problems
    assert problem.key == "data.columns.prompt"
    assert problem.what == "no column 'ask' in data.mixture[1]; there is 'q', 'completion'"
    assert problem.advice == "name one of them in data.mixture[1].columns.prompt for this source alone"


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, True), (False, False), (1, True), (0, False), (1.0, True), (0.0, False), ("1", True), (" False ", False)]
    + [(value, None) for value in (None, 2, -1, 0.5, "yes", "good", "", [], [1], {"a": 1}, float("nan"))],
)
def test_a_label_is_true_or_false_or_one_or_zero(value: Any, label: bool | None) -> None:
    assert read_label(value) is label


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (-0.5, -0.5), ("2.5", 2.5), (True, None), ("many", None), (None, None), ([1], None), (10**400, None)],
)
def test_a_number_is_one_or_its_text(value: Any, number: float | None) -> None:
    assert read_number(value) == number


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
