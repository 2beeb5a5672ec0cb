"""Conversations to text, with the character spans that carry loss. No torch and no model, only a tokenizer.

Answers are found without any help of the template: what a conversation's text has more, after an assistant turn, than
the prompt before that turn is the answer. A template that marks answers (`{% generation %}`) gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from aitrain.data.formats import AUTO, FORMATS, RAW, has_place_for_input, special_tokens

Message = dict[str, Any]
Span = tuple[int, int]

GIVEN = "part_of_prompt"
"""Field of an answer that a prompt holds: it is no answer to learn."""
NOT_RENDERED = ("weight", "weights", GIVEN)
"""Fields of a message that say how much it counts; templates do not see them."""
MOST_LAYOUTS = 512
"""Orders of roles of which the layout is remembered."""
STAND_IN = "\ue0a7{}\ue0a8"
"""What stands for a message's text while a layout is found; characters that no writing uses."""


class RenderingError(ValueError):
    """A conversation cannot be rendered, or its answers cannot be told apart from the rest of the text."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text. `answers` are (start, end) characters of the assistant turns, end token included."""

    text: str
    answers: tuple[Span, ...]


def render(tokenizer: Any, messages: Sequence[Message], tools: Any = None) -> Rendered:
    """The conversation in the tokenizer's own chat template, or as plain `Role: text` lines if it has none.

    Raises RenderingError when the template refuses the conversation or rewrites earlier turns, so that the answers
    cannot be located.
    """
    if tokenizer.chat_template:
        return ChatTemplate(tokenizer).render(messages, tools)
    if tools or any(message.get("tool_calls") for message in messages):
        raise RenderingError("tools need a tokenizer with a chat template, which this one does not have")
    return _plain(tokenizer, messages)


def prompt_text(tokenizer: Any, messages: Sequence[Message], tools: Any = None) -> str:
    """The text after which the model writes its answer."""
    if tokenizer.chat_template:
        return ChatTemplate(tokenizer).prompt(messages, tools)
    return _plain(tokenizer, messages).text + "Assistant:"


def format_name(tokenizer: Any, chat_format: str = AUTO) -> str:
    """How conversations are rendered, in the words of the report."""
    if chat_format == RAW:
        return "prompt and completion as they are"
    if chat_format in FORMATS:
        return f"the {chat_format} format"
    if chat_format != AUTO:
        return f"the chat template in {chat_format}"
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


