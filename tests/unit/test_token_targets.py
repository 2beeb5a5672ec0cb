"""Words with tags: which columns, how lists and spans are read, what is refused, and CoNLL files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.data.columns import ColumnChoice
from aitrain.data.readers import format_of
from aitrain.data.rows import BadRow, DataFile, Item, Row
from aitrain.data.tagging import TagReader
from aitrain.data.targets import NoTarget, Tags, targets_from
from aitrain.errors import DataError, Problem
from aitrain.look import look_at_data
from aitrain.tasks.token_classification import find_columns

NONE: dict[str, Any] = dict.fromkeys(("tokens", "tags", "text"))
WORDS = TagReader(ColumnChoice("word_tags", {"tokens": "words", "tags": "ner"}, ""))
INLINE = TagReader(ColumnChoice("word_tags", {"text": "text", "tags": "entities"}, ""))
ROWS = [
    {"tokens": ["Ann", "Lee", "saw", "Rome"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": ["it", "rains"], "tags": ["O", "O"]},
    {"tokens": ["Bob", "slept"], "tags": ["B-PER", "O"]},
]


def read(reader: TagReader, row: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = reader.words(row)
    return words.words, reader.tags(row, words)


def refused(reader: TagReader, row: dict[str, Any]) -> str:
    with pytest.raises(NoTarget) as error:
        read(reader, row)
    return str(error.value)


# --- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "chosen", "columns"),
    [
        ("id tokens tags", {}, {"tokens": "tokens", "tags": "tags"}),
        ("Words NER_tags text", {}, {"tokens": "Words", "tags": "NER_tags"}),
        ("text entities", {}, {"text": "text", "tags": "entities"}),
        ("text tokens spans", {}, {"text": "text", "tags": "spans"}),
        ("tokens ner_tags pos_tags", {"tags": "pos_tags"}, {"tokens": "tokens", "tags": "pos_tags"}),
        ("a b", {"tokens": "a", "tags": "b"}, {"tokens": "a", "tags": "b"}),
        ("a b", {"text": "a", "tags": "b"}, {"text": "a", "tags": "b"}),
    ],
)
def test_columns(names: str, chosen: dict[str, str], columns: dict[str, str]) -> None:
    assert find_columns(names.split(), [], {**NONE, **chosen}).columns == columns


@pytest.mark.parametrize(("names", "columns"), [("words", {"tokens": "words"}), ("text", {"text": "text"})])
def test_columns_to_predict_for(names: str, columns: dict[str, str]) -> None:
    assert find_columns([names], [], NONE, needs_target=False).columns == columns


def problems_of(function: Callable[[], Any]) -> list[Problem]:
    with pytest.raises(DataError) as error:
        function()
    return list(error.value.problems)


def test_columns_that_are_not_clear() -> None:
    (problem,) = problems_of(lambda: find_columns(["tokens", "ner_tags", "pos_tags"], [], NONE))
    assert (problem.key, problem.what) == ("data.columns.tags", "may be 'ner_tags', 'pos_tags'")
    assert problem.advice == "set data.columns.tags=ner_tags or data.columns.tags=pos_tags"
    (problem,) = problems_of(lambda: find_columns(["text"], [{"text": "EU B-ORG"}], NONE))
    assert "plain lines" in str(problem)
    assert ".conll" in problem.advice
    (problem,) = problems_of(lambda: find_columns(["tokens", "tags"], [{"tokens": "a b", "tags": [1, 2]}], NONE))
    assert "column 'tokens' holds text ('a b') in row 1, where a list of words is expected" in str(problem)


# --- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [["B-PER", "O"], '["B-PER", "O"]', "['B-PER', 'O']", " ['B-PER',\n'O']"])
def test_lists_and_their_texts(tags: Any) -> None:
    assert read(WORDS, {"words": '["Ann", "it\'s"]', "ner": tags}) == (("Ann", "it's"), ("B-PER", "O"))


def test_numbers_stand_for_the_names_of_a_class_feature() -> None:
    row = {"words": ["a", "b"], "ner": [1, 0]}
    assert read(WORDS, row)[1] == ("1", "0")
    named = TagReader(WORDS.choice, ("O", "B-PER"))
    assert read(named, row)[1] == ("B-PER", "O")
    assert refused(named, {**row, "ner": [1, 2]}) == "column 'ner': tag 2 is 2, and the file names 2 tags, from 0 on"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"words": ["a", "b", "c"], "ner": ["O", "O"]}, "column 'ner' has 2 tags, and column 'words' 3 words"),
        ({"words": ["a"], "ner": ["O", "O"]}, "column 'ner' has 2 tags, and column 'words' 1 words"),
        ({"words": [], "ner": []}, "column 'words' holds an empty list"),
        ({"words": ["a", " "], "ner": ["O", "O"]}, "column 'words': word 2 is an empty word"),
        ({"words": ["a", 7], "ner": ["O", "O"]}, "column 'words': word 2 is a number (7)"),
        ({"words": ["a", None], "ner": ["O", "O"]}, "column 'words': word 2 is null"),
        ({"words": ["a"], "ner": [""]}, "column 'ner': tag 1 is nothing, where a tag is expected"),
        ({"words": ["a"], "ner": [True]}, "column 'ner': tag 1 is true or false (True), where a tag is expected"),
        ({"words": None, "ner": ["O"]}, "column 'words' holds nothing, where a list is expected"),
        ({"words": "['a', 'b'", "ner": ["O"]}, "column 'words' holds text that reads as no list: \"['a', 'b'\""),
        # what numpy prints, which Python would read as one word
        ({"words": "['a' 'b']", "ner": "['O' 'O']"}, "column 'words' holds text that reads as no list: \"['a' 'b']\""),
        ({"words": "['a'\n 'b']", "ner": ["O"]}, "column 'words' holds text that reads as no list: \"['a'\\n 'b']\""),
    ],
)
def test_rows_that_cannot_be_read(row: dict[str, Any], reason: str) -> None:
    assert refused(WORDS, row) == reason


def spans(*found: Any) -> dict[str, Any]:
    return {"text": "Ann Lee's in Rome.", "entities": list(found)}


def test_spans_become_words_and_tags() -> None:
    row = spans({"start": 13, "end": 17, "label": "LOC"}, {"start": 0, "end": 8, "label": "PER"})
    row["entities"][1]["end"] = 7
    words, tags = read(INLINE, row)
    assert words == ("Ann", "Lee", "'", "s", "in", "Rome", ".")
    assert tags == ("B-PER", "I-PER", "O", "O", "O", "B-LOC", "O")
    assert read(INLINE, spans([13, 17, "LOC"]))[1] == ("O",) * 5 + ("B-LOC", "O")
    assert read(INLINE, spans([0, 3, "PER"], [4, 7, "PER"]))[1][:2] == ("B-PER", "B-PER")
    assert set(read(INLINE, spans())[1]) == {"O"}
    # space at its ends does no harm
    assert read(INLINE, spans([12, 18, "LOC"]))[1] == ("O",) * 5 + ("B-LOC", "I-LOC")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([[13, 19, "LOC"]], "span 1 goes from 13 to 19, and the text has 18 characters"),
        ([[-1, 3, "PER"]], "span 1 goes from -1 to 3, and the text has 18 characters"),
        ([[3, 3, "PER"]], "span 1 goes from 3 to 3, and the text has 18 characters"),
        ([[0, 3, "PER"], [2, 7, "PER"]], "spans 1 and 2 share characters 2 to 3"),
        ([[4, 7, "PER"], [0, 17, "PER"]], "spans 2 and 1 share characters 4 to 17"),
        ([[0, 2, "PER"]], "span 1, 0 to 2, cuts the word 'Ann', which is 0 to 3"),
        ([[3, 4, "PER"]], "span 1 holds no word"),
        ([[0, 3, ""]], "span 1 has no label"),
        ([["0", 3, "PER"]], "span 1 has no whole numbers for start and end"),
        ([{"start": 0, "label": "PER"}], "span 1 has no whole numbers for start and end"),
        (["PER"], "span 1 is text ('PER'), not {start, end, label}"),
    ],
)
def test_spans_that_cannot_be_read(found: list[Any], reason: str) -> None:
    assert refused(INLINE, spans(*found)) == f"column 'entities': {reason}"


# --- a run's data --------------------------------------------------------------------------------------------------


@pytest.fixture
def looked(tmp_path: Path, run_of: Callable[..., Any]) -> Callable[..., Any]:
    """What a run finds of its rows before torch loads."""

    def look(rows: list[dict[str, Any]], *words: str, valid: list[dict[str, Any]] | None = None) -> Tags:
        path = tmp_path / "rows"
        path.mkdir(exist_ok=True)
        for name, values in (("train", rows), ("valid", valid)):
            if values is not None:
                (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
        named = ["data.valid_split=valid"] if valid is not None else []
        run = run_of("task=token_classification", f"data.path={path}", *named, *words)
        targets = look_at_data(run).sources[0].targets
        assert isinstance(targets, Tags)
        return targets

    return look


def test_tags_of_the_training_rows(looked: Callable[..., Any]) -> None:
    tags = looked(ROWS)
    assert tags == Tags(("O", "B-LOC", "B-PER", "I-PER"), (4, 1, 2, 1), "BIO", 3)
    assert targets_from(json.loads(json.dumps(tags.to_dict()))) == tags
    assert tags.described == "4 tags, BIO: O 4, B-LOC 1, B-PER 2, I-PER 1"
    assert looked(ROWS, "task.tags=[I-LOC,O,B-LOC,I-PER,B-PER]").names == ("I-LOC", "O", "B-LOC", "I-PER", "B-PER")
    assert looked(ROWS, "task.scheme=plain").scheme == "plain"
    numbers = [{**row, "tags": [len(tag) for tag in row["tags"]]} for row in ROWS]
    assert looked(numbers) == Tags(("1", "5"), (4, 4), "plain", 3)


WRONG = {"tokens": ["in", "Rome"], "tags": ["O", "I-LOC"]}


def test_contradicting_tags(looked: Callable[..., Any]) -> None:
    rows = [*ROWS, WRONG]
    (problem,) = problems_of(lambda: looked(rows))
    assert problem.where == "train.jsonl:4"
    what = "row cannot be used: column 'tags': tag 2 is 'I-LOC' after 'O' and at the end, where BIO writes 'B-LOC'"
    assert (problem.key, problem.what) == ("data.path", what)
    assert "task.repair_tags=true" in problem.advice
    assert looked(rows, "task.repair_tags=true").counts == (5, 2, 2, 1)
    assert looked(rows, "data.on_bad_rows=skip").names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    (problem,) = problems_of(lambda: looked(ROWS, valid=[ROWS[0], {**WRONG, "tags": ["O", "B-ORG"]}]))
    assert (problem.key, problem.where) == ("data.valid_split", "valid.jsonl:2")
    assert "column 'tags': tag 2, 'B-ORG', is none of the 4 tags" in problem.what


@pytest.mark.parametrize(
    ("rows", "words", "told"),
    [
        ([ROWS[1]] * 2, (), "data.columns.tags: column 'tags' holds one tag only, 'O', of 4 words"),
        (ROWS, ("task.tags=[O,B-PER,I-PER]",), "tag 4, 'B-LOC', is none of the 3 tags"),
        (ROWS, ("task.tags=[X,Y]",), "task.tags: none of them occurs; column 'tags' holds 'O', 'B-LOC'"),
        (ROWS, ("task.scheme=BIOES", "task.tags=[O,B-PER,I-PER,B-LOC,X]"), "task.scheme: 'X' is no tag of BIOES"),
        ([{**row, "tags": ["NN"] * len(row["tags"])} for row in ROWS], ("task.scheme=BIO",), "'NN' is no tag of BIO"),
        (ROWS, ("train.metric_for_best_model=f1_micro",), "'f1_micro' is not reported of BIO tags"),
        ([{**ROWS[0], "tokens": ["a"]}], (), "column 'tags' has 4 tags, and column 'tokens' 1 words"),
    ],
)
def test_data_that_is_refused(looked: Callable[..., Any], rows: list[Any], words: tuple[str, ...], told: str) -> None:
    assert any(told in str(problem) for problem in problems_of(lambda: looked(rows, *words)))


def test_csv_holds_the_text_of_lists(tmp_path: Path, run_of: Callable[..., Any]) -> None:
    lines = ["id,words,pos", "1,\"['a', 'b']\",\"['X', 'Y']\"", '2,"[""c""]","[""X""]"']
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    run = run_of("task=token_classification", f"data.path={path}")
    assert look_at_data(run).sources[0].targets == Tags(("X", "Y"), (2, 1), "plain", 2)
    path.write_text("\n".join([*lines, "3,\"['a', 'b'\",\"['X', 'Y']\"", "4,\"['a', 'b']\",\"['X']\""]))
    first, second = problems_of(lambda: look_at_data(run))
    assert (first.where, second.where) == ("rows.csv:4", "rows.csv:5")
    assert first.what == "row cannot be used: column 'words' holds text that reads as no list: \"['a', 'b'\""
    assert second.what == "row cannot be used: column 'pos' has 1 tags, and column 'words' 2 words"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("task.tags=[O,O,B]", "names 'O' twice"),
        ("task.tags=[O]", "names less than two tags"),
        ("task.scheme=plain", "has no effect with task.scheme=plain"),
        ("data.columns.text=b", "a row is one of the two"),
        ("data.columns.target=b", "data.columns.target"),
    ],
)
def test_settings_that_are_refused(run_of: Callable[..., Any], word: str, told: str) -> None:
    from aitrain.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        run_of("task=token_classification", "task.repair_tags=true", "data.columns.tokens=a", word)
    assert told in str(error.value)


# --- CoNLL ---------------------------------------------------------------------------------------------------------


def items(folder: Path, content: str | bytes, name: str = "train.conll") -> list[Item]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    kind = format_of(path)
    assert kind is not None
    found = list(kind.read(DataFile(path, name)))
    assert kind.count(DataFile(path, name), None) == (len(found), True)
    return found


def test_conll_files(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\n \nPeter  NNP I-NP B-PER\r\n"
    first, second = items(tmp_path, text)
    assert isinstance(first, Row)
    assert first.values == {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}
    assert isinstance(second, Row)
    assert second.values == {"tokens": ["Peter"], "tags": ["B-PER"]}
    assert [str(item.place) for item in (first, second)] == ["train.conll:3", "train.conll:8"]
    for name in ("a.iob", "a.bio"):
        (row,) = items(tmp_path, "New York\tB-LOC\n\u00a0\tO", name)
        assert isinstance(row, Row)
        assert row.values == {"tokens": ["New York", "\u00a0"], "tags": ["B-LOC", "O"]}
    (row,) = items(tmp_path, "just\nwords\n")
    assert isinstance(row, Row)
    assert row.values == {"tokens": ["just", "words"]}


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("a O\nb\n\nc O\n", "train.conll:2", "1 column, where the first line of its sentence has 2"),
        ("a X O\nb O\n\nc O\n", "train.conll:2", "2 columns, where the first line of its sentence has 3"),
        ("a\tO\nb\t\n\nc O\n", "train.conll:2", "the tag is missing"),
        ("\tO\n\nc O\n", "train.conll:1", "the token is missing"),
        (b"a O\n\xff O\n\nc O\n", "train.conll:2", "the byte 0xff at column 1 is no UTF-8; save the file as UTF-8"),
    ],
)
def test_broken_sentences(tmp_path: Path, content: str | bytes, place: str, reason: str) -> None:
    bad, good = items(tmp_path, content)
    assert isinstance(bad, BadRow)
    assert (str(bad.place), bad.reason) == (place, reason)
    assert isinstance(good, Row)
