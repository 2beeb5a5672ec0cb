"""Reward for answers that are JSON."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from aitrain.rl.rewards.blocks import last_block
from aitrain.rl.rewards.built_in import BuiltIn
from aitrain.rl.settings import option


class JsonValid(BuiltIn):
    """1 where the answer, or its last fenced block, is standard JSON (no NaN) with the keys asked for, else 0."""

    required: list[str] = option([])
    """Keys that the object must have; `a.b` is `b` in the object at `a`."""
    fenced: bool = True
    """A fenced block may stand for the answer. If false, the answer must be JSON and nothing else."""

    def score(self, text: str) -> float:
        block = last_block(text, "json") if self.fenced else None
        try:
            value = json.loads(text if block is None else block, parse_constant=_refused)
        except (ValueError, RecursionError):
            return 0.0
        return float(all(_has(value, name.split(".")) for name in self.required))


def _refused(word: str) -> NoReturn:
    raise ValueError(word)


def _has(value: Any, path: list[str]) -> bool:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True
