"""Rows to token ids and loss masks. Needs a tokenizer, never torch; `preview` and training use the same code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aitrain.data.columns import ColumnChoice, MessagesError, Shape, check_messages
from aitrain.data.rendering import Message, Rendered, RenderingError, format_name, prompt_text, render
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


@dataclass(frozen=True)
class Encoded:
    """One row as the trainer sees it."""

    ids: list[int]
    trained: list[int]
    """1 where the token carries loss, else 0; as long as `ids`."""
    truncated: bool = False


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be trained on, and why."""

    reason: str


@dataclass(frozen=True)
class TooLong:
    """A row longer than `data.max_length`."""

    tokens: int


Outcome = Encoded | Unusable | TooLong


class Encoder(Protocol):
    """Turns batches of rows into token ids."""

    def settings(self) -> dict[str, Any]:
        """Everything besides tokenizer and columns that changes the result; part of the cache's key."""

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        """One outcome for each row, in order."""

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        """How a row becomes text, for the report."""


def load_tokenizer(path: str, revision: str | None, *, trust_remote_code: bool, allow_downloads: bool) -> Any:
    """The tokenizer of a model folder or Hub id. Raises what transformers raises."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        path, revision=revision, trust_remote_code=trust_remote_code, local_files_only=not allow_downloads
    )


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

    def __init__(self, run: Run) -> None:
        self.max_length = run.data.max_length
        self.truncation = run.data.truncation
        self.train_on = run.data.train_on
        self.columns = run.data.columns

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "conversation-3",
            "max_length": self.max_length,
            "truncation": self.truncation,
            "train_on": self.train_on,
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return "plain text" if choice.shape == "text" else format_name(tokenizer)

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        rendered = [self._render(tokenizer, choice, row) for row in rows]
        texts = [item.text for item in rendered if isinstance(item, Rendered)]
        # A chat template writes its special tokens itself; plain text has none yet.
        special = choice.shape == "text" or not tokenizer.chat_template
        encodings = iter(_tokenize(tokenizer, texts, special)) if texts else iter(())
        for item in rendered:
            yield self._finish(tokenizer, item, *next(encodings)) if isinstance(item, Rendered) else item

    def _render(self, tokenizer: Any, choice: ColumnChoice, row: dict[str, Any]) -> Rendered | Unusable:
        if choice.shape == "text":
            return _plain_text(tokenizer, row[choice.columns["text"]], choice.columns["text"])
        try:
            messages = conversation(choice, row)
            rendered = render(tokenizer, messages, row.get("tools") if choice.shape == "messages" else None)
        except (RenderingError, MessagesError, UnusableRow) as error:
            return Unusable(str(error))
        if self.train_on == "all":
            return Rendered(rendered.text, ((0, len(rendered.text)),))
        if not rendered.answers:
            return Unusable("holds no assistant turn to learn")
        answers = [message for message in messages if message["role"] == "assistant"]
        if any(map(_says_nothing, answers[-1:] if self.train_on == "last" else answers)):
            return Unusable("an answer is empty")
        return Rendered(rendered.text, rendered.answers[-1:]) if self.train_on == "last" else rendered

    def _finish(
        self, tokenizer: Any, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]], added: list[int]
    ) -> Outcome:
        trained = _mask(rendered.answers, offsets, added)
        ids, trained = _one_bos(tokenizer, ids, trained)
        truncated = len(ids) > self.max_length
        if truncated:
            if self.truncation in ("error", "drop"):
                return TooLong(len(ids))
            cut = slice(-self.max_length, None) if self.truncation == "left" else slice(self.max_length)
            ids, trained = ids[cut], trained[cut]
        # The first token is never predicted, so a row needs a trained token after it.
        if not any(trained[1:]):
            cause = (
                f"no token of the answer is left within {self.max_length} tokens" if truncated else "answer is empty"
            )
            return Unusable(cause)
        return Encoded(ids, trained, truncated)


def _says_nothing(answer: Message) -> bool:
    """Whether a turn would teach the model to end at once. One that calls tools may have no text."""
    return not (answer["content"] or "").strip() and not answer.get("tool_calls")


class UnusableRow(ValueError):
    """A row whose columns do not hold what they should."""


def conversation(choice: ColumnChoice, row: dict[str, Any]) -> list[Message]:
    """A row as messages, whatever its shape. Raises UnusableRow or MessagesError."""
    if choice.shape == "messages":
        messages = check_messages(row.get(choice.columns["messages"]))
    else:
        prompt = _text(row, choice.columns["prompt"])
        if (extra := choice.columns.get("input")) and (more := _optional(row, extra)):
            prompt = f"{prompt}\n\n{more}"
        completion = _text(row, choice.columns["completion"])
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    if (system := choice.columns.get("system")) and (text := _optional(row, system)):
        if messages[0]["role"] == "system":
            raise UnusableRow(f"has a system message besides column '{system}'")
        messages = [{"role": "system", "content": text}, *messages]
    return messages


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


def _plain_text(tokenizer: Any, value: Any, column: str) -> Rendered | Unusable:
    try:
        text = _checked(value, column)
    except UnusableRow as error:
        return Unusable(str(error))
    if not text.strip():
        return Unusable(f"column '{column}' is empty")
    text += tokenizer.eos_token or ""
    return Rendered(text, ((0, len(text)),))


def _tokenize(
    tokenizer: Any, texts: Sequence[str], special: bool
) -> Iterator[tuple[list[int], list[tuple[int, int]], list[int]]]:
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
    plain = shape == "text"
    if not plain:
        texts = [prompt_text(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    special = not isinstance(encoder, BlockEncoder) and (plain or not tokenizer.chat_template)
    found = []
    for ids, _, added in _tokenize(tokenizer, texts, special):
        end = len(ids)
        while end and added[end - 1]:  # an end of sequence, after which nothing would be written
            end -= 1
        kept, _ = _one_bos(tokenizer, ids[:end], [0] * end)
        found.append(kept)
    return found


def _mask(spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], added: Sequence[int]) -> list[int]:
    """1 for each token that begins inside a span. A token that the tokenizer added stands for no text: 0.

    A token of blanks may have an empty range of characters, where a tokenizer trims its offsets; it counts too.
    """
    mask = [0] * len(offsets)
    remaining = iter(spans)
    span = next(remaining, None)
    for index, ((start, _), is_added) in enumerate(zip(offsets, added, strict=True)):
        if is_added:
            continue
        while span is not None and start >= span[1]:
            span = next(remaining, None)
        if span is None:
            break
        mask[index] = int(start >= span[0])
    return mask


def _one_bos(tokenizer: Any, ids: list[int], trained: list[int]) -> tuple[list[int], list[int]]:
    """Drop a second BOS, which a template and a tokenizer can both write."""
    bos = tokenizer.bos_token_id
    if bos is not None and len(ids) > 1 and ids[0] == bos and ids[1] == bos:
        return ids[1:], trained[1:]
    return ids, trained


class BlockEncoder:
    """Plain texts, every token trained; they are laid end to end and cut into blocks later, when rows are chosen."""

    def __init__(self, run: Run) -> None:
        self.add_eos = run.data.add_eos

    def settings(self) -> dict[str, Any]:
        return {"encoder": "block-1", "add_eos": self.add_eos}

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        end = f", each ended by {tokenizer.eos_token}" if self.add_eos else ""
        return f"plain texts laid end to end{end}"

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        if self.add_eos and tokenizer.eos_token_id is None:
            raise DataError(
                Problem("data.add_eos", "the tokenizer has no end-of-sequence token", "set data.add_eos=false")
            )
        column = choice.columns["text"]
        usable = [row.get(column) for row in rows if isinstance(row.get(column), str) and row[column].strip()]
        encoded = iter(tokenizer(usable, add_special_tokens=False, verbose=False)["input_ids"] if usable else [])
        for row in rows:
            value = row.get(column)
            if not isinstance(value, str):
                yield Unusable(f"column '{column}' holds a {type(value).__name__} where text is expected")
            elif not value.strip():
                yield Unusable(f"column '{column}' is empty")
            else:
                ids = next(encoded) + ([tokenizer.eos_token_id] if self.add_eos else [])
                yield Encoded(ids, [1] * len(ids))
