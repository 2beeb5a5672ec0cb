"""Rows that an environment brings itself: whether its class does, read off its source, and the rows as text."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.config.rl import RL
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.rl.environment import Environment

KEY = "rl.env_type"
KEPT = "environments"
"""Folder of the cache that holds such rows."""
NAMED = ("data.path", "data.mixture")
"""Keys that name rows."""


def rows_from(run: Run) -> str | None:
    """The class that brings the rows to train on; None where they come from `data`.

    Of a class whose source does not tell, as one of an installed package, rows are expected where none are named.
    """
    section = run.rl
    if not isinstance(section, RL) or not any(name.startswith("rl.") for name in run.trainer.reads):
        return None
    from aitrain.rl.environments import brings_rows

    brings = brings_rows(section.env_type)
    named = any(key in run.given for key in NAMED)
    return section.env_type if brings or (brings is None and not named) else None


def rows_of(environment: Environment, tokenizer: Any, name: str) -> tuple[str, str]:
    """The environment's rows as JSON Lines, and their sha256. Raises DataError where they are none."""
    try:
        rows = environment.rows(tokenizer)
    except DataError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{name} cannot make its rows: {type(error).__name__}: {error}"
        raise DataError(Problem(KEY, what, where=f"{place.filename}:{place.lineno}")) from error
    if not rows:
        raise DataError(Problem(KEY, f"{name} brings no rows", "set data.path, or give it build_dataset(tokenizer)"))
    lines = [_line(row, number, name) for number, row in enumerate(rows)]
    text = "".join(f"{line}\n" for line in lines)
    return text, hashlib.sha256(text.encode()).hexdigest()


def keep_rows(text: str, digest: str, folder: Path) -> Path:
    """Keep the rows, and say in which file."""
    from aitrain.data.samples import made_aside

    file = kept_rows(digest, folder)
    if not file.parent.is_dir():
        with made_aside(file.parent) as aside:
            (aside / file.name).write_text(text, encoding="utf-8")
    return file


def kept_rows(digest: str, folder: Path) -> Path:
    """The file that rows of this content are kept in."""
    return folder / digest[:32] / "rows.jsonl"


def _line(row: Any, number: int, name: str) -> str:
    if not isinstance(row, Mapping) or not row.get("prompt"):
        what = f"row {number} of {name} has no prompt"
        has = f"it has {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"it is {row!r}"[:80]
        raise DataError(Problem(KEY, what, has))
    try:
        return json.dumps(dict(row), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        what = f"row {number} of {name} holds what JSON has no word for: {error}"
        raise DataError(Problem(KEY, what, "use texts, numbers, lists and mappings")) from error
