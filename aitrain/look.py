"""What can be known of data and model before torch loads: rows, columns, first row, the model's shape."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aitrain.config.architectures import positions, why_padded
from aitrain.config.data import DataSource
from aitrain.config.rl import RL
from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice, Shape, find_columns, listed
from aitrain.data.encoding import ChecksRows, Encoder, LearnsTargets, Unusable
from aitrain.data.extension import MERGEABLE
from aitrain.data.formats import shape_problem
from aitrain.data.hub import cached_model
from aitrain.data.mixture import FoundSource
from aitrain.data.prepare import SHOWN, chosen_rows, knowing_targets, limit_of, too_few_to_validate, unusable
from aitrain.data.rows import Count, Row
from aitrain.data.sources import Source, find
from aitrain.data.splits import Split, held_out_rows
from aitrain.errors import ConfigError, DataError, Problem, Refused, did_you_mean
from aitrain.look_rewards import learns_from_rewards, reward_faults
from aitrain.model_folders import missing_folder, not_downloaded
from aitrain.registry import trainer_of, trainers_of
from aitrain.rl.rows import rows_from

FIRST_ROWS = 20
SCANNED = 4 << 20
"""Bytes up to which every row is read already here, in a tenth of a second or two."""
LOOKED_AT, LOOKED_AT_OF_LARGER = 10_000, 1000
"""Rows of such files, and of larger ones, of which it is asked whether an example could be made of them: that costs up
to 0.03 ms each."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class DataLook:
    """The rows a run is about: one source, or those of `data.mixture`."""

    sources: tuple[FoundSource, ...]

    @property
    def train(self) -> Source:
        """The training rows of the first source."""
        return self.sources[0].train

    @property
    def choice(self) -> ColumnChoice | None:
        """The columns of the first source."""
        return self.sources[0].choice

    @property
    def first(self) -> Mapping[str, Any]:
        """The first row of the first source."""
        return self.sources[0].first

    @property
    def valid(self) -> Source | None:
        """The rows to validate on of the first source that has a split for them."""
        return next((source.valid for source in self.sources if source.valid is not None), None)

    @property
    def train_count(self) -> Count:
        """Rows to train on, of all sources."""
        return _sum(source.train_count for source in self.sources)

    @property
    def valid_count(self) -> Count:
        """Rows of the splits to validate on, of all sources."""
        return _sum(source.valid_count for source in self.sources)


def _formats(run: Run, sources: Iterable[FoundSource], *, has_template: bool) -> Iterator[Problem]:
    """Rows that cannot be written in the chat format; text is written as it is, beside conversations too."""
    if "data.chat_format" not in trainer_of(run).section.reads:
        return
    for source in sources:
        if source.choice and (source.choice.shape != "text" or run.data.mixture is None):
            problem = shape_problem(run.data.chat_format, source.choice.shape, has_template)
            if problem:
                yield problem
                return


def _sum(counts: Iterable[Count]) -> Count:
    found = list(counts)
    known = [count.rows for count in found if count.rows is not None]
    exact = all(count.exact for count in found)
    return Count(sum(known), exact) if len(known) == len(found) else Count(None, exact=False)


@dataclass(frozen=True)
class ModelLook:
    """The model's config, and its number of parameters where a weights file tells it."""

    kind: str
    config: Mapping[str, Any] | None
    parameters: int | None
    note: str
    has_template: bool | None
    """Whether its tokenizer carries a chat template; None where only the tokenizer itself could tell."""


@dataclass(frozen=True)
class Look:
    """What was found, and everything wrong with it."""

    data: DataLook | None
    model: ModelLook | None
    problems: tuple[Problem, ...]


def look(run: Run, *, ask_hub: bool = True, judge_rows: bool = True) -> Look:
    """Look at data and model without loading either. Without `ask_hub` a Hub dataset is taken on trust, without
    `judge_rows` every row that can be read."""
    problems: list[Problem] = []
    data = _attempt(lambda: look_at_data(run, ask_hub=ask_hub, judge_rows=judge_rows), problems)
    model = _attempt(lambda: look_at_model(run), problems) if trainer_of(run).encoder else None
    if data and (too_few := _too_few(run, data.sources)):
        problems.append(too_few)
    if data:
        problems += _formats(run, data.sources, has_template=model is None or model.has_template is not False)
    if model and model.config:
        problems += _too_long(run, model.config)
        problems += _no_room(run, model.config)
        problems += _rows_apart(run, model.config)
        problems += trainer_of(run).model_problems(run, model.config)
    problems += reward_faults(run, data.sources if data else ())
    return Look(data, model, tuple(problems))


