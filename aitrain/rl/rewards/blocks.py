"""Fenced blocks of an answer."""

from __future__ import annotations

import re

FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)


def last_block(text: str, *languages: str) -> str | None:
    """The last fenced block in one of the languages, or in none; None where there is no such block."""
    found = [body for language, body in FENCE.findall(text) if not language or language.lower() in languages]
    return found[-1] if found else None
