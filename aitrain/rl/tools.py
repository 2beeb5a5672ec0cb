"""Functions that a model may call: finding the calls in its answer, running them, and answering."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aitrain.errors import did_you_mean
from aitrain.rl.episode import Episode, Message, text_of

Tool = Callable[..., Any]
TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)```\s*\Z", re.DOTALL)
PARTS = {"name", "arguments", "parameters", "id", "type", "function"}
"""Keys of a call; an object with others is an answer that happens to be JSON."""
LONGEST = 10_000
"""Characters of a tool's answer that the model is shown."""


@dataclass(frozen=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Any]
    wrong: str = ""
    """Why it cannot be carried out."""


def calls_in(turn: Message) -> list[Call]:
    """The calls of an assistant's turn: its `tool_calls`, JSON between <tool_call> tags (Qwen, Hermes), or a text that
    is nothing but `{"name": …, "arguments": {…}}` or a list of those."""
    if structured := turn.get("tool_calls"):
        return [_call(each) for each in structured]
    text = text_of(turn)
    if tagged := TAGGED.findall(text):
        return [_parsed(each) for each in tagged]
    fence = FENCED.match(text)
    try:
        value = json.loads(fence[1] if fence else text)
    except (ValueError, RecursionError):
        return []
    values = value if isinstance(value, list) else [value]
    return [_call(each) for each in values] if values and all(_looks_like_a_call(each) for each in values) else []


def answer_calls(episode: Episode, tools: Sequence[Tool]) -> list[Message]:
    """Runs the calls of the last turn and answers each with a message; empty where it calls nothing.

    What goes wrong is the tool's answer: the model may do better in its next turn.
    """
    if not tools or not episode.turns or episode.turns[-1].get("role") != "assistant":
        return []
    by_name = {tool_name(tool): tool for tool in tools}
    messages = []
    for call in calls_in(episode.turns[-1]):
        content, failed = _carried_out(call, by_name)
        episode.tool_calls += 1
        episode.tool_errors += failed
        messages.append({"role": "tool", "name": call.name, "content": content[:LONGEST]})
    return messages


def tool_name(tool: Tool) -> str:
    """What the model calls it by."""
    return str(getattr(tool, "__name__", type(tool).__name__))


def schemas(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """What a chat template shows the model of each: JSON schema from signature and docstring, by transformers."""
    from transformers.utils import get_json_schema

    return [dict(get_json_schema(tool)) for tool in tools]


def _carried_out(call: Call, tools: Mapping[str, Tool]) -> tuple[str, bool]:
    if call.wrong:
        return f"error: {call.wrong}", True
    tool = tools.get(call.name)
    if tool is None:
        return f"error: there is no tool '{call.name}'; {did_you_mean(call.name, tools)}", True
    try:
        inspect.signature(tool).bind(**call.arguments)
    except TypeError as error:
        return f"error: {call.name} cannot be called with these arguments: {error}", True
    except ValueError:
        pass  # a function in C without a signature
    try:
        result = tool(**call.arguments)
        if inspect.isawaitable(result):
            with ThreadPoolExecutor(1) as pool:
                result = pool.submit(asyncio.run, _awaited(result)).result()
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str), False
    except Exception as error:
        return f"error: {type(error).__name__}: {error}", True


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _parsed(text: str) -> Call:
    try:
        return _call(json.loads(text))
    except (ValueError, RecursionError) as error:
        return Call("", {}, f"the call is no JSON: {error}")


def _looks_like_a_call(value: Any) -> bool:
    if not isinstance(value, Mapping) or not set(value) <= PARTS:
        return False
    inner = value.get("function", value)
    return isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and len(inner) > 1


def _call(value: Any) -> Call:
    """A call from its JSON; arguments may themselves be JSON in a text, as OpenAI has it."""
    inner = value.get("function", value) if isinstance(value, Mapping) else value
    if isinstance(inner, str):  # {"function": "add", "arguments": …}
        inner = {**value, "name": inner}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        return Call("", {}, 'a call is an object with "name" and "arguments"')
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return Call(inner["name"], {}, f"the arguments are no JSON: {error}")
    if not isinstance(arguments, Mapping):
        return Call(inner["name"], {}, "the arguments should be an object")
    return Call(inner["name"], {str(name): argument for name, argument in arguments.items()})
