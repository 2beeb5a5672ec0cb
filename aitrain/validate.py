"""A composed tree to one frozen `Run`. Collects every problem before it refuses; repairs nothing."""

from __future__ import annotations

import fnmatch
import shlex
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aitrain.compose import COMMAND_LINE, PYTHON, Composed, code_named, defaults, moved
from aitrain.config.run import SECTIONS, TREE, Run, leaves
from aitrain.config.section import Section
from aitrain.elsewhere import ours
from aitrain.errors import ConfigError, Problem, did_you_mean, nearest
from aitrain.parameters import all_keys, choices_in, keys_of, list_example, list_of, members_of, section_in
from aitrain.registry import GROUPS, TASKS, annotation_at, section_class, section_classes, trainer_for, trainers_of

OF_MODELS = ("model.*", "train.*", "peft.*")
"""Sections whose every key acts with a trainer of a model of tokens."""
ALWAYS_READ = ("run.*", *OF_MODELS, "hardware.*", "task.*", "trainer.*", "rl.name", "distill.*", "sweep.*",
               "tracking.*")  # fmt: skip
"""Sections whose every key acts whatever is chosen. Keys of the others must be claimed by a chosen option."""


def validate(composed: Composed) -> Run:
    """The typed run. Raises ConfigError with every problem found, each with its origin."""
    run, problems = examine(composed)
    if problems or run is None:
        raise ConfigError(problems)
    return run


def examine(composed: Composed) -> tuple[Run | None, list[Problem]]:
    """The run and every problem. Where a value was wrong the run holds the default, so that further checks can go on
    and everything is reported at once; such a run must not be started."""
    misfit = [*_misfit(composed)]
    problems = [*composed.problems, *_unknown_sections(composed), *misfit]
    sections: dict[str, Section] = {}
    fallback: dict[str, Any] = {}
    trainer = _chosen(composed, "trainer")
    for name in TREE:
        found = _section(name, composed.tree.get(name), trainer)
        if not isinstance(found, Section):
            known = {problem.key for problem in composed.problems}
            if misfit:  # a trainer of another task names no data
                known.add("data.path")
            problems += [problem for problem in found if problem.key not in known]
            fallback = fallback or defaults(composed)
            repaired = _repaired(composed.tree.get(name), fallback.get(name), {p.key for p in found}, name)
            found = _section(name, repaired, trainer)
        if isinstance(found, Section):
            sections[name] = found
    if len(sections) < len(TREE):
        return None, _in_order(_placed(problems, composed))
    run = Run(**sections, origins=composed.origins, given=composed.given)  # type: ignore[arg-type]
    wrong = {problem.key for problem in problems}
    problems += [problem for problem in _cross(run) if problem.key not in wrong]
    if any(problem.key == "trainer" and problem.what.startswith("no option") for problem in composed.problems):
        problems = [problem for problem in problems if not _follows(problem)]
    return run, _in_order(_placed(problems, composed))


def _misfit(composed: Composed) -> Iterator[Problem]:
    """A trainer that does not train the task."""
    task, trainer = (_chosen(composed, group) for group in ("task", "trainer"))
    if task not in GROUPS["task"] or trainer not in GROUPS["trainer"] or trainer_for(task, trainer):
        return
    fitting = trainers_of(task)
    advice, fix = "there is " + ", ".join(fitting), f"trainer={next(iter(fitting))}" if len(fitting) == 1 else ""
    yield Problem("trainer", f"'{trainer}' does not train task={task}", advice, fix=fix)


def _follows(problem: Problem) -> bool:
    """Whether a problem may only be one with the trainer that stands in for a misspelt one."""
    of_trainer = problem.what.startswith(("has no effect with", "trainer=")) and "trainer=" in problem.what
    return of_trainer or problem.key.startswith("trainer.")


def _repaired(values: Any, fallback: Any, wrong: set[str], prefix: str) -> Any:
    if not isinstance(values, Mapping) or not isinstance(fallback, Mapping):
        return fallback
    return {
        key: default
        if f"{prefix}.{key}" in {name.partition("[")[0] for name in wrong} or key not in values
        else (
            _repaired(values[key], default, wrong, f"{prefix}.{key}") if isinstance(default, Mapping) else values[key]
        )
        for key, default in fallback.items()
    }


