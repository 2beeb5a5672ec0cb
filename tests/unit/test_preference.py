"""Preferences in every form that a row may have: one prompt, and what is better than what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.data.columns import ColumnChoice, MessagesError, find_columns
from aitrain.data.encoding import UnusableRow
from aitrain.data.preference import Pair, Unpaired, preference_pair, unpaired_rows
from aitrain.data.transcripts import transcript

HH_RLHF = Path(__file__).parents[3] / "shared/data/preference/hh_rlhf"


def turns(*said: str) -> list[dict[str, Any]]:
    """`turns("u:hi", "a:hello")`."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in said]


def sharegpt(*said: str) -> list[dict[str, Any]]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns(*said)]


def hh(*said: str) -> str:
    names = {"u": "Human", "a": "Assistant"}
    return "".join(f"\n\n{names[text[0]]}: {text[2:]}" for text in said)


def choose(row: dict[str, Any], **chosen: str) -> ColumnChoice:
    return find_columns(list(row), [row], chosen, ("pairs", "unpaired"))


def pair(row: dict[str, Any], **chosen: str) -> Pair:
    return preference_pair(choose(row, **chosen), row)


def reason(row: dict[str, Any], **chosen: str) -> str:
    """Why a row cannot be used; its columns are fixed, since the first rows of its data may be fine."""
    columns: dict[Any, str] = {name: name for name in row if name not in ("tools", "id")} | chosen
    paired = "chosen" in row
    read: Callable[..., Any] = preference_pair if paired else unpaired_rows
    with pytest.raises((UnusableRow, MessagesError)) as refused:
        read(ColumnChoice("pairs" if paired else "unpaired", columns, ""), row)
    return str(refused.value)


# --- every form of one pair -----------------------------------------------------------------------------------------

ASKED, BETTER, WORSE = "What color is the sky?", "It is blue.", "It is\n\ngreen: Human: yes."
ONE = Pair(turns(f"u:{ASKED}"), turns(f"a:{BETTER}"), turns(f"a:{WORSE}"))
PROMPT, CHOSEN, REJECTED = ONE.prompt, ONE.chosen, ONE.rejected
FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": ASKED, "chosen": BETTER, "rejected": WORSE},
    "texts by other names": {"question": ASKED, "chosen_response": BETTER, "rejected_response": WORSE},
    "messages": {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED},
    "text and messages": {"prompt": ASKED, "chosen": CHOSEN, "rejected": REJECTED},
    "messages and texts": {"prompt": PROMPT, "chosen": BETTER, "rejected": WORSE},
    "text and whole messages": {"prompt": ASKED, "chosen": PROMPT + CHOSEN, "rejected": PROMPT + REJECTED},
    "one message each": {"prompt": PROMPT[0], "chosen": CHOSEN[0], "rejected": REJECTED[0]},
    "messages in json": {k: json.dumps(v) for k, v in vars(ONE).items() if k in ("prompt", "chosen", "rejected")},
    "whole messages": {"chosen": PROMPT + CHOSEN, "rejected": PROMPT + REJECTED},
    "whole messages of the other dialect": {
        "chosen": sharegpt(f"u:{ASKED}", f"a:{BETTER}"),
        "rejected": sharegpt(f"u:{ASKED}", f"a:{WORSE}"),
    },
    "whole messages in json": {"chosen": json.dumps(PROMPT + CHOSEN), "rejected": json.dumps(PROMPT + REJECTED)},
    "transcripts": {"chosen": hh(f"u:{ASKED}", f"a:{BETTER}"), "rejected": hh(f"u:{ASKED}", f"a:{WORSE}")},
    "transcripts without the first empty lines": {
        "chosen": hh(f"u:{ASKED}", f"a:{BETTER}").strip(),
        "rejected": hh(f"u:{ASKED}", f"a:{WORSE}") + " \n",
    },
    "text and transcripts": {
        "prompt": ASKED,
        "chosen": hh(f"u:{ASKED}", f"a:{BETTER}"),
        "rejected": hh(f"u:{ASKED}", f"a:{WORSE}"),
    },
    "a prompt's transcript and texts": {
        "prompt": hh(f"u:{ASKED}") + "\n\nAssistant:",
        "chosen": " " + BETTER,
        "rejected": " " + WORSE,
    },
    "a divided transcript": {"prompt": hh(f"u:{ASKED}"), "chosen": hh(f"a:{BETTER}"), "rejected": hh(f"a:{WORSE}")},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_the_same_pair(form: str) -> None:
    assert pair(FORMS[form]) == ONE


