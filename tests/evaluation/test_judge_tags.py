"""Tags against seqeval and scikit-learn, against counts made by hand, and what finds, names and mends bad marks."""

from __future__ import annotations

import json
import random

import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOBES
from sklearn import metrics

from aitrain.evaluation import details_of_tags, faults, find_scheme, judge_tags, repair

pytestmark = pytest.mark.filterwarnings("error")
STRICT = {"BIOES": IOBES, "BILOU": BILOU}
SCHEMES = {"BIO": "BI", "IOB1": "IB", "BIOES": "BIES", "BILOU": "BILU"}

TRUE = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"]]
SAID = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC", "O"]]


def tags_of(scheme: str) -> list[str]:
    return ["O", "O", *(f"{mark}-{kind}" for mark in SCHEMES[scheme] for kind in ("PER", "LOC"))]


def drawn(scheme: str, seed: int, rows: int = 30) -> list[list[str]]:
    """Rows of tags at random, most of them against the rules of the scheme."""
    draw = random.Random(seed)
    return [draw.choices(tags_of(scheme), k=draw.randint(1, 9)) for _ in range(rows)]


def partly_wrong(rows: list[list[str]], scheme: str, seed: int) -> list[list[str]]:
    """Rows with three tags in ten drawn anew."""
    draw = random.Random(seed)
    return [[draw.choice(tags_of(scheme)) if draw.random() < 0.3 else tag for tag in row] for row in rows]


