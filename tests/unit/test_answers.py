"""Answers that stand in a text: every form is read alike, what is wrong is told with its place, and files in the nested
form give the rows of the flat one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_report_html import HOSTILE, STRANGE, Page, write_run

from aitrain.data.answers import Answer, NoAnswers, read_answers, read_question, wrong_answers
from aitrain.data.columns import ColumnChoice
from aitrain.data.samples import passages
from aitrain.data.sources import find
from aitrain.errors import DataError
from aitrain.evaluation.answer_details import asked_with, details_of_answers, judge_given, length_of, score_row, snippet
from aitrain.evaluation.answers import judge_answers
from aitrain.report_html import write_html
from aitrain.tasks.extractive_qa import find_columns

CONTEXT = "Ana lives in Oslo, and Ben in Oslo too. ÉVA eats Brot."
CHOICE = ColumnChoice("text_target", {"context": "c", "question": "q", "answers": "a", "id": "id"}, "")


def answers(value: Any, **row: Any) -> tuple[Answer, ...]:
    return read_answers(CHOICE, {"a": value, **row}, CONTEXT)


def fault(value: Any, **row: Any) -> str:
    with pytest.raises(NoAnswers) as refused:
        answers(value, **row)
    return str(refused.value)


@pytest.mark.parametrize("value", [
    {"text": ["Oslo"], "answer_start": [13]},
    {"text": "Oslo", "answer_start": 13},
    [{"text": "Oslo", "answer_start": 13}],
    '{"text": ["Oslo"], "answer_start": [13]}',
    "{'text': ['Oslo'], 'answer_start': [13]}",
    "[{'text': 'Oslo', 'answer_start': 13}]",
    "{'text': array(['Oslo'], dtype=object), 'answer_start': array([13], dtype=int32)}",
    "{'text': array(['Oslo'],\n      dtype=object), 'answer_start': array([13])}",
    {"text": ["Oslo"], "answer_start": [13.0]},
])  # fmt: skip
def test_every_form_of_an_answer_is_read_alike(value: Any) -> None:
    assert answers(value) == (Answer("Oslo", 13),)


def test_several_answers_keep_their_order() -> None:
    found = answers({"text": ["Oslo", "in Oslo"], "answer_start": [30, 10]})
    assert [(each.text, each.start, each.end) for each in found] == [("Oslo", 30, 34), ("in Oslo", 10, 17)]


@pytest.mark.parametrize("value", [
    {"text": [], "answer_start": []}, [], "[]", "", None, {"text": [""], "answer_start": [-1]},
    {"text": ["Rome"], "answer_start": [-1]},
])  # fmt: skip
def test_there_may_be_none(value: Any) -> None:
    assert answers(value) == ()
    assert answers(value, is_impossible="True") == ()


@pytest.mark.parametrize(("value", "told"), [
    ({"text": ["Oslo"], "answer_start": [10]},
     "column 'a': answer 1, 'Oslo', does not begin at 10 of the context; found at 13, 3 off"),
    ({"text": ["Oslo"], "answer_start": [28]},
     "column 'a': answer 1, 'Oslo', does not begin at 28 of the context; found at 30, 2 off"),
    ({"text": ["Ana", "Rome"], "answer_start": [0, 3]},
     "column 'a': answer 2, 'Rome', does not stand in the context"),
    ({"text": ["éva"], "answer_start": [40]},
     "column 'a': answer 1, 'éva', does not stand in the context; found in other case at 40"),
    ({"text": ["Oslo"], "answer_start": [-4]},
     "column 'a': answer 1, 'Oslo', does not begin at -4 of the context; found at 13, 17 off"),
    ({"text": ["Oslo"], "answer_start": ["13"]},
     "column 'a': answer 1, 'Oslo', has text ('13') as its answer_start"),
    ({"text": ["Oslo"], "answer_start": [True]},
     "column 'a': answer 1, 'Oslo', has true or false (True) as its answer_start"),
    ({"text": ["Oslo"], "answer_start": [float("nan")]},
     "column 'a': answer 1, 'Oslo', has a number (nan) as its answer_start"),
    ({"text": ["Oslo", "Ana"], "answer_start": [13, -1]},
     "column 'a': answer 2, 'Ana', has answer_start -1 beside answers that are there"),
    ({"text": [" "], "answer_start": [3]}, "column 'a': answer 1 is empty"),
    ({"text": [5], "answer_start": [3]}, "column 'a': answer 1 is a number (5), no text"),
    ({"text": ["Oslo", "Ana"], "answer_start": [13]}, "column 'a' holds 2 texts and 1 starts (answer_start)"),
    ({"texts": ["Oslo"]}, "column 'a' holds an object of 'texts', where text and answer_start are expected"),
    (["Oslo"], "column 'a' holds text ('Oslo') among its answers, where {text, answer_start} is expected"),
    ("Oslo", "column 'a' holds text ('Oslo'), which is neither JSON nor a Python literal"),
    (7, "column 'a' holds a number (7) where answers {text, answer_start} are expected"),
])  # fmt: skip
def test_what_is_no_answer_is_told(value: Any, told: str) -> None:
    assert fault(value) == told


def test_an_answer_to_an_impossible_question_is_refused() -> None:
    told = fault({"text": ["Oslo"], "answer_start": [13]}, is_impossible=True)
    assert told == "column 'a' holds an answer, and 'is_impossible' says that there is none"
    assert fault(None, is_impossible=False) == "column 'a' holds nothing, and 'is_impossible' is false"


@pytest.mark.parametrize(("row", "told"), [
    ({"c": "  ", "q": "Who?"}, "column 'c' is empty"),
    ({"c": "Ana", "q": ""}, "column 'q' is empty"),
    ({"c": 7, "q": "Who?"}, "column 'c' holds a number (7), no text"),
    ({"q": "Who?"}, "column 'c' holds nothing, no text"),
])  # fmt: skip
def test_a_question_needs_two_texts(row: dict[str, Any], told: str) -> None:
    with pytest.raises(NoAnswers) as refused:
        read_question(CHOICE, row)
    assert str(refused.value) == told


# --- columns -------------------------------------------------------------------------------------------------------

ROW = {"id": "1", "title": "t", "context": CONTEXT, "question": "Where?", "answers": {"text": [], "answer_start": []}}


def test_columns_are_found_by_their_names() -> None:
    choice = find_columns(list(ROW), [ROW], {})
    assert choice.columns == {"question": "question", "answers": "answers", "context": "context", "id": "id"}
    other = {"Passage": CONTEXT, "query": "Where?", "gold": [{"text": "Oslo", "answer_start": 13}]}
    assert find_columns(list(other), [other], {}).columns == {
        "question": "query",
        "answers": "gold",
        "context": "Passage",
    }


def test_answers_are_not_needed_to_predict() -> None:
    row = {"context": CONTEXT, "question": "Where?"}
    assert find_columns(list(row), [row], {}, needs_target=False).columns == {
        "context": "context",
        "question": "question",
    }
    with pytest.raises(DataError, match=r"data\.columns\.answers: no column found for it"):
        find_columns(list(row), [row], {})


def test_a_column_of_plain_answers_is_refused() -> None:
    row = {**ROW, "answers": "Oslo"}
    with pytest.raises(DataError, match=r"column 'answers' holds text \('Oslo'\) in row 1, where answers \{text"):
        find_columns(list(row), [row], {})
    assert wrong_answers(5) == "a number (5)"
    assert wrong_answers("{'text': []}") == wrong_answers({}) == wrong_answers([]) == ""


# --- files ---------------------------------------------------------------------------------------------------------


def nested(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Rows of one context each in the nested form."""
    told = [
        {
            "title": row["title"],
            "paragraphs": [{"context": row["context"], "qas": [{
                "id": row["id"], "question": row["question"], "is_impossible": row["is_impossible"],
                "answers": [{"text": text, "answer_start": start}
                            for text, start in zip(*row["answers"].values(), strict=True)],
            }]}],
        }
        for row in rows
    ]  # fmt: skip
    return {"version": "v2.0", "data": told, **more}


