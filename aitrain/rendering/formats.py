"""Renderers: a conversation as text in a chat format, written in Python, without a Jinja engine.

Each format is written twice, here and as a template (`aitrain.data.formats`, with the sources), since a tokenizer can
only carry the template; a test holds the two together letter by letter. Training renders through the template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from aitrain.data.formats import FORMATS, PREAMBLE, TASK, TASK_WITH_INPUT, begins, closes, template_of, written
from aitrain.data.rendering import ChatTemplate, Rendered, RenderingError, object_of_arguments
from aitrain.errors import ConfigError, Problem
from aitrain.rendering.config import ChatFormat, RenderConfig, format_of
from aitrain.rendering.conversations import Conversation, Message

Piece = tuple[str, bool]
"""A stretch of text, and whether it is an answer (its end token included)."""
PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})


class MessageRenderer:
    """Writes conversations in one format.

    `bos_token` is written first, `eos_token` ends answers where the format has no end mark of its own, and `close`
    writes it after the mark too, for a tokenizer that does not know the mark. The defaults are the published format's;
    `get_renderer(format, tokenizer)` takes what a tokenizer needs.
    """

    format: ClassVar[ChatFormat]
    published_bos: ClassVar[str] = ""
    published_eos: ClassVar[str] = "</s>"

    def __init__(self, *, bos_token: str | None = None, eos_token: str | None = None, close: bool = False) -> None:
        self.bos_token = self.published_bos if bos_token is None else bos_token
        self.eos_token = self.published_eos if eos_token is None else eos_token
        self.close = close
        mark = FORMATS[self.format].mark
        self.end = mark + (self.eos_token if close or not mark else "")
        """What ends an answer."""

    def render(self, conversation: Conversation) -> Rendered:
        """The conversation and where its answers stand. Raises RenderingError when the format cannot hold it."""
        self._check_first(conversation.messages)
        text, answers = self.bos_token, []
        for piece, is_answer in self._pieces(conversation):
            if is_answer:
                answers.append((len(text), len(text) + len(piece)))
            text += piece
        return Rendered(text, tuple(answers))

    def generation_prompt(self, conversation: Conversation) -> str:
        """The text after which the model writes its answer."""
        return self.bos_token + "".join(piece for piece, _ in self._pieces(conversation)) + self._opening()

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer: its end mark, the end-of-sequence token, and where another turn would begin."""
        form = FORMATS[self.format]
        return tuple(dict.fromkeys(text for text in (form.mark, self.eos_token, *form.stops) if text))

    def template(self) -> str:
        """The same format as a Jinja template, which reads the tokens off the tokenizer that carries it."""
        return written(FORMATS[self.format], begin=bool(self.bos_token), close=self.close)

    # --- what a format fills in ---

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        raise NotImplementedError

    def _opening(self) -> str:
        """What stands before an answer that is still to be written."""
        return ""

    # --- what formats share ---

    def _check_first(self, messages: Sequence[Message]) -> None:
        if messages[0].role == "assistant":
            raise RenderingError("the conversation begins with an answer; a system or user turn should come first")

    def _without_tools(self, conversation: Conversation) -> Iterator[tuple[int, Message]]:
        """Messages with their numbers from 1, refusing tools, their calls and their results."""
        if conversation.tools:
            raise RenderingError(f"the {self.format} format has no place for tools")
        for number, message in enumerate(conversation.messages, 1):
            if message.tool_calls or message.role == "tool":
                what = f"message {number} calls a tool or holds its result"
                raise RenderingError(f"{what}, for which the {self.format} format has no place")
            yield number, message

    def _alternating(self, conversation: Conversation) -> tuple[str, list[Message]]:
        """The system message or '', and the other turns: user and assistant in turn."""
        messages = list(self._without_tools(conversation))
        has_system = messages[0][1].role == "system"
        turns = messages[1:] if has_system else messages
        for place, (number, message) in enumerate(turns):
            due = ("user", "assistant")[place % 2]
            if message.role != due:
                raise RenderingError(
                    f"message {number} is of the {message.role}, and in the {self.format} format one of the {due} is "
                    "due: they alternate, after a system message or none"
                )
        return _text(messages[0][1]) if has_system else "", [message for _, message in turns]


