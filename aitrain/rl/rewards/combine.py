"""From what the user wrote to components with weights: `length`, `my.py:score`, `{name: length, target: 40}`, lists."""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aitrain.errors import ConfigError, Problem, TrainingFailed, nearest
from aitrain.rl.episode import Episode, Text, question_of
from aitrain.rl.reference import is_reference
from aitrain.rl.rewards import REWARDS
from aitrain.rl.rewards.built_in import BuiltIn, Reward, Terms
from aitrain.rl.rewards.custom import Model, looks_like_a_model
from aitrain.rl.settings import made

Spec = str | Mapping[str, Any] | Callable[..., Any]
"""One reward as the user names it."""
Specs = Spec | Sequence[Spec] | Mapping[str, Spec]
"""One, several, or several by the names of their components."""
Weights = Mapping[str, float] | Sequence[float]
"""What components count, by name or in their order."""
OWN = ("name", "type", "as", "weight")
"""What an entry says about itself, beside the options of its reward."""
MAY_BE_RIGHT = ("answer", "reference", "completion", "response", "output", "solution", "target", "chosen")
"""Columns that may hold the right answer, the likeliest first."""
OURS = str(Path(__file__).parent.parent)
SHOWN = 80
"""Characters of a prompt in a message."""


class RewardError(TrainingFailed):
    """A reward failed: which one, for which prompt, and what came instead of a number."""

    def __init__(self, reward: str, prompt: str, what: str) -> None:
        self.reward, self.prompt, self.what = reward, prompt, what
        super().__init__(f"reward {reward}: {what}\n  prompt: {prompt!r}" if prompt else f"reward {reward}: {what}")

    def __reduce__(self) -> tuple[type[RewardError], tuple[str, str, str]]:
        return type(self), (self.reward, self.prompt, self.what)


@dataclass(frozen=True)
class Component:
    """One reward of a combination, read but not loaded."""

    name: str
    """What it is called in logs and weights."""
    source: BuiltIn | Callable[..., Any]
    """A built-in with its options, or a function that was handed over."""
    key: str
    weight: float | None = None

    def problems(self, terms: Terms, columns: Iterable[str] | None) -> Iterator[Problem]:
        if not isinstance(self.source, BuiltIn):
            return
        yield from self.source.problems(self.key, terms)
        there = None if columns is None else sorted(columns)
        for needed in self.source.columns:
            if there is not None and needed not in there:
                yield self._lacks(needed, there)

    def _lacks(self, needed: str, there: Sequence[str]) -> Problem:
        """A column that it reads is not there: those that are, and how to name one of them."""
        what = f"needs the column '{needed}', which the rows do not have"
        if not there:
            return Problem(self.key, what, "the rows have no further columns")
        near = nearest(needed, there)
        meant = near or next((name for name in MAY_BE_RIGHT if name in there), None)
        written, fix = self._naming(needed, meant or "COLUMN")
        asked = f"did you mean '{near}'? " if near else ""
        return Problem(self.key, what, f"{asked}they have {', '.join(there)}; {written}", fix=fix if meant else "")

    def _naming(self, needed: str, column: str) -> tuple[str, str]:
        """How to say that a column is called otherwise, in words and as an override."""
        assert isinstance(self.source, BuiltIn)
        option = next((name for name in type(self.source).model_fields if getattr(self.source, name) == needed), None)
        if option is None:
            return "name a reward that reads one of these", ""
        place = self.key.partition("[")[0]
        if place.startswith("rl.env_config."):  # an environment hands its options on by their own names
            fix = f"rl.env_config.{option}={column}"
            return f"write {fix}", fix
        name = next((each for each, kind in REWARDS.items() if kind is type(self.source)), self.name)
        source = self.source
        said = {each: getattr(source, each) for each in type(source).model_fields if each in source.model_fields_set}
        options: dict[str, Any] = {
            "name": name,
            **said,
            option: column,
            **({} if self.name == name else {"as": self.name}),
        }
        if self.weight is not None:
            options["weight"] = self.weight
        text = "{" + ", ".join(f"{each}: {value}" for each, value in options.items()) + "}"
        simple = all(isinstance(value, int | float | str) for value in options.values())
        return f"write {text}", f"{self.key}={text}" if place == self.key and simple else ""

    def load(self, terms: Terms) -> Reward:
        return self.source.load(terms) if isinstance(self.source, BuiltIn) else self.source


def reward_problems(
    specs: Any,
    key: str = "rl.reward_fn",
    terms: Terms | None = None,
    *,
    weights: Weights | None = None,
    columns: Iterable[str] | None = None,
) -> list[Problem]:
    """Everything wrong with rewards and their weights, seen without running or loading anything.

    `columns` are those of the rows besides the prompt, where they are known.
    """
    components, problems = _read(specs, key)
    for component in components:
        problems += component.problems(terms or Terms(), columns)
    return [*problems, *_weight_problems(weights, components, bool(problems))]


