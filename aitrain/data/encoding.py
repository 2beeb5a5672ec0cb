"""Rows to token ids and loss masks. Needs a tokenizer, never torch; `preview` and training use the same code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from aitrain.data.columns import ColumnChoice, MessagesError, Shape, check_messages
from aitrain.data.formats import AUTO, FORMATS, RAW, begins_texts, shape_problem, use_format
from aitrain.data.rendering import GIVEN, ChatTemplate, Message, RenderingError, format_name, prompt_text
from aitrain.data.tokens import Blocks, Encoded, EncodedGroup, Groups, Prompts, Rows, Table
from aitrain.data.weights import (
    Learning,
    Weighed,
    check_pair,
    check_said,
    joined_parts,
    weigh,
    weigh_pair,
    weights_of_spans,
)
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run
    from aitrain.data.mixture import FoundSource
    from aitrain.data.rows import Row
    from aitrain.data.targets import Targets


CUT_AWAY = "raise data.max_length, or set data.truncation=left or drop"
"""What helps an answer of which truncation leaves nothing."""


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be trained on, and why."""

    reason: str
    advice: str = "repair it, or set data.on_bad_rows=skip"
    """What can be done about it."""
    cut: bool = False
    """Whether it could be used if it were not cut to `data.max_length`."""


@dataclass(frozen=True)
class TooLong:
    """A row longer than `data.max_length`."""

    tokens: int


Outcome = Encoded | EncodedGroup | list[EncodedGroup] | Unusable | TooLong
"""What becomes of a row: an example, several where a row holds several (a pair is two judged answers), or none."""
Truncation = Literal["error", "left", "right", "drop"]
Tokens = tuple[list[int], list[tuple[int, int]], list[int]]
"""Ids of a text, the characters each token stands for, and whether the tokenizer added it (1) or not (0)."""


class Encoder(Protocol):
    """Turns batches of rows into token ids."""

    @property
    def group(self) -> int:
        """Rows of token ids that make one example."""

    @property
    def weighted(self) -> bool:
        """Whether trained tokens count differently."""

    def settings(self) -> dict[str, Any]:
        """Everything besides tokenizer and columns that changes the result; part of the cache's key."""

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        """One outcome for each row, in order."""

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        """How a row becomes text, for the report."""

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Rows | Blocks | Groups | Prompts:
        """The examples that a trainer reads, of a table of what `encode` gave: all, or those of the given numbers."""


@runtime_checkable
class ChecksRows(Protocol):
    """An encoder that sees without a tokenizer what is wrong with a row."""

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        """What keeps a row from being used whatever the tokenizer, in the words of `encode`; ''."""


@runtime_checkable
class HasNotes(Protocol):
    """An encoder that has something to say about the rows of a run as a whole."""

    def notes(
        self, tokenizer: Any, choices: Sequence[ColumnChoice], values: Sequence[NDArray[np.float64]]
    ) -> Iterator[str]:
        """What a run should say when it opens, of its columns and of the numbers that belong to its examples."""


@runtime_checkable
class LearnsTargets(Protocol):
    """An encoder of a task that predicts something of a row: which classes there are, only all training rows tell."""

    @property
    def targets(self) -> Targets | None:
        """What is predicted; None until the training rows were read."""

    def learnt(self, run: Run, sources: Sequence[FoundSource], rows: Callable[[FoundSource], Iterator[Row]]) -> Encoder:
        """The same encoder, which knows the targets; `rows` are those that `data.max_samples` keeps of a source."""

    def with_targets(self, targets: Targets) -> Encoder:
        """The same encoder, which knows the targets by an earlier look."""

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        """What rows of `data.max_samples_strategy=balanced` have in common."""

    def strata(self, table: Table) -> NDArray[np.float64] | None:
        """A number for each example, of which each has its share among the rows held out; None for a plain draw."""

    def notes_on(self, train: Any, valid: Any) -> Iterator[str]:
        """What is odd about the examples to train and to validate on (or None)."""


@runtime_checkable
class KeepsTogether(Protocol):
    """An encoder of which a row makes any number of examples that follow each other, all held out or none."""

    def firsts(self, table: Any) -> NDArray[np.int64]:
        """The first example of each row of a table."""