def _text(message: Message) -> str:
    """What a message says, its input below it."""
    said = message.content or ""
    return f"{said}\n\n{message.input}" if message.input else said


class ChatMLRenderer(MessageRenderer):
    """`<|im_start|>role`, the text, `<|im_end|>`; tools as in Hermes and Qwen2.5."""

    format = ChatFormat.CHATML
    published_eos = "<|im_end|>"

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        messages = list(conversation.messages)
        if conversation.tools:
            system = f"{_text(messages.pop(0))}\n\n" if messages[0].role == "system" else ""
            yield f"<|im_start|>system\n{system}{_tool_instructions(conversation.tools)}<|im_end|>\n", False
        for place, message in enumerate(messages):
            if message.role == "assistant":
                yield "<|im_start|>assistant\n", False
                yield "\n".join(filter(None, [_text(message), *map(_call, message.tool_calls or ())])) + self.end, True
                yield "\n", False
            elif message.role == "tool":
                before = messages[place - 1].role if place else ""
                after = messages[place + 1].role if place + 1 < len(messages) else ""
                opening = "" if before == "tool" else "<|im_start|>user"
                closing = "" if after == "tool" else "<|im_end|>\n"
                yield f"{opening}\n<tool_response>\n{message.content}\n</tool_response>{closing}", False
            else:
                yield f"<|im_start|>{message.role}\n{_text(message)}<|im_end|>\n", False

    def _opening(self) -> str:
        return "<|im_start|>assistant\n"


def _call(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call
    arguments = object_of_arguments(function.get("arguments")) or {}
    written_out = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {written_out}}}\n</tool_call>'


def _tool_instructions(tools: Sequence[Mapping[str, Any]]) -> str:
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{listed}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


class LlamaRenderer(MessageRenderer):
    """Llama 3: `<|start_header_id|>role<|end_header_id|>`, the text without white space around it, `<|eot_id|>`."""

    format = ChatFormat.LLAMA
    published_bos = "<|begin_of_text|>"
    published_eos = "<|end_of_text|>"

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        for _, message in self._without_tools(conversation):
            yield f"<|start_header_id|>{message.role}<|end_header_id|>\n\n", False
            is_answer = message.role == "assistant"
            yield _text(message).strip() + (self.end if is_answer else "<|eot_id|>"), is_answer

    def _opening(self) -> str:
        return "<|start_header_id|>assistant<|end_header_id|>\n\n"


class ZephyrRenderer(MessageRenderer):
    """`<|role|>`, the text, the end-of-sequence token."""

    format = ChatFormat.ZEPHYR

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        for _, message in self._without_tools(conversation):
            yield f"<|{message.role}|>\n", False
            yield _text(message) + self.eos_token, message.role == "assistant"
            yield "\n", False

    def _opening(self) -> str:
        return "<|assistant|>\n"


class MistralRenderer(MessageRenderer):
    """` [INST] … [/INST] …</s>`, the system message before the first question."""

    format = ChatFormat.MISTRAL
    published_bos = "<s>"

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        system, turns = self._alternating(conversation)
        for place, message in enumerate(turns):
            if message.role == "assistant":
                yield f" {_text(message)}{self.end}", True
            else:
                before = f"{system}\n\n" if system and place == 0 else ""
                yield f" [INST] {before}{_text(message)} [/INST]", False


class VicunaRenderer(MessageRenderer):
    """`USER: … ASSISTANT: …</s>` after the system message, or Vicuna's own one."""

    format = ChatFormat.VICUNA

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        system, turns = self._alternating(conversation)
        yield f"{system or PREAMBLE} ", False
        for message in turns:
            if message.role == "assistant":
                yield "ASSISTANT:", False
                yield f" {_text(message)}{self.end}", True
            else:
                yield f"USER: {_text(message)} ", False

    def _opening(self) -> str:
        return "ASSISTANT:"