def opened(path: Path) -> Any:
    return find(str(path), split="train", files=None, config=None, allow_downloads=False)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [item.values for item in opened(path).rows("error")]


@pytest.mark.parametrize("indent", [None, 1])
def test_nested_and_flat_files_give_the_same_rows(tmp_path: Path, indent: int | None) -> None:
    flat = [
        {**row, "title": f"t{number // 3}", "is_impossible": not row["answers"]["text"]}
        for number, row in zip(range(20), passages.open_rows(), strict=False)
    ]
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in flat))
    (tmp_path / "nested.json").write_text(json.dumps(nested(flat), indent=indent))
    assert rows_in(tmp_path / "nested.json") == rows_in(tmp_path / "flat.jsonl")
    assert {row["is_impossible"] for row in flat} == {True, False}
    assert opened(tmp_path / "nested.json").count().rows == 20


def test_bad_parts_of_a_nested_file_are_bad_rows(tmp_path: Path) -> None:
    whole = {"context": CONTEXT, "qas": [{"id": "1", "question": "Where?", "answers": []}, "no"]}
    articles = [{"paragraphs": [whole, {"qas": []}, {"context": CONTEXT}]}, {"title": "x"}]
    (tmp_path / "train.json").write_text(json.dumps({"data": articles}))
    items = list(opened(tmp_path / "train.json").rows("skip"))
    assert [getattr(item, "reason", "") for item in items] == [
        "",
        "data[0].paragraphs[0].qas[1] is no object",
        "data[0].paragraphs[1] has no context",
        "data[0].paragraphs[2] has no list of questions (qas)",
        "data[1] has no list of paragraphs",
    ]
    with pytest.raises(DataError, match=r"qas\[1\] is no object; .*\(train\.json row 2\)"):
        rows_in(tmp_path / "train.json")


