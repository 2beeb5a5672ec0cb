"""`show params` and the schema are read off the section classes, and agree with what composes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from aitrain.commands.show import default_values
from aitrain.config.run import leaves
from aitrain.parameters import all_keys, keys_of, parameters, type_name
from aitrain.registry import GROUPS, field_types, section_classes
from aitrain.schema import schema

ROOT = Path(__file__).resolve().parents[2]


def test_every_key_comes_once_in_the_order_of_the_tree() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys))
    assert keys[0] == "run.name"
    assert {"data.columns.prompt", "peft.r", "hardware.processes", "trainer.name"} <= set(keys)
    assert "data.columns" not in keys


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (str, "text"), (str | None, "text or null"), (list[str], "list of text"), (bool, "true/false"),
        (int | Literal["epoch", "never"], "int or choice"), (str | list[str] | None, "text or list of text or null"),
        (float, "number"),
    ],
)  # fmt: skip
def test_types_in_a_users_words(annotation: Any, name: str) -> None:
    assert type_name(annotation) == name


def test_what_a_parameter_says() -> None:
    found = {p.key: p for p in parameters()}
    assert found["train.eval_steps"].choices == ("epoch", "never")
    assert found["train.batch_size"].range == "> 0"
    assert found["data.valid_fraction"].range == ">= 0, < 1"
    assert (found["train.learning_rate"].type, found["train.learning_rate"].range) == ("number or choice", "> 0")
    assert found["train.max_steps"].nullable
    assert not found["train.batch_size"].nullable
    assert found["peft.r"].options == ("lora",)
    assert found["peft.name"].options == ()
    assert set(found["trainer.name"].choices) == set(GROUPS["trainer"])
    assert found["model.trust_remote_code"].visibility == "advanced"
    assert all("annotation" not in p.type and "typing" not in p.type and "<" not in p.type for p in found.values())


def test_every_default_is_the_one_that_composes(run_of: Callable[..., Any]) -> None:
    shown = default_values()
    for words in ((), ("peft=lora",)):
        tree = dict(leaves(run_of(*words).tree()))
        for parameter in parameters():
            option = parameter.options[0] if parameter.options else ""
            expected = shown.get((option, parameter.key), "absent")
            chosen = str(tree.get(parameter.key.partition(".")[0] + ".name", ""))
            if parameter.options and chosen not in parameter.options:
                continue
            assert expected != "absent", parameter.key
            if (isinstance(expected, str) and "${" in expected) or (words and parameter.key == "peft.name"):
                continue
            assert tree[parameter.key] == expected, parameter.key


def test_annotations_of_a_key() -> None:
    assert field_types("train.batch_size") == [int]
    assert field_types("data.columns.prompt") == [str | None]
    assert field_types("peft.r") == [int]
    assert field_types("data.columns.nope") == field_types("nope.x") == field_types("x") == []


# --- schema --------------------------------------------------------------------------------------------------------


def schema_keys(node: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, entry in node["properties"].items():
        if "properties" in entry:
            found += schema_keys(entry, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_the_schema_has_every_key_with_its_meaning() -> None:
    made = schema()
    names = {f"{group}.name" for group in [*GROUPS, "hardware"]}
    assert set(schema_keys(made)) == (set(all_keys()) - names) | {"defaults"}
    assert "$ref" not in json.dumps(made)
    batch = made["properties"]["train"]["properties"]["batch_size"]
    assert (batch["type"], batch["exclusiveMinimum"]) == ("integer", 0)
    assert batch["description"].startswith("Rows in one forward pass")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_fits_the_schema(path: Path) -> None:
    known = set(schema_keys(schema()))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {key for key, _ in leaves(values)} <= known


def test_sections_name_their_option() -> None:
    for group in GROUPS:
        for option, cls in section_classes(group).items():
            assert "name" in keys_of(cls), (group, option)
            assert cls.model_fields["name"].annotation == Literal[option], (group, option)
