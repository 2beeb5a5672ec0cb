"""Reading YAML with its line numbers: where each key of a recipe or an option stands, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aitrain.errors import Problem

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class YamlFile:
    """One YAML file: the line of each leaf key, its `defaults` list with lines, and its problems."""

    path: Path
    shown: str
    """How the file is called in messages: relative to the working directory or to the package."""
    lines: dict[str, int] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    """The lines of what stands inside a list, which is one value: `data.mixture[1].weight`."""
    defaults: list[tuple[str, str | None, int]] = field(default_factory=list)
    """(`group`, `option`, line) for `override group: option`; (`config name`, None, line) for a plain entry."""
    added: list[tuple[str, int]] = field(default_factory=list)
    """Groups in `defaults` without the word `override`, with their lines."""
    unset: list[str] = field(default_factory=list)
    """Keys left as `???` for the command line to set."""
    has_defaults: bool = False
    package: str | None = None
    problems: list[Problem] = field(default_factory=list)

    def where(self, key: str) -> str:
        """`file:line` of a key."""
        return f"{self.shown}:{self.lines[key]}"


def read_yaml(path: Path, shown: str) -> YamlFile:
    """Read a file's structure. Syntax errors and keys given twice end up in `problems`, never in an exception."""
    found = YamlFile(path, shown)
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        found.problems.append(Problem(shown, f"not valid YAML: {error.problem}", where=f"{shown}:{line}"))
        return found
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        found.problems.append(Problem(shown, f"not valid YAML: {error}", where=f"{shown}:1"))
        return found
    found.package = _package(text)
    if root is None:
        return found
    if not isinstance(root, yaml.MappingNode):
        found.problems.append(Problem(shown, "should be a mapping of keys to values", where=f"{shown}:1"))
        return found
    _strange(root, found, set())
    if not found.problems:
        _walk(root, "", found)
    return found


SECRET = re.compile(r"oc\.env:\s*(\w*(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL)\w*)", re.IGNORECASE)
PLAIN = "tag:yaml.org,2002:"
PLAIN_TAGS = {PLAIN + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "timestamp", "value")}


def secret_named(key: str, value: str, where: str = "") -> Problem | None:
    """The refusal of a value that takes a secret from the environment: it would be written to `config.yaml`."""
    found = SECRET.search(value)
    if found is None:
        return None
    advice = "leave it out; tokens are taken from the environment where they are needed"
    return Problem(key, f"would write ${found[1]} into the run's files", advice, where)


def _strange(node: yaml.Node, found: YamlFile, above: set[int]) -> None:
    """Note what has no meaning in a config: tags that make objects, merge keys, a value that holds itself."""
    where = f"{found.shown}:{node.start_mark.line + 1}"
    if id(node) in above:
        found.problems.append(Problem(found.shown, "an alias stands inside its own anchor", where=where))
        return
    if node.tag == PLAIN + "merge":
        found.problems.append(Problem("<<", "merge keys are not read", "write the keys out", where))
    elif node.tag not in PLAIN_TAGS:
        found.problems.append(Problem(found.shown, f"the tag '{node.tag}' is refused", "write a plain value", where))
    if isinstance(node, yaml.ScalarNode) and (secret := secret_named(found.shown, node.value, where)):
        found.problems.append(secret)
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            _strange(part, found, above | {id(node)})


def read_values(path: Path) -> dict[str, Any]:
    """The values of a file of ours, interpolations left as they are written."""
    values: dict[str, Any] = LOADER(path.read_text(encoding="utf-8")).get_single_data()
    values.pop("defaults", None)
    return values


def _package(text: str) -> str | None:
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head, _, value = line[1:].strip().partition(" ")
        if head == "@package":
            return value.strip()
    return None


def _walk(node: yaml.MappingNode, prefix: str, found: YamlFile) -> None:
    seen: dict[str, int] = {}
    for key_node, value in node.value:
        name, line = str(key_node.value), key_node.start_mark.line + 1
        dotted = f"{prefix}{name}"
        if name in seen:
            found.problems.append(
                Problem(dotted, f"given twice, first in line {seen[name]}", "keep one", where=f"{found.shown}:{line}")
            )
        seen[name] = line
        if dotted == "defaults":
            found.has_defaults = True
            _read_defaults(value, found)
        elif "." in name:
            problem = Problem(
                dotted, "a key with a dot in it", "write one level below the other", f"{found.shown}:{line}"
            )
            found.problems.append(problem)
        elif isinstance(value, yaml.MappingNode):
            _walk(value, f"{dotted}.", found)
        else:
            found.lines[dotted] = line
            found.entries |= _entries(value, dotted)
            if value.value == "???":
                found.unset.append(dotted)


def _entries(node: yaml.Node, dotted: str) -> Iterator[tuple[str, int]]:
    """Key and line of everything inside a list."""
    children: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.SequenceNode):
        children = [(f"{dotted}[{number}]", child, child) for number, child in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        children = [(f"{dotted}.{key.value}", key, value) for key, value in node.value]
    for name, place, child in children:
        yield name, place.start_mark.line + 1
        yield from _entries(child, name)


def _read_defaults(node: yaml.Node, found: YamlFile) -> None:
    if not isinstance(node, yaml.SequenceNode):
        where = f"{found.shown}:{node.start_mark.line + 1}"
        found.problems.append(Problem("defaults", "should be a list", "write [config, …, _self_]", where))
        return
    found.defaults = list(_defaults(node))
    for entry in node.value:
        if isinstance(entry, yaml.MappingNode):
            for key_node, _ in entry.value:
                name = str(key_node.value).removeprefix("optional ")
                if not name.startswith("override "):
                    found.added.append((name.strip().lstrip("/"), entry.start_mark.line + 1))


def _defaults(node: yaml.SequenceNode) -> Iterator[tuple[str, str | None, int]]:
    for entry in node.value:
        line = entry.start_mark.line + 1
        if isinstance(entry, yaml.ScalarNode):
            yield entry.value, None, line
        elif isinstance(entry, yaml.MappingNode):
            for key_node, value in entry.value:
                group = str(key_node.value).removeprefix("override ").removeprefix("optional ").strip().lstrip("/")
                option = value.value if isinstance(value, yaml.ScalarNode) else None
                yield group, option if option is not None else "", line
