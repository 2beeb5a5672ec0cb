"""Rewards that come from elsewhere: the user's function, and a trained reward model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from aitrain.errors import ConfigError, Problem
from aitrain.rl.reference import fingerprint, is_reference, load_reference, reference_problems
from aitrain.rl.rewards.built_in import BuiltIn, Reward, Terms

WRITTEN = "write FILE.py:FUNCTION, or package.module:FUNCTION of an installed package"


class Custom(BuiltIn):
    """The user's function `(prompts, completions, **columns) -> list[float]`, which may be async."""

    function: str
    """`file.py:function`, or `package.module:function` of an installed package."""

    def problems(self, key: str, terms: Terms) -> Iterator[Problem]:
        if not is_reference(self.function):
            yield Problem(key, f"'{self.function}' names no function", WRITTEN)
            return
        yield from reference_problems(self.function, key)

    def load(self, terms: Terms) -> Reward:
        found = load_reference(self.function, "reward")
        if inspect.isclass(found) or not callable(found):
            raise ConfigError(Problem("reward", f"'{self.function}' is no function", WRITTEN))
        return found

    def files(self) -> dict[str, str]:
        return fingerprint(self.function)


class Model(BuiltIn):
    """The score of a model that `trainer=reward` trained."""

    path: str
    """The model: a folder, a Hub id or a sample."""

    def load(self, terms: Terms) -> Reward:
        if terms.load_model is None:
            raise ConfigError(Problem("reward", f"nothing here can load the reward model '{self.path}'"))
        return terms.load_model(self.path)


def looks_like_a_model(text: str) -> bool:
    """Whether a bare text is meant as a model's path: a folder, a sample, or a Hub id with its slash."""
    return text.startswith("sample:") or Path(text).expanduser().is_dir() or ("/" in text and ":" not in text)