def load_tokenizer(
    path: str, revision: str | None, *, trust_remote_code: bool, allow_downloads: bool, chat_format: str = AUTO
) -> Any:
    """The tokenizer of a model folder or Hub id, with the chat template that `data.chat_format` names.

    Raises what transformers raises, and ConfigError when the tokenizer cannot hold the format.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        path, revision=revision, trust_remote_code=trust_remote_code, local_files_only=not allow_downloads
    )
    return use_format(tokenizer, chat_format)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 over everything that changes what a text becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [
        backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True),
        str(tokenizer.chat_template),
        json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class ConversationEncoder:
    """Conversations, prompt and completion pairs, or plain text, with the loss on answers or on everything."""

    group = 1

    def __init__(self, run: Run) -> None:
        self.max_length: int | None = run.data.max_length
        self.truncation: Truncation = run.data.truncation
        self.columns = run.data.columns
        self.chat_format = run.data.chat_format
        roles = {role: weight for role, weight in run.data.token_weights.model_dump().items() if weight is not None}
        self.learning = Learning(run.data.train_on, roles or None)
        self.weighted = self.learning.roles is not None
        self.is_mixture = run.data.mixture is not None

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "conversation-5",
            "max_length": self.max_length,
            "truncation": self.truncation,
            "train_on": self.learning.train_on,
            "weights": dict(self.learning.roles) if self.learning.roles is not None else None,
            "raw": self.chat_format == RAW,  # other formats are in the tokenizer's template
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return "plain text" if choice.shape == "text" else format_name(tokenizer, self.chat_format)

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Rows:
        return Rows(table, indices)

    def notes(
        self, tokenizer: Any, choices: Sequence[ColumnChoice], values: Sequence[NDArray[np.float64]]
    ) -> Iterator[str]:
        if any(choice.shape != "text" for choice in choices):
            yield from template_notes(tokenizer, self.chat_format)

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        try:
            if choice.shape == "text":
                _text(row, choice.columns["text"])
                return ""
            messages = conversation(choice, row, input_apart=self.chat_format == "alpaca")
            tools = tools_of(choice, row)
            if self.chat_format == RAW:
                check_pair(messages, self.learning)
            else:
                check_said(messages, self.learning)
                refuse_unfit(self.chat_format, messages, tools)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return str(error)
        return ""

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        self._refuse(tokenizer, choice)
        template = None if self.chat_format == RAW or choice.shape == "text" else ChatTemplate(tokenizer)
        weighed = [self._weigh(tokenizer, template, choice, row) for row in rows]
        texts = [item.text for item in weighed if isinstance(item, Weighed)]
        # A chat template writes its special tokens itself; plain text has none yet.
        encodings = iter(tokenize_texts(tokenizer, texts, template is None)) if texts else iter(())
        for item in weighed:
            if isinstance(item, Weighed):
                yield encoded(tokenizer, item, next(encodings), self.max_length, self.truncation, self.weighted)
            else:
                yield item

    def _refuse(self, tokenizer: Any, choice: ColumnChoice) -> None:
        if choice.shape == "text" and self.is_mixture:  # other sources may hold conversations
            return
        if problem := shape_problem(self.chat_format, choice.shape, bool(tokenizer.chat_template)):
            raise DataError(problem)
        if choice.shape == "text" and self.learning.roles is not None:
            key = f"data.token_weights.{next(iter(self.learning.roles))}"
            raise DataError(Problem(key, "has no effect on rows of plain text, which have no roles", "leave it out"))

    def _weigh(
        self, tokenizer: Any, template: ChatTemplate | None, choice: ColumnChoice, row: dict[str, Any]
    ) -> Weighed | Unusable:
        try:
            if choice.shape == "text":
                return _plain_text(tokenizer, row.get(choice.columns["text"]), choice.columns["text"])
            messages = conversation(choice, row, input_apart=template is not None and template.has_place_for_input)
            if template is None:
                return weigh_pair(messages, tokenizer.eos_token, self.learning)
            return weigh(template, messages, tools_of(choice, row), self.learning)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return Unusable(str(error))


def encoded(
    tokenizer: Any, weighed: Weighed, tokens: Tokens, max_length: int | None, truncation: Truncation, weighted: bool
) -> Encoded | TooLong | Unusable:
    """A row's token ids with their mask, cut to `max_length` (None: no limit), and with their weights if `weighted`."""
    ids, offsets, added = tokens
    weights = weights_of_spans(weighed.spans, offsets, added) if weighted else None
    trained = (
        mask_of_spans([(start, end) for start, end, weight in weighed.spans if weight], offsets, added)
        if weights is None
        else [int(weight > 0) for weight in weights]
    )
    before = len(ids)
    ids, trained = one_bos(tokenizer, ids, trained)
    weights = weights[before - len(ids) :] if weights is not None else None
    truncated = max_length is not None and len(ids) > max_length
    if truncated:
        if truncation in ("error", "drop"):
            return TooLong(len(ids))
        cut = slice(len(ids) - (max_length or 0), None) if truncation == "left" else slice(max_length)
        ids, trained = ids[cut], trained[cut]
        weights = weights[cut] if weights is not None else None
    # The first token is never predicted, so a row needs a trained token after it.
    if not any(trained[1:]):
        if not truncated:
            return Unusable("answer is empty")
        return Unusable(f"no token of the answer is left within {max_length} tokens", CUT_AWAY, cut=True)
    return Encoded(ids, trained, truncated, weights)