def _unknown_sections(composed: Composed) -> Iterator[Problem]:
    for name, value in composed.tree.items():
        if name not in TREE:
            for dotted, _ in leaves({name: value}):
                known = all_keys()
                fix = moved(dotted, known)
                yield code_named(dotted) or Problem(dotted, "unknown key", did_you_mean(dotted, known), fix=fix)


def _chosen(composed: Composed, group: str) -> str:
    section = composed.tree.get(group)
    return str(section.get("name")) if isinstance(section, Mapping) else ""


def _section(name: str, values: Any, trainer: str) -> Section | list[Problem]:
    if not isinstance(values, Mapping):
        return [Problem(name, f"should be a section with keys, not {values!r}")]
    cls = SECTIONS.get(name) or section_class(name, str(values.get("name")))
    if cls is None:
        options = section_classes(name)
        return [
            Problem(f"{name}.name", f"no option '{values.get('name')}'", did_you_mean(str(values.get("name")), options))
        ]
    unset = [Problem(f"{name}.{key}", "needs a value", f"set {name}.{key}=VALUE") for key in _unset(values)]
    try:
        made = cls.model_validate(dict(values))
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = _merged([*unset, *(problem for detail in details for problem in _problems(name, cls, detail, trainer))])
        return [_with_advice(problem, cls, values) for problem in found]
    return unset or made


def _unset(values: Mapping[str, Any]) -> list[str]:
    """Keys a recipe left for its user to set: `???` is OmegaConf's word for a missing value."""
    return [dotted for dotted, value in leaves(values) if value == "???"]


def _merged(problems: list[Problem]) -> list[Problem]:
    """One problem a key: a key of several types (`int` or `never`) fails once for each."""
    by_key: dict[str, Problem] = {}
    for problem in problems:
        if first := by_key.get(problem.key):
            head, _, tail = first.what.rpartition(", not ")
            further = problem.what.rpartition(", not ")[0].removeprefix("input should be ")
            either = head if not head or further in head else f"{head} or {further}"
            problem = replace(first, what=f"{either}, not {tail}") if either else first
        by_key[problem.key] = problem
    return list(by_key.values())


FEW = 6
"""Choices of a key up to which all are listed, also where one of them is near."""
YES_OR_NO = {"yes": "true", "on": "true", "no": "false", "off": "false", "true": "true", "false": "false"}


def _with_advice(problem: Problem, cls: type[Section], values: Mapping[str, Any]) -> Problem:
    """The problem of a value, with the nearest one that is right."""
    key = problem.key
    kind = annotation_at(cls, key.partition(".")[2])
    if problem.advice or kind is None or not problem.what.startswith("input should be"):
        return problem
    value = _value_at(values, key.partition(".")[2])
    known, members = choices_in(kind), members_of(kind)
    if bool in members and isinstance(value, str) and (meant := YES_OR_NO.get(value.lower())):
        return replace(problem, advice=f"write {meant}", fix=f"{key}={meant}")
    entries = next((typing.get_args(member)[0] for member in members if typing.get_origin(member) is list), None)
    if known:
        listed = value if isinstance(value, list) and entries else [value]
        wrong = next((part for part in listed if isinstance(part, str) and part not in known), None)
        return problem if wrong is None else _choice_problem(problem, known, value, wrong)
    if entries and len(members) == 1 and not isinstance(value, list):
        return _list_problem(problem, entries, value)
    return problem


def _choice_problem(problem: Problem, known: Sequence[str], value: Any, wrong: str) -> Problem:
    """A word that is none of a key's choices: meant is an option of the key's group, or the nearest choice."""
    key, section = problem.key, problem.key.partition(".")[0]
    if wrong in GROUPS.get(section, {}):
        chosen = f"{section}={wrong}"
        return replace(problem, what=f"'{wrong}' is an option of its own", advice=f"choose {chosen}", fix=chosen)
    near = wrong.lower() if wrong.lower() in known else nearest(wrong, known)
    if near is None:
        return problem
    meant = f"[{','.join(near if part == wrong else str(part) for part in value)}]" if isinstance(value, list) else near
    what = problem.what if len(known) <= FEW else f"there is no '{wrong}'"
    return replace(problem, what=what, advice=f"did you mean '{near}'?", fix=f"{key}={meant}")


