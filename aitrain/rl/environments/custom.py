"""`custom`: an environment of the user's, `file.py:Class`, in either of two forms.

One has `reset(row)`, `score(episodes)` and perhaps `step(episode)`, as `aitrain.rl.Environment`. The other brings its
own prompts: `build_dataset(tokenizer)` gives rows with `prompt` and `case_idx`, and
`score_episode(model, tokenizer, completion, case_idx)` the reward of one answer to them. Both are made with
`rl.env_config` as keywords, and may have `tools`, or `get_tools()` that returns them.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aitrain.errors import ConfigError, DataError, Problem, did_you_mean
from aitrain.rl.environment import Environment
from aitrain.rl.environments.built_in import Asked, no_reward
from aitrain.rl.episode import Episode, Step
from aitrain.rl.reference import class_in_file, fingerprint, is_reference, load_reference, reference_problems
from aitrain.rl.rewards.combine import RewardError, by_name

FORMS = (("score",), ("build_dataset", "score_episode"))
"""Methods that a class must have, by form."""
NOTHING_ASKED = Asked()
CASE_SCORE = "score_episode(model, tokenizer, completion, case_idx)"
BASES = ("Environment", "object")


def class_problems(reference: str, config: Mapping[str, Any], asked: Asked) -> list[Problem]:
    """What is wrong with the user's class, read off its source; nothing of it is run."""
    key = f"{asked.key}.env_type"
    if not is_reference(reference):
        return [Problem(key, f"'{reference}' names no class", "write FILE.py:CLASS")]
    problems = [*reference_problems(reference, key), *no_reward("a class of your own", asked, "remove it")]
    node = class_in_file(reference)
    if problems or node is None or not all(isinstance(b, ast.Name | ast.Attribute) for b in node.bases):
        return problems
    if any(ast.unparse(base).rpartition(".")[2] not in BASES for base in node.bases):
        return problems  # its methods may come from elsewhere
    has = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    problems += _lacking(reference, has, key)
    problems += _strange_options(node, config, f"{asked.key}.env_config")
    return problems


def own_rows(reference: str) -> bool | None:
    """Whether the user's class brings rows of its own, read off its source; None where that does not tell."""
    node = class_in_file(reference)
    if node is None:
        return None
    if {each.name for each in node.body if isinstance(each, ast.FunctionDef)} & {"rows", "build_dataset"}:
        return True
    return False if all(ast.unparse(base).rpartition(".")[2] in BASES for base in node.bases) else None


def has_tools(reference: str) -> bool | None:
    """Whether the user's class has tools, read off its source; None where that does not tell."""
    node = class_in_file(reference)
    if node is None:
        return None
    if "tools" in ast.unparse(node):
        return True
    return False if all(ast.unparse(base).rpartition(".")[2] in BASES for base in node.bases) else None


def custom(reference: str, config: Mapping[str, Any], asked: Asked) -> Environment:
    """The user's environment, made with its options, in the form that everything else expects."""
    key = f"{asked.key}.env_type"
    problems = class_problems(reference, config, asked)
    if problems:
        raise ConfigError(problems)
    cls = load_reference(reference, key)
    if not callable(cls):
        raise ConfigError(Problem(key, f"'{reference}' is no class"))
    if inspect.isclass(cls):
        try:
            inspect.signature(cls).bind(**config)
        except TypeError as error:
            raise ConfigError(Problem(f"{asked.key}.env_config", f"{reference}: {error}")) from None
    return adopted(cls(**config), asked, key)


def adopted(made: Any, asked: Asked = NOTHING_ASKED, key: str = "rl.env_type") -> Environment:
    """An object of the user's as an environment; what it returns is checked each time."""
    has = {name for form in FORMS for name in form if callable(getattr(made, name, None))}
    problems = list(_lacking(type(made).__name__, has, key))
    if problems:
        raise ConfigError(problems)
    kind = CaseEnvironment if set(FORMS[1]) <= has else OwnEnvironment
    environment = kind(made)
    environment.weights = {**environment.weights, **by_name(asked.weights, list(environment.weights))}
    return environment


def custom_files(reference: str) -> dict[str, str]:
    """The file it stands in, with its sha256."""
    return fingerprint(reference)


