"""`show`: the resolved config with origins; `show params`, `show options`, `show schema`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import yaml

from aitrain.commands.words import read_words
from aitrain.compose import OPTION_GROUPS, compose, group_options, shipped
from aitrain.config.run import Run, leaves
from aitrain.errors import ConfigError, Problem, did_you_mean
from aitrain.parameters import Parameter, parameters
from aitrain.registry import GROUPS, section_class, trainer_for
from aitrain.schema import schema
from aitrain.validate import validate

DEFAULT_TASK = "llm"
TOPICS = ("params", "options", "schema")


def show(words: list[str]) -> int:
    """Print what was asked for. Raises ConfigError for a config that is not valid."""
    if words and words[0] in TOPICS:
        return {"params": _params, "options": _options, "schema": _schema}[words[0]](words[1:])
    if (
        words
        and "=" not in words[0]
        and not words[0].startswith(("-", "~"))
        and not words[0].endswith((".yaml", ".yml"))
    ):
        raise ConfigError(Problem(words[0], "nothing to show", did_you_mean(words[0], TOPICS)))
    read = read_words(words)
    read.refuse_flags("show")
    print(with_origins(validate(compose(read.request))))
    return 0


def with_origins(run: Run) -> str:
    """The resolved config as YAML, with the origin of each value behind it as a comment."""
    lines: list[tuple[str, str]] = []
    for name, values in run.tree().items():
        lines.append((f"{name}:", ""))
        _section(values, name, 1, run, lines)
    width = min(60, max(len(text) for text, origin in lines if origin))
    return "\n".join(f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines)


def _section(values: dict[str, Any], prefix: str, depth: int, run: Run, lines: list[tuple[str, str]]) -> None:
    for name, value in values.items():
        dotted = f"{prefix}.{name}"
        if isinstance(value, dict):
            lines.append((f"{'  ' * depth}{name}:", ""))
            _section(value, dotted, depth + 1, run, lines)
        else:
            shown = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
            shown = shown.removesuffix("\n").removesuffix("\n...")
            lines.append((f"{'  ' * depth}{name}: {shown}", run.origins.get(dotted, "")))


def _params(words: list[str]) -> int:
    """Every key with type, default, range, choices, visibility and meaning."""
    unknown = [word for word in words if word not in ("--all", "--json")]
    if unknown:
        raise ConfigError(Problem(unknown[0], "unknown word", "there is --all, --json"))
    found = parameters()
    defaults = default_values()
    if "--json" in words:
        rows = [{**asdict(p), "default": defaults.get(_default_key(p))} for p in found]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for parameter in found:
        if parameter.visibility == "basic" or "--all" in words:
            print(_parameter_text(parameter, defaults.get(_default_key(parameter))))
    return 0


def _default_key(parameter: Parameter) -> tuple[str, str]:
    return (parameter.options[0] if parameter.options else "", parameter.key)


def _parameter_text(parameter: Parameter, default: Any) -> str:
    kind = "|".join(parameter.choices) if parameter.type == "choice" else parameter.type
    if parameter.choices and parameter.type != "choice":
        kind = kind.replace("choice", "|".join(parameter.choices))
    bounds = f", {parameter.range}" if parameter.range else ""
    only = f"  [{', '.join(parameter.options)}]" if parameter.options else ""
    hidden = "" if parameter.visibility == "basic" else f"  ({parameter.visibility})"
    shown = json.dumps(default, ensure_ascii=False)
    return f"{parameter.key}  ({kind}{bounds})  default {shown}{only}{hidden}\n    {parameter.meaning}"


def default_values() -> dict[tuple[str, str], Any]:
    """Default of each key, by ('' or the option that has it, key)."""
    base = yaml.safe_load((shipped("conf") / "config.yaml").read_text(encoding="utf-8"))
    found: dict[tuple[str, str], Any] = {("", key): value for key, value in leaves(base) if key != "defaults"}
    chosen = {group: option for entry in base["defaults"] if isinstance(entry, dict) for group, option in entry.items()}
    found |= {("", f"{group}.name"): option for group, option in chosen.items()}
    for group in OPTION_GROUPS:
        for option, path in group_options(group).items():
            text = path.read_text(encoding="utf-8")
            values = {name: value for name, value in yaml.safe_load(text).items() if name != "defaults"}
            tree = values if "# @package _global_" in text else {group: values}
            for key, value in leaves(tree):
                found.setdefault((option, key), value)
                if key.startswith(f"{group}.") or group == "hardware":
                    found.setdefault(("", key), value)
                elif chosen.get(group) == option:
                    found["", key] = value
    return found


def _options(words: list[str]) -> int:
    """Every group with its options and what each is."""
    if words:
        raise ConfigError(Problem(words[0], "unknown word", "show options takes none"))
    for group in OPTION_GROUPS:
        print(f"{group}")
        for option, path in group_options(group).items():
            print(f"  {option:<22} {_option_summary(group, option, path)}")
    return 0


def _option_summary(group: str, option: str, path: Any) -> str:
    if option == "none":
        return "without"
    if group == "hardware":
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return f"device {values['device']}, {values['processes']} process{'es' if values['processes'] > 1 else ''}"
    cls = section_class(group, option)
    summary = (cls.__doc__ or "").strip().splitlines()[0] if cls else ""
    of = [task for task in GROUPS["task"] if trainer_for(task, option)] if group == "trainer" else []
    return f"{summary}  (task={of[0]})" if len(of) == 1 and of != [DEFAULT_TASK] else summary


def _schema(words: list[str]) -> int:
    """JSON Schema of a recipe, for editors."""
    if words:
        raise ConfigError(Problem(words[0], "unknown word", "show schema takes none"))
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