class UnusableRow(ValueError):
    """A row whose columns do not hold what they should."""


def conversation(choice: ColumnChoice, row: dict[str, Any], *, input_apart: bool = False) -> list[Message]:
    """A row as messages, whatever its shape. Raises UnusableRow or MessagesError.

    The further text of a prompt (`data.columns.input`) stands below it, or with `input_apart` in the message's field
    `input`, for which Alpaca's format has a place of its own.
    """
    if choice.shape == "messages":
        messages = check_messages(joined_parts(row.get(choice.columns["messages"])))
        _check_order(messages)
    else:
        messages = [*_prompt(choice, row, input_apart), *_completion(choice, row)]
        _check_order(messages)
    if (system := choice.columns.get("system")) and (text := _optional(row, system)):
        if messages[0]["role"] == "system":
            raise UnusableRow(f"has a system message besides column '{system}'")
        messages = [{"role": "system", "content": text}, *messages]
    return messages


def _prompt(choice: ColumnChoice, row: dict[str, Any], input_apart: bool) -> list[Message]:
    """What a completion follows: a question, or turns of which none is an answer to learn."""
    column, extra = choice.columns["prompt"], choice.columns.get("input")
    turns = _said_turns(row, column)
    more = _optional(row, extra) if extra else ""
    if turns is None:
        question = {"role": "user", "content": _text(row, column)}
        if more and input_apart:
            question["input"] = more
        elif more:
            question["content"] += f"\n\n{more}"
        return [question]
    if more:
        raise UnusableRow(f"column '{extra}' cannot stand below a prompt of several turns")
    if turns[-1]["role"] == "assistant":
        raise UnusableRow(f"column '{column}' ends with an answer, where the turn to answer is expected")
    return [{**turn, GIVEN: True} if turn["role"] == "assistant" else turn for turn in turns]


def _completion(choice: ColumnChoice, row: dict[str, Any]) -> list[Message]:
    column = choice.columns["completion"]
    turns = _said_turns(row, column)
    if turns is None:
        return [{"role": "assistant", "content": _text(row, column)}]
    if turns[0]["role"] != "assistant":
        raise UnusableRow(f"column '{column}' begins with a {turns[0]['role']} turn, where an answer is expected")
    return turns


def _said_turns(row: dict[str, Any], column: str) -> list[Message] | None:
    """The turns that a column holds, a single one with or without a list around it; None where it holds no turns."""
    value = row.get(column)
    if not isinstance(value, list | dict):
        return None
    try:
        return check_messages(joined_parts([value] if isinstance(value, dict) else value))
    except MessagesError as error:
        raise MessagesError(f"column '{column}': {error}") from None


