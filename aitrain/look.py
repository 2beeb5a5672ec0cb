"""What can be known of data and model before torch loads: rows, columns, first row, the model's shape."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice, Shape, find_columns
from aitrain.data.hub import cached_model
from aitrain.data.rows import Count
from aitrain.data.sources import Source, find
from aitrain.errors import ConfigError, DataError, Problem, Refused, did_you_mean, nearest
from aitrain.registry import TRAINERS

FIRST_ROWS = 20
SCANNED = 4 << 20
"""Bytes up to which every row is read already here, well below 0.1 s."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
Found = TypeVar("Found")


@dataclass(frozen=True)
class DataLook:
    """The rows a run is about. Counts are None where only a download could tell."""

    train: Source
    valid: Source | None
    train_count: Count
    valid_count: Count
    choice: ColumnChoice | None
    """None for a Hub dataset that was not looked up."""
    first: Mapping[str, Any]


@dataclass(frozen=True)
class ModelLook:
    """The model's config, and its number of parameters where a weights file tells it."""

    kind: str
    config: Mapping[str, Any] | None
    parameters: int | None
    note: str


@dataclass(frozen=True)
class Look:
    """What was found, and everything wrong with it."""

    data: DataLook | None
    model: ModelLook | None
    problems: tuple[Problem, ...]


def look(run: Run, *, ask_hub: bool = True) -> Look:
    """Look at data and model without loading either. Without `ask_hub` a Hub dataset is taken on trust."""
    problems: list[Problem] = []
    data = _attempt(lambda: look_at_data(run, ask_hub=ask_hub), problems)
    model = _attempt(lambda: look_at_model(run), problems)
    if model and model.config:
        problems += _too_long(run, model.config)
    return Look(data, model, tuple(problems))


def _attempt(function: Callable[[], Found], problems: list[Problem]) -> Found | None:
    try:
        return function()
    except Refused as error:
        problems += error.problems
        return None


def look_at_data(run: Run, *, ask_hub: bool = True) -> DataLook:
    """Find the files and columns. Raises DataError for what is missing, empty, broken or ambiguous."""
    data = run.data
    train = source_of(run, data.train_split, "data.train_split")
    problems: list[Problem] = []
    valid = None
    if data.valid_split is not None:
        split = data.valid_split
        valid = _attempt(lambda: source_of(run, split, "data.valid_split"), problems)
    choice = None
    first: Mapping[str, Any] = {}
    if train.kind == "hub" and not ask_hub:
        return DataLook(train, valid, Count(None, False), Count(None, False), None, {})
    head = train.head(FIRST_ROWS, "skip")
    rows = [row.values for row in head]
    problems += broken_rows(train, data.on_bad_rows)
    if rows:
        first = rows[0]
        names = list(dict.fromkeys(name for row in rows for name in row))
        chosen = data.columns.model_dump()
        accepts = TRAINERS[run.trainer.name].shapes
        choice = _attempt(lambda: _columns(names, rows, chosen, accepts, data.on_bad_rows), problems)
    else:
        problems.append(Problem("data.path", f"{data.path} holds no usable row"))
    if choice and choice.shape == "text" and "data.train_on" in run.given and data.train_on != "all":
        problems.append(_text_has_no_answer(data.train_on, choice))
    if problems or choice is None:
        raise DataError(problems)
    return DataLook(train, valid, train.count(), valid.count() if valid else Count(0, True), choice, first)


def _columns(
    names: list[str],
    rows: list[dict[str, Any]],
    chosen: Mapping[str, str | None],
    accepts: tuple[Shape, ...],
    on_bad: str,
) -> ColumnChoice:
    """The columns by the first rows, or where bad rows are skipped, by the first row that does for it."""
    try:
        return find_columns(names, rows, chosen, accepts)
    except DataError:
        if on_bad == "error":
            raise
        for row in rows:
            with suppress(DataError):
                return find_columns(names, [row], chosen, accepts)
        raise


def broken_rows(source: Source, on_bad: str) -> list[Problem]:
    """Rows of a small file that cannot be read. Larger ones are read when they are tokenised, before a model loads."""
    made_by_us = source.path.startswith("sample:")
    if on_bad == "skip" or source.kind == "hub" or made_by_us:
        return []
    if sum(file.stat().st_size for file in source.files) > SCANNED:
        return []
    try:
        for _ in source.rows():
            pass
    except DataError as error:
        return list(error.problems)
    return []


