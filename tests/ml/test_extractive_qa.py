"""`task=extractive_qa`: windows, losses and answers against plain references, any division of the work, and its use."""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting import write_rows
from runs import distance, events, losses, report, run, run_stopped_at, weights
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from aitrain.cli import main
from aitrain.data.answers import Answer, Question
from aitrain.data.samples import passages, sample_tokenizer
from aitrain.data.tokens import TokenTable
from aitrain.data.windows import Cutter, WindowEncoder, asked_rows
from aitrain.errors import Refused
from aitrain.ml.answer_spans import OF_SPAN, Choosing, Offsets
from aitrain.ml.extractive_qa import summed_loss
from aitrain.rundir.folder import read_json

SHORT = {"data__max_length": 40, "task__doc_stride": 8, "task__max_question_length": 24}
"""Windows so short that most contexts make several."""
ODD = ("Zürich’s café — naïve 日本語 🙂 text, a  double  space,\ttab, and 'quotes' (2½ ×) …", "One.", " leading blank",
       "a" * 300, "Ana lives in Oslo. " * 40)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(sample_tokenizer("tiny-encoder"))


def rows(count: int, *, open_ones: bool = False, skip: int = 0) -> list[dict[str, Any]]:
    """The first short rows of the sample after some, and every tenth a long one."""
    found = list(passages.open_rows() if open_ones else passages.passage_rows())
    return [row for row in found if len(row["context"]) < 500][skip : skip + count]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "valid.jsonl", rows(23, skip=100))
    write_rows(folder / "train.jsonl", rows(37))
    write_rows(folder / "open.jsonl", rows(37, open_ones=True))
    return folder


def small(folder: Path, path: Path, **changes: Any) -> Any:
    """A small run in this process."""
    common = {"task": "extractive_qa", "model__path": "sample:tiny-encoder", "data__path": path,
              "generate__count": None, "data__max_samples": None, "train__max_steps": 4,
              "train__learning_rate": 2e-3, **SHORT}  # fmt: skip
    return run(folder, **{**common, **changes})


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "r"
    small(folder, data, data__valid_split="valid", data__train_split="train", train__max_steps=12)
    return folder