def _check_order(messages: Sequence[Message]) -> None:
    """Turns in an order that most templates render without a word, though no model was taught so."""
    for number, (before, turn) in enumerate(pairwise(messages), 2):
        if turn["role"] == "system":
            raise UnusableRow(f"message {number} is a system message, which should come first")
        if before["role"] == turn["role"] == "assistant" and not before.get("tool_calls"):
            which = f"messages {number - 1} and {number} are both answers"
            raise UnusableRow(f"{which}; a turn of someone else should stand between them")


def tools_of(choice: ColumnChoice, row: dict[str, Any]) -> Any:
    """The tools that the assistant may call: a list, or JSON text of one. A prompt and a completion of plain text call
    none, whatever a column of that name holds."""
    has_turns = choice.shape == "messages" or any(
        isinstance(row.get(choice.columns.get(role, "")), list | dict) for role in ("prompt", "completion")
    )
    tools = row.get("tools") if has_turns else None
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except (ValueError, RecursionError):
            raise UnusableRow("column 'tools' holds text that is no JSON") from None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise UnusableRow(f"column 'tools' holds {str(tools)[:40]!r} where a list of tools is expected")
    return tools or None


def refuse_unfit(chat_format: str, messages: Sequence[Message], tools: Any) -> None:
    """Raise RenderingError for a conversation for which one of our formats has no place; what a tokenizer's own
    template or one of the user's has a place for, only a tokenizer tells."""
    if chat_format in FORMATS:
        roles = tuple((message["role"], bool(message.get("tool_calls"))) for message in messages)
        if reason := _unfit(chat_format, roles, bool(tools)):
            raise RenderingError(reason)


@lru_cache(maxsize=4096)
def _unfit(chat_format: str, roles: tuple[tuple[str, bool], ...], has_tools: bool) -> str:
    """Why a format has no place for turns of these roles, some of which call tools; ''."""
    from aitrain.rendering.conversations import Conversation
    from aitrain.rendering.conversations import Message as Turn
    from aitrain.rendering.formats import get_renderer

    call: Any = [{"name": "f", "arguments": {}}]
    turns = tuple(Turn(role, "a", tool_calls=call if calls else None) for role, calls in roles)
    try:
        get_renderer(chat_format).render(Conversation(turns, tuple(call) if has_tools else None))
    except RenderingError as error:
        return str(error)
    return ""


def template_notes(tokenizer: Any, chat_format: str) -> Iterator[str]:
    """What is odd about a chat template, though it can be trained with."""
    if chat_format == RAW or not tokenizer.chat_template:
        return
    template = ChatTemplate(tokenizer)
    whose = "the tokenizer's chat template" if chat_format == AUTO else f"the template {chat_format}"
    if header := template.unopened():
        what = f"{whose} does not write {header!r} for add_generation_prompt"
        yield f"{what}: it is trained at the beginning of every answer, and the model has to write it"
    if (
        chat_format not in (AUTO, *FORMATS)
        and begins_texts(tokenizer)
        and not template.begins_with(tokenizer.bos_token)
    ):
        yield f"{whose} writes no {tokenizer.bos_token}, with which the tokenizer begins every other text"


def _text(row: dict[str, Any], column: str) -> str:
    value = _checked(row.get(column), column)
    if not value.strip():
        raise UnusableRow(f"column '{column}' is empty")
    return value


def _optional(row: dict[str, Any], column: str) -> str:
    """A text that a row may lack; '' then."""
    value = row.get(column)
    text = "" if value is None else _checked(value, column)
    return text if text.strip() else ""


def _checked(value: Any, column: str) -> str:
    if not isinstance(value, str):
        found = "nothing" if value is None else f"a {type(value).__name__} ({str(value)[:40]!r})"
        raise UnusableRow(f"column '{column}' holds {found} where text is expected")
    return value


def _plain_text(tokenizer: Any, value: Any, column: str) -> Weighed:
    text = _checked(value, column)
    if not text.strip():
        raise UnusableRow(f"column '{column}' is empty")
    text += tokenizer.eos_token or ""
    return Weighed(text, ((0, len(text), 1.0),))