def load_reward(spec: Spec, terms: Terms | None = None, key: str = "reward") -> Reward:
    """The function behind one spec. Raises ConfigError with all that is wrong with it."""
    component = _checked([spec], key, terms or Terms(), None)[0]
    return component.load(terms or Terms())


def reward_files(specs: Specs) -> dict[str, str]:
    """`{file: sha256}` of the user's files that rewards stand on, for the lock."""
    found: dict[str, str] = {}
    for component in _read(specs, "")[0]:
        if isinstance(component.source, BuiltIn):
            found |= component.source.files()
    return found


class Rewards:
    """Several rewards as one: episodes in, named components out.

    Async functions are awaited together, while the others run one after the other in the calling thread. A reward
    that raises, or gives None, NaN, an infinite value, something that is no number or too few values, ends the run
    with a RewardError, or with `on_error="penalty"` is replaced by the penalty and counted in `faults`. `terms`, where
    given, say both instead.
    """

    def __init__(
        self,
        specs: Specs,
        weights: Weights | None = None,
        on_error: Literal["raise", "penalty"] = "raise",
        penalty: float = -1.0,
        *,
        terms: Terms | None = None,
        key: str = "rl.reward_fn",
    ) -> None:
        terms = terms or Terms(on_error=on_error, penalty=penalty)
        components = _checked(specs, key, terms, weights)
        self.functions: dict[str, Reward] = {each.name: each.load(terms) for each in components}
        """The rewards by the names of their components."""
        own = {each.name: 1.0 if each.weight is None else each.weight for each in components}
        self.weights: dict[str, float] = {**own, **by_name(weights, list(own))}
        """What each component counts in the total; 1 where nothing was said."""
        self.on_error, self.penalty = terms.on_error, terms.penalty
        self.faults: Counter[str] = Counter()
        """How often each component was replaced by the penalty."""
        self.first_faults: dict[str, str] = {}
        """The first fault of each, in words."""

    def __call__(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        """The components of each episode."""
        scores = self.scores(*as_columns(episodes))
        return [{name: values[i] for name, values in scores.items()} for i in range(len(episodes))]

    def scores(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Sequence[Any]]
    ) -> dict[str, list[float]]:
        """The same for columns: values of each component."""
        batch = Batch(list(prompts), list(completions), {name: list(values) for name, values in columns.items()})
        if not batch.prompts:
            return {name: [] for name in self.functions}
        asynchronous = {name: each for name, each in self.functions.items() if _is_async(each)}
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(asyncio.run, _together(asynchronous, batch)) if asynchronous else None
            found = {name: _tried(each, batch) for name, each in self.functions.items() if name not in asynchronous}
            found |= waiting.result() if waiting else {}
        return {name: self._sound(name, each, batch, found[name]) for name, each in self.functions.items()}

    def _sound(self, name: str, function: Reward, batch: Batch, got: Any) -> list[float]:
        """The values, each a finite number; what is none is a fault."""
        values, faults = _numbers(got, len(batch))
        if isinstance(got, Exception) and len(batch) > 1:  # one row may have spoilt it for all
            alone = [_numbers(_tried(function, batch.take([i])), 1)[1] for i in range(len(batch))]
            faults = {i: fault[0] for i, fault in enumerate(alone) if fault} or faults
            good = [i for i in range(len(batch)) if i not in faults]
            if good and self.on_error == "penalty":
                again, failed = _numbers(_tried(function, batch.take(good)), len(good))
                faults |= {good[i]: fault for i, fault in failed.items()}
                values = [self.penalty] * len(batch)
                for i, value in zip(good, again, strict=True):
                    values[i] = value
        if not faults:
            return values
        title = f"'{name}'" if _title(function) == name else f"'{name}' ({_title(function)})"
        first = min(faults)
        if self.on_error == "raise":
            error = RewardError(title, _short(batch.prompts[first]), faults[first])
            raise error from (got if isinstance(got, Exception) else None)
        self.faults[name] += len(faults)
        self.first_faults.setdefault(name, f"{faults[first]}; prompt: {_short(batch.prompts[first])!r}")
        return [self.penalty if i in faults else value for i, value in enumerate(values)]


@dataclass(frozen=True)
class Batch:
    """What a reward is called with."""

    prompts: list[Text]
    completions: list[Text]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Sequence[int]) -> Batch:
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Batch([self.prompts[i] for i in rows], [self.completions[i] for i in rows], columns)