def _attempt(function: Callable[[], Found], problems: list[Problem]) -> Found | None:
    try:
        return function()
    except Refused as error:
        problems += error.problems
        return None


def look_at_data(run: Run, *, ask_hub: bool = True, judge_rows: bool = True) -> DataLook:
    """Find the files and columns of every source. Raises DataError for what is missing, empty, broken or ambiguous."""
    problems: list[Problem] = []
    if (name := rows_from(run)) is not None:
        return DataLook((_rows_of_class(run, name),))
    chosen = run.data.sources()
    if not chosen:
        raise DataError(Problem("data.mixture", "names no source"))
    sources = [_attempt(partial(_look_at_source, run, source, ask_hub, judge_rows), problems) for source in chosen]
    found = tuple(source for source in sources if source is not None)
    choices = [source.choice for source in found if source.choice is not None]
    train_on = run.data.train_on
    if choices and all(choice.shape == "text" for choice in choices) and "data.train_on" in run.given:
        problems += [_text_has_no_answer(train_on, choices[0])] if train_on != "all" else []
    if problems:
        raise DataError(dict.fromkeys(problems))  # what holds for all sources is found in each
    return DataLook(found)


def _rows_of_class(run: Run, name: str) -> FoundSource:
    """Rows that a class of the user's brings: none of its code is run to look at them."""
    train = Source("class", name, (), Split("train"), "from the class, which only a run asks for them")
    unread = f"the rows of {name} are not looked at yet"
    unknown = Count(None, exact=False)
    return FoundSource(_chosen_of_class(run, name, name), train, None, unknown, unknown, None, {}, unread)


def _chosen_of_class(run: Run, name: str, path: str) -> DataSource:
    chosen = run.data.sources()[0]
    columns = {**chosen.columns, "prompt": chosen.columns.get("prompt") or "prompt"}
    return replace(
        chosen, name=name, path=path, files=None, config=None, train_split="train", valid_split=None, columns=columns
    )


def look_at_kept_rows(run: Run, name: str, file: Path) -> DataLook:
    """The rows that a class brought, once they are in a file. Raises DataError for those that cannot be used."""
    return DataLook((_look_at_source(run, _chosen_of_class(run, name, str(file)), False, True),))


def _look_at_source(run: Run, chosen: DataSource, ask_hub: bool, judge_rows: bool) -> FoundSource:
    data = run.data
    train = source_of(run, chosen, chosen.train_split, "train_split")
    problems: list[Problem] = []
    valid = None
    if chosen.valid_split is not None:
        split = chosen.valid_split
        valid = _attempt(lambda: source_of(run, chosen, split, "valid_split"), problems)
    choice = None
    first: Mapping[str, Any] = {}
    if train.kind == "hub" and not ask_hub:
        return FoundSource(chosen, train, valid, Count(None, False), Count(None, False), None, {})
    head = train.head(FIRST_ROWS, "skip")
    rows = [row.values for row in head]
    if rows:
        first = rows[0]
        accepts = trainer_of(run).shapes
        takers = other_trainers(run)
        find_fields = trainer_of(run).find_columns
        find_them = partial(find_columns, accepts=accepts, takers=takers) if find_fields is None else find_fields
        choice = _attempt(lambda: _columns(rows, chosen, find_them, data.on_bad_rows), problems)
    judged = choice if judge_rows else None
    make = trainer_of(run).encoder
    encoder = make(run) if make is not None else None
    unread = {row_faults(run, train, judged, chosen.key_of("path"), chosen.max_samples, encoder, problems)}
    if judged and unread == {""} and not problems and isinstance(encoder, LearnsTargets):
        nothing = Count(None, exact=False)
        alone = FoundSource(chosen, train, valid, nothing, nothing, judged, first)
        encoder = _attempt(partial(knowing_targets, run, (alone,), encoder), problems) or encoder
    if valid is not None:
        if choice and isinstance(encoder, LearnsTargets):
            problems += _lacking(valid, choice, chosen.key_of("valid_split"))
        limit = limit_of(encoder, chosen, trains=False) if encoder is not None else None
        unread.add(row_faults(run, valid, judged, chosen.key_of("valid_split"), limit, encoder, problems))
    if not (rows or problems):
        problems.append(Problem(f"{chosen.key}.path", f"{chosen.path} holds no usable row"))
    if choice:
        problems += _unmergeable(chosen, choice)
    if problems or choice is None:
        raise DataError(problems if chosen.key == "data" else [replace(problem, fix="") for problem in problems])
    counts = train.count(), valid.count() if valid else Count(0, True)
    targets = encoder.targets if isinstance(encoder, LearnsTargets) else None
    found = FoundSource(chosen, train, valid, *counts, choice, first, " and ".join(sorted(unread - {""})), targets)
    judge = trainer_of(run).judge
    if judge is not None and judge_rows and not found.unread:
        judge(run, found)
    return found