TALK = turns("s:Be kind.", "u:Hi", "a:Hello!", "u:And now?")
LONGER = Pair(TALK, turns("a:Now we talk."), turns("a:Go away."))
LONGER_FORMS: dict[str, dict[str, Any]] = {
    "messages": {"prompt": TALK, "chosen": LONGER.chosen, "rejected": LONGER.rejected},
    "whole messages": {"chosen": TALK + LONGER.chosen, "rejected": TALK + LONGER.rejected},
    "a prompt that is the beginning": {
        "prompt": TALK[:2],
        "chosen": TALK + LONGER.chosen,
        "rejected": TALK + LONGER.rejected,
    },
    "a prompt without the system message": {
        "prompt": TALK[1:],
        "chosen": TALK + LONGER.chosen,
        "rejected": TALK + LONGER.rejected,
    },
    "a system column": {
        "system": "Be kind.",
        "prompt": TALK[1:],
        "chosen": LONGER.chosen,
        "rejected": TALK[1:] + LONGER.rejected,
    },
    "a system column and transcripts": {
        "system": "Be kind.",
        "chosen": hh("u:Hi", "a:Hello!", "u:And now?", "a:Now we talk."),
        "rejected": hh("u:Hi", "a:Hello!", "u:And now?", "a:Go away."),
    },
}


@pytest.mark.parametrize("form", LONGER_FORMS)
def test_every_form_of_a_longer_conversation_becomes_the_same_pair(form: str) -> None:
    assert pair(LONGER_FORMS[form]) == LONGER


def test_answers_may_go_on_over_several_turns_from_the_first_that_differs() -> None:
    better, worse = turns("u:Hi", "a:Hello", "u:Why?", "a:So."), turns("u:Hi", "a:What?", "u:Oh", "a:Go.")
    assert pair({"chosen": better, "rejected": worse}) == Pair(better[:1], better[1:], worse[1:])


def test_what_a_row_brings_besides_belongs_to_the_pair() -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    row = {"instruction": "Add.", "input": "2 and 3", "chosen": "5", "rejected": "6", "margin": 2, "tools": tools}
    assert pair(row) == Pair(turns("u:Add.\n\n2 and 3"), turns("a:5"), turns("a:6"), 2.0, tools)
    assert pair(row | {"input": None, "tools": json.dumps(tools)}).prompt == turns("u:Add.")
    assert pair(row | {"tools": json.dumps(tools)}).tools == tools
    assert pair(row | {"margin": "-0.5"}).margin == -0.5
    assert preference_pair(choose(row), row | {"margin": None}, margins=False).margin is None


def test_text_that_looks_like_json_but_is_no_conversation_stays_text() -> None:
    row = {"prompt": "[1, 2]?", "chosen": '[{"a": 1}]', "rejected": "[1, 2"}
    assert pair(row) == Pair(turns("u:[1, 2]?"), turns('a:[{"a": 1}]'), turns("a:[1, 2"))


def test_space_in_an_answer_that_is_no_transcript_is_kept() -> None:
    assert pair({"prompt": "a", "chosen": " b\n", "rejected": "c"}).chosen == turns("a: b\n")


# --- transcripts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\nHuman: hi\n\nAssistant: hello", turns("u:hi", "a:hello")),
        ("Human: hi\n\nAssistant: hello", turns("u:hi", "a:hello")),
        ("\n\nHuman:  hi \n\n\nAssistant:\nhello\n", turns("u:hi", "a:hello")),
        ("\n\nHuman: hi\n\nAssistant:", turns("u:hi", "a:")),
        ("\n\nHuman: a\n\nb\n\nAssistant: c\n\nd", turns("u:a\n\nb", "a:c\n\nd")),
        ("\n\nHuman: a Human: b\nHuman: c\n\nAssistant: d", turns("u:a Human: b\nHuman: c", "a:d")),
        ("\n\nHuman: a\n\nHumans: b\n\nHuman:b\n\n Human: c", turns("u:a\n\nHumans: b\n\nHuman:b\n\n Human: c")),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", turns("u:a", "u:b", "a:c")),
        ("\n\nHuman: a\n\nhuman: b\n\nAssistant : c", turns("u:a\n\nhuman: b\n\nAssistant : c")),
        ("\n\nAssistant: a", turns("a:a")),
        ("Say\n\nHuman: a", None),
        ("Human", None),
        ("The Human: a\n\nAssistant: b", None),
        ("", None),
    ],
)
def test_a_transcript_is_divided_where_an_empty_line_and_a_speaker_begin_a_turn(text: str, expected: Any) -> None:
    assert transcript(text) == expected


