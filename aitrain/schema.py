"""JSON Schema of a recipe, so that an editor completes keys and underlines mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aitrain.config.run import TREE
from aitrain.config.section import Section
from aitrain.parameters import field_docstrings
from aitrain.registry import section_classes


def schema() -> dict[str, Any]:
    """A recipe may set any key, so none is required; keys of every option of a group are allowed in its section."""
    properties: dict[str, Any] = {
        "defaults": {"type": "array", "description": "The config it builds on, and the options it chooses."},
    }
    for name in TREE:
        variants = [_of_class(cls) for cls in section_classes(name).values()]
        merged: dict[str, Any] = {}
        for variant in variants:
            merged = {**variant["properties"], **merged}
        merged.pop("name", None) if name != "run" else None
        properties[name] = {"type": "object", "additionalProperties": False, "properties": merged}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aitrain recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _of_class(cls: type[Section]) -> dict[str, Any]:
    made = cls.model_json_schema()
    inner = made.get("$defs", {})
    meanings = field_docstrings(cls)
    for name, entry in made["properties"].items():
        reference = entry.get("$ref", "").rpartition("/")[2]
        if reference:
            annotation = cls.model_fields[name].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, Section)
            made["properties"][name] = {**_of_class(annotation), "description": meanings.get(name, "")}
            inner.pop(reference, None)
        else:
            entry.pop("visibility", None)
            made["properties"][name] = _in_place(entry, inner) | {"description": meanings.get(name, "")}
    return {"type": "object", "additionalProperties": False, "properties": made["properties"]}


def _in_place(entry: Any, definitions: Mapping[str, Any]) -> Any:
    """A part of a schema with the definitions it refers to put in their place."""
    if isinstance(entry, list):
        return [_in_place(part, definitions) for part in entry]
    if not isinstance(entry, dict):
        return entry
    if "$ref" in entry:
        return _in_place(definitions[entry["$ref"].rpartition("/")[2]], definitions)
    return {name: _in_place(part, definitions) for name, part in entry.items() if name != "visibility"}
