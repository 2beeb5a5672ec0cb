"""Preferences: rows of every form as one prompt and its answers.

A row says which of two answers is better (a pair), or of one answer whether it is wanted (unpaired). The prompt may be
text, messages or a transcript, or be written only inside the answers; see docs/preference.md for the forms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aitrain.data.columns import (
    LABELS,
    ColumnChoice,
    MessagesError,
    check_messages,
    kind_of,
    read_label,
    read_number,
)
from aitrain.data.encoding import UnusableRow
from aitrain.data.rendering import Message
from aitrain.data.transcripts import transcript
from aitrain.data.weights import PARTS, joined_parts

Said = str | list[Message]
"""What a column holds of a conversation: a text, or turns."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one and the worse one."""

    prompt: list[Message]
    """Every turn that both have in common; the last one is not the assistant's."""
    chosen: list[Message]
    """What follows the prompt in the better conversation: begins and ends with an assistant turn."""
    rejected: list[Message]
    margin: float | None = None
    """By how much the better one should win; finite."""
    tools: list[Any] | None = None


@dataclass(frozen=True)
class Unpaired:
    """One answer to a prompt, and whether it is wanted."""

    prompt: list[Message]
    completion: list[Message]
    wanted: bool
    tools: list[Any] | None = None


def preference_pair(
    choice: ColumnChoice, row: dict[str, Any], *, margins: bool = True, input_apart: bool = False
) -> Pair:
    """A row of the shape `pairs`, whatever its form. Without `margins` a margin column is not looked at.

    The further text of a prompt (`data.columns.input`) stands below it, or with `input_apart` in the message's field
    `input`, for which Alpaca's format has a place of its own. Raises UnusableRow or MessagesError for a row that does
    not say what is better than what.
    """
    prompt = _prompt(choice, row, input_apart)
    columns = (choice.columns["chosen"], choice.columns["rejected"])
    first, second = _answers(row, columns, prompt)
    first, second = _whole(prompt, first, columns[0])[0], _whole(prompt, second, columns[1])[0]
    shared = _shared(first, second, columns)
    for turns, column in ((first, columns[0]), (second, columns[1])):
        _check_answer(turns[shared:], column)
    margin = _margin(row, choice.columns["margin"]) if margins and "margin" in choice.columns else None
    told = _checked_prompt(choice, row, first[:shared])
    return Pair(told, first[shared:], second[shared:], margin, _tools(row))


def unpaired_rows(choice: ColumnChoice, row: dict[str, Any], *, input_apart: bool = False) -> list[Unpaired]:
    """The judged answers of a row: one of the shape `unpaired`; of a pair both, the chosen one wanted.

    `input_apart` as in `preference_pair`. Raises UnusableRow or MessagesError.
    """
    if choice.shape == "pairs":
        pair = preference_pair(choice, row, margins=False, input_apart=input_apart)
        return [
            Unpaired(pair.prompt, pair.chosen, True, pair.tools),
            Unpaired(pair.prompt, pair.rejected, False, pair.tools),
        ]
    wanted = read_label(row.get(choice.columns["label"]))
    if wanted is None:
        raise UnusableRow(_instead(row, choice.columns["label"], f"{LABELS} is"))
    prompt = _prompt(choice, row, input_apart)
    column = choice.columns["completion"]
    (turns,) = _answers(row, [column], prompt)
    whole, start = _whole(prompt, turns, column)
    if whole[-1]["role"] != "assistant":
        raise UnusableRow(f"column '{column}' ends with a {whole[-1]['role']} turn, not with an answer")
    if prompt is None:
        start = len(whole) - 1
    _check_answer(whole[start:], column)
    return [Unpaired(_checked_prompt(choice, row, whole[:start]), whole[start:], wanted, _tools(row))]


def asked(choice: ColumnChoice, row: dict[str, Any], *, input_apart: bool = False) -> tuple[list[Message], Any]:
    """The turns that a model is to answer, and the tools it may call. Raises UnusableRow or MessagesError.

    Of a conversation (shape `messages`) those before its last answer, if it ends with one.
    """
    if choice.shape == "messages":
        turns = check_messages(joined_parts(row.get(choice.columns["messages"])))
        while turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        if not turns:
            raise UnusableRow("no turn comes before the answer")
    else:
        prompt = _prompt(choice, row, input_apart)
        assert prompt is not None
        turns = prompt.turns
    return _checked_prompt(choice, row, turns), _tools(row)