@pytest.fixture(scope="module")
def optional(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on questions of which some have no answer."""
    folder = tmp_path_factory.mktemp("optional") / "r"
    small(folder, data / "open.jsonl", data__valid_fraction=0.4, train__max_steps=12)
    return folder


# --- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "stride"), [(20, 0), (21, 5), (33, 16), (64, 31), (512, 128)])
@pytest.mark.parametrize("context", ODD)
def test_windows_hold_every_token_once_or_as_often_as_they_share_it(
    tokenizer: Any, context: str, length: int, stride: int
) -> None:
    asked = Question(context, "Who is it?")
    (windows,) = Cutter(length, stride, 24).windows(tokenizer, [asked])
    alone = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    asking = tokenizer(asked.question, add_special_tokens=False)["input_ids"]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    room = length - len(asking) - 3
    starts = [0]
    while starts[-1] + room < len(alone["input_ids"]):
        starts.append(starts[-1] + room - stride)
    assert len(windows) == len(starts)
    for window, start in zip(windows, starts, strict=True):
        part = alone["input_ids"][start : start + room]
        assert window.ids == [cls, *asking, sep, *part, sep]
        assert len(window.ids) <= length
        assert window.first == len(asking) + 2
        assert window.past == len(window.ids) - 1
        assert window.offsets == alone["offset_mapping"][start : start + room]


def test_an_answer_is_marked_in_each_window_that_holds_all_of_it(tokenizer: Any) -> None:
    rng = random.Random(0)
    held = split = 0
    for context in (" ".join(ODD[:2]), ODD[4]):
        (windows,) = Cutter(40, 12, 24).windows(tokenizer, [Question(context, "Who?")])
        for _ in range(60):
            start = rng.randrange(len(context) - 1)
            answer = Answer(context[start : start + rng.randint(1, 20)], start)
            if not answer.text.strip():
                continue
            for window in windows:
                place = window.place_of(answer)
                low, high = window.offsets[0][0], window.offsets[-1][1]
                inside = answer.text.strip()
                begin = answer.start + answer.text.index(inside)
                assert (place is not None) == (low <= begin and begin + len(inside) <= high)
                if place is None:
                    split += 1
                    continue
                held += 1
                first, last = (window.offsets[each - window.first] for each in place)
                assert first[0] <= begin < first[1]
                assert last[0] < begin + len(inside) <= last[1]
                assert inside in context[first[0] : last[1]]
    assert held > 50
    assert split > 50


def test_a_question_that_leaves_no_room_is_refused(tokenizer: Any) -> None:
    long = Question("Ana lives in Oslo.", "Where does the client live? " * 6)
    (told,) = Cutter(64, 16, 24).windows(tokenizer, [long])
    tokens = len(tokenizer(long.question, add_special_tokens=False)["input_ids"])
    assert told == f"its question has {tokens} tokens, more than task.max_question_length=24"
    (told,) = Cutter(64, 16, 99).windows(tokenizer, [long])
    left = 64 - 3 - tokens
    assert left <= 16
    assert told == (
        f"its question of {tokens} tokens leaves {max(left, 0)} of data.max_length=64 to its context, "
        "no more than task.doc_stride=16"
    )
    (found,) = Cutter(64, 16, 24).windows(tokenizer, [Question("Ana", "Who?")])
    assert len(found) == 1


def test_windows_of_a_row_are_held_out_together(run_of: Any, data: Path, tokenizer: Any, tmp_path: Path) -> None:
    small(tmp_path / "r", data / "train.jsonl", data__valid_fraction=0.3, train__max_steps=1)
    plan = read_json(tmp_path / "r" / "plan.json")
    table = TokenTable(Path(plan["tokens"]["train"]))
    encoder = WindowEncoder(run_of("task=extractive_qa"))
    whole = [[row.context, row.question] for row in asked_rows(encoder.view(table))]
    assert whole == [[row["context"], row["question"]] for row in rows(37)]
    assert len(table) > 37
    from aitrain.data.prepare import _held_out

    train, valid = _held_out(encoder, table, 0.3, 42)
    assert sorted([*train, *valid]) == list(range(len(table)))
    assert (len(train), len(valid)) == (plan["train_rows"], plan["valid_rows"])
    kept, held = (
        {row.context + row.question for row in asked_rows(encoder.view(table, part))} for part in (train, valid)
    )
    assert len(kept) + len(held) == 37
    assert not kept & held


# --- loss ----------------------------------------------------------------------------------------------------------


def plain_loss(folder: Path, given: list[dict[str, Any]]) -> float:
    """The mean loss of the windows of rows, each alone, from transformers' own forward pass and tokenizer."""
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in given:
        text, start = row["answers"]["text"], row["answers"]["answer_start"]
        made = tokenizer(row["question"], row["context"], truncation="only_second", max_length=40, stride=8,
                         return_overflowing_tokens=True, return_offsets_mapping=True)  # fmt: skip
        for number, ids in enumerate(made["input_ids"]):
            spots = [
                place
                for place, ((low, high), which) in enumerate(
                    zip(made["offset_mapping"][number], made.sequence_ids(number), strict=True)
                )
                if text and which == 1 and high > start[0] and low < start[0] + len(text[0])
            ]
            offsets = [
                pair
                for pair, which in zip(made["offset_mapping"][number], made.sequence_ids(number), strict=True)
                if which == 1
            ]
            whole = text and offsets[0][0] <= start[0] and offsets[-1][1] >= start[0] + len(text[0])
            first, last = (spots[0], spots[-1]) if whole else (0, 0)
            with torch.no_grad():
                out = model(
                    torch.tensor([ids]), start_positions=torch.tensor([first]), end_positions=torch.tensor([last])
                )
            found.append(float(out.loss))
    return float(np.mean(found))


def test_the_loss_is_that_of_plain_transformers(trained: Path, optional: Path, data: Path) -> None:
    assert report(trained)["metrics"]["after"]["loss"] == pytest.approx(
        plain_loss(trained / "model", rows(23, skip=100)), abs=2e-5
    )
    plan = read_json(optional / "plan.json")
    assert plan["targets"]["unanswerable"] is True
    assert plan["targets"]["unanswered"] == sum(not row["answers"]["text"] for row in rows(37, open_ones=True))


def test_padding_takes_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    starts, ends = torch.randn(3, 9), torch.randn(3, 9)
    targets = torch.tensor([[2, 4, 1, 5, 6], [0, 0, 2, 8, 9], [3, 3, 3, 4, 5]])
    apart = [
        summed_loss(starts[i : i + 1, :length], ends[i : i + 1, :length], targets[i : i + 1])
        for i, length in enumerate((6, 9, 5))
    ]
    assert float(summed_loss(starts, ends, targets)) == pytest.approx(float(sum(apart)), abs=1e-6)
    one = -(starts[0, :6].log_softmax(0)[2] + ends[0, :6].log_softmax(0)[4]) / 2
    assert float(apart[0]) == pytest.approx(float(one), abs=1e-6)


# --- the best span -------------------------------------------------------------------------------------------------


def brute(starts: Any, ends: Any, first: int, past: int, longest: int, n_best: int) -> list[tuple[float, int, int]]:
    """All spans that may be tried, the best first."""
    inside = range(first, past)
    low = sorted(inside, key=lambda i: -starts[i])[:n_best]
    high = sorted(inside, key=lambda i: -ends[i])[:n_best]
    pairs = {(i, j) for i in low for j in high if i <= j < i + longest}
    pairs = pairs or {max(((i, i) for i in inside), key=lambda pair: starts[pair[0]] + ends[pair[0]])}
    return sorted(((float(starts[i] + ends[j]), i, j) for i, j in pairs), reverse=True)[:n_best]


@pytest.mark.parametrize("n_best", [1, 3, 20])
@pytest.mark.parametrize("longest", [1, 4, 30])
def test_the_best_spans_are_those_of_a_search_over_all(n_best: int, longest: int) -> None:
    generator = torch.Generator().manual_seed(n_best * 31 + longest)
    starts, ends = (torch.randn(6, 17, generator=generator, dtype=torch.float64) for _ in range(2))
    first, past = torch.tensor([3, 1, 5, 2, 16, 4]), torch.tensor([16, 17, 6, 12, 17, 10])
    choosing = Choosing(n_best, longest, True, 0.0)
    found = choosing.of_windows(starts, ends, first, past).numpy()
    for window in range(6):
        expected = brute(starts[window], ends[window], int(first[window]), int(past[window]), longest, n_best)
        assert found[window, 0] == float(starts[window, 0] + ends[window, 0])
        told = {tuple(map(float, span)) for span in found[window, 1:].reshape(-1, OF_SPAN) if np.isfinite(span[0])}
        assert told == {tuple(map(float, span)) for span in expected}
    if n_best == 20:  # then nothing that is allowed goes untried
        best = [max((s[i] + e[j], i, j) for i in range(a, b) for j in range(i, min(b, i + longest)))
                for s, e, a, b in zip(starts, ends, first.tolist(), past.tolist(), strict=True)]  # fmt: skip
        assert [tuple(map(float, span)) for span in best] == [tuple(row[1:4]) for row in found]


def test_an_answer_is_the_best_over_all_windows_and_the_null_score_the_least() -> None:
    context = "Ana lives in Oslo."
    offsets = [Offsets(2, np.array([[0, 3], [3, 9], [9, 12], [12, 17]], np.int32)),
               Offsets(2, np.array([[9, 12], [12, 17], [17, 18]], np.int32))]  # fmt: skip
    windows = [np.array([4.0, 3.0, 2, 3, 5.0, 5, 5]), np.array([2.5, 5.5, 3, 3, -np.inf, 0, 0])]
    found = Choosing(2, 9, True, 0.0).answer(context, windows, offsets)
    assert (found.best, found.start, found.text) == ("Oslo", 13, "Oslo")
    assert found.null_difference == 2.5 - 5.5
    whole = np.exp([5.5, 3.0, 2.5])  # the span of both windows counts once, by its better score
    assert found.score == pytest.approx(whole[0] / whole.sum())
    assert found.no_answer == pytest.approx(whole[2] / whole.sum())
    assert Choosing(2, 9, True, -3.5).answer(context, windows, offsets).text == ""
    certain = Choosing(2, 9, False, -3.5).answer(context, windows, offsets)
    assert (certain.text, certain.no_answer) == ("Oslo", None)
    assert certain.score == pytest.approx(whole[0] / whole[:2].sum())


# --- division of the work ------------------------------------------------------------------------------------------


def assert_alike(folder: Path, reference: Path) -> None:
    assert len(losses(folder)) == len(losses(reference)) > 2
    assert max(abs(a - b) for a, b in zip(losses(folder), losses(reference), strict=True)) <= 1e-5
    tensors = [weights(each / "model") for each in (folder, reference)]
    for each in tensors:  # moves all scores of a window alike, so that its gradient is rounding and nothing else
        each.pop("classifier.bias")
    assert distance(*tensors) <= 1e-4
    ours, theirs = (report(each)["metrics"]["after"] for each in (folder, reference))
    assert ours.keys() == theirs.keys()
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)