class AlpacaRenderer(MessageRenderer):
    """One question and one answer under `### Instruction:` and `### Response:`."""

    format = ChatFormat.ALPACA

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        most = 3 + (conversation.messages[0].role == "system")
        system, turns = self._alternating(Conversation(conversation.messages[:most], conversation.tools))
        if len(turns) > 2:
            number = most
            raise RenderingError(
                f"the alpaca format holds one question and one answer, and message {number} is one more"
            )
        for message in turns:
            if message.role == "assistant":
                yield "### Response:\n", False
                yield f"{message.content}{self.end}", True
            else:
                task = system or (TASK_WITH_INPUT if message.input else TASK)
                further = f"### Input:\n{message.input}\n\n" if message.input else ""
                yield f"{task}\n\n### Instruction:\n{message.content}\n\n{further}", False

    def _opening(self) -> str:
        return "### Response:\n"


class PlainRenderer(MessageRenderer):
    """`User: …` and `Assistant: …`, a line or more for each turn."""

    format = ChatFormat.PLAIN

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        if conversation.tools:
            raise RenderingError("the plain format has no place for tools")
        for number, message in enumerate(conversation.messages, 1):
            if message.tool_calls:
                raise RenderingError(f"message {number} calls a tool, for which the plain format has no place")
            yield f"{message.role.capitalize()}:", False
            is_answer = message.role == "assistant"
            yield f" {_text(message)}{self.end if is_answer else ''}", is_answer
            yield "\n", False

    def _opening(self) -> str:
        return "Assistant:"


class RawRenderer(MessageRenderer):
    """A prompt and its completion, ended by the end-of-sequence token; nothing around them."""

    format = ChatFormat.RAW

    def __init__(self, *, bos_token: str | None = None, eos_token: str | None = None) -> None:
        self.bos_token = bos_token or ""
        self.eos_token = self.end = self.published_eos if eos_token is None else eos_token

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.eos_token,) if self.eos_token else ()

    def template(self) -> str:
        raise ConfigError(Problem("format", "raw has no chat template: nothing stands around prompt and completion"))

    def _pieces(self, conversation: Conversation) -> Iterator[Piece]:
        system, turns = self._alternating(conversation)
        if system or len(turns) > 2:
            raise RenderingError("the raw format has no place for more than a prompt and a completion")
        for message in turns:
            is_answer = message.role == "assistant"
            yield _text(message) + (self.end if is_answer else ""), is_answer