def test_answers_of_the_sample_stand_where_the_row_says() -> None:
    for rows, share in ((passages.passage_rows(), 0.0), (passages.open_rows(), passages.OPEN)):
        found = list(rows)
        choice = find_columns(list(found[0]), found[:5], {})
        told = [read_answers(choice, row, row["context"]) for row in found]
        assert abs(sum(not each for each in told) / len(told) - share) < 0.03
        assert len({row["id"] for row in found}) == len({(row["context"], row["question"]) for row in found}) == 4_000


# --- details -------------------------------------------------------------------------------------------------------


def test_the_score_of_a_row_is_that_of_a_file_with_it_alone() -> None:
    for given, golds in (("the Oslo", ["Rome", "oslo!"]), ("in Oslo", ["Oslo"]), ("Bern", ["Oslo"]), ("", ["Oslo"])):
        exact, f1 = score_row(given, golds)
        assert {"exact_match": 100 * exact, "f1": 100 * f1} == judge_answers([given], [golds])
    assert score_row("", []) == (1.0, 1.0)
    assert score_row("Oslo", []) == (0.0, 0.0)


def test_measures_of_optional_answers_follow_the_threshold() -> None:
    found = judge_given(["Oslo", "Rome", "Bern"], [["Oslo"], [], ["Bern"]], [-1.0, 0.5, 2.0])
    assert found["exact_match"] == pytest.approx(200 / 3)
    assert (found["HasAns_exact"], found["NoAns_exact"]) == (50.0, 100.0)
    assert judge_given(["Oslo", "Rome", "Bern"], [["Oslo"], [], ["Bern"]], [-1.0, 0.5, 2.0], 3.0)["HasAns_f1"] == 100
    assert not [name for name in found if name.endswith("total")]