def test_a_step_is_the_same_however_it_is_divided(data: Path, tmp_path: Path) -> None:
    words = {"train__max_steps": 10, "train__learning_rate": 1e-3, "data__valid_fraction": 0.2}
    small(tmp_path / "one", data / "train.jsonl", train__batch_size=8, **words)
    small(tmp_path / "many", data / "train.jsonl", train__batch_size=2, train__gradient_accumulation=4, **words)
    small(tmp_path / "two", data / "train.jsonl", train__batch_size=4, hardware="cpu_x2", **words)
    assert_alike(tmp_path / "many", tmp_path / "one")
    assert_alike(tmp_path / "two", tmp_path / "one")
    assert report(tmp_path / "two")["details"]["rows"] == report(tmp_path / "one")["details"]["rows"] == 7


def test_a_run_stopped_in_a_step_goes_on_to_the_last_bit(data: Path, tmp_path: Path) -> None:
    small(tmp_path / "whole", data / "train.jsonl", data__valid_fraction=0.2)
    words = {"task": "extractive_qa", "model__path": "sample:tiny-encoder", "data__path": data / "train.jsonl", **SHORT,
             "generate__count": None, "data__max_samples": None, "train__max_steps": 4, "train__learning_rate": 2e-3,
             "data__valid_fraction": 0.2}  # fmt: skip
    assert run_stopped_at(2, tmp_path / "r", **words).checkpoint is not None
    small(tmp_path / "r", data / "train.jsonl", data__valid_fraction=0.2, run__resume="auto")
    assert losses(tmp_path / "r") == losses(tmp_path / "whole")
    assert events(tmp_path / "r", "eval")[-1]["loss"] == events(tmp_path / "whole", "eval")[-1]["loss"]
    assert distance(weights(tmp_path / "r" / "model"), weights(tmp_path / "whole" / "model")) == 0.0


