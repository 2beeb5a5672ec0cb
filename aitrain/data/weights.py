"""How much each part of a conversation counts: `data.train_on`, `data.token_weights`, and weights in the data itself.

A message may carry a `weight`, as in OpenAI's fine-tuning format (0 or 1 on assistant messages,
https://platform.openai.com/docs/api-reference/fine-tuning/chat-input), and its content may be a list of text parts with
a `weight` each. They multiply what the message's role counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aitrain.data.columns import MessagesError
from aitrain.data.rendering import GIVEN, ChatTemplate, Message, Rendered, RenderingError, Span

TrainOn = Literal["assistant", "all", "last"]
WeightedSpan = tuple[int, int, float]
PARTS = "part_weights"
"""Field of a message whose content came in parts: (start, end, weight), in characters of the content."""


@dataclass(frozen=True)
class Learning:
    """Which turns carry loss, and how much each role's tokens count."""

    train_on: TrainOn = "assistant"
    roles: Mapping[str, float] | None = None
    """Weights at least 0 by role; a role that is not there counts 1 where it is trained. None: every trained token
    counts alike, and weights in the data are 0 or 1."""

    def of(self, role: str, *, is_last_answer: bool, is_given: bool = False) -> float:
        """What a token of a role counts; an answer that is given is part of the prompt."""
        is_answer = role == "assistant" and not is_given and (self.train_on == "assistant" or is_last_answer)
        trained = self.train_on == "all" or is_answer
        if self.roles is None or role not in self.roles:
            return float(trained)
        return self.roles[role] if trained or role != "assistant" else 0.0

    def of_messages(self, messages: Sequence[Message]) -> list[float]:
        """What a token of each message counts, parts aside. Raises RenderingError for a weight that is none."""
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        found = []
        for number, message in enumerate(messages):
            is_last, is_given = answers[-1:] == [number], GIVEN in message
            of_role = self.of(message["role"], is_last_answer=is_last, is_given=is_given)
            own = [message["weight"]] if "weight" in message else []
            for weight in (*own, *(part[2] for part in message.get(PARTS, ()))):
                self._check(weight, number)
            found.append(of_role * (own[0] if own else 1))
        return found

    def _check(self, weight: Any, number: int) -> None:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise RenderingError(
                f"message {number + 1} has the weight {weight!r}, where a number from 0 up is expected"
            )
        if self.roles is None and weight not in (0, 1):
            raise RenderingError(
                f"message {number + 1} has the weight {weight:g}; weights other than 0 and 1 count when "
                "data.token_weights is set, as by data.token_weights.assistant=1"
            )


@dataclass(frozen=True)
class Weighed:
    """A row as one text. `spans` are (start, end, weight) in characters, in order; what is in none counts nothing."""

    text: str
    spans: tuple[WeightedSpan, ...]


def weigh(template: ChatTemplate, messages: Sequence[Message], tools: Any, learning: Learning) -> Weighed:
    """A conversation as text, with what its characters count.

    Raises RenderingError when it cannot be rendered, when the template hides where the weighed turns stand, when a
    trained answer is empty or has no end token, and when nothing in it counts.
    """
    weights = check_said(messages, learning)
    base = float(learning.train_on == "all")
    odd = _odd(messages, weights, base)
    if not odd and base:
        text = template.whole(messages, tools)
        return Weighed(text, ((0, len(text), base),))
    rendered = _rendered(template, messages, tools, odd)
    answers = _by_message(messages, rendered.answers)
    spans: list[WeightedSpan] = []
    contents: Sequence[Span | None] = ()
    if any(number not in answers or PARTS in messages[number] for number in odd):
        contents = template.contents(messages, tools, rendered.text)
    for number in odd:
        content = contents[number] if contents else None
        if number in answers:
            start, end = answers[number]
        elif content is not None:
            start, end = content[0], content[1] + len(template.end_mark(rendered.text, content[1]))
        else:
            continue
        spans += _parts(messages[number], weights[number], (start, end), content)
        if not base and weights[number] and messages[number]["role"] == "assistant":
            _check_end(template, rendered.text, end, number)
    if base:
        spans = list(_filled(spans, len(rendered.text), base))
    return _worth(Weighed(rendered.text, tuple(spans)))


def weigh_pair(messages: Sequence[Message], eos: str | None, learning: Learning) -> Weighed:
    """A prompt and its completion with nothing around them but the end token. Raises RenderingError."""
    weights = check_pair(messages, learning)
    if not eos:
        raise RenderingError("the tokenizer has no end-of-sequence token, with which a completion ends")
    prompt, completion = (message["content"] for message in messages)
    text = f"{prompt}{completion}{eos}"
    places = ((0, len(prompt)), (len(prompt), len(text)))
    return _worth(Weighed(text, tuple((*place, w) for place, w in zip(places, weights, strict=True))))


def weights_of_spans(
    spans: Sequence[WeightedSpan], offsets: Sequence[tuple[int, int]], added: Sequence[int]
) -> list[float]:
    """What each token counts: the weight of the span it begins in, else of the one it reaches into. A token that the
    tokenizer added stands for no text: 0. The spans are in order and apart; see `encoding.mask_of_spans`."""
    found = [0.0] * len(offsets)
    remaining = iter(spans)
    span = next(remaining, None)
    for index, ((start, end), is_added) in enumerate(zip(offsets, added, strict=True)):
        if is_added:
            continue
        while span is not None and start >= span[1]:
            span = next(remaining, None)
        if span is None:
            break
        if start >= span[0] or end > span[0]:
            found[index] = span[2]
    return found


# --- parts of a message --------------------------------------------------------------------------------------------


