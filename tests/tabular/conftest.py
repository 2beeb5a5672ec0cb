"""Rows, sections and data sets for tests of tables."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrain.config.estimator import Estimator
from aitrain.data.rows import Place, Row
from aitrain.tabular.fitting import Settings
from aitrain.tabular.pipeline import Preparation

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "tabular"
NAMES = sorted(
    path.stem
    for path in (ROOT / "aitrain" / "estimators").glob("*.py")
    if path.stem not in ("__init__", "estimator", "calibration")
)


def as_conf(**keys: Any) -> Settings:
    """How to fit as `conf` has it, with these settings changed; one thread and the seed 42."""
    conf = yaml.safe_load((ROOT / "conf" / "task" / "tabular.yaml").read_text(encoding="utf-8"))
    names = {field.name for field in fields(Settings)}
    told = {name: value for name, value in conf["task"].items() if name in names}
    base = {"seed": 42, "threads": 1, "test_fraction": conf["data"]["valid_fraction"], "preparation": Preparation()}
    return Settings(**{**told, **base, **keys})


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., list[Row]]:
    """`rows_of(a=[…], b=[…])`: columns to the rows of `train.csv`, whose first row is line 2."""

    def call(**columns: list[Any]) -> list[Row]:
        names = list(columns)
        values = zip(*columns.values(), strict=True)
        return [Row(dict(zip(names, row, strict=True)), Place("train.csv", i + 2)) for i, row in enumerate(values)]

    return call


@pytest.fixture(scope="session")
def option() -> Callable[..., tuple[Estimator, Any]]:
    """`option("ridge", alpha=1.0)`: an estimator and its section as `conf` has it, with these keys set."""

    def call(name: str, **keys: Any) -> tuple[Estimator, Any]:
        estimator = importlib.import_module(f"aitrain.estimators.{name}").ESTIMATOR
        values = yaml.safe_load((ROOT / "conf" / "trainer" / f"{name}.yaml").read_text(encoding="utf-8"))["trainer"]
        return estimator, estimator.section(**{**values, **keys})

    return call


@pytest.fixture(scope="session")
def real() -> Callable[[str], list[Row]]:
    """`real("penguins/penguins.csv")`: the rows of a real file; the test is skipped where it is not at hand."""

    def call(name: str) -> list[Row]:
        path = DATA / name
        if not path.is_file():
            pytest.skip(f"{name} is not on this machine")
        with path.open(encoding="utf-8", newline="") as stream:
            return [Row(values, Place(path.name, i + 2)) for i, values in enumerate(csv.DictReader(stream))]

    return call
