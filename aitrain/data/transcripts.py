"""Conversations written as one text, as in Anthropic's hh-rlhf: `\\n\\nHuman: …\\n\\nAssistant: …`.

Layout as in Bai et al. 2022, https://arxiv.org/abs/2204.05862 (data: https://github.com/anthropics/hh-rlhf).
"""

from __future__ import annotations

import re
from typing import Any

_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?=\s|\Z)")
"""A turn begins after an empty line, or where the text begins. `Human:` within a line or after a single line break
belongs to what is said, and so does one with no blank behind its colon."""


def transcript(text: str) -> list[dict[str, Any]] | None:
    """The turns of a transcript as messages, or None for a text that does not begin with a turn.

    Space around what is said is layout and left out; a turn may be empty, as the last one of a prompt is. Two turns of
    one speaker in a row stay two turns.
    """
    marks = list(_TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return [
        {"role": _ROLES[mark[1]], "content": text[mark.end() : end].strip()}
        for mark, end in zip(marks, ends, strict=True)
    ]
