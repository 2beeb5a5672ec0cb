"""`predict` and `evaluate`: a trained run on a file of rows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from aitrain.errors import ConfigError, Problem
from aitrain.predicting import Predictor, Use, evaluate, predict, used
from aitrain.registry import trainer_of
from aitrain.report import numbers
from aitrain.rundir.folder import MODEL, write_json

HOW = {
    "predict": "predict RUN FILE [output=OUT.csv|OUT.jsonl] [key=value ...]",
    "evaluate": "evaluate RUN FILE [key=value ...]",
}


@dataclass(frozen=True)
class Asked:
    """The words of a command."""

    run: Path
    file: str
    output: Path | None
    overrides: tuple[str, ...]


def predict_file(words: list[str]) -> int:
    """Write each row of a file with its prediction, in order. Raises Refused."""
    asked = _asked("predict", words)
    use = used(asked.run, asked.file, asked.overrides)
    stem = Path(asked.file).name.partition(".")[0] or "rows"
    ending = ".csv" if asked.file.endswith((".csv", ".csv.gz", ".tsv")) else ".jsonl"
    output = asked.output or use.folder / "predictions" / f"{stem}{ending}"
    with _quiet(use):
        done = predict(use, lambda: _predictor(use, judges=False), output, _say(use))
    print(f"{done.rows:,} rows in {done.path}" + (f", {done.bad:,} of them without a prediction" if done.bad else ""))
    return 0


def evaluate_file(words: list[str]) -> int:
    """Print what a run's predictions of a file are worth, and keep it in the run's folder. Raises Refused."""
    asked = _asked("evaluate", words)
    if asked.output is not None:
        raise ConfigError(Problem("output", "has no effect with 'evaluate'", "'aitrain predict' writes predictions"))
    use = used(asked.run, asked.file, asked.overrides)
    with _quiet(use):
        judged = evaluate(use, _predictor(use, judges=True), _say(use))
    width = max(len(name) for name in judged.measures) + 2
    for name, value in judged.measures.items():
        print(f"{name.replace('_', ' '):<{width}}{numbers([value])[0]:>12}")
    kept = _free_name(use.folder / "evaluations", Path(asked.file).name.partition(".")[0] or "rows")
    kept.parent.mkdir(exist_ok=True)
    write_json(kept, {
        "file": asked.file,
        "rows": judged.rows,
        "bad_rows": judged.bad,
        "fingerprint": use.source.fingerprint(),
        "overrides": list(asked.overrides),
        "measures": judged.measures,
        "details": judged.details,
    })  # fmt: skip
    bad = f", {judged.bad:,} left out as bad" if judged.bad else ""
    print(f"{judged.rows:,} rows{bad}; kept in {kept}")
    return 0


def _free_name(folder: Path, stem: str) -> Path:
    """A file that is not there yet: an earlier evaluation is kept."""
    names = (folder / f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in count(1))
    return next(name for name in names if not name.exists())


def _asked(verb: str, words: Sequence[str]) -> Asked:
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise ConfigError(Problem(flags[0], "unknown flag", HOW[verb]))
    names = [word for word in words if "=" not in word or Path(word).exists()]
    settings = [word for word in words if word not in names]
    if len(names) != 2:
        what = "names no run" if not names else "names no file of rows" if len(names) == 1 else "names too much"
        raise ConfigError(Problem(verb, what, HOW[verb]))
    outputs = [word.partition("=")[2] for word in settings if word.startswith("output=")]
    if len(outputs) > 1 or outputs == [""]:
        raise ConfigError(Problem("output", "should name one file", HOW[verb]))
    overrides = tuple(word for word in settings if not word.startswith("output="))
    return Asked(Path(names[0]).expanduser(), names[1], Path(outputs[0]) if outputs else None, overrides)


def _predictor(use: Use, *, judges: bool) -> Predictor:
    make = trainer_of(use.run).predictor
    assert make is not None
    first = [row.values for row in use.source.head(20, "skip")]
    found: Predictor = make(use.run, use.folder / MODEL, first, judges=judges)
    return found


def _say(use: Use) -> Callable[[str], None]:
    def say(line: str) -> None:
        if use.run.run.progress != "none":
            print(line, file=sys.stderr, flush=True)

    return say


def _quiet(use: Use) -> AbstractContextManager[None]:
    from aitrain.plan import this_machine
    from aitrain.worker import quiet

    threads = use.run.hardware.threads if "hardware.threads" in use.run.given else this_machine().cores
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return quiet(0)