class TemplateRenderer(MessageRenderer):
    """A Jinja template with a tokenizer's special tokens: the tokenizer's own one, or a user's."""

    format = ChatFormat.AUTO

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        if not (template or tokenizer.chat_template):
            raise ConfigError(Problem("format", "the tokenizer has no chat template of its own", "choose a format"))
        self._template = ChatTemplate(tokenizer, template)
        self.bos_token, self.eos_token = tokenizer.bos_token or "", tokenizer.eos_token or ""

    def render(self, conversation: Conversation) -> Rendered:
        return self._template.render(self._turns(conversation), list(conversation.tools or ()) or None)

    def generation_prompt(self, conversation: Conversation) -> str:
        return self._template.prompt(self._turns(conversation), list(conversation.tools or ()) or None)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The token that the template ends an answer with, and the end-of-sequence token."""
        rendered = self._template.render(PROBE)
        mark = self._template.end_mark(rendered.text, rendered.text.index("answer") + len("answer"))
        return tuple(dict.fromkeys(text for text in (mark, self.eos_token) if text))

    def template(self) -> str:
        tokenizer = self._template.tokenizer
        return str(self._template.given or tokenizer.get_chat_template())

    def _turns(self, conversation: Conversation) -> list[dict[str, Any]]:
        return conversation.turns(input_apart=self._template.has_place_for_input)


RENDERERS: dict[ChatFormat, type[MessageRenderer]] = {
    each.format: each
    for each in (
        ChatMLRenderer,
        AlpacaRenderer,
        VicunaRenderer,
        ZephyrRenderer,
        LlamaRenderer,
        MistralRenderer,
        PlainRenderer,
    )
}


def get_renderer(chosen: ChatFormat | str | RenderConfig = ChatFormat.AUTO, tokenizer: Any = None) -> MessageRenderer:
    """The renderer of a format, with the tokens that a tokenizer has; without one, as the format was published.

    Raises ConfigError when there is no such format, or when a template needs a tokenizer.
    """
    config = chosen if isinstance(chosen, RenderConfig) else RenderConfig(format_of(chosen))
    name = format_of(config.format)
    if name == ChatFormat.RAW:
        return RawRenderer() if tokenizer is None else RawRenderer(eos_token=tokenizer.eos_token or "")
    if name == ChatFormat.AUTO:
        if tokenizer is None:
            raise ConfigError(Problem("tokenizer", "a chat template needs one", "give a tokenizer, or choose a format"))
        template = config.template_for(tokenizer)
        return TemplateRenderer(tokenizer, template.given if template else None)
    cls, form = RENDERERS[name], FORMATS[name]
    if tokenizer is None:
        return cls()
    template_of(name, tokenizer)  # refuses a tokenizer that cannot end an answer
    return cls(
        bos_token=tokenizer.bos_token if begins(form, tokenizer) else "",
        eos_token=tokenizer.eos_token or "",
        close=closes(form, tokenizer),
    )


def create_chat_template(chosen: ChatFormat | str, tokenizer: Any = None) -> str:
    """A format as a Jinja template, to be set as `tokenizer.chat_template`: as published, or as a tokenizer needs it.

    Raises ConfigError for `auto` and `raw`, which have none, and when there is no such format.
    """
    name = format_of(chosen)
    if name in (ChatFormat.AUTO, ChatFormat.RAW):
        raise ConfigError(Problem("format", f"'{name}' is no template", f"choose one of {', '.join(FORMATS)}"))
    return template_of(name, tokenizer)


def stop_strings(chosen: ChatFormat | str | RenderConfig = ChatFormat.AUTO, tokenizer: Any = None) -> tuple[str, ...]:
    """Texts that end an answer in a format, most telling first; see `MessageRenderer.stop_strings`."""
    return get_renderer(chosen, tokenizer).stop_strings


MARKS: tuple[tuple[ChatFormat, tuple[str, ...], str], ...] = (
    (ChatFormat.CHATML, ("<|im_start|>", "<|im_end|>"), ""),
    (ChatFormat.LLAMA, ("<|start_header_id|>", "<|end_header_id|>"), ""),
    (ChatFormat.ZEPHYR, ("<|user|>", "<|assistant|>"), "<|end|>"),
    (ChatFormat.MISTRAL, ("[INST]", "[/INST]"), "<<SYS>>"),
    (ChatFormat.ALPACA, ("### Instruction:", "### Response:"), ""),
    (ChatFormat.VICUNA, ("USER:", "ASSISTANT:"), ""),
)
"""Marks that tell a format, and one that tells another format with the same marks (Phi-3, Llama 2)."""


def detect_chat_format(source: Any) -> ChatFormat | None:
    """The format of a tokenizer's chat template, of a template's text, or of a rendered conversation; None if none.

    A tokenizer's template is asked to write a conversation, so that templates which put marks together are told too.
    """
    if not isinstance(source, str):
        if not getattr(source, "chat_template", None):
            return None
        try:
            return _format_of_text(ChatTemplate(source).render(PROBE).text)
        except RenderingError:
            return None
    return _format_of_text(source)


def _format_of_text(text: str) -> ChatFormat | None:
    for name, marks, other in MARKS:
        if all(mark in text for mark in marks) and not (other and other in text):
            return name
    if "'<|' + message['role'] + '|>" in text and "eos_token" in text:
        return ChatFormat.ZEPHYR
    is_plain = re.search(r"(^|>)User: ", text, re.MULTILINE) and re.search(r"^Assistant:", text, re.MULTILINE)
    return ChatFormat.PLAIN if is_plain or "| capitalize) + ':'" in text else None
