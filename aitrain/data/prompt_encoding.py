"""Prompts to token ids, for trainers whose model writes the answers itself. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aitrain.data.columns import ColumnChoice, MessagesError
from aitrain.data.encoding import Outcome, TooLong, Unusable, UnusableRow, one_bos, refuse_unfit, tokenize_texts
from aitrain.data.formats import RAW, shape_problem
from aitrain.data.preference import asked
from aitrain.data.rendering import ChatTemplate, Message, RenderingError, format_name
from aitrain.data.tokens import Encoded, Prompts, Table
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run

PROMPT, TOOLS = "prompt", "tools"
"""Fields of a record that do not come from the row as they are."""


class PromptEncoder:
    """Rows to prompts that end where the model begins to write, each with its row's other columns."""

    group = 1
    weighted = False

    def __init__(self, run: Run, tools: Callable[[], list[dict[str, Any]]] = list) -> None:
        """`tools` makes the schemas of what the model may call in every prompt; asked for when rows are encoded."""
        self._make_tools = tools
        self.max_length = run.data.max_prompt_length
        self.truncation = run.data.truncation
        self.chat_format = run.data.chat_format

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """What the model may call in every prompt, beside the tools of its row."""
        return self._make_tools()

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "prompt-1",
            **({"tools": self.tools} if self.tools else {}),
            "max_length": self.max_length,
            "truncation": self.truncation,
            "raw": self.chat_format == RAW,  # other formats are in the tokenizer's template
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return f"prompts, in {format_name(tokenizer, self.chat_format)}"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Prompts:
        return Prompts(table, indices)

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        """What keeps a row from being used whatever the tokenizer; ''."""
        try:
            turns, tools = asked(choice, row, input_apart=self.chat_format == "alpaca")
            if self.chat_format == RAW:
                _refuse_more(turns, tools)
            else:
                refuse_unfit(self.chat_format, turns, tools)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return str(error)
        return ""

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        if problem := shape_problem(self.chat_format, choice.shape, bool(tokenizer.chat_template)):
            raise DataError(problem)
        template = None if self.chat_format == RAW else ChatTemplate(tokenizer)
        if self.tools:
            _refuse_unseen(template, self.tools)
        written = [self._written(template, choice, row) for row in rows]
        texts = [item[0] for item in written if not isinstance(item, Unusable)]
        encodings = iter(tokenize_texts(tokenizer, texts, template is None)) if texts else iter(())
        for item in written:
            yield item if isinstance(item, Unusable) else self._fitted(tokenizer, next(encodings), item[1])

    def _written(
        self, template: ChatTemplate | None, choice: ColumnChoice, row: dict[str, Any]
    ) -> tuple[str, str] | Unusable:
        """The prompt's text, and the record that goes with it."""
        try:
            turns, tools = asked(choice, row, input_apart=template is not None and template.has_place_for_input)
            if template is not None:
                tools = [*(tools or ()), *self.tools] or None
                return template.prompt(turns, tools), _record(row, turns, tools)
            _refuse_more(turns, tools)
            return turns[0]["content"], _record(row, turns[0]["content"], None)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return Unusable(str(error))

    def _fitted(self, tokenizer: Any, tokens: tuple[list[int], Any, list[int]], record: str) -> Outcome:
        ids, _, added = tokens
        while ids and added[len(ids) - 1]:  # an end of sequence, after which nothing would be written
            ids = ids[:-1]
        ids, _ = one_bos(tokenizer, ids, [0] * len(ids))
        if not ids:
            return Unusable("the prompt has no tokens")
        truncated = self.max_length is not None and len(ids) > self.max_length
        if truncated and self.truncation != "left":
            return TooLong(len(ids))
        if truncated:
            ids = ids[len(ids) - (self.max_length or 0) :]
        return Encoded(ids, [0] * len(ids), truncated, record=record)


def _refuse_unseen(template: ChatTemplate | None, tools: list[dict[str, Any]]) -> None:
    """Raise DataError where the model would not be told of its tools."""
    asks: list[Message] = [{"role": "user", "content": "a"}]
    with suppress(RenderingError):
        if template is not None and template.prompt(asks, tools) != template.prompt(asks):
            return
    names = ", ".join(str(tool.get("function", tool).get("name")) for tool in tools)
    what = f"this format does not tell the model of its tools ({names})"
    raise DataError(Problem("data.chat_format", what, "use auto, and a model whose chat template has a place for them"))


def _refuse_more(turns: Sequence[Message], tools: Any) -> None:
    if len(turns) > 1 or tools:
        raise RenderingError("data.chat_format=raw has no place for more than a question")


def _record(row: Mapping[str, Any], prompt: str | list[Message], tools: list[Any] | None) -> str:
    """The row as JSON text, with its prompt as the environment sees it. What JSON has no word for becomes text."""
    return json.dumps({**row, PROMPT: prompt, **({TOOLS: tools} if tools else {})}, default=str, ensure_ascii=False)


def continuation(template: ChatTemplate, turns: Sequence[Message], tools: Any = None) -> str:
    """What a chat template writes between the last answer in `turns` and the next one.

    `turns` ends with what was said after an answer. Raises RenderingError when the template rewrites the answer.
    """
    last = max(number for number, turn in enumerate(turns) if turn["role"] == "assistant")
    before = template.prompt(turns[:last], tools)
    answer = str(turns[last]["content"]).strip()
    whole = template.prompt(turns, tools)
    start = whole.find(answer, len(before))
    if not whole.startswith(before) or start < 0:
        raise RenderingError("the chat template writes an answer in another way when turns follow it")
    return whole[start + len(answer) :]