def _list_problem(problem: Problem, entries: Any, value: Any) -> Problem:
    """Something else where a list belongs: the same as a list, if it can be one entry, else what a list looks like."""
    written = list_of(entries, value)
    example = shlex.quote(f"{problem.key}={written or list_example(entries)}")
    return replace(problem, advice=f"a list is written {example}", fix=f"{problem.key}={written}" if written else "")


def _value_at(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _problems(section: str, cls: type[Section], detail: ErrorDetails, trainer: str) -> Iterator[Problem]:
    if detail["type"] != "extra_forbidden":
        yield _problem(section, cls, detail)
        return
    *above, name = detail["loc"]
    dotted, inside = _place(section, cls, above)
    for leaf, _ in leaves({f"{dotted}.{name}": detail["input"]}):
        yield code_named(leaf) or (
            _unknown_entry(dotted, leaf, inside)
            if "[" in dotted and inside
            else _unknown_key(section, cls, leaf, trainer)
        )


def _place(section: str, cls: type[Section], path: Iterable[str | int]) -> tuple[str, type[Section] | None]:
    """The key that pydantic's path leads to, as `data.mixture[1].weight`, and the section class that stands there.

    Of a union pydantic adds the branch to the path: `train.eval_steps.int`.
    """
    dotted = section
    inside: type[Section] | None = cls
    for part in path:
        if isinstance(part, int):
            dotted += f"[{part}]" if inside else ""
            continue
        field = inside.model_fields.get(part) if inside else None
        if field is None:
            break
        dotted, inside = f"{dotted}.{part}", section_in(field.annotation)
    return dotted, inside


def _problem(section: str, cls: type[Section], detail: ErrorDetails) -> Problem:
    dotted, _ = _place(section, cls, detail["loc"])
    message = detail["msg"]
    message = message[0].lower() + message[1:]
    if detail["type"] == "missing":
        cure = "every key has a value in conf/; a deleted section cannot be used"
        return Problem(dotted, "is missing", "every source needs it" if "[" in dotted else cure)
    words = {None: "null", True: "true", False: "false"}
    value = detail["input"]
    typed = words[value] if value is None or isinstance(value, bool) else repr(value)
    if detail["type"] in ("model_type", "model_attributes_type"):
        advice = f"write {{path: {value}}}" if dotted.endswith("]") else f"set one of them: {dotted}.KEY"
        return Problem(dotted, f"should be keys with values, not {typed}", advice)
    return Problem(dotted, f"{message}, not {typed}")


def _unknown_entry(entry: str, dotted: str, cls: type[Section]) -> Problem:
    """A key that an entry of a list does not have, with the nearest that it has."""
    name, dot, rest = dotted.removeprefix(f"{entry}.").partition(".")
    near = nearest(name, cls.model_fields)
    advice = f"did you mean '{entry}.{near}{dot}{rest}'?" if near else "there is " + ", ".join(cls.model_fields)
    return Problem(dotted, "unknown key", advice)


def _unknown_key(section: str, cls: type[Section], dotted: str, trainer: str) -> Problem:
    name = dotted.removeprefix(f"{section}.")
    owners = [option for option, other in section_classes(section).items() if option and name in keys_of(other)]
    if owners and (readers := _readers(dotted)):
        return _asleep(dotted, f"{section}={owners[0]}", f"trainer={trainer}", readers)
    if owners:
        chosen = f"{section}={owners[0]}"
        return Problem(
            dotted, f"has no effect here, it is a key of {' and '.join(owners)}", f"choose {chosen} or remove it"
        )
    near = nearest(name, keys_of(cls))
    if near is None and (known := ours(dotted)):
        return Problem(dotted, "unknown key", f"here it is '{known}'", fix="" if known in TREE else known)
    if near:
        corrected = f"{section}.{near}"
        return Problem(dotted, "unknown key", f"did you mean '{corrected}'?", fix=corrected)
    advice = did_you_mean(dotted, all_keys())
    readers = _readers(meant) if (meant := nearest(dotted, all_keys())) else []
    if readers and meant and meant.startswith(f"{section}.") and f"trainer={trainer}" not in readers:
        advice = f"did you mean '{meant}', which acts with {', '.join(readers)}?"
    return Problem(dotted, "unknown key", advice)


def _asleep(dotted: str, option: str, trainer: str, readers: Sequence[str]) -> Problem:
    """A key of a group that nothing was chosen from: what acts on it, or the option that has it."""
    if trainer in readers:
        what = f"has no effect with {dotted.partition('.')[0]}=none"
        return Problem(dotted, what, f"choose {option} or remove it", fix=dotted)  # the trainer asks for an option
    return Problem(dotted, f"has no effect with {trainer}", f"it acts with {', '.join(readers)}", fix=readers[0])


def _cross(run: Run) -> Iterator[Problem]:
    task = run.task.name
    trainer = trainer_for(task, run.trainer.name)
    if trainer and trainer.encoder and run.train.metric_for_best_model not in trainer.metrics:
        wrong, near = run.train.metric_for_best_model, nearest(run.train.metric_for_best_model, trainer.metrics)
        advice = did_you_mean(wrong, trainer.metrics) if near else "there is " + ", ".join(trainer.metrics)
        fix = f"train.metric_for_best_model={near}" if near else ""
        what = f"trainer={run.trainer.name} does not report '{wrong}'"
        yield Problem("train.metric_for_best_model", what, advice, fix=fix)
    if run.data.max_samples_strategy == "balanced" and not TASKS[task].has_classes:
        what = f"'balanced' takes as many rows of each class, and task={task} has none"
        advice, fix = "use first, even or random", "data.max_samples_strategy=even"
        yield Problem("data.max_samples_strategy", what, advice, fix=fix)
    for _, section in run.sections():
        yield from section.problems(run)
    yield from _without_effect(run)


def _without_effect(run: Run) -> Iterator[Problem]:
    trainer = trainer_for(run.task.name, run.trainer.name)
    without = OF_MODELS if trainer is not None and trainer.encoder is None else ()
    always = [pattern for pattern in ALWAYS_READ if pattern not in without]
    patterns = [*always, *(p for _, section in run.sections() for p in section.reads)]
    for dotted, _ in leaves(run.tree()):
        if dotted in run.given and not any(fnmatch.fnmatchcase(dotted, pattern) for pattern in patterns):
            readers = _readers(dotted)
            advice = f"it acts with {', '.join(readers)}" if readers else "remove it"
            if dotted.startswith(tuple(pattern.rstrip("*") for pattern in without)):
                advice = "it acts with tasks that train a model of tokens"
            chosen = f"task={run.task.name} trainer={run.trainer.name}"
            yield Problem(dotted, f"has no effect with {chosen}", advice)


def _readers(dotted: str) -> list[str]:
    return [
        f"{group}={option}"
        for group in ("task", "trainer", "peft")
        for option, cls in section_classes(group).items()
        if any(fnmatch.fnmatchcase(dotted, pattern) for pattern in cls.reads)
    ]


def _placed(problems: Iterable[Problem], composed: Composed) -> list[Problem]:
    """Each problem with the file and line its value came from, and with the word to type instead."""
    placed = []
    for problem in problems:
        key = problem.key.partition("[")[0]  # a list is one value
        origin = _line_inside(problem.key, composed.entries) or composed.origins.get(key, "")
        if origin and not problem.where and origin not in (COMMAND_LINE, PYTHON) and key in composed.given:
            problem = replace(problem, where=origin)
        placed.append(problem)
    return placed


def _line_inside(key: str, entries: Mapping[str, str]) -> str:
    """Where a key inside a list was written, or what stands around it."""
    while "[" in key:
        if key in entries:
            return entries[key]
        key = key[: max(key.rfind("."), key.rfind("["))]
    return ""


def _in_order(problems: list[Problem]) -> list[Problem]:
    ranks: dict[str, Any] = {name: rank for rank, name in enumerate(TREE)}
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda p: ranks.get(p.key.partition(".")[0], -1))