def as_columns(episodes: Sequence[Episode]) -> tuple[list[Text], list[Text], dict[str, list[Any]]]:
    """Prompts, completions and columns, as rewards take them; None where a row lacks a column that others have."""
    names = dict.fromkeys(name for episode in episodes for name in episode.columns)
    return (
        [episode.prompt for episode in episodes],
        [episode.completion if isinstance(episode.prompt, str) else episode.turns for episode in episodes],
        {name: [episode.columns.get(name) for episode in episodes] for name in names},
    )


def by_name(weights: Weights | None, names: Sequence[str]) -> dict[str, float]:
    """Weights by the names of their components."""
    if isinstance(weights, Sequence):
        return dict(zip(names, weights, strict=False))
    return dict(weights or {})


def values_of(
    function: Reward, prompts: list[Text], completions: list[Text], columns: Mapping[str, Sequence[Any]]
) -> list[float]:
    """What a reward gives, awaited if need be; a fault in it is an error."""
    batch = Batch(prompts, completions, {name: list(values) for name, values in columns.items()})
    got = _tried(function, batch)
    if isinstance(got, Exception):
        raise got
    values, faults = _numbers(got, len(batch))
    if faults:
        raise ValueError(f"{_title(function)} {faults[min(faults)]}")
    return values


def _read(specs: Any, key: str) -> tuple[list[Component], list[Problem]]:
    """Components and what is wrong with how they are written."""
    entries: Iterable[tuple[str | None, Any, str]]
    if isinstance(specs, Mapping) and not isinstance(specs.get("name", specs.get("type")), str):
        entries = [(str(name), spec, f"{key}.{name}") for name, spec in specs.items()]
    elif isinstance(specs, Sequence) and not isinstance(specs, str):
        several = len(specs) > 1
        entries = [(None, spec, f"{key}[{i}]" if several else key) for i, spec in enumerate(specs)]
    else:
        entries = [(None, specs, key)]
    components: list[Component] = []
    problems: list[Problem] = []
    for name, spec, place in entries:
        found = _component(name, spec, place)
        if isinstance(found, Component):
            twice = found.name in {other.name for other in components}
            if twice:
                what = f"another reward is named '{found.name}' too"
                problems.append(
                    Problem(place, what, f"add 'as: NAME' to tell them apart: {{name: {found.name}, as: NAME}}")
                )
            else:
                components.append(found)
        else:
            problems += found
    if not components and not problems:
        problems.append(Problem(key, "holds no reward", "there is " + ", ".join(sorted(REWARDS))))
    return components, problems


def _component(name: str | None, spec: Any, key: str) -> Component | list[Problem]:
    bare = isinstance(spec, str)
    if isinstance(spec, str):
        spec = _spelled_out(spec)
    elif callable(spec):
        return Component(name or _title(spec), spec, key)
    if not isinstance(spec, Mapping):
        what = f"should name a reward, not {spec!r}"
        return [Problem(key, what, "write NAME, FILE.py:FUNCTION or {name: NAME, OPTION: VALUE}")]
    chosen = spec.get("name", spec.get("type"))
    if not isinstance(chosen, str):
        what = f"says no name: {dict(spec)!r}"
        return [Problem(key, what, "write {name: NAME, OPTION: VALUE}")]
    if chosen not in REWARDS:
        known = {**spec, **_spelled_out(chosen)}
        if "name" not in known or known["name"] not in REWARDS:
            near = nearest(chosen, REWARDS)
            if near:
                return [Problem(key, f"no reward '{chosen}'", f"did you mean '{near}'?", fix=_fix(key, bare, near))]
            advice = "there is " + ", ".join(sorted(REWARDS))
            return [Problem(key, f"no reward '{chosen}'", f"{advice}, and functions of yours as FILE.py:FUNCTION")]
        known.pop("type", None)
        spec, chosen = known, known["name"]
    weight = spec.get("weight")
    if weight is not None and not _is_weight(weight):
        return [Problem(f"{key}.weight", f"should be a finite number, not {weight!r}")]
    options = {option: value for option, value in spec.items() if option not in OWN}
    source = made(REWARDS[chosen], options, key)
    if not isinstance(source, BuiltIn):
        needed = [problem.key.removeprefix(f"{key}.") for problem in source if problem.key != key]
        if bare and needed:
            example = ", ".join(f"{option}: VALUE" for option in needed)
            return [Problem(key, f"the reward '{chosen}' needs options", f"write {{name: {chosen}, {example}}}")]
        return source
    own = str(getattr(source, "function", chosen)).rpartition(":")[2]
    return Component(name or str(spec.get("as") or own), source, key, None if weight is None else float(weight))


def _fix(key: str, bare: bool, name: str) -> str:
    """The override that sets a single reward by its name; of an entry in a list there is none."""
    return f"{key}={name}" if bare and "[" not in key else ""


