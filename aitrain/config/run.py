"""`Run`: the whole config, typed and frozen. What `validate` returns and every later stage takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aitrain.config.data import Data
from aitrain.config.generate import Generate
from aitrain.config.hardware import Hardware
from aitrain.config.model import Model
from aitrain.config.run_section import RunSection
from aitrain.config.section import OptionSection, Section
from aitrain.config.train import Train

SECTIONS: dict[str, type[Section]] = {
    "run": RunSection,
    "model": Model,
    "data": Data,
    "train": Train,
    "generate": Generate,
}
"""Sections of one shape. The others are filled by the option chosen from a group (see `aitrain.registry`)."""


@dataclass(frozen=True)
class Run:
    """Everything a run was asked to do.

    `origins` says for each key where its value came from: `conf/…yaml:line`, a recipe's `file:line`, `command line`
    or `python`. `given` holds the keys that the user set, in a recipe, on the command line or in Python.
    """

    run: RunSection
    task: OptionSection
    trainer: OptionSection
    model: Model
    data: Data
    train: Train
    generate: Generate
    peft: OptionSection
    rl: OptionSection
    distill: OptionSection
    sweep: OptionSection
    hardware: Hardware
    tracking: OptionSection
    origins: Mapping[str, str]
    given: frozenset[str]

    def strength(self, key: str) -> int:
        """0 for a default, 1 for a value from a recipe or the user's option file, 2 for one typed or from Python."""
        if key not in self.given:
            return 0
        return 2 if self.origins.get(key) in ("command line", "python") else 1

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Name and section, in the order of the resolved tree."""
        for name in TREE:
            yield name, getattr(self, name)

    def tree(self) -> dict[str, Any]:
        """The resolved config as plain values, in the order of the tree."""
        return {name: section.model_dump() for name, section in self.sections()}


TREE = ("run", "task", "trainer", "model", "data", "train", "generate", "peft", "rl", "distill", "sweep", "hardware",
        "tracking")  # fmt: skip


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf; a list is one leaf."""
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value