# --- what the columns hold -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prompt:
    turns: list[Message]
    is_transcript: bool


def _prompt(choice: ColumnChoice, row: dict[str, Any], input_apart: bool) -> _Prompt | None:
    """The prompt of a row; None where the data has no column for it."""
    if (column := choice.columns.get("prompt")) is None:
        return None
    said = _said(row, column)
    more = _optional(row, choice.columns.get("input"))
    turns = transcript(said) if isinstance(said, str) else said
    # Only a prompt that begins with the person is a transcript; `Assistant: …` may be what a person writes.
    is_transcript = isinstance(said, str) and turns is not None and turns[0]["role"] == "user"
    if isinstance(said, str) and not is_transcript:
        turns = [{"role": "user", "content": f"{said}\n\n{more}" if more and not input_apart else said}]
        turns[0] |= {"input": more} if more and input_apart else {}
    elif more:
        raise UnusableRow(f"column '{choice.columns['input']}' cannot stand below a prompt of several turns")
    assert turns is not None
    if is_transcript and turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]
    if turns[-1]["role"] == "assistant":
        raise UnusableRow(f"column '{column}' ends with an answer, where the turn to answer is expected")
    return _Prompt(turns, is_transcript)


def _said(row: dict[str, Any], column: str) -> Said:
    """The text or the turns that a column holds; messages may be JSON text, and a single one needs no list."""
    value = row.get(column)
    if isinstance(value, str):
        if not value.strip():
            raise UnusableRow(f"column '{column}' is empty")
        value = _json_messages(value) or value
    if isinstance(value, str):
        return value
    if not isinstance(value, list | dict):
        raise UnusableRow(_instead(row, column, "text or messages are"))
    try:
        turns = check_messages(joined_parts([value] if isinstance(value, dict) else value))
    except MessagesError as error:
        raise MessagesError(f"column '{column}': {error}") from None
    if any({"weight", PARTS} & {*turn} for turn in turns):
        raise UnusableRow(f"column '{column}' holds a message with a weight, which has no effect on preferences")
    return turns


def _json_messages(text: str) -> list[Any] | None:
    """Messages in JSON, which files of text columns hold; None for a text that is none, however like JSON it is."""
    if not text.lstrip().startswith("["):
        return None
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = isinstance(turns, list) and all(isinstance(turn, dict) and {"role", "from"} & {*turn} for turn in turns)
    return turns if found else None


def _optional(row: dict[str, Any], column: str | None) -> str:
    """A text that a row may lack; '' then."""
    value = None if column is None else row.get(column)
    if column is None or value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableRow(_instead(row, column, "text is"))
    return value if value.strip() else ""


def _instead(row: dict[str, Any], column: str, expected: str) -> str:
    return f"column '{column}' holds {kind_of(row.get(column))} where {expected} expected"


def _margin(row: dict[str, Any], column: str) -> float:
    if row.get(column) is None:
        raise UnusableRow(f"column '{column}' holds nothing; give every row a margin, or remove the column")
    margin = read_number(row[column])
    if margin is None or not math.isfinite(margin):
        raise UnusableRow(_instead(row, column, "a finite number is"))
    return margin


def _tools(row: dict[str, Any]) -> list[Any] | None:
    """The tools that the assistant may call, as a list or as JSON text of one."""
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError):
            raise UnusableRow(_instead(row, "tools", "a list of tools is")) from None
    if tools is not None and not isinstance(tools, list):
        raise UnusableRow(_instead(row, "tools", "a list of tools is"))
    return tools or None


# --- one form ------------------------------------------------------------------------------------------------------


