"""Environments by name. A new one is a class in a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aitrain.errors import ConfigError, Problem, nearest
from aitrain.rl.environment import Environment
from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment
from aitrain.rl.environments.code import CodeTests
from aitrain.rl.environments.custom import class_problems, custom, custom_files, has_tools, own_rows
from aitrain.rl.environments.math import Math
from aitrain.rl.environments.multi_objective import MultiObjective
from aitrain.rl.environments.preference_comparison import PreferenceComparison
from aitrain.rl.environments.text_generation import TextGeneration
from aitrain.rl.reference import is_reference, load_reference

ENVIRONMENTS: dict[str, type[BuiltInEnvironment]] = {
    "text_generation": TextGeneration,
    "multi_objective": MultiObjective,
    "preference_comparison": PreferenceComparison,
    "math": Math,
    "code": CodeTests,
}


def load_environment(name: str, config: Mapping[str, Any] | None = None, asked: Asked | None = None) -> Environment:
    """An environment by its name, or the user's `file.py:Class`. Raises ConfigError with all that is wrong."""
    config, asked = dict(config or {}), asked or Asked()
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name].build(config, asked)
    if problems := _unknown(name, asked):
        raise ConfigError(problems)
    return custom(name, config, asked)


def check(
    name: str,
    config: Mapping[str, Any] | None = None,
    asked: Asked | None = None,
    *,
    columns: Iterable[str] | None = None,
) -> list[Problem]:
    """Everything wrong with an environment, its options, rewards and weights, without loading or running anything.

    `columns` are those of the rows besides the prompt, where they are known.
    """
    config, asked = dict(config or {}), asked or Asked()
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name].problems(config, asked, columns)
    return _unknown(name, asked) or class_problems(name, config, asked)


def files(name: str, config: Mapping[str, Any] | None = None, asked: Asked | None = None) -> dict[str, str]:
    """`{file: sha256}` of the user's files that an environment stands on, for the lock."""
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name].files(dict(config or {}), asked or Asked())
    return custom_files(name)


def tools_of(name: str, config: Mapping[str, Any] | None = None, asked: Asked | None = None) -> Sequence[Any]:
    """The functions that the model may call; nothing of the user's is loaded where there are none."""
    asked = asked or Asked()
    if name in ENVIRONMENTS:
        named = dict(config or {}).get("tools") or ()
        return [load_reference(text, f"{asked.key}.env_config.tools") for text in named]
    return () if not is_reference(name) or has_tools(name) is False else load_environment(name, config, asked).tools


def brings_rows(name: str) -> bool | None:
    """Whether an environment brings rows of its own; None where only running it could tell."""
    return own_rows(name) if name not in ENVIRONMENTS and is_reference(name) else False


def _unknown(name: str, asked: Asked) -> list[Problem]:
    if is_reference(name):
        return []
    if near := nearest(name, ENVIRONMENTS):
        key = f"{asked.key}.env_type"
        return [Problem(key, f"no environment '{name}'", f"did you mean '{near}'?", fix=f"{key}={near}")]
    advice = f"there is {', '.join(ENVIRONMENTS)}, and classes of yours as FILE.py:CLASS"
    return [Problem(f"{asked.key}.env_type", f"no environment '{name}'", advice)]