def test_a_prompt_that_begins_like_an_answer_is_what_a_person_wrote() -> None:
    row = {"prompt": "Assistant: help!", "chosen": "How?", "rejected": "No."}
    assert pair(row).prompt == turns("u:Assistant: help!")


def test_the_rows_of_hh_rlhf_can_be_used() -> None:
    if not HH_RLHF.is_dir():
        pytest.skip("the data folder of the development machine is not here")
    for split, count in (("train", 389), ("test", 78)):
        rows = [json.loads(line) for line in (HH_RLHF / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(rows) == count
        for row in rows:
            found = pair(row)
            # Written out again, a pair is the row, but for space around its turns.
            for answer, column in ((found.chosen, "chosen"), (found.rejected, "rejected")):
                again = "".join(
                    f"\n\n{'Human' if turn['role'] == 'user' else 'Assistant'}: {turn['content']}"
                    for turn in found.prompt + answer
                )
                assert "".join(again.split()) == "".join(row[column].split())
            assert [turn["role"] for turn in found.prompt][::2] == ["user"] * ((len(found.prompt) + 1) // 2)
            assert [turn["role"] for turn in found.chosen + found.rejected] == ["assistant", "assistant"]


# --- refused rows ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "equal texts": ({"prompt": "a", "chosen": "b", "rejected": "b\n"}, "'chosen' and 'rejected' are the same"),
    "equal in two forms": (
        {"prompt": "a", "chosen": turns("u:a", "a:b"), "rejected": turns("a: b ")},
        "'chosen' and 'rejected' are the same",
    ),
    "equal transcripts": ({"chosen": hh("u:a", "a:b"), "rejected": hh("u:a", "a:b") + " "}, "are the same"),
    "empty text": ({"prompt": "a", "chosen": " ", "rejected": "b"}, "column 'chosen' is empty"),
    "empty message": ({"prompt": "a", "chosen": "b", "rejected": ""}, "column 'rejected' is empty"),
    "null": ({"prompt": "a", "chosen": None, "rejected": "b"}, "column 'chosen' holds null where text or messages"),
    "empty answer": (
        {"chosen": turns("u:a", "a:b"), "rejected": turns("u:a", "a: ")},
        "the answer in column 'rejected' is empty",
    ),
    "empty answer of a transcript": (
        {"chosen": hh("u:a") + "\n\nAssistant:", "rejected": hh("u:a", "a:b")},
        "the answer in column 'chosen' is empty",
    ),
    "no messages": ({"prompt": "a", "chosen": [], "rejected": turns("a:b")}, "column 'chosen': an empty list"),
    "empty prompt": ({"prompt": "\n", "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
    "empty prompt of messages": (
        {"chosen": turns("u: ", "a:b"), "rejected": turns("u: ", "a:c")},
        "the prompt is empty",
    ),
    "a list of texts": ({"prompt": "a", "chosen": ["b"], "rejected": ["c"]}, "'chosen': message 1 is text ('b')"),
    "a number": ({"prompt": "a", "chosen": 7, "rejected": "c"}, "holds a number (7) where text or messages are"),
    "a prompt of numbers": ({"prompt": [1], "chosen": "b", "rejected": "c"}, "column 'prompt': message 1 is a number"),
    "an input list": (
        {"prompt": "a", "input": ["b"], "chosen": "b", "rejected": "c"},
        "column 'input' holds a list of 1 where text is expected",
    ),
    "an input below messages": (
        {"prompt": turns("u:a"), "input": "b", "chosen": "b", "rejected": "c"},
        "column 'input' cannot stand below a prompt of several turns",
    ),
    "mixed types": ({"prompt": "a", "chosen": "b", "rejected": turns("a:c")}, "one holds text and the other messages"),
    "an answer in the prompt": (
        {"prompt": turns("u:a", "a:b"), "chosen": "c", "rejected": "d"},
        "column 'prompt' ends with an answer",
    ),
    "a question last": (
        {"chosen": turns("u:a", "a:b", "u:c"), "rejected": turns("u:a", "a:d")},
        "column 'chosen' ends with a user turn, not with an answer",
    ),
    "a transcript with Human last": (
        {"chosen": hh("u:a", "a:b"), "rejected": hh("u:a", "a:b", "u:c")},
        "column 'rejected' ends with a user turn, not with an answer",
    ),
    "another conversation": (
        {"chosen": hh("u:a", "a:b"), "rejected": hh("u:b", "a:c")},
        "'chosen' and 'rejected' have no turn in common; they should be two answers to the same prompt",
    ),
    "another question on the way": (
        {"chosen": hh("u:a", "a:b", "u:c", "a:d"), "rejected": hh("u:a", "a:b", "u:e", "a:f")},
        "'chosen' and 'rejected' differ already in turn 3, which is a user turn",
    ),
    "a prompt and other conversations": (
        {"prompt": "x", "chosen": turns("u:a", "a:b"), "rejected": turns("u:a", "a:c")},
        "column 'chosen' is a conversation that does not begin with the prompt",
    ),
    "a beginning of the other": (
        {"chosen": turns("u:a", "a:b", "u:c", "a:d"), "rejected": turns("u:a", "a:b")},
        "column 'rejected' ends where 'chosen' goes on",
    ),
    "two answers in a row": (
        {"chosen": turns("u:a", "a:b", "a:c"), "rejected": turns("u:a", "a:b", "a:d")},
        "two answers follow each other",
    ),
    "texts alone": (
        {"chosen": "a b", "rejected": "a c"},
        "plain text does not say what it answers; a prompt's column can be named with data.columns.prompt",
    ),
    "one transcript": ({"chosen": hh("u:a", "a:b"), "rejected": "c"}, "one is a transcript and the other plain text"),
    "two system messages": (
        {"system": "s", "chosen": turns("s:t", "u:a", "a:b"), "rejected": turns("s:t", "u:a", "a:c")},
        "has a system message besides column 'system'",
    ),
    "a margin of text": (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": "big"},
        "a finite number is expected",
    ),
    "a margin that is true": (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": True},
        "holds true or false (True)",
    ),
    "no margin": (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": None},
        "column 'margin' holds nothing; give every row a margin, or remove the column",
    ),
    "NaN": ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("nan")}, "holds a number (nan)"),
    "infinity": ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("-inf")}, "a finite number is"),
    "tools that are text": ({"prompt": "a", "chosen": "b", "rejected": "c", "tools": "add"}, "a list of tools is"),
    "an unknown role": (
        {"prompt": "a", "chosen": [{"role": "x", "content": "b"}], "rejected": "c"},
        "unknown role 'x'",
    ),
    "a label of words": ({"prompt": "a", "completion": "b", "label": "good"}, "true or false, or 1 or 0, is expected"),
    "a rating": ({"prompt": "a", "completion": "b", "label": 2}, "column 'label' holds a number (2)"),
    "no label": ({"prompt": "a", "completion": "b", "label": None}, "column 'label' holds null"),
    "no completion": ({"prompt": "a", "completion": "", "label": True}, "column 'completion' is empty"),
    "a completion that answers nothing": ({"completion": turns("a:b"), "label": True}, "the prompt is empty"),
    "a completion that asks": (
        {"completion": turns("u:a", "a:b", "u:c"), "label": True},
        "column 'completion' ends with a user turn",
    ),
    "a plain completion": ({"completion": "b", "label": True}, "plain text does not say what it answers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_does_not_say_what_is_better_is_refused_with_the_reason(case: str) -> None:
    row, says = REFUSED[case]
    assert says in reason(row)


# --- judged answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": turns("u:Hi"), "completion": turns("a:Hello")},
        {"prompt": turns("u:Hi"), "completion": turns("u:Hi", "a:Hello")},
        {"completion": turns("u:Hi", "a:Hello")},
        {"completion": hh("u:Hi", "a:Hello")},
        {"prompt": hh("u:Hi") + "\n\nAssistant:", "completion": " Hello"},
    ],
)
@pytest.mark.parametrize(("label", "wanted"), [(True, True), (False, False), (1, True), (0.0, False), ("False", False)])
def test_every_form_of_a_judged_answer_is_the_same(row: dict[str, Any], label: Any, wanted: bool) -> None:
    row = row | {"label": label}
    assert unpaired_rows(choose(row), row) == [Unpaired(turns("u:Hi"), turns("a:Hello"), wanted)]


def test_without_a_prompt_the_last_turn_is_judged_and_with_one_everything_after_it() -> None:
    said = turns("u:Hi", "a:Hello", "u:And?", "a:So.")
    row: dict[str, Any] = {"completion": said, "label": True}
    assert unpaired_rows(choose(row), row) == [Unpaired(said[:3], said[3:], True)]
    row = {"prompt": "Hi", "completion": said, "label": True, "system": "Be kind."}
    assert unpaired_rows(choose(row), row) == [Unpaired(turns("s:Be kind.") + said[:1], said[1:], True)]


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_is_a_wanted_and_an_unwanted_answer(form: str) -> None:
    found = unpaired_rows(choose(FORMS[form]), FORMS[form])
    assert found == [Unpaired(PROMPT, CHOSEN, True), Unpaired(PROMPT, REJECTED, False)]
