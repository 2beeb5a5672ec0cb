"""`aitrain.train(...)`: the command line's run from Python, with the same defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitrain.compose import Request, recipe_path
from aitrain.report import Report
from aitrain.start import start


def train(
    *overrides: str,
    recipe: str | Path | None = None,
    config_dir: str | Path | None = None,
    values: Mapping[str, Any] | None = None,
) -> Report:
    """Train as `python -m aitrain` would with these words, and return the report.

    `overrides` are words as on the command line (`"trainer=sft"`, `"train.epochs=1"`); `values` maps dotted keys to
    Python values, taken as they are. Raises `aitrain.errors.Refused` with every problem, `TrainingFailed`, or
    `Stopped`.
    """
    request = Request(
        overrides=overrides,
        recipe=recipe_path(str(recipe)) if recipe is not None else None,
        config_dir=Path(config_dir) if config_dir is not None else None,
        values=dict(values or {}),
    )
    words = [repr(word) for word in overrides]
    words += [f"recipe={str(recipe)!r}"] if recipe is not None else []
    words += [f"values={dict(values)!r}"] if values else []
    return start(request, command=f"aitrain.train({', '.join(words)})")
