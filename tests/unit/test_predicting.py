"""`predict` and `evaluate` on files: order, what was stopped, rows that cannot be used, keys that may be changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrain import predicting
from aitrain.cli import main
from aitrain.data.encoding import Unusable
from aitrain.errors import ConfigError, DataError, Refused
from aitrain.predicting import evaluate, predict, used
from aitrain.validate import validate


class Lengths:
    """Predicts how long a text is."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen = 0
        self.stop_after = stop_after

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(rows)
        return [len(row["text"]) if row["text"] else Unusable("column 'text' is empty") for row in rows]

    def shown(self, prediction: int) -> dict[str, Any]:
        return {"prediction": prediction, "probabilities": {"a": 0.25, "b": 0.75}}

    def truth(self, row: Mapping[str, Any]) -> Any:
        return int(row["size"]) if row.get("size") else Unusable("column 'size' is empty")

    def judge(self, predictions: Sequence[Any], truths: Sequence[Any]) -> tuple[dict[str, float], dict[str, Any]]:
        return {"mae": sum(abs(p - t) for p, t in zip(predictions, truths, strict=True)) / len(truths)}, {}


@pytest.fixture
def run(composed: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder as a run leaves it."""
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.safetensors").write_bytes(b"weights")
    made = validate(composed("task=text_classification"))
    (folder / "config.yaml").write_text(yaml.safe_dump(made.tree()))
    return folder


def rows(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"n": i, "text": t, "size": len(t)}) + "\n" for i, t in enumerate(texts)))
    return path


def quiet(line: str) -> None:
    pass


TEXTS = [f"{'x' * (n % 7)}y" for n in range(50)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "CHUNK", 8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_come_out_in_their_order_with_their_predictions(run: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"out.{ending}"
    done = predict(used(run, str(rows(tmp_path / "new.jsonl", TEXTS)), ()), Lengths, output, quiet)
    assert (done.rows, done.bad, done.resumed) == (50, 0, 0)
    if ending == "csv":
        found = list(csv.DictReader(output.open()))
        assert [(int(row["n"]), int(row["prediction"])) for row in found] == list(enumerate(map(len, TEXTS)))
        assert found[0]["probabilities.b"] == "0.75"
    else:
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert [(row["n"], row["prediction"]) for row in lines] == list(enumerate(map(len, TEXTS)))
    assert {path.name for path in tmp_path.iterdir()} == {"run", "new.jsonl", output.name}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_was_stopped_goes_on_after_the_last_row(run: Path, tmp_path: Path, ending: str) -> None:
    file, output = rows(tmp_path / "new.jsonl", TEXTS), tmp_path / f"out.{ending}"
    predict(used(run, str(file), ()), Lengths, tmp_path / f"whole.{ending}", quiet)
    with pytest.raises(KeyboardInterrupt):
        predict(used(run, str(file), ()), lambda: Lengths(stop_after=20), output, quiet)
    assert not output.exists()
    with (tmp_path / f"{output.name}.partial").open("ab") as partial:
        partial.write(b"half a li")  # what a kill leaves
    second = Lengths()
    done = predict(used(run, str(file), ()), lambda: second, output, quiet)
    assert (done.resumed, second.seen) == (24, 26)
    assert output.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_another_file_or_setting_begins_anew(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    use = used(run, str(rows(tmp_path / "new.jsonl", TEXTS)), ())
    with pytest.raises(KeyboardInterrupt):
        predict(use, lambda: Lengths(stop_after=20), output, quiet)
    second = Lengths()
    predict(used(run, str(rows(tmp_path / "new.jsonl", TEXTS[::-1])), ()), lambda: second, output, quiet)
    assert second.seen == 50
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == TEXTS[::-1]


def test_a_row_without_prediction_is_refused_with_its_line_or_told_in_its_place(run: Path, tmp_path: Path) -> None:
    file = rows(tmp_path / "new.jsonl", ["a", "", "c"])
    with pytest.raises(DataError, match=r"column 'text' is empty.*new\.jsonl:2"):
        predict(used(run, str(file), ()), Lengths, tmp_path / "out.csv", quiet)
    done = predict(used(run, str(file), ("data.on_bad_rows=skip",)), Lengths, tmp_path / "told.csv", quiet)
    assert (done.rows, done.bad) == (3, 1)
    found = list(csv.DictReader((tmp_path / "told.csv").open()))
    assert [row["not_predicted"] for row in found] == ["", "column 'text' is empty", ""]


def test_a_file_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        predict(used(run, str(rows(tmp_path / "new.jsonl", ["a"])), ()), Lengths, output, quiet)
    assert output.read_text() == "mine"


def test_evaluating_judges_the_rows_that_say_what_is_right(run: Path, tmp_path: Path) -> None:
    file = rows(tmp_path / "test.jsonl", TEXTS)
    assert evaluate(used(run, str(file), ()), Lengths(), quiet).measures == {"mae": 0.0}
    with file.open("a") as more:
        more.write('{"text": "abc"}\n')
    with pytest.raises(DataError, match=r"column 'size' is empty.*test\.jsonl:51"):
        evaluate(used(run, str(file), ()), Lengths(), quiet)
    judged = evaluate(used(run, str(file), ("data.on_bad_rows=skip",)), Lengths(), quiet)
    assert (judged.rows, judged.bad) == (50, 1)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("data.on_bad_rows=skp", "data.on_bad_rows: input should be 'error' or 'skip'"),
        ("data.on_bad_row=skip", "data.on_bad_row: cannot be changed here; did you mean 'data.on_bad_rows'?"),
        ("train.epochs=3", "train.epochs: cannot be changed here"),
        ("train.eval_batch_size=0", "train.eval_batch_size: input should be greater than 0"),
    ],
)
def test_keys_that_cannot_be_changed_are_refused(run: Path, tmp_path: Path, word: str, told: str) -> None:
    with pytest.raises(Refused) as refused:
        used(run, str(rows(tmp_path / "new.jsonl", ["a"])), (word,))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict"], "names no run"),
        (["predict", "RUN"], "names no file of rows"),
        (["predict", "RUN", "nothing.csv"], "nothing.csv"),
        (["predict", "elsewhere", "FILE"], "holds no run"),
        (["evaluate", "RUN", "FILE", "output=x.csv"], "has no effect with 'evaluate'"),
        (["predict", "RUN", "FILE", "output=x.txt"], "neither .csv nor .jsonl"),
        (["predict", "RUN", "FILE", "--fast"], "unknown flag"),
    ],
)
def test_commands_that_name_the_wrong_thing(
    run: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"RUN": str(run), "FILE": str(rows(tmp_path / "new.jsonl", ["a"]))}
    assert main([known.get(word, word) for word in words]) == 2
    assert told in capsys.readouterr().err


def test_a_run_without_predictions_is_refused(composed: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(validate(composed()).tree()))
    with pytest.raises(ConfigError, match="task=llm trainer=sft predicts nothing of rows"):
        used(folder, "x.csv", ())


def test_a_column_that_would_be_overwritten_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    file.write_text('{"text": "abc", "probabilities": 1}\n')
    with pytest.raises(DataError, match="have a column 'probabilities' already"):
        predict(used(run, str(file), ()), Lengths, tmp_path / "out.jsonl", quiet)


@pytest.mark.usefixtures("small_chunks")
def test_a_later_row_with_more_columns_is_no_row_of_a_csv_file(run: Path, tmp_path: Path) -> None:
    file = rows(tmp_path / "new.jsonl", TEXTS[:10])
    with file.open("a") as more:
        more.write('{"text": "abc", "extra": 1}\n')
    with pytest.raises(DataError, match="a later row has a column 'extra'"):
        predict(used(run, str(file), ()), Lengths, tmp_path / "out.csv", quiet)
    assert predict(used(run, str(file), ()), Lengths, tmp_path / "out.jsonl", quiet).rows == 11


def test_a_file_of_which_nothing_can_be_predicted_is_refused(run: Path, tmp_path: Path) -> None:
    use = used(run, str(rows(tmp_path / "new.jsonl", ["", "", ""])), ("data.on_bad_rows=skip",))
    with pytest.raises(DataError, match="none of the first 3 rows can be predicted: column 'text' is empty"):
        predict(use, Lengths, tmp_path / "out.csv", quiet)
