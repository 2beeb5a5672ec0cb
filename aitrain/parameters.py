"""Every key with its type, bounds, choices, visibility and meaning, read off the section classes."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import annotated_types

from aitrain.config.run import TREE
from aitrain.config.section import Section
from aitrain.registry import section_classes


@dataclass(frozen=True)
class Parameter:
    """One key of the config, as `show params` prints it."""

    key: str
    options: tuple[str, ...]
    """Options of the section's group that have this key; empty when all do."""
    type: str
    range: str
    choices: tuple[str, ...]
    visibility: str
    meaning: str
    nullable: bool


def parameters() -> list[Parameter]:
    """Every key, in the order of the tree; a key that several options share comes once."""
    found: list[Parameter] = []
    for section in TREE:
        classes = section_classes(section)
        by_key: dict[str, list[tuple[str, Parameter]]] = {}
        for option, cls in classes.items():
            for parameter in _of_class(cls, f"{section}."):
                by_key.setdefault(parameter.key, []).append((option, parameter))
        for entries in by_key.values():
            shared = len(entries) == len(classes)
            options = () if shared else tuple(option for option, _ in entries)
            parameter = replace(entries[0][1], options=options)
            if "" not in classes and parameter.key == f"{section}.name":
                parameter = replace(
                    parameter, choices=tuple(classes), meaning=f"The option; choose it with `{section}=NAME`."
                )
            found.append(parameter)
    return found


def all_keys() -> list[str]:
    """Every dotted key there is."""
    keys = (key for name in TREE for cls in section_classes(name).values() for key in keys_of(cls, f"{name}."))
    return list(dict.fromkeys(keys))


def keys_of(cls: type[Section], prefix: str = "") -> list[str]:
    """Every dotted key of one section class."""
    found = []
    for name, field in cls.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section):
            found += keys_of(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def section_in(annotation: Any) -> type[Section] | None:
    """The section class that an annotation holds: itself, or the entries of a list; None for plain values."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    found = [inner for part in typing.get_args(annotation) if (inner := section_in(part))]
    return found[0] if found else None


def _of_class(cls: type[Section], prefix: str) -> Iterator[Parameter]:
    meanings = field_docstrings(cls)
    for name, field in cls.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section):
            yield from _of_class(field.annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        yield Parameter(
            key=f"{prefix}{name}",
            options=(),
            type=type_name(field.annotation),
            range=_range([*field.metadata, *_inner_metadata(field.annotation)]),
            choices=choices_in(field.annotation),
            visibility=str(extra.get("visibility", "basic")),
            meaning=meanings.get(name, ""),
            nullable=type(None) in typing.get_args(field.annotation),
        )


@functools.cache
def field_docstrings(cls: type[Section]) -> dict[str, str]:
    """The text under each field of a section, as one line. Read from the source when asked for, not at start."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, Section) or base is Section:
            continue
        tree = ast.parse(inspect.getsource(base).lstrip())
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for statement, below in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[statement.target.id] = " ".join(str(below.value.value).split())
    return found


def type_name(annotation: Any) -> str:
    """An annotation in a user's words: `int`, `text`, `true/false`, `list of text`, `number or null`."""
    names: dict[Any, str] = {str: "text", int: "int", float: "number", bool: "true/false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return "{" + next(iter(annotation.model_fields)) + ": …}"
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is Literal:
        return "choice"
    if origin is list:
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return "mapping"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in args)
    return str(annotation)


def choices_in(annotation: Any) -> tuple[str, ...]:
    """The words that a key takes, alone or in a list; empty for one that takes other values alone."""
    if typing.get_origin(annotation) is Literal:
        return tuple(str(arg) for arg in typing.get_args(annotation))
    return tuple(choice for arg in typing.get_args(annotation) for choice in choices_in(arg))


def members_of(annotation: Any) -> list[Any]:
    """The types that a key takes, without null and bounds."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return members_of(args[0])
    if origin in (typing.Union, types.UnionType):
        return [member for arg in args if arg is not type(None) for member in members_of(arg)]
    return [annotation]


def list_of(entries: Any, value: Any) -> str:
    """A value as the only entry of a list, as it is typed; '' when it cannot be one."""
    inner = section_in(entries)
    if inner is not None:
        first = next(iter(inner.model_fields))
        return f"[{{{first}: {_typed(value)}}}]" if isinstance(value, str) else ""
    fits = isinstance(value, {str: str, int: int, float: int | float}.get(entries, ()))
    return f"[{_typed(value)}]" if fits and not isinstance(value, bool) else ""


def _typed(value: Any) -> str:
    """A value inside a list, quoted where Hydra's grammar would take it apart."""
    text = str(value)
    return text if re.fullmatch(r"[\w./:*-]+", text) else "'" + text.replace("'", "\\'") + "'"


def list_example(entries: Any) -> str:
    """A list of such entries, as it is typed."""
    inner = section_in(entries)
    if inner is not None:
        first = next(iter(inner.model_fields))
        return f"[{{{first}: …}}, {{{first}: …}}]"
    one = {str: "…", int: "1", float: "0.5"}.get(entries, "…")
    return f"[{one},{one}]"


def _inner_metadata(annotation: Any) -> list[Any]:
    """Bounds inside a union: those of `Annotated[float, Field(gt=0)] | Literal["auto"]`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return [bound for extra in annotation.__metadata__ for bound in getattr(extra, "metadata", [extra])]
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [bound for arg in typing.get_args(annotation) if is_union for bound in _inner_metadata(arg)]


def _range(metadata: list[Any]) -> str:
    signs = {annotated_types.Gt: ">", annotated_types.Ge: ">=", annotated_types.Lt: "<", annotated_types.Le: "<="}
    parts = []
    for bound in metadata:
        for kind, sign in signs.items():
            if isinstance(bound, kind):
                parts.append(f"{sign} {getattr(bound, kind.__name__.lower())}")
    return ", ".join(parts)