def tokenize_texts(tokenizer: Any, texts: Sequence[str], special: bool) -> Iterator[Tokens]:
    """Ids, character offsets, and for each token whether the tokenizer added it (1) or it stands for text (0)."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        verbose=False,
    )
    yield from zip(encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)


def prompt_ids(tokenizer: Any, texts: Sequence[str], encoder: Encoder, shape: Shape) -> list[list[int]]:
    """Token ids of texts that a model goes on from, begun as the rows are that `encoder` makes of data of this shape.

    A text is the start of a plain text, or the question of a conversation. Raises RenderingError when the chat template
    refuses it.
    """
    plain = shape == "text" or getattr(encoder, "chat_format", None) == RAW
    if not plain:
        texts = [prompt_text(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    special = not isinstance(encoder, BlockEncoder) and (plain or not tokenizer.chat_template)
    found = []
    for ids, _, added in tokenize_texts(tokenizer, texts, special):
        end = len(ids)
        while end and added[end - 1]:  # an end of sequence, after which nothing would be written
            end -= 1
        kept, _ = one_bos(tokenizer, ids[:end], [0] * end)
        found.append(kept)
    return found


def mask_of_spans(
    spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], added: Sequence[int]
) -> list[int]:
    """1 for each token that holds a character of a span. A token that the tokenizer added stands for no text: 0.

    A token may begin before its span, as ` So` does after a prompt that ends with a blank; transformers' masks hold it
    too. A token of blanks may have an empty range of characters, where a tokenizer trims its offsets; it counts where
    it begins inside a span.
    """
    mask = [0] * len(offsets)
    remaining = iter(spans)
    span = next(remaining, None)
    for index, ((start, end), is_added) in enumerate(zip(offsets, added, strict=True)):
        if is_added:
            continue
        while span is not None and start >= span[1]:
            span = next(remaining, None)
        if span is None:
            break
        mask[index] = int(start >= span[0] or end > span[0])
    return mask


def one_bos(tokenizer: Any, ids: list[int], trained: list[int]) -> tuple[list[int], list[int]]:
    """Drop a second BOS, which a template and a tokenizer can both write."""
    bos = tokenizer.bos_token_id
    if bos is not None and len(ids) > 1 and ids[0] == bos and ids[1] == bos:
        return ids[1:], trained[1:]
    return ids, trained


class BlockEncoder:
    """Plain texts, every token trained; they are laid end to end and cut into blocks later, when rows are chosen."""

    group = 1
    weighted = False

    def __init__(self, run: Run) -> None:
        self.add_eos = run.data.add_eos
        self.block_size = run.data.block_size

    def settings(self) -> dict[str, Any]:
        return {"encoder": "block-1", "add_eos": self.add_eos}

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        end = f", each ended by {tokenizer.eos_token}" if self.add_eos else ""
        return f"plain texts laid end to end{end}"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Blocks:
        return Blocks(Rows(table, indices), self.block_size)

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        return _no_text(row.get(choice.columns["text"]), choice.columns["text"])

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        if self.add_eos and tokenizer.eos_token_id is None:
            raise DataError(
                Problem("data.add_eos", "the tokenizer has no end-of-sequence token", "set data.add_eos=false")
            )
        column = choice.columns["text"]
        usable = [row.get(column) for row in rows if isinstance(row.get(column), str) and row[column].strip()]
        encoded = iter(tokenizer(usable, add_special_tokens=False, verbose=False)["input_ids"] if usable else [])
        for row in rows:
            if reason := _no_text(row.get(column), column):
                yield Unusable(reason)
            else:
                ids = next(encoded) + ([tokenizer.eos_token_id] if self.add_eos else [])
                yield Encoded(ids, [1] * len(ids))


def _no_text(value: Any, column: str) -> str:
    """Why a value is no text to train on; ''."""
    if not isinstance(value, str):
        return f"column '{column}' holds a {type(value).__name__} where text is expected"
    return "" if value.strip() else f"column '{column}' is empty"