class OwnEnvironment(Environment):
    """An object with this package's methods, whatever its class."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.name = type(made).__name__
        self.max_turns = int(getattr(made, "max_turns", 1))
        self.tools = _tools(made)
        self.weights = dict(getattr(made, "weights", {}))

    def rows(self, tokenizer: Any) -> Sequence[Mapping[str, Any]] | None:
        return self.made.rows(tokenizer) if hasattr(self.made, "rows") else None

    def bind(self, model: Any, tokenizer: Any) -> None:
        if hasattr(self.made, "bind"):
            self.made.bind(model, tokenizer)

    def reset(self, row: Mapping[str, Any]) -> Episode:
        if not hasattr(self.made, "reset"):
            return super().reset(row)
        return self._of(self.made.reset(row), "reset", Episode)

    def step(self, episode: Episode) -> Step:
        if not hasattr(self.made, "step"):
            return super().step(episode)
        return self._of(self.made.step(episode), "step", Step)

    def score(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        scores = self.made.score(episodes)
        if not isinstance(scores, Sequence) or len(scores) != len(episodes):
            many = f"{len(scores)} scores" if isinstance(scores, Sequence) else repr(scores)
            raise RewardError(f"{self.name}.score", "", f"returned {many} for {len(episodes)} episodes")
        return [self._components(each, "score", episode) for each, episode in zip(scores, episodes, strict=True)]

    def _of(self, value: Any, method: str, kind: type[Any]) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{self.name}.{method} should return aitrain.rl.{kind.__name__}, not {value!r}")
        return value

    def _components(self, value: Any, method: str, episode: Episode) -> dict[str, float]:
        found = value if isinstance(value, Mapping) else {"reward": value}
        for name, each in found.items():
            if not _is_finite(each):
                what = f"returned {each!r} for '{name}', where a finite number belongs"
                raise RewardError(f"{self.name}.{method}", str(episode.prompt)[:80], what)
        return {str(name): float(each) for name, each in found.items()}


class CaseEnvironment(OwnEnvironment):
    """An object that brings its own prompts and scores answers by `case_idx`, which each episode carries along."""

    model: Any = None
    tokenizer: Any = None

    def rows(self, tokenizer: Any) -> Sequence[Mapping[str, Any]]:
        data = self.made.build_dataset(tokenizer)
        rows = _transposed(data) if isinstance(data, Mapping) else [dict(row) for row in data]
        if not rows:
            raise DataError(Problem(f"{self.name}.build_dataset", "returned no rows"))
        for i, row in enumerate(rows):
            if not row.get("prompt"):
                raise DataError(
                    Problem(f"{self.name}.build_dataset", f"row {i} has no prompt; it has {', '.join(row)}")
                )
            row.setdefault("case_idx", i)
        return rows

    def bind(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def score(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        scores = []
        for episode in episodes:
            case = episode.columns["case_idx"]
            value = self.made.score_episode(self.model, self.tokenizer, episode.completion, case)
            scores.append(self._components(value, "score_episode", episode))
        return scores


def _lacking(name: str, has: Iterable[str], key: str) -> Iterator[Problem]:
    has = set(has)
    if any(set(form) <= has for form in FORMS):
        return
    begun = [form for form in FORMS if has & set(form)]
    for form in begun or FORMS[:1]:
        missing = [method for method in form if method not in has]
        advice = f"it needs score(episodes), or build_dataset(tokenizer) and {CASE_SCORE}"
        yield Problem(key, f"{name} has no {' and no '.join(missing)}", advice)


def _strange_options(node: ast.ClassDef, config: Mapping[str, Any], key: str) -> Iterator[Problem]:
    """Options that the class's __init__ does not take, and those it needs."""
    init = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
    if init is None:
        if not node.decorator_list:  # a dataclass takes what its fields say
            yield from (Problem(f"{key}.{name}", f"{node.name} takes no options", "remove it") for name in config)
        return
    arguments = init.args
    named = [each.arg for each in (*arguments.args[1:], *arguments.kwonlyargs)]
    if arguments.kwarg is None:
        for name in config:
            if name not in named:
                yield Problem(f"{key}.{name}", f"unknown option of {node.name}", did_you_mean(name, named))
    without = arguments.args[1 : len(arguments.args) - len(arguments.defaults)]
    needed = [each.arg for each in without]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    needed += [each.arg for each, default in pairs if default is None]
    for name in needed:
        if name not in config:
            yield Problem(f"{key}.{name}", f"is needed by {node.name}", f"add {name}: VALUE")


def _tools(made: Any) -> list[Any]:
    tools = made.get_tools() if callable(getattr(made, "get_tools", None)) else getattr(made, "tools", ())
    return list(tools or ())


def _transposed(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _is_finite(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False
