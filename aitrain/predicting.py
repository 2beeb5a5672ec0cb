"""`predict` and `evaluate`: a trained run and a file of rows, to predictions in the order of the rows, or to measures.

Predictions are written as they come, with a note of how far they got beside them, so that a stopped command goes on.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from aitrain.config.run import Run
from aitrain.data.encoding import Unusable
from aitrain.data.prepare import unusable
from aitrain.data.rows import BadRow, Item
from aitrain.data.sources import Source, find
from aitrain.errors import ConfigError, DataError, Problem, Stopped, did_you_mean
from aitrain.registry import trainer_of
from aitrain.rundir.folder import CONFIG, MODEL, PLAN, read_json, write_json
from aitrain.worker import read_run

CHUNK = 1024
"""Rows that are read, predicted and written together."""
WRITERS = (".csv", ".jsonl")
CHANGEABLE = ("data.columns.", "data.files", "data.config", "data.on_bad_rows", "data.max_length", "data.truncation",
              "hardware.device", "hardware.threads", "train.eval_batch_size", "task.threshold",
              "task.num_beams", "task.generation_max_length",
              "task.null_threshold", "task.max_answer_length", "task.n_best", "run.allow_downloads",
              "run.progress")  # fmt: skip
"""Keys of a run that may be another one for its use."""
REASON = "not_predicted"
"""Column of a row without a prediction, which says why."""


class Predictor(Protocol):
    """A trained model of one run, ready for rows."""

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """For each row what the model makes of it, or Unusable."""

    def shown(self, prediction: Any) -> dict[str, Any]:
        """The columns that a prediction adds to its row."""

    def truth(self, row: Mapping[str, Any]) -> Any:
        """What the row says itself, or Unusable."""

    def judge(self, predictions: Sequence[Any], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """What predictions are worth, and the same for pictures."""


@dataclass(frozen=True)
class Use:
    """A run, and the rows it is used on."""

    run: Run
    folder: Path
    """Of the run."""
    source: Source


def used(folder: Path, file: str, overrides: Sequence[str]) -> Use:
    """The run in a folder, changed by `overrides`, and the rows of `file`. Raises ConfigError or DataError."""
    folder = folder.parent if folder.name == MODEL and (folder.parent / CONFIG).is_file() else folder
    if not (folder / CONFIG).is_file():
        raise ConfigError(Problem(str(folder), "holds no run", "name the folder of a run, which has config.yaml"))
    if not (folder / MODEL).is_dir():
        raise ConfigError(Problem(str(folder), "holds no trained model", "let the run end first"))
    run = changed(read_run(folder), overrides)
    if trainer_of(run).predictor is None:
        what = f"task={run.task.name} trainer={run.trainer.name} predicts nothing of rows"
        raise ConfigError(Problem(str(folder), what, "name a run of another task"))
    data = run.data
    source = find(
        file,
        split="train",
        files=data.files if "data.files" in run.given else None,
        config=data.config if "data.config" in run.given else None,
        allow_downloads=run.run.allow_downloads,
        key="FILE",
        split_key="FILE",
    )
    return Use(_with_columns(run, folder, source), folder, source)


def _with_columns(run: Run, folder: Path, source: Source) -> Run:
    """The run with the columns that it was trained on, where the file has them and nothing else is said.

    Raises ConfigError for a file without the second of two texts that the model learnt to read together.
    """
    trained = (read_json(folder / PLAN) or {}).get("columns") or {}
    names = {name for row in source.head(20, "skip") for name in row.values}
    for role, name in trained.items():
        if f"data.columns.{role}" in run.given:
            continue
        if name in names:
            run = _with(run, ["data", "columns", role], name)
        elif role == "text_pair":
            key = f"data.columns.{role}"
            what = f"the model was trained on two texts, and the rows have no column '{name}'"
            raise ConfigError(Problem(key, what, f"set {key} to the column with the second one"))
    return run


def changed(run: Run, overrides: Sequence[str]) -> Run:
    """The run with some of its keys changed, which alone are `given` then. Raises ConfigError for all wrong ones."""
    problems: list[Problem] = []
    given = set()
    for word in overrides:
        key, equals, text = word.partition("=")
        known = [key for key, _ in _leaves(run) if key.startswith(CHANGEABLE)]
        if not equals:
            problems.append(Problem(word, "is no KEY=VALUE", "name the run, the file, then keys"))
        elif key not in known:
            problems.append(Problem(key, "cannot be changed here", did_you_mean(key, known)))
        else:
            try:
                run = _with(run, key.split("."), yaml.safe_load(text))
                given.add(key)
            except yaml.YAMLError:
                problems.append(Problem(key, f"{text!r} is no value", "put words with signs into quotes"))
            except ValidationError as error:
                detail = error.errors(include_url=False)[0]
                problems.append(Problem(key, f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {text!r}"))
    problems += [
        Problem(key, f"has no effect with task={run.task.name}", "leave it out") for key in _unread(run, given)
    ]
    if problems:
        raise ConfigError(problems)
    return replace(run, given=frozenset(given))


def _unread(run: Run, given: Iterable[str]) -> list[str]:
    """Keys that nothing of the run reads: columns of other tasks, and what only a model of tokens knows."""
    patterns = [pattern for _, section in run.sections() for pattern in section.reads]
    always: tuple[str, ...] = ("run.", "task.", "hardware.threads")
    if trainer_of(run).encoder is not None:
        always += ("train.", "hardware.")
    return [
        key
        for key in sorted(given)
        if not key.startswith(always) and not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    ]


def _leaves(run: Run) -> Iterator[tuple[str, Any]]:
    from aitrain.config.run import leaves

    return leaves(run.tree())


def _with(run: Run, path: Sequence[str], value: Any) -> Run:
    section = getattr(run, path[0])
    values = section.model_dump()
    inner = values
    for name in path[1:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return replace(run, **{path[0]: type(section).model_validate(values)})


# --- predicting ----------------------------------------------------------------------------------------------------


@contextmanager
def _told_how_far(partial: Partial, say: Callable[[str], None]) -> Iterator[None]:
    """Says what is there when somebody stops it."""
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        say(f"stopped; {partial.rows:,} rows are in {partial.path}, and the same command goes on after them")
        raise


@dataclass(frozen=True)
class Written:
    """What became of the rows."""

    path: Path
    rows: int
    bad: int
    resumed: int
    """Rows that were there from an earlier call."""


def predict(use: Use, make: Callable[[], Predictor], output: Path, say: Callable[[str], None]) -> Written:
    """Write each row with its prediction to `output`. Raises DataError for rows without one, unless
    `data.on_bad_rows=skip`, which writes them with the reason."""
    if output.suffix.lower() not in WRITERS:
        raise ConfigError(Problem("output", f"{output} is neither .csv nor .jsonl", f"output={output.stem}.jsonl"))
    if output.exists():
        raise ConfigError(Problem("output", f"{output} is there already", "remove it, or choose another output=FILE"))
    partial = Partial.open(output, _identity(use))
    if partial.rows:
        say(f"goes on after {partial.rows:,} rows of {partial.path.name}")
    predictor = make()
    bad, before = partial.bad, partial.rows
    items = islice(use.source.rows("skip"), partial.rows, None)
    with partial, _told_how_far(partial, say):
        while chunk := list(islice(items, CHUNK)):
            lines = predicted_rows(use.run, predictor, chunk)
            bad += sum(REASON in line for line in lines)
            if not partial.rows and all(REASON in line for line in lines):
                reason = lines[0][REASON]
                raise DataError(Problem("FILE", f"none of the first {len(lines):,} rows can be predicted: {reason}"))
            partial.add(lines, bad)
            say(f"{partial.rows:,} rows")
    partial.finish()
    return Written(output, partial.rows, bad, before)


def predicted_rows(run: Run, predictor: Predictor, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Each row with its prediction, in order."""
    rows = [{} if isinstance(item, BadRow) else item.values for item in items]
    found: list[Any] = [Unusable(item.reason) if isinstance(item, BadRow) else None for item in items]
    usable = [index for index, outcome in enumerate(found) if outcome is None]
    for index, prediction in zip(usable, predictor.predict([rows[index] for index in usable]), strict=True):
        found[index] = prediction
    faults = [(item, outcome) for item, outcome in zip(items, found, strict=True) if isinstance(outcome, Unusable)]
    if faults and run.data.on_bad_rows == "error":
        raise DataError(unusable("FILE", outcome, item.place) for item, outcome in faults[:10])
    return [_with_prediction(row, outcome, predictor) for row, outcome in zip(rows, found, strict=True)]