def _lacking(valid: Source, choice: ColumnChoice, key: str) -> Iterator[Problem]:
    """Columns that the rows to train on have and those to validate on have not."""
    names = {name: None for row in valid.head(FIRST_ROWS, "skip") for name in row.values}
    if names and (missing := [name for name in (*choice.columns.values(), *choice.targets) if name not in names]):
        what = f"the rows to validate on lack the column {listed(missing)}; they have {listed(list(names))}"
        yield Problem(key, what, "give both splits the same columns")


def _unmergeable(chosen: DataSource, choice: ColumnChoice) -> Iterator[Problem]:
    if chosen.conversation_extension > 1 and choice.shape not in MERGEABLE:
        columns = ", ".join(f"'{name}'" for name in choice.columns.values())
        what = f"merges questions with their answers, and the rows of {chosen.name} ({columns}) are none"
        yield Problem(f"{chosen.key}.conversation_extension", what, "set it to 1")


def _too_few(run: Run, sources: Iterable[FoundSource]) -> Problem | None:
    """Known here only of files whose rows were counted; the others are refused when they are tokenised."""
    counts = [(source.train_count, source.chosen) for source in sources]
    if not all(count.exact for count, _ in counts) or any(chosen.conversation_extension > 1 for _, chosen in counts):
        return None
    kept = [min(count.rows or 0, chosen.max_samples or count.rows or 0) for count, chosen in counts]
    held = sum(held_out_rows(rows, run.data.valid_fraction) for rows in kept)
    return None if run.data.streaming else too_few_to_validate(run, sum(kept), held)


def other_trainers(run: Run) -> dict[Shape, list[str]]:
    """The words that choose a trainer of each shape that the run's own does not take."""
    found: dict[Shape, list[str]] = {}
    for name, trainer in trainers_of(run.task.name).items():
        for shape in trainer.shapes:
            if shape not in trainer_of(run).shapes:
                found.setdefault(shape, []).append(f"trainer={name}")
    return found