def joined_parts(value: Any) -> Any:
    """Messages whose contents may be lists of text parts, with each content as one text; others as they are.

    Raises MessagesError for a part that is no text.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if not isinstance(value, list):
        return value
    return [_joined(turn, number) if isinstance(turn, dict) else turn for number, turn in enumerate(value, 1)]


def _joined(turn: dict[str, Any], number: int) -> dict[str, Any]:
    name = next((name for name in ("content", "value") if isinstance(turn.get(name), list)), None)
    if name is None:
        return turn
    text, weights = "", []
    for part in turn[name]:
        said = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
        if not isinstance(said, str):
            raise MessagesError(f"message {number} has a part that is no text: {str(part)[:60]}")
        weight = part.get("weight")
        weights.append((len(text), len(text) + len(said), 1 if weight is None else weight))
        text += said
    joined = {**turn, name: text}
    return joined if all(weight == 1 for _, _, weight in weights) else {**joined, PARTS: weights}


def _parts(message: Message, weight: float, span: Span, content: Span | None) -> Iterator[WeightedSpan]:
    """A message's span, cut where its parts count differently; what stands around them goes with the nearest part."""
    parts = message.get(PARTS)
    if not parts or content is None:
        yield (*span, weight)
        return
    text = message["content"]
    is_whole = content[1] - content[0] == len(text)
    shift = content[0] - (0 if is_whole else len(text) - len(text.lstrip()))
    cuts = [min(max(end + shift, content[0]), content[1]) for _, end, _ in parts]
    cuts[-1] = span[1]
    begin = span[0]
    for (_, _, of_part), end in zip(parts, cuts, strict=True):
        if end > begin:
            yield (begin, end, weight * of_part)
        begin = max(begin, end)


# --- what is refused -----------------------------------------------------------------------------------------------


def says_nothing(message: Message) -> bool:
    """Whether a turn is empty. One that calls tools may have no text."""
    return not (message["content"] or "").strip() and not message.get("tool_calls")


def check_said(messages: Sequence[Message], learning: Learning) -> list[float]:
    """What a token of each message counts, parts aside. Raises RenderingError for what no chat template can mend: an
    empty turn, an answer that answers nothing, nothing to learn."""
    weights = learning.of_messages(messages)
    _refuse_empty(messages, weights, learning)
    located = _located(messages, _odd(messages, weights, float(learning.train_on == "all")))
    is_first = messages[0]["role"] == "assistant"
    if is_first and located and not (_is_last_alone(messages, located) and located != [0]):
        raise RenderingError("the conversation begins with an answer; a system or user turn should come first")
    return weights


def check_pair(messages: Sequence[Message], learning: Learning) -> list[float]:
    """The same for a prompt and its completion with nothing around them."""
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise RenderingError("data.chat_format=raw has no place for more than a prompt and a completion")
    return learning.of_messages(messages)


def _refuse_empty(messages: Sequence[Message], weights: Sequence[float], learning: Learning) -> None:
    """An empty answer would teach the model to end at once, an empty question to answer nothing."""
    for number, (message, weight) in enumerate(zip(messages, weights, strict=True), 1):
        if message["role"] == "assistant" and weight and learning.train_on != "all" and says_nothing(message):
            raise RenderingError(f"an answer is empty (message {number})")
        if message["role"] == "user" and says_nothing(message):
            raise RenderingError(f"message {number}, of the user, is empty")
    if not any(weights) and not any(message["role"] == "assistant" for message in messages):
        raise RenderingError("holds no assistant turn to learn")


def _check_end(template: ChatTemplate, text: str, end: int, number: int) -> None:
    if not template.is_ended(text, end):
        raise RenderingError(
            f"the chat template writes no end token after the answer in message {number + 1}, where a model would not "
            "learn to stop; use data.train_on=last, or another data.chat_format"
        )


def _worth(weighed: Weighed) -> Weighed:
    if not any(weight for _, _, weight in weighed.spans):
        raise RenderingError("every token of it has the weight 0")
    return weighed


# --- spans ---------------------------------------------------------------------------------------------------------


def _odd(messages: Sequence[Message], weights: Sequence[float], base: float) -> list[int]:
    """The numbers of the messages that count otherwise than the text around them."""
    return [n for n, m in enumerate(messages) if weights[n] != base or (weights[n] and PARTS in m)]


def _located(messages: Sequence[Message], odd: Sequence[int]) -> list[int]:
    """The answers whose place in the text matters."""
    return [number for number in odd if messages[number]["role"] == "assistant"]


def _is_last_alone(messages: Sequence[Message], located: Sequence[int]) -> bool:
    """Whether only the last answer must be found: then a template may write earlier ones as it likes."""
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    return list(located) == [last]


def _rendered(template: ChatTemplate, messages: Sequence[Message], tools: Any, odd: Sequence[int]) -> Rendered:
    """The text, with the answers where one of them is asked for."""
    if located := _located(messages, odd):
        return template.render(messages, tools, only_last=_is_last_alone(messages, located))
    return Rendered(template.whole(messages, tools), ())


def _by_message(messages: Sequence[Message], answers: Sequence[Span]) -> dict[int, Span]:
    """Answers by the number of their message; those that are left out are the first ones."""
    numbers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    return dict(zip(numbers[len(numbers) - len(answers) :], answers, strict=True))


def _filled(spans: Sequence[WeightedSpan], length: int, weight: float) -> Iterator[WeightedSpan]:
    """The spans with one of the given weight in each gap."""
    at = 0
    for start, end, own in spans:
        if start > at:
            yield (at, start, weight)
        yield (start, end, own)
        at = end
    if at < length:
        yield (at, length, weight)