# --- use -----------------------------------------------------------------------------------------------------------


def plain_measures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Exact match and F1, written anew after the official description."""

    def bare(text: str) -> list[str]:
        text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return [word for word in text.split() if word not in ("a", "an", "the")]

    def f1(said: list[str], gold: list[str]) -> float:
        if not said or not gold:
            return float(said == gold)
        shared = sum((Counter(said) & Counter(gold)).values())
        return 2 * shared / (len(said) + len(gold))

    exact, overlap = [], []
    for line in lines:
        said, golds = bare(line["prediction"]), [bare(text) for text in line["answers"]["text"]] or [[]]
        exact.append(max(said == gold for gold in golds))
        overlap.append(max(f1(said, gold) for gold in golds))
    return {"exact_match": 100 * float(np.mean(exact)), "f1": 100 * float(np.mean(overlap))}


def predicted(folder: Path, file: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    assert main(["predict", str(folder), str(file), f"output={output}", *more]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_measures_are_those_of_the_predictions(trained: Path, data: Path, tmp_path: Path) -> None:
    lines = predicted(trained, data / "valid.jsonl", tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in rows(23, skip=100)]
    after = report(trained)["metrics"]["after"]
    assert plain_measures(lines) == pytest.approx({name: after[name] for name in ("exact_match", "f1")})
    for line in lines:
        assert line["context"][line["start"] :].startswith(line["prediction"])
        assert 0 < line["score"] <= 1
        assert "no_answer_probability" not in line
    wrong = {entry["row"]: entry for entry in report(trained)["details"]["wrong"]}
    assert wrong
    for number, entry in wrong.items():
        assert entry["prediction"] == lines[number]["prediction"]
        assert entry["question"] == lines[number]["question"]


def test_evaluating_the_validation_rows_says_what_the_run_said(trained: Path, data: Path) -> None:
    assert main(["evaluate", str(trained), str(data / "valid.jsonl")]) == 0
    told = read_json(trained / "evaluations" / "valid.json")
    after = report(trained)["metrics"]["after"]
    assert told["measures"] == pytest.approx({name: value for name, value in after.items() if name != "loss"})
    assert told["details"] == report(trained)["details"]


def test_questions_without_an_answer_are_judged_as_in_squad_2(optional: Path, data: Path, tmp_path: Path) -> None:
    after = report(optional)["metrics"]["after"]
    assert {"HasAns_f1", "NoAns_f1", "best_f1", "best_f1_thresh"} <= set(after)
    assert main(["evaluate", str(optional), str(data / "open.jsonl")]) == 0
    told = read_json(optional / "evaluations" / "open.json")["measures"]
    lines = predicted(optional, data / "open.jsonl", tmp_path / "out.jsonl")
    assert plain_measures(lines) == pytest.approx({name: told[name] for name in ("exact_match", "f1")})
    for line in lines:
        assert (line["prediction"] == "") == (line["null_score_difference"] > 0) == (line["start"] is None)
        assert 0 <= line["no_answer_probability"] <= 1
    never = predicted(optional, data / "open.jsonl", tmp_path / "never.jsonl", "task.null_threshold=-1000")
    assert {line["prediction"] for line in never} == {""}
    always = predicted(optional, data / "open.jsonl", tmp_path / "always.jsonl", "task.null_threshold=1000")
    assert all(line["prediction"] for line in always)
    assert json.loads((optional / "model" / "targets.json").read_text())["unanswerable"] is True


def test_a_column_that_a_prediction_would_overwrite_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "rows.jsonl", [{**row, "score": 1} for row in rows(2)])
    assert main(["predict", str(trained), str(tmp_path / "rows.jsonl"), f"output={tmp_path / 'out.jsonl'}"]) == 2
    assert "the rows have a column 'score' already" in capsys.readouterr().err


def test_an_adapter_trains_its_head_and_is_used_again(data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, data__valid_split="valid", data__train_split="train", peft="lora")
    saved = weights(tmp_path / "r" / "model")
    assert any("classifier" in name and "lora" not in name for name in saved)
    assert not any("classifier" in name and "lora" in name for name in saved)
    assert main(["evaluate", str(tmp_path / "r"), str(data / "valid.jsonl")]) == 0
    told = read_json(tmp_path / "r" / "evaluations" / "valid.json")["measures"]
    after = report(tmp_path / "r")["metrics"]["after"]
    assert told == pytest.approx({name: value for name, value in after.items() if name != "loss"})


def test_nested_and_flat_rows_train_alike(data: Path, tmp_path: Path) -> None:
    flat = rows(37)
    paragraphs = [
        {"context": row["context"], "qas": [{"id": row["id"], "question": row["question"], "answers": [
            {"text": row["answers"]["text"][0], "answer_start": row["answers"]["answer_start"][0]}]}]}
        for row in flat
    ]  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))
    small(tmp_path / "nested", tmp_path / "train.json", train__max_steps=3)
    small(tmp_path / "flat", data / "train.jsonl", train__max_steps=3)
    assert losses(tmp_path / "nested") == losses(tmp_path / "flat")


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(tmp_path: Path, *bad: dict[str, Any], **changes: Any) -> str:
    path = write_rows(tmp_path / "bad.jsonl", [*rows(20), *bad])
    with pytest.raises(Refused) as told:
        small(tmp_path / "r", path, **changes)
    return str(told.value)


BAD = [
    ({"context": "Ana lives in Oslo.", "answers": {"text": ["Oslo"], "answer_start": [10]}},
     "does not begin at 10 of the context; found at 13, 3 off"),
    ({"context": "Ana lives in Oslo.", "answers": {"text": ["Rome"], "answer_start": [10]}},
     "does not stand in the context"),
    ({"context": " "}, "column 'context' is empty"),
    ({"question": ""}, "column 'question' is empty"),
    ({"answers": {"texts": []}}, "where text and answer_start are expected"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told"), BAD)
def test_a_bad_row_is_refused_with_its_place_or_counted(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    row = {**rows(21)[20], "id": "x", **change}
    found = refused(tmp_path, row)
    assert told in found
    assert "bad.jsonl:21" in found
    small(tmp_path / "s", tmp_path / "bad.jsonl", data__on_bad_rows="skip", data__max_bad_rows=0.2, train__max_steps=1)
    counted = report(tmp_path / "s")["data"]
    assert (counted["rows_read"], counted["bad_rows"]) == (21, 1)


def test_ids_that_stand_twice_are_refused_or_both_left_out(tmp_path: Path) -> None:
    twice = rows(20)[3]
    found = refused(tmp_path, {**rows(21)[20], "id": twice["id"]})
    assert f"data.columns.id: column 'id': the id '{twice['id']}' stands at bad.jsonl:4 too" in found
    assert "(bad.jsonl:21)" in found
    small(tmp_path / "s", tmp_path / "bad.jsonl", data__on_bad_rows="skip", data__max_bad_rows=0.2, train__max_steps=1)
    assert report(tmp_path / "s")["data"]["bad_rows"] == 2


def test_a_long_question_and_an_answer_between_windows_are_bad_rows(tmp_path: Path) -> None:
    found = refused(tmp_path, {**rows(21)[20], "id": "x", "question": "Where does the client live? " * 5})
    assert "more than task.max_question_length=24" in found
    words = "so " * 200
    found = refused(tmp_path, {"id": "x", "question": "What?", "context": words, "answers": {
        "text": [words.strip()], "answer_start": [0]}})  # fmt: skip
    assert "no window holds the whole of its answer" in found
    assert "raise task.doc_stride" in found


def test_rows_without_an_answer_need_leave(tmp_path: Path) -> None:
    none = {**rows(21)[20], "id": "x", "answers": {"text": [], "answer_start": []}}
    found = refused(tmp_path, none, task__unanswerable="false")
    assert "column 'answers' holds no answer, which task.unanswerable=false rules out" in found
    write_rows(tmp_path / "none.jsonl", [none])
    with pytest.raises(Refused, match="holds an answer in no row"):
        small(tmp_path / "n", tmp_path / "none.jsonl")


@pytest.mark.parametrize(("changes", "told"), [
    ({"data__truncation": "left"}, "data.truncation: has no effect with task=extractive_qa"),
    ({"task__doc_stride": 64}, "task.doc_stride: 64 tokens that windows share, of data.max_length=40 in all"),
    ({"task__max_question_length": 44},
     "task.max_question_length: a question of 44 tokens leaves no room beside task.doc_stride=8"),
    ({"task__unanswerable": "false", "task__null_threshold": 1.0},
     "task.null_threshold: has no effect with task.unanswerable=false"),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    assert told in refused(tmp_path, **changes)
