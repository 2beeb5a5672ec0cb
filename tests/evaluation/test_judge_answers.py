"""SQuAD's figures: normalisation case by case, the arithmetic by hand, the best threshold by trying all."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from aitrain.evaluation import judge_answers, judge_optional_answers
from aitrain.evaluation.answers import is_exact, normalise, overlap_f1

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Cat", "cat"),
        ("  a\tcat \n sat ", "cat sat"),
        ("an apple, a day", "apple day"),
        ("U.S.A.", "usa"),
        ("well-known", "wellknown"),
        ("the-cat", "thecat"),  # punctuation goes before articles
        ("A.", ""),
        ("theatre and anthem", "theatre and anthem"),
        ("$5,000 (about)", "5000 about"),
        ("l’été", "l’été"),  # only ASCII punctuation goes
        ("Äpfel THE", "äpfel"),
        ("", ""),
    ],
)
def test_normalisation(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


def test_overlap_by_hand() -> None:
    # "cat sat" against "cat sat down": 2 of 2 words are right, 2 of 3 found
    assert overlap_f1("the cat sat", "cat sat down") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    # words count as often as they come: one "no" of three is shared
    assert overlap_f1("no no no", "no") == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert overlap_f1("dog", "cat") == 0
    assert overlap_f1("the", "a") == 0
    assert is_exact("the", "a")


def test_the_best_gold_answer_counts() -> None:
    found = judge_answers(["The Norman", "in 1066 AD"], [["Norman", "the French"], ["1066", "year 1066 AD now"]])
    # second row: "1066" 2 * 1/3 * 1 / (4/3) = 1/2; "year 1066 ad now" 2 of 3 and 2 of 4: 4/7
    assert found == pytest.approx({"exact_match": 100 * 1 / 2, "f1": 100 * (1 + 4 / 7) / 2})


def test_without_doubts_there_are_figures_by_kind() -> None:
    found = judge_optional_answers(["cat", "a dog", "", "noise"], [["cat"], ["dog house"], [], []])
    assert found == pytest.approx(
        {
            "exact_match": 100 * 2 / 4,
            "f1": 100 * (1 + 2 / 3 + 1 + 0) / 4,
            "total": 4,
            "HasAns_exact": 50,
            "HasAns_f1": 100 * (1 + 2 / 3) / 2,
            "HasAns_total": 2,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            "NoAns_total": 2,
        }
    )


def test_empty_answers_as_in_version_two() -> None:
    # "the" is nothing once normalised: as a gold answer it is left aside, as a prediction it says nothing
    assert judge_optional_answers(["cat"], [["the", "cat"]])["f1"] == 100
    assert judge_optional_answers(["the"], [["the", "cat"]])["f1"] == 0
    alone = judge_optional_answers(["the"], [["a"]])
    assert (alone["f1"], alone["exact_match"], alone["HasAns_total"]) == (100, 100, 1)
    assert "NoAns_total" not in alone
    assert judge_answers(["the"], [["a"]]) == {"exact_match": 100, "f1": 0}


def test_above_the_threshold_none_is_said() -> None:
    predicted, answers, doubt = ["cat", "dog", "noise"], [["cat"], ["dog"], []], [0.2, 0.7, 0.7]
    assert judge_optional_answers(predicted, answers, doubt)["exact_match"] == pytest.approx(100 * 2 / 3)
    low = judge_optional_answers(predicted, answers, doubt, threshold=0.5)
    assert (low["HasAns_exact"], low["NoAns_exact"]) == (50, 100)
    at = judge_optional_answers(predicted, answers, doubt, threshold=0.7)
    assert (at["HasAns_exact"], at["NoAns_exact"]) == (100, 0)  # 0.7 is not above 0.7


def test_the_best_does_not_depend_on_the_threshold() -> None:
    rows = ["cat", "dog", "noise"], [["cat"], ["dog"], []], [0.2, 0.7, 0.8]
    low, high = judge_optional_answers(*rows, threshold=0.1), judge_optional_answers(*rows)
    assert (low["exact_match"], high["exact_match"]) == pytest.approx((100 / 3, 200 / 3))
    for found in (low, high):
        assert (found["best_exact"], found["best_exact_thresh"]) == (100, 0.7)


def rows_at_random(seed: int) -> tuple[list[str], list[list[str]], list[float]]:
    draw = random.Random(seed)
    words = ["red", "fox", "blue", "sky"]
    answers = [[" ".join(draw.choices(words, k=2))] if draw.random() < 0.5 else [] for _ in range(12)]
    predicted = [
        draw.choice([*golds, " ".join(draw.choices(words, k=2)), words[0], ""]) for golds in answers
    ]  # fmt: skip
    return predicted, answers, [draw.random() for _ in answers]


@pytest.mark.parametrize("seed", range(25))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    predicted, answers, doubt = rows_at_random(seed)
    found = judge_optional_answers(predicted, answers, doubt)
    # -1 is above nothing: no row is answered
    tried = {t: judge_optional_answers(predicted, answers, doubt, threshold=t) for t in [-1.0, *doubt]}
    for name, key in (("exact", "exact_match"), ("f1", "f1")):
        best = max(figures[key] for figures in tried.values())
        assert found[f"best_{name}"] == pytest.approx(best)
        threshold = found[f"best_{name}_thresh"]
        assert tried.get(threshold, tried[-1.0])[key] == pytest.approx(best)
        reaching = [t for t in doubt if tried[t][key] == pytest.approx(best)]
        if tried[-1.0][key] == pytest.approx(best):
            assert threshold == 0.0
        else:
            assert threshold == min(reaching)


def test_equal_doubts_are_taken_in_their_order_as_by_the_script() -> None:
    # no answer at all: 1 point. The cat brings 2 and the noise loses 1 again, though no threshold parts them
    found = judge_optional_answers(["cat", "noise"], [["cat"], []], [0.5, 0.5])
    assert (found["best_exact"], found["best_exact_thresh"]) == (100, 0.5)
    other = judge_optional_answers(["noise", "cat"], [[], ["cat"]], [0.5, 0.5])
    assert (other["best_exact"], other["best_exact_thresh"]) == (50, 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], []), "0 predictions"),
        ((["a"], [["a"], ["b"]]), "1 predictions for 2"),
        ((["cat"], ["cat"]), "one string"),
        ((["a"], [["a"]], [math.nan]), "1 finite"),
        ((["a"], [["a"]], [0.1, 0.2]), "1 finite"),
    ],
)
def test_nonsense_is_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        judge_optional_answers(*arguments)
    if len(arguments) == 2:
        with pytest.raises(ValueError, match=words):
            judge_answers(*arguments)


def test_a_row_without_answer_is_for_the_other_function() -> None:
    with pytest.raises(ValueError, match="row 1 has no answer"):
        judge_answers(["a", "b"], [["a"], []])
    found = judge_optional_answers(["a", "b"], [["a"], []], np.array([0.5, 0.9], dtype=np.float32))
    assert all(type(value) is float for value in found.values())