def _with_prediction(row: Mapping[str, Any], outcome: Any, predictor: Predictor) -> dict[str, Any]:
    """A row with its prediction, or the reason why it has none. Raises DataError where a column is taken already."""
    added = {REASON: outcome.reason} if isinstance(outcome, Unusable) else predictor.shown(outcome)
    if taken := [name for name in (*added, REASON) if name in row]:
        what = f"the rows have a column '{taken[0]}' already, which would hold the prediction"
        raise DataError(Problem("FILE", what, "rename it in the file"))
    return {**row, **added}


def _identity(use: Use) -> dict[str, Any]:
    """What has to be the same for a stopped command to go on."""
    weights = sorted((use.folder / MODEL).glob("*.safetensors")) or sorted((use.folder / MODEL).iterdir())
    return {
        "rows": use.source.fingerprint(),
        "model": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights],
        "settings": {key: value for key, value in _leaves(use.run) if key in use.run.given},
    }


class Partial:
    """A file that is written a part at a time; how far it got stands beside it."""

    def __init__(self, output: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.partial")
        self.note = output.with_name(f"{output.name}.partial.json")
        self.identity = identity
        self.rows: int = state["rows"]
        self.bad: int = state["bad"]
        self.columns: list[str] = state["columns"]
        self.size: int = state["size"]
        self.file: Any = None

    @classmethod
    def open(cls, output: Path, identity: Mapping[str, Any]) -> Partial:
        """What an earlier call left, if it was for the same rows, model and settings; else a new one."""
        found = cls(output, identity, {"rows": 0, "bad": 0, "columns": [], "size": 0})
        state = read_json(found.note)
        same = isinstance(state, dict) and state.get("identity") == json.loads(json.dumps(identity))
        if same and found.path.is_file() and found.path.stat().st_size >= state["size"]:
            return cls(output, identity, state)
        return found

    def __enter__(self) -> Partial:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("r+b" if self.rows else "wb")
        self.file.truncate(self.size)
        self.file.seek(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def add(self, lines: Sequence[Mapping[str, Any]], bad: int) -> None:
        """Write rows, and note that they are there."""
        is_csv = self.output.suffix.lower() == ".csv"
        if not self.rows and is_csv:
            self.columns = [*dict.fromkeys(name for line in lines for name in flat(line) if name != REASON), REASON]
        self.file.write(self._csv(lines) if is_csv else _jsonl(lines))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.rows, self.bad, self.size = self.rows + len(lines), bad, self.file.tell()
        state = {"rows": self.rows, "bad": bad, "columns": self.columns, "size": self.size}
        write_json(self.note, {**state, "identity": self.identity})

    def _csv(self, lines: Sequence[Mapping[str, Any]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="raise")
        if not self.rows:
            writer.writeheader()
        for line in map(flat, lines):
            if more := [name for name in line if name not in self.columns]:
                what = f"a later row has a column '{more[0]}', which the head of the file lacks by then"
                raise DataError(Problem("output", what, "write JSON lines: output=NAME.jsonl"))
            writer.writerow(line)
        return text.getvalue().encode()

    def finish(self) -> None:
        """Give the file its name."""
        os.replace(self.path, self.output)
        self.note.unlink(missing_ok=True)


def flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """A row for CSV: a column for each entry of an object, JSON text of a list, nothing for null."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return found


def _jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines).encode()


# --- evaluating ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """What a run's predictions of a file are worth."""

    rows: int
    bad: int
    measures: dict[str, float]
    details: dict[str, Any]


def evaluate(use: Use, predictor: Predictor, say: Callable[[str], None]) -> Judged:
    """Predict every row and compare with what it says itself. Raises DataError for rows that cannot be judged, unless
    `data.on_bad_rows=skip`."""
    predictions: list[Any] = []
    truths: list[Any] = []
    why: list[str] = []
    bad = 0
    items = use.source.rows("skip")
    while chunk := list(islice(items, CHUNK)):
        rows = [{} if isinstance(item, BadRow) else item.values for item in chunk]
        told = [
            Unusable(item.reason) if isinstance(item, BadRow) else predictor.truth(row)
            for item, row in zip(chunk, rows, strict=True)
        ]
        usable = [index for index, truth in enumerate(told) if not isinstance(truth, Unusable)]
        for index, made in zip(usable, predictor.predict([rows[index] for index in usable]), strict=True):
            if isinstance(made, Unusable):
                told[index] = made
            else:
                predictions.append(made)
                truths.append(told[index])
        faults = [(item, truth) for item, truth in zip(chunk, told, strict=True) if isinstance(truth, Unusable)]
        if faults and use.run.data.on_bad_rows == "error":
            raise DataError(unusable("FILE", outcome, item.place) for item, outcome in faults[:10])
        bad += len(faults)
        why = why or [f"{outcome.reason} ({item.place})" for item, outcome in faults[:1]]
        say(f"{len(predictions) + bad:,} rows")
    if not predictions:
        what = f"none of the {bad:,} rows of {use.source.path} can be judged; the first: {''.join(why)}"
        raise DataError(Problem("FILE", what))
    measures, details = predictor.judge(predictions, truths)
    return Judged(len(predictions), bad, measures, details)