def _answers(row: dict[str, Any], columns: Sequence[str], prompt: _Prompt | None) -> list[list[Message]]:
    """What the columns hold as turns: answers alone, or whole conversations."""
    said = [_said(row, column) for column in columns]
    texts = [text for text in said if isinstance(text, str)]
    turns = [turns for turns in said if not isinstance(turns, str)]
    if texts and turns:
        raise UnusableRow(f"of {_both(columns)} one holds text and the other messages")
    if turns:
        return turns
    transcripts = [found for text in texts if (found := transcript(text))]
    if len(transcripts) == len(texts):
        return transcripts
    if prompt is None:
        what = (
            "one is a transcript and the other plain text" if transcripts else "plain text does not say what it answers"
        )
        raise UnusableRow(f"{_both(columns)}: {what}; a prompt's column can be named with data.columns.prompt")
    # Blanks around the parts of a transcript are layout.
    return [[{"role": "assistant", "content": text.strip() if prompt.is_transcript else text}] for text in texts]


def _whole(prompt: _Prompt | None, turns: list[Message], column: str) -> tuple[list[Message], int]:
    """The whole conversation, and how many of its turns are known to be the prompt.

    Turns that do not repeat the prompt follow it, and then the first must be an answer.
    """
    if prompt is None:
        return turns, 0
    if told := _told(prompt, turns):
        system = turns[: told - len(prompt.turns)]
        return [*system, *prompt.turns, *turns[told:]], told
    if turns[0]["role"] != "assistant":
        raise UnusableRow(f"column '{column}' is a conversation that does not begin with the prompt")
    return [*prompt.turns, *turns], len(prompt.turns)


def _told(prompt: _Prompt, turns: list[Message]) -> int:
    """How many of the turns repeat the prompt, with a system message before it that the prompt leaves out."""
    for start in (0, 1) if turns[0]["role"] == "system" else (0,):
        repeated = turns[start : start + len(prompt.turns)]
        if len(repeated) == len(prompt.turns) and all(map(_same, repeated, prompt.turns)):
            return start + len(prompt.turns)
    return 0


def _same(first: Message, second: Message) -> bool:
    """Whether two turns are one; space around what is said does not make another turn."""
    said, other = (
        {**turn, "content": turn["content"] if turn["content"] is None else turn["content"].strip()}
        for turn in (first, second)
    )
    return said == other


def _shared(chosen: list[Message], rejected: list[Message], columns: tuple[str, str]) -> int:
    """How many turns two conversations have in common: the prompt. Raises UnusableRow unless two answers follow."""
    for turns, column in zip((chosen, rejected), columns, strict=True):
        if turns[-1]["role"] != "assistant":
            raise UnusableRow(f"column '{column}' ends with a {turns[-1]['role']} turn, not with an answer")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and _same(chosen[shared], rejected[shared]):
        shared += 1
    if shared == len(chosen) == len(rejected):
        raise UnusableRow(f"{_both(columns)} are the same")
    if shared in (len(chosen), len(rejected)):
        shorter, longer = columns if shared == len(chosen) else reversed(columns)
        raise UnusableRow(f"column '{shorter}' ends where '{longer}' goes on, so it holds no answer of its own")
    if {chosen[shared]["role"], rejected[shared]["role"]} != {"assistant"}:
        turn = chosen[shared]["role"] if chosen[shared]["role"] != "assistant" else rejected[shared]["role"]
        what = f"differ already in turn {shared + 1}, which is a {turn} turn" if shared else "have no turn in common"
        raise UnusableRow(f"{_both(columns)} {what}; they should be two answers to the same prompt")
    return shared


def _check_answer(answer: list[Message], column: str) -> None:
    for turn in answer:
        if turn["role"] == "assistant" and not _says_something(turn):
            raise UnusableRow(f"the answer in column '{column}' is empty")


def _checked_prompt(choice: ColumnChoice, row: dict[str, Any], prompt: list[Message]) -> list[Message]:
    """The prompt with the row's system message, if it has one."""
    if not any(map(_says_something, prompt)):
        raise UnusableRow("the prompt is empty")
    if prompt[-1]["role"] == "assistant":
        raise UnusableRow("two answers follow each other; a turn of someone else should stand between them")
    if system := _optional(row, choice.columns.get("system")):
        if prompt[0]["role"] == "system":
            raise UnusableRow(f"has a system message besides column '{choice.columns['system']}'")
        return [{"role": "system", "content": system}, *prompt]
    return prompt


def _says_something(turn: Message) -> bool:
    """A turn that calls tools may have no text."""
    return bool((turn["content"] or "").strip() or turn.get("tool_calls"))


def _both(columns: Sequence[str]) -> str:
    return " and ".join(f"'{column}'" for column in columns)