def test_details_list_the_worst_rows_first_and_count_kinds() -> None:
    questions = ["Where does Ana live?", "In which town is Ben?", "Say it."]
    contexts = [CONTEXT, CONTEXT, f"{'x ' * 200}end"]
    found = details_of_answers(
        questions, contexts, [["Oslo"], ["Oslo"], []], ["Ana", "in Oslo", "end"], [0.4, 0.9, 0.8]
    )
    assert [entry["row"] for entry in found["wrong"]] == [2, 0, 1]
    assert found["wrong"][0]["context"].endswith("end")
    assert len(found["wrong"][0]["context"]) < 120
    assert [(entry["name"], entry["rows"]) for entry in found["by_question"]] == [
        ("other", 1),
        ("where", 1),
        ("which", 1),
    ]
    assert [(entry["name"], entry["rows"]) for entry in found["by_length"]] == [("1 word", 2), ("none", 1)]
    assert found["by_length"][0]["f1"] == pytest.approx(100 * (0 + 2 / 3) / 2)
    assert found["right"] == 0


def test_kinds_of_questions_and_answers() -> None:
    assert [asked_with(text) for text in ("How many boats?", "To whom was it given, and when?", "Somewhat odd")] == [
        "how many", "whom", "other",
    ]  # fmt: skip
    assert [length_of("w " * n) for n in (0, 1, 3, 10, 11)] == ["none", "1 word", "3 to 5 words", "6 to 10 words",
                                                               "more than 10 words"]  # fmt: skip
    assert snippet("abc", [], "") == "abc"


# --- the page ------------------------------------------------------------------------------------------------------

WRONG = {"row": 3, "question": "Where?", "context": "in Oslo", "truth": ["Oslo"], "prediction": "", "f1": 0.0}
QA: dict[str, Any] = {
    "kind": "qa",
    "split": "validation",
    "rows": 12,
    "right": 9,
    "wrong": [WRONG, {**WRONG, "row": 4, "truth": [], "prediction": "Rome", "f1": 0.25}],
    "by_question": [{"name": "where", "rows": 12, "exact_match": 75.0, "f1": 81.25}],
    "by_length": [{"name": "1 word", "rows": 12, "exact_match": 75.0, "f1": 81.25}],
}


def test_the_page_shows_wrong_answers_and_the_measures_of_each_kind(tmp_path: Path) -> None:
    page = Page(write_html(write_run(tmp_path / "run", [], details=QA)).read_text(encoding="utf-8"))
    text = " ".join(" ".join(page.shown).split())
    assert page.open == []
    assert "9 of 12 answers are exactly right." in text
    assert "row 3 Where? wanted Oslo , given no answer in Oslo" in text
    assert "wanted no answer , given Rome (F1 0.25)" in text
    assert "where 12 75 81.2" in text or "where 12 75 81.3" in text


@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("key", ["rows", "right", "wrong", "by_question", "by_length"])
def test_strange_details_of_answers_do_not_break_the_page(tmp_path: Path, key: str, strange: Any) -> None:
    broken = [strange] if isinstance(QA[key], list) else strange
    inner = {**QA, key: broken} if key != "wrong" else {**QA, "wrong": [dict.fromkeys(WRONG, strange), strange]}
    assert Page(write_html(write_run(tmp_path / "run", [], details=inner)).read_text(encoding="utf-8")).open == []


def test_a_hostile_answer_is_text(tmp_path: Path) -> None:
    hostile = {
        **QA,
        "wrong": [dict.fromkeys(WRONG, HOSTILE)],
        "by_length": [dict.fromkeys(QA["by_length"][0], HOSTILE)],
    }
    source = write_html(write_run(tmp_path / "run", [], details=hostile)).read_text(encoding="utf-8")
    assert HOSTILE not in source
    assert Page(source).open == []