def _spelled_out(text: str) -> dict[str, Any]:
    """A bare text as a mapping: a built-in's name, the user's function or a model's path."""
    if text not in REWARDS and is_reference(text):
        return {"name": "custom", "function": text}
    if text not in REWARDS and looks_like_a_model(text):
        return {"name": "model", "path": text}
    return {"name": text}


def _weight_problems(weights: Weights | None, components: Sequence[Component], incomplete: bool) -> Iterator[Problem]:
    known = [component.name for component in components]
    if isinstance(weights, Sequence) and len(weights) != len(known):
        if not incomplete:
            what = f"holds {len(weights)} weights for {len(known)} rewards"
            yield Problem("rl.reward_weights", what, f"write them by name: {{{', '.join(f'{n}: 1.0' for n in known)}}}")
        return
    said = {component.name for component in components if component.weight is not None}
    for name, weight in by_name(weights, known).items():
        key = f"rl.reward_weights.{name}"
        if name not in known and not incomplete:
            near = nearest(name, known)
            advice = f"did you mean '{near}'?" if near else "there is " + ", ".join(known)
            yield Problem(key, "no reward has this name", advice)
        elif not _is_weight(weight):
            yield Problem(key, f"should be a finite number, not {weight!r}")
        elif name in said:
            yield Problem(key, "the reward has a weight of its own too", "remove one of them")


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _checked(specs: Specs, key: str, terms: Terms, weights: Weights | None) -> list[Component]:
    problems = reward_problems(specs, key, terms, weights=weights)
    if problems:
        raise ConfigError(problems)
    return _read(specs, key)[0]


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def _together(functions: Mapping[str, Reward], batch: Batch) -> dict[str, Any]:
    calls = [_awaited(_called(function, batch)) for function in functions.values()]
    found = await asyncio.gather(*calls, return_exceptions=True)
    return dict(zip(functions, found, strict=True))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _tried(function: Reward, batch: Batch) -> Any:
    """What the reward returned, or the exception it raised."""
    try:
        got = _called(function, batch)
        if inspect.isawaitable(got):
            with ThreadPoolExecutor(1) as pool:  # a loop may be running in this thread, as in a notebook
                got = pool.submit(asyncio.run, _awaited(got)).result()
        return got
    except Exception as error:
        return error


def _called(function: Reward, batch: Batch) -> Any:
    """The call, with what the function can take; TRL's rewards swallow all columns, others name those they read."""
    given: dict[str, Any] = {**batch.columns, "prompts": batch.prompts, "completions": batch.completions}
    parameters = inspect.signature(function).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        given = {each.name: given[each.name] for each in parameters if each.name in given}
    lacking = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.name not in given
    ]  # fmt: skip
    if lacking:
        there = ", ".join(sorted(batch.columns)) or "none"
        raise LookupError(f"asks for '{lacking[0]}', which is no column of the rows; they have {there}")
    return function(**given)


def _numbers(got: Any, count: int) -> tuple[list[float], dict[int, str]]:
    """Values as floats, and for each row without one what came instead."""
    if isinstance(got, Exception):
        return [math.nan] * count, dict.fromkeys(range(count), _told(got))
    if hasattr(got, "tolist"):  # an array or a tensor
        got = got.tolist()
    if not isinstance(got, Sequence) or isinstance(got, str | bytes):
        return [math.nan] * count, dict.fromkeys(range(count), f"returned {_brief(got)}, not a list of {count} numbers")
    if len(got) != count:
        return [math.nan] * count, dict.fromkeys(range(count), f"returned {len(got)} values for {count} answers")
    values, faults = [], {}
    for i, value in enumerate(got):
        number = _number(value)
        values.append(number)
        if isinstance(value, Exception):
            faults[i] = _told(value)
        elif not math.isfinite(number):
            faults[i] = f"returned {_brief(value)} where a finite number belongs"
    return values, faults


def _number(value: Any) -> float:
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def _told(error: Exception) -> str:
    """An exception with the line of the user's code that it came from."""
    theirs = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(OURS)]
    places = [f"{f.filename}:{f.lineno}" for f in theirs if f.filename == theirs[0].filename]
    place = f" ({places[-1]})" if places else ""
    return f"{type(error).__name__}: {error}{place}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _short(prompt: Text) -> str:
    text = " ".join(question_of(prompt).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _title(function: Callable[..., Any]) -> str:
    """A function's name as a user knows it."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return str(name)


def component_names(specs: Specs) -> list[str]:
    """What the rewards are called in logs and weights, in their order."""
    return [component.name for component in _read(specs, "")[0]]


def models_in(specs: Specs, key: str) -> list[tuple[str, str]]:
    """The paths of the reward models among rewards, each with its key."""
    return [(each.key, each.source.path) for each in _read(specs, key)[0] if isinstance(each.source, Model)]