def _columns(
    rows: list[dict[str, Any]], chosen: DataSource, find_them: Callable[..., ColumnChoice], on_bad: str
) -> ColumnChoice:
    """The columns by the first rows, or where bad rows are skipped, by the first row that does for it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    key = f"{chosen.key}.columns"
    inherited = {
        role: chosen.key_of(f"columns.{role}") for role in chosen.columns if f"columns.{role}" in chosen.inherited
    }
    find_them = partial(find_them, key=key, **({"key_of": inherited} if inherited else {}))
    try:
        return find_them(names, rows, chosen.columns)
    except DataError:
        if on_bad == "error":
            raise
        for row in rows:
            with suppress(DataError):
                return find_them(names, [row], chosen.columns)
        raise


def row_faults(
    run: Run,
    source: Source,
    choice: ColumnChoice | None,
    key: str,
    max_samples: int | None,
    encoder: Encoder | None,
    problems: list[Problem],
) -> str:
    """Adds the rows that cannot be read, or of which no tokenizer could make an example. Says which rows were not
    looked at, if any: those are when they are tokenised, before a model loads."""
    if source.kind == "hub" or source.path.startswith("sample:") or run.data.on_bad_rows == "skip":
        return ""
    is_small = sum(file.stat().st_size for file in source.files) <= SCANNED
    is_chosen = max_samples is not None and run.data.max_samples_strategy != "first"
    if not is_small and (is_chosen or source.split.needs_total):  # all must be read to know which is the first
        return f"the rows of {source.path} are not looked at yet"
    most = LOOKED_AT if is_small else LOOKED_AT_OF_LARGER
    fault = encoder.fault if isinstance(encoder, ChecksRows) else None
    found: list[Problem] = []
    number = 0
    try:
        kind = partial(encoder.kind, choice) if choice and isinstance(encoder, LearnsTargets) else None
        for number, item in enumerate(chosen_rows(run, source, max_samples, kind), 1):
            if number > most and not is_small:
                break
            if number > most or choice is None or fault is None or not isinstance(item, Row):
                continue
            if reason := fault(choice, item.values):
                found.append(unusable(key, Unusable(reason), item.place))
                if len(found) == SHOWN:
                    break
    except DataError as error:
        found += error.problems
    problems += found
    return f"only the first {most:,} rows of {source.path} are looked at yet" if number > most else ""


def _text_has_no_answer(train_on: str, choice: ColumnChoice) -> Problem:
    column = choice.columns["text"]
    return Problem(
        "data.train_on",
        f"'{train_on}' needs to know which part is the answer; column '{column}' is one plain text",
        "use data.train_on=all, or name data.columns.prompt and data.columns.completion",
        fix="data.train_on=all",
    )


def source_of(run: Run, chosen: DataSource, split: str, split_name: str) -> Source:
    """Where the rows of a split come from."""
    return find(
        chosen.path,
        split=split,
        files=chosen.files,
        config=chosen.config,
        allow_downloads=run.run.allow_downloads,
        streaming=run.data.streaming,
        key=f"{chosen.key}.path",
        split_key=chosen.key_of(split_name),
    )


# --- model ---------------------------------------------------------------------------------------------------------


def look_at_model(run: Run) -> ModelLook:
    """The model's config, from a sample, a folder, or the local Hub cache. Raises ConfigError if it cannot be there."""
    path = run.model.path
    if path.startswith("sample:"):
        from aitrain.data.samples import known_model

        return ModelLook("sample", known_model(path.removeprefix("sample:")).config, None, "made by aitrain", True)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _model_in(folder, "folder")
    if problem := missing_folder("model.path", path):
        raise ConfigError(problem)
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
    return ModelLook(kind, values, _parameters(weights), "", _has_template(folder))


def _has_template(folder: Path) -> bool | None:
    """Chat templates stand in a file of their own, or in the tokenizer's config."""
    if (folder / "chat_template.jinja").is_file() or (folder / "additional_chat_templates").is_dir():
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # A tokenizer of Mistral's own makes has its template in code.
    return True if settings.get("chat_template") else None if (folder / "tekken.json").is_file() else False


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
        raise not_downloaded("model.path", path, run.model.revision)
    return ModelLook("hub", None, None, "not looked up: it will be fetched from the Hub", None)


LENGTHS = ("data.max_length", "data.block_size")
"""Keys that say how long a row is; the chosen trainer reads one of them."""


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


def _no_room(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Prompts after which the longest answer would not fit into the model's positions."""
    most, prompt = positions(config), run.data.max_prompt_length
    if most is None or prompt is None or not isinstance(run.rl, RL) or not learns_from_rewards(run):
        return
    answer = run.rl.max_new_tokens
    if prompt + answer > most:
        what = (
            f"prompts of {prompt} tokens and answers of {answer} are more than the {most} positions of {run.model.path}"
        )
        key, left = ("rl.max_new_tokens", most - prompt) if prompt < most else ("data.max_prompt_length", most - answer)
        advice = f"use {key}={left} or less" if left > 0 else "lower both"
        yield Problem(key, what, advice, fix=f"{key}={left}" if left > 0 else "")


def _rows_apart(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    why = why_padded(config) if run.train.padding_free is True else None
    if why:
        yield Problem("train.padding_free", why, "leave it at auto", fix="train.padding_free=auto")