class ChatTemplate:
    """A tokenizer's chat template, or another one given as Jinja text.

    Rendering is most of the work of preparing rows. So the layout that a template gives to an order of roles is found
    once, with stand-ins for the texts, and taken for a conversation only if the conversation's own text turns out to be
    that layout filled with its own messages, letter by letter. Any other conversation is rendered turn by turn.
    """

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.given = text
        self._learnt = _learnt(tokenizer, text or tokenizer.chat_template)
        self.has_place_for_input = has_place_for_input(text or tokenizer.chat_template)

    def render(self, messages: Sequence[Message], tools: Any = None, *, only_last: bool = False) -> Rendered:
        """A conversation with its answers, or with `only_last` its last one: then a template may rewrite the others.

        Where a template writes no end token after the conversation's last word, which is an answer, the tokenizer's
        end-of-sequence token is put there. Raises RenderingError when the template refuses the conversation, rewrites
        earlier turns, or when there is nothing to end an answer with.
        """
        messages = self._seen(messages)
        text = self._text(messages, tools)
        answers = self._answers_by_layout(messages, tools, text, only_last)
        if answers is None:
            answers = self._answers_by_prefixes(messages, tools, text, only_last)
        for number, (start, end) in zip(_answering(messages, only_last), answers, strict=True):
            _check_tool_calls(messages[number], text[start:end])
        if messages[-1]["role"] != "assistant" or self.is_ended(text, answers[-1][1]):
            return Rendered(text, answers)
        ended = self._ended(text)
        return Rendered(ended, (*answers[:-1], (answers[-1][0], len(ended))))

    def whole(self, messages: Sequence[Message], tools: Any = None) -> str:
        """A conversation's text, ended as `render` ends it, without a search for its answers."""
        messages = self._seen(messages)
        text = self._text(messages, tools)
        for message in messages:
            _check_tool_calls(message, text)
        is_answer = messages[-1]["role"] == "assistant"
        return self._ended(text) if is_answer and not self.is_ended(text, len(text.rstrip())) else text

    def prompt(self, messages: Sequence[Message], tools: Any = None) -> str:
        """The text after which the model writes its answer."""
        return self._text(self._seen(messages), tools, prompt=True)

    def contents(self, messages: Sequence[Message], tools: Any, text: str) -> tuple[Span | None, ...]:
        """Where in its rendered text a conversation's messages stand, without headers and marks; None for those
        without text. Raises RenderingError when the template changes or moves them."""
        messages = self._seen(messages)
        layout = self._layout(messages, tools)
        spans = layout.places(messages, text) if layout else None
        if spans is None:
            raise RenderingError("the chat template changes the messages' texts, so they cannot be found again")
        return spans

    def is_ended(self, text: str, end: int) -> bool:
        """Whether the text up to a character ends with a token that can end an answer."""
        return text.endswith(self._learnt.ends, 0, end)

    def end_mark(self, text: str, start: int) -> str:
        """The token that can end an answer and stands at a character, or ''."""
        return max((end for end in self._learnt.ends if text.startswith(end, start)), key=len, default="")

    def unopened(self) -> str:
        """What the template writes before an answer, where it does not write it for `add_generation_prompt`: it is then
        part of every answer. '' where it does, or writes nothing there."""
        question: Message = {"role": "user", "content": STAND_IN.format(0)}
        answer: Message = {"role": "assistant", "content": STAND_IN.format(1)}
        try:
            alone, before = (self._text([question], None, prompt=prompt) for prompt in (False, True))
            whole = self._text([question, answer], None)
        except RenderingError:
            return ""
        if alone != before or not whole.startswith(before):
            return ""
        return whole[len(before) :].partition(answer["content"])[0].strip()

    def begins_with(self, text: str) -> bool:
        """Whether the template writes a text first."""
        try:
            return self._text([{"role": "user", "content": "a"}], None).startswith(text)
        except RenderingError:
            return True  # it is not known what a conversation of its kind begins with

    def _ended(self, text: str) -> str:
        if not self.tokenizer.eos_token:
            what = (
                "the chat template writes no end token after an answer, and the tokenizer has no end-of-sequence token"
            )
            raise RenderingError(what)
        return text + str(self.tokenizer.eos_token)

    # --- answers ---

    def _answers_by_prefixes(
        self, messages: Sequence[Message], tools: Any, text: str, only_last: bool
    ) -> tuple[Span, ...]:
        """What an assistant turn adds to the prompt before it. That needs no generation marks in the template, only
        that turns are appended."""
        answers = []
        for index in _answering(messages, only_last):
            if index == 0:
                raise RenderingError("the conversation begins with an answer; a system or user turn should come first")
            before = self._text(messages[:index], tools, prompt=True)
            after = text if index == len(messages) - 1 else self._text(messages[: index + 1], tools)
            if not (after.startswith(before) and text.startswith(after)):
                what = f"the chat template rewrites turn {index + 1} when later turns follow"
                if index == len(messages) - 1:
                    what = f"the chat template writes turn {index + 1} otherwise than it begins an answer"
                further = "" if only_last else "; data.train_on=last trains the last one alone"
                raise RenderingError(f"{what}, so its answer cannot be located{further}")
            answers.append((len(before), self._end_of_answer(after)))
        return tuple(answers)

    def _end_of_answer(self, text: str) -> int:
        """Where an answer ends: with its end token, not with the line break that a template may put behind it.

        The token that ends a turn need not be the one that ends a text: Gemma's template writes `<end_of_turn>`.
        """
        stripped = text.rstrip()
        return len(stripped) if self.is_ended(stripped, len(stripped)) else len(text)

    # --- layouts ---

    def _answers_by_layout(
        self, messages: Sequence[Message], tools: Any, text: str, only_last: bool
    ) -> tuple[Span, ...] | None:
        """The answers, if the conversation is one of plain texts and its text is the layout filled with them."""
        if tools or not all(map(_is_plain, messages)):
            return None
        known = self._learnt.layouts
        key = (only_last, *(message["role"] for message in messages))
        if key not in known:
            if len(known) >= MOST_LAYOUTS:
                known.clear()
            known[key] = self._layout(messages, None, only_last=only_last, with_answers=True)
        layout = known[key]
        places = layout.places(messages, text) if layout else None
        if layout is None or places is None:
            return None
        return tuple((places[n][0] - lead, places[n][1] + tail) for n, lead, tail in layout.answers)  # type: ignore[index]

    def _layout(
        self, messages: Sequence[Message], tools: Any, *, only_last: bool = False, with_answers: bool = False
    ) -> _Layout | None:
        """How a template lays out a conversation like this one, or None if it does not write the texts as they are."""
        numbers = [number for number, message in enumerate(messages) if (message.get("content") or "").strip()]
        stand_ins = {number: STAND_IN.format(number) for number in numbers}
        copy = [{**m, "content": stand_ins[n]} if n in stand_ins else m for n, m in enumerate(messages)]
        try:
            text = self._text(copy, tools)
            answers = self._answers_by_prefixes(copy, tools, text, only_last) if with_answers else ()
        except RenderingError:
            return None
        pieces, rest, starts = [], text, {}
        for number, stand_in in stand_ins.items():
            piece, found, rest = rest.partition(stand_in)
            if not found or stand_in in rest:
                return None
            pieces.append(piece)
            starts[number] = len(text) - len(rest) - len(stand_in)
        around = []
        for number, (start, end) in zip(_answering(messages, only_last), answers, strict=False):
            after = starts[number] + len(stand_ins[number])
            if start > starts[number] or end < after:
                return None
            around.append((number, starts[number] - start, end - after))
        return _Layout((*pieces, rest), tuple(numbers), tuple(around))

    # --- messages ---

    def _seen(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as a template sees them: without weights, and with the arguments of calls as it wants them."""
        seen = [_without_weights(message) if len(message) > 2 else message for message in messages]
        return [self._with_arguments(message) if message.get("tool_calls") else message for message in seen]

    def _with_arguments(self, message: Message) -> Message:
        calls = message["tool_calls"]
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            return message
        change = json_of_arguments if self._takes_text() else object_of_arguments
        return {**message, "tool_calls": [_changed_call(call, change) for call in calls]}

    def _takes_text(self) -> bool:
        """Whether the template puts a call's arguments down as they are, so that they must be JSON text and no object.

        Most templates write an object as JSON themselves, and would put a text into quotes once more.
        """
        if self._learnt.takes_text is None:
            as_object = self._call_text({"p": "q"})
            is_json = as_object is not None and "{'p': 'q'}" not in as_object
            as_text = None if is_json else self._call_text('{"p": "q"}')
            self._learnt.takes_text = as_text is not None and '{"p": "q"}' in as_text
        return self._learnt.takes_text

    def _call_text(self, arguments: Any) -> str | None:
        """A call with these arguments as the template writes it, or None if it refuses."""
        call = {"type": "function", "id": "a00000000", "function": {"name": "f", "arguments": arguments}}
        turns: list[Message] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            return self._text(turns, None)
        except RenderingError:
            return None

    def _text(self, messages: Sequence[Message], tools: Any, *, prompt: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tools=tools, chat_template=self.given, tokenize=False, add_generation_prompt=prompt
                )
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise RenderingError(f"the chat template refuses the conversation: {error}") from error


@dataclass(frozen=True)
class _Layout:
    """What a template writes around the texts of messages."""

    pieces: tuple[str, ...]
    """Before the first text, between two, and after the last one."""
    numbers: tuple[int, ...]
    """Messages whose texts stand between the pieces."""
    answers: tuple[tuple[int, int, int], ...]
    """Message, and how many characters its answer begins before its text and ends after it."""

    def places(self, messages: Sequence[Message], text: str) -> tuple[Span | None, ...] | None:
        """Where the texts stand if a conversation was laid out like this; white space around a text may be gone."""
        places: list[Span | None] = [None] * len(messages)
        if not text.startswith(self.pieces[0]):
            return None
        at = len(self.pieces[0])
        for number, after in zip(self.numbers, self.pieces[1:], strict=True):
            content = messages[number]["content"]
            for form in (content, content.strip()):
                if text.startswith(form, at) and text.startswith(after, at + len(form)):
                    break
            else:
                return None
            places[number] = (at, at + len(form))
            at += len(form) + len(after)
        return tuple(places) if at == len(text) else None


@dataclass
class _Learnt:
    """What was learnt of a template with a tokenizer; it must not hold the tokenizer, which is its key."""

    template: Any
    tokens: tuple[Any, ...]
    ends: tuple[str, ...]
    takes_text: bool | None = None
    """Whether arguments of calls must be JSON text; None: nobody asked yet."""
    layouts: dict[tuple[Any, ...], _Layout | None] = field(default_factory=dict)


_LEARNT: WeakKeyDictionary[Any, _Learnt] = WeakKeyDictionary()


def _learnt(tokenizer: Any, template: Any) -> _Learnt:
    tokens = (tokenizer.eos_token, tokenizer.bos_token, len(tokenizer))
    known = _LEARNT.get(tokenizer)
    if known is None or known.template != template or known.tokens != tokens:
        known = _LEARNT[tokenizer] = _Learnt(template, tokens, special_tokens(tokenizer))
    return known


def _without_weights(message: Message) -> Message:
    return {name: value for name, value in message.items() if name not in NOT_RENDERED}


def object_of_arguments(arguments: Any) -> Any:
    """The arguments of a call as an object, where they are JSON text of one; else as they are."""
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def json_of_arguments(arguments: Any) -> Any:
    """The arguments of a call as JSON text, where they are an object; else as they are."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


def _changed_call(call: Message, change: Callable[[Any], Any]) -> Message:
    """A call, {name, arguments} or {function: {name, arguments}}, with its arguments in another form."""
    if isinstance(call.get("function"), dict):
        return {**call, "function": _changed_call(call["function"], change)}
    return {**call, "arguments": change(call["arguments"])} if "arguments" in call else call


def _is_plain(message: Message) -> bool:
    """Whether a message is a role and some text, and nothing else on which a template might look."""
    content = message.get("content")
    return len(message) == 2 and isinstance(content, str) and content != "" and not content.isspace()


def _answering(messages: Sequence[Message], only_last: bool) -> list[int]:
    """The numbers of the assistant turns, or that of the last one."""
    numbers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    return numbers[-1:] if only_last else numbers


def _check_tool_calls(message: Message, answer: str) -> None:
    """A template without tools renders a tool call as an empty answer; that must not be trained."""
    for call in message.get("tool_calls") or ():
        name = str((call.get("function") or call).get("name", ""))
        if name and name not in answer:
            raise RenderingError(f"the chat template leaves the tool call '{name}' out")
