"""Conversations to text, with the character spans that carry loss. No torch and no model, only a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


class RenderingError(ValueError):
    """A conversation cannot be rendered, or its answers cannot be told apart from the rest of the text."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text. `answers` are (start, end) characters of the assistant turns, end token included."""

    text: str
    answers: tuple[tuple[int, int], ...]


def render(tokenizer: Any, messages: Sequence[Message], tools: Any = None) -> Rendered:
    """The conversation in the tokenizer's own chat template, or as plain `Role: text` lines if it has none.

    Raises RenderingError when the template refuses the conversation or rewrites earlier turns, so that the answers
    cannot be located.
    """
    if tokenizer.chat_template:
        return _by_template(tokenizer, messages, tools)
    if tools or any(message.get("tool_calls") for message in messages):
        raise RenderingError("tools need a tokenizer with a chat template, which this one does not have")
    return _plain(tokenizer, messages)


def prompt_text(tokenizer: Any, messages: Sequence[Message], tools: Any = None) -> str:
    """The text after which the model writes its answer."""
    if tokenizer.chat_template:
        return _template(tokenizer, messages, tools, prompt=True)
    return _plain(tokenizer, messages).text + "Assistant:"


def format_name(tokenizer: Any) -> str:
    """How conversations are rendered, in the words of the report."""
    return "the tokenizer's chat template" if tokenizer.chat_template else "plain 'User: … Assistant: …' lines"


def _plain(tokenizer: Any, messages: Sequence[Message]) -> Rendered:
    """`User: …`, `Assistant: …` lines; each answer ends with the end-of-sequence token, which is trained too."""
    text, answers = "", []
    for message in messages:
        content = str(message.get("content") or "")
        role = message["role"]
        text += f"{role.capitalize()}:"
        start = len(text)
        text += f" {content}"
        if role == "assistant":
            text += tokenizer.eos_token or ""
            answers.append((start, len(text)))
        text += "\n"
    return Rendered(text, tuple(answers))


def _by_template(tokenizer: Any, messages: Sequence[Message], tools: Any) -> Rendered:
    """Answers are found by rendering each prefix of the conversation: what an assistant turn adds to the prompt before
    it is the answer. That needs no generation marks in the template, only that turns are appended."""
    text = _template(tokenizer, messages, tools, prompt=False)
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if index == 0:
            raise RenderingError("the conversation begins with an answer; a system or user turn should come first")
        before = _template(tokenizer, messages[:index], tools, prompt=True)
        after = text if index == len(messages) - 1 else _template(tokenizer, messages[: index + 1], tools, prompt=False)
        if not (after.startswith(before) and text.startswith(after)):
            raise RenderingError(
                f"the chat template rewrites turn {index + 1} when later turns follow, so its answer cannot be located"
            )
        end = _end_of_answer(tokenizer, after)
        _check_tool_calls(message, text[len(before) : end])
        answers.append((len(before), end))
    return Rendered(text, tuple(answers))


def _check_tool_calls(message: Message, answer: str) -> None:
    """A template without tools renders a tool call as an empty answer; that must not be trained."""
    for call in message.get("tool_calls") or ():
        name = str((call.get("function") or call).get("name", ""))
        if name and name not in answer:
            raise RenderingError(f"the chat template leaves the tool call '{name}' out")


def _end_of_answer(tokenizer: Any, text: str) -> int:
    """Where an answer ends: with its end token, not with the line break that a template may put behind it.

    The token that ends a turn need not be the one that ends a text: Gemma's template writes `<end_of_turn>`.
    """
    stripped = text.rstrip()
    ends = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return len(stripped) if stripped.endswith((tokenizer.eos_token or "\0", *ends)) else len(text)


def _template(tokenizer: Any, messages: Sequence[Message], tools: Any, *, prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(list(messages), tools=tools, tokenize=False, add_generation_prompt=prompt)
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise RenderingError(f"the chat template refuses the conversation: {error}") from error