def _text_has_no_answer(train_on: str, choice: ColumnChoice) -> Problem:
    column = choice.columns["text"]
    return Problem(
        "data.train_on",
        f"'{train_on}' needs to know which part is the answer; column '{column}' is one plain text",
        "use data.train_on=all, or name data.columns.prompt and data.columns.completion",
        fix="data.train_on=all",
    )


def source_of(run: Run, split: str, key: str) -> Source:
    """Where the rows of a split come from."""
    data = run.data
    return find(
        data.path,
        split=split,
        files=data.files,
        config=data.config,
        allow_downloads=run.run.allow_downloads,
        streaming=data.streaming,
        split_key=key,
    )


# --- model ---------------------------------------------------------------------------------------------------------


def look_at_model(run: Run) -> ModelLook:
    """The model's config, from a sample, a folder, or the local Hub cache. Raises ConfigError if it cannot be there."""
    path = run.model.path
    if path.startswith("sample:"):
        from aitrain.data.samples import known_model

        return ModelLook("sample", known_model(path.removeprefix("sample:")).config, None, "made by aitrain")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _model_in(folder, "folder")
    if folder.is_file():
        raise ConfigError(Problem("model.path", f"{path} is a file", "name the folder that holds config.json"))
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or (folder.parent.is_dir() and "/" in path)
    if looks_local or not HUB_ID.fullmatch(path):
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        near = nearest(folder.name, siblings)
        advice = f"did you mean '{folder.parent / near}'?" if near else "name a folder, a Hub id or sample:NAME"
        raise ConfigError(Problem("model.path", f"no such folder: {path}", advice))
    return _model_on_hub(path, run)


def _model_in(folder: Path, kind: str) -> ModelLook:
    config = folder / "config.json"
    if not config.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ConfigError(
                Problem("model.path", f"{folder} holds an adapter, not a model", "name the model it belongs to")
            )
        inner = [p.parent for p in folder.glob("*/config.json")]
        advice = did_you_mean("model", [str(p) for p in inner]) if inner else "name the folder that holds config.json"
        raise ConfigError(Problem("model.path", f"{folder} has no config.json", advice))
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(Problem("model.path", f"{config} is not JSON: {error}")) from error
    weights = list(folder.glob("*.safetensors"))
    if kind == "folder" and not weights and not list(folder.glob("*.bin")):
        raise ConfigError(Problem("model.path", f"{folder} has no weights", "it needs *.safetensors files"))
    return ModelLook(kind, values, _parameters(weights), "")


def _parameters(files: list[Path]) -> int | None:
    """Parameters by the headers of safetensors files, which begin with their length in eight bytes."""
    total = 0
    for path in files:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            try:
                header = json.loads(file.read(size)) if size < 100_000_000 else None
            except ValueError:
                header = None
        if not isinstance(header, dict):
            raise ConfigError(Problem("model.path", f"{path} is no safetensors file", "it is cut or damaged"))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total or None


def _model_on_hub(path: str, run: Run) -> ModelLook:
    if snapshot := cached_model(path, run.model.revision):
        return _model_in(snapshot, "hub")
    if not run.run.allow_downloads:
        wanted = path if run.model.revision is None else f"{path} in revision {run.model.revision}"
        raise ConfigError(
            Problem(
                "model.path",
                f"{wanted} is neither a folder nor in the local cache, and run.allow_downloads is false",
                "download it first, or set run.allow_downloads=true",
            )
        )
    return ModelLook("hub", None, None, "not looked up: it will be fetched from the Hub")


LENGTHS = ("data.max_length", "data.block_size")
"""Keys that say how long a row is; the chosen trainer reads one of them."""
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
"""What families call the longest input in config.json."""


def _too_long(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Rows longer than the model has positions: a table of positions ends there, and rotary ones were never trained
    beyond."""
    most = positions(config)
    for key in LENGTHS:
        length = getattr(run.data, key.removeprefix("data."))
        if most is not None and key in run.trainer.reads and length > most:
            whose = "" if key in run.given else ", which is the default"
            yield Problem(
                key,
                f"{length} tokens{whose}, but {run.model.path} has {most} positions",
                f"use {key}={most} or less",
                fix=f"{key}={most}",
            )


def positions(config: Mapping[str, Any]) -> int | None:
    """The longest input in tokens by a model's config, with its rotary scaling; None where nothing limits it or the
    config does not say."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = text
    if config.get("model_type") == "bloom" or config.get("alibi"):
        return None
    most = next((config[name] for name in POSITIONS if isinstance(config.get(name), int)), None)
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if most is None or not isinstance(scaling, Mapping):
        return most
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings", most)
    if not isinstance(factor, int | float) or not isinstance(original, int):
        return most
    return max(most, int(original * factor))