def test_spans_by_hand() -> None:
    # true: PER 0-2, LOC 3-4; LOC 1-3. Said: PER 0-2, ORG 3-4; LOC 1-2. One of three is right.
    assert judge_tags(SAID, TRUE) == pytest.approx(
        {"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "f1_macro": (1 + 0 + 0) / 3, "accuracy": 5 / 7}
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_those_of_seqeval(scheme: str) -> None:
    truth = [repair(row, scheme)[0] for row in drawn(scheme, 0)]
    predicted = partly_wrong(truth, scheme, 1)
    assert any(faults(row, scheme) for row in predicted)
    options = {"mode": "strict", "scheme": STRICT[scheme]} if scheme in STRICT else {}
    found = judge_tags(predicted, truth, scheme)
    assert 0.1 < found["f1"] < 0.9
    assert found == pytest.approx(
        {
            "precision": precision_score(truth, predicted, **options),
            "recall": recall_score(truth, predicted, **options),
            "f1": f1_score(truth, predicted, **options),
            "f1_macro": f1_score(truth, predicted, average="macro", **options),
            "accuracy": accuracy_score(truth, predicted),
        }
    )


def test_a_wrong_mark_is_no_span_in_strict_schemes_alone() -> None:
    assert judge_tags([["I-PER", "I-PER"]], [["B-PER", "I-PER"]], "BIO")["f1"] == 1
    assert judge_tags([["B-PER", "I-PER"]], [["B-PER", "E-PER"]], "BIOES")["f1"] == 0


def test_a_span_ends_with_its_row() -> None:
    assert judge_tags([["B-PER"], ["I-PER"]], [["B-PER"], ["O"]], "BIO")["precision"] == 1 / 2


def test_plain_tags_are_judged_by_token() -> None:
    truth, predicted = [["DET", "NOUN"], ["VERB", "NOUN"]], [["DET", "VERB"], ["VERB", "ADJ"]]
    found = judge_tags(predicted, truth)
    # DET 1; NOUN 0; VERB precision 1/2, recall 1; ADJ 0
    assert found == pytest.approx({"accuracy": 2 / 4, "f1_macro": (1 + 0 + 2 / 3 + 0) / 4, "f1_micro": 2 / 4})
    flat = [*truth[0], *truth[1]], [*predicted[0], *predicted[1]]
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(*flat, average="macro"))


def test_without_spans_there_is_only_accuracy() -> None:
    assert judge_tags([["O", "O"]], [["O", "O"]], "BIO") == {"accuracy": 1}
    assert details_of_tags([["O", "O"]], [["O", "O"]], "BIO")["per_entity"] == []
    missed = judge_tags([["O"]], [["B-PER"]], "BIO")
    assert missed == {"precision": 0, "recall": 0, "f1": 0, "f1_macro": 0, "accuracy": 0}


def test_details_of_spans_by_hand() -> None:
    details = details_of_tags(SAID, TRUE)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["kind"] == "tags"
    assert details["scheme"] == "BIO"
    assert details["tags"] == ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-PER", "O"]
    assert details["per_entity"] == [
        {"entity": "LOC", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2},
        {"entity": "ORG", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
        {"entity": "PER", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
    ]
    assert details["confusion"][0] == [1, 1, 0, 0, 0, 0]  # B-LOC once right, once as B-ORG
    assert details["wrong"] == [
        {"row": 0, "from": 3, "to": 4, "truth": "LOC", "prediction": "ORG"},
        {"row": 1, "from": 1, "to": 2, "truth": None, "prediction": "LOC"},
        {"row": 1, "from": 1, "to": 3, "truth": "LOC", "prediction": None},
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_details_agree_with_the_measures(scheme: str) -> None:
    truth = [repair(row, scheme)[0] for row in drawn(scheme, 2)]
    predicted = partly_wrong(truth, scheme, 3)
    details, found = details_of_tags(predicted, truth, scheme), judge_tags(predicted, truth, scheme)
    json.dumps(details, allow_nan=False)
    assert sum(entry["f1"] for entry in details["per_entity"]) / 2 == pytest.approx(found["f1_macro"])
    supports = [entry["support"] for entry in details["per_entity"]]
    assert sum(e["recall"] * n for e, n in zip(details["per_entity"], supports, strict=True)) == pytest.approx(
        found["recall"] * sum(supports)
    )
    assert len(details["wrong"]) == 20
    assert [entry["row"] for entry in details["wrong"]] == sorted(entry["row"] for entry in details["wrong"])


def test_details_of_plain_tags() -> None:
    details = details_of_tags([["DET", "VERB"]], [["DET", "NOUN"]])
    assert details["scheme"] == "plain"
    assert details["confusion"] == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert [entry["support"] for entry in details["per_tag"]] == [1, 1, 0]
    assert details["wrong"] == [{"row": 0, "from": 1, "to": 2, "truth": "NOUN", "prediction": "VERB"}]
    many = [[f"tag {place}" for place in range(51)]]
    assert "confusion" not in details_of_tags(many, many)
    assert len(details_of_tags([many[0][:50]], [many[0][:50]])["confusion"]) == 50


@pytest.mark.parametrize(
    ("rows", "scheme"),
    [
        ([["O", "B-PER", "I-PER"]], "BIO"),
        ([["B-PER", "O"], ["B-LOC"]], "BIO"),
        ([["O"], ["B-PER"], ["I-PER"]], "BIO"),  # a class map, a name in each row
        ([["B", "I", "O"]], "BIO"),
        ([["I-PER", "I-PER", "B-PER", "O", "I-LOC"]], "IOB1"),
        ([["I-PER", "O"]], "IOB1"),
        ([["I-PER", "O", "B-PER"]], "BIO"),  # a B that parts nothing
        ([["B-PER", "E-PER", "S-LOC"]], "BIOES"),
        ([["O"], ["B-PER"], ["I-PER"], ["E-PER"], ["S-PER"]], "BIOES"),
        ([["B-PER", "L-PER", "U-LOC"]], "BILOU"),
        ([["NOUN", "VERB"]], "plain"),
        ([["-LRB-", "NN", "IN"]], "plain"),
        ([["B-PER", "X"]], "plain"),
        ([["E-PER", "L-PER"]], "plain"),
        ([["O", "O"]], "plain"),
        ([], "plain"),
    ],
)
def test_the_scheme_is_found(rows: list[list[str]], scheme: str) -> None:
    assert find_scheme(rows) == scheme


@pytest.mark.parametrize(
    ("scheme", "tags", "mended"),
    [
        ("BIO", "O I-PER I-PER", "O B-PER I-PER"),
        ("BIO", "B-PER I-LOC I-LOC", "B-PER B-LOC I-LOC"),
        ("BIO", "I I O B I", "B I O B I"),
        ("IOB1", "B-PER I-PER B-PER", "I-PER I-PER B-PER"),
        ("IOB1", "I-PER B-LOC", "I-PER I-LOC"),
        ("BIOES", "I-PER", "S-PER"),
        ("BIOES", "B-PER O E-LOC", "S-PER O S-LOC"),
        ("BIOES", "B-PER I-PER B-PER", "B-PER E-PER S-PER"),
        ("BIOES", "S-PER E-PER", "S-PER S-PER"),
        ("BILOU", "B-PER I-PER O L-LOC", "B-PER L-PER O U-LOC"),
        ("plain", "I-PER X", "I-PER X"),
    ],
)
def test_marks_are_mended_by_hand(scheme: str, tags: str, mended: str) -> None:
    before, after = tags.split(), mended.split()
    changed = [place for place in range(len(before)) if before[place] != after[place]]
    assert repair(before, scheme) == (after, len(changed))
    assert [place for place, _ in faults(before, scheme)] == changed


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mended_rows_have_no_faults_and_the_same_spans(scheme: str) -> None:
    for row in drawn(scheme, 4, rows=300):
        mended, changed = repair(row, scheme)
        assert faults(mended, scheme) == []
        assert repair(mended, scheme) == (mended, 0)
        assert changed == len(faults(row, scheme))
        if scheme == "BILOU":  # seqeval's lenient reading knows no L and U
            continue
        assert get_entities(mended) == get_entities(row)
        if scheme in STRICT:
            assert judge_tags([mended], [mended], scheme).get("f1", 1) == 1


def test_a_fault_says_what_stands_where() -> None:
    assert faults(["O", "I-PER"], "BIO") == [(1, "'I-PER' after 'O' and at the end, where BIO writes 'B-PER'")]
    assert faults(["B-PER", "O"], "BIOES")[0][1] == "'B-PER' at the start and before 'O', where BIOES writes 'S-PER'"


@pytest.mark.parametrize("scheme", [*SCHEMES, "plain", "auto"])
def test_rows_that_do_not_fit_are_refused(scheme: str) -> None:
    for judge in (judge_tags, details_of_tags):
        with pytest.raises(ValueError, match="row 1 has 1 tags, but 2 predicted"):
            judge([["O"], ["O", "O"]], [["O"], ["O"]], scheme)
        with pytest.raises(ValueError, match="1 rows of predicted tags for 2"):
            judge([["O"]], [["O"], ["O"]], scheme)
        with pytest.raises(ValueError, match="rows of"):
            judge([[]], [[]], scheme)


def test_tags_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="'S-PER' is no tag of BIO"):
        judge_tags([["S-PER"]], [["B-PER"]], "BIO")
    with pytest.raises(ValueError, match="'X' is no tag of BIOES"):
        repair(["X"], "BIOES")
    with pytest.raises(ValueError, match="there is no scheme 'BMES'"):
        faults(["O"], "BMES")
