"""Texts against rouge_score and sacrebleu called by hand, against counts made by hand, and empty texts."""

from __future__ import annotations

import math

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from aitrain.evaluation import details_of_texts, judge_texts

pytestmark = pytest.mark.filterwarnings("error")
SAID = ["They were purring.\nThe cats sat on a mat.", "It rained all the day in Paris.", ""]
GOLD = [
    ["The cat sat on the mat.\nIt was purring.", "Cats were sitting on a mat."],
    ["It rained the whole day in Paris."],
    ["Nothing was said."],
]


def test_rouge_by_hand() -> None:
    # said: the dog ran home; gold: a dog ran. 2 of 4 and 2 of 3 words; 1 of 3 and 1 of 2 pairs; longest "dog ran"
    found = judge_texts(["The dog ran home"], [["a dog ran"]])
    assert found["rouge1"] == pytest.approx(100 * 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert found["rouge2"] == pytest.approx(100 * 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert found["rougeL"] == found["rouge1"] == found["rougeLsum"]


def test_rouge_is_the_mean_of_the_best_reference() -> None:
    found = judge_texts(SAID, GOLD)
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([name], use_stemmer=True)
        best = [
            max(scorer.score(g, said)[name].fmeasure for g in golds) for said, golds in zip(SAID, GOLD, strict=True)
        ]
        assert found[name] == pytest.approx(100 * sum(best) / 3)
    assert found["rougeL"] < found["rougeLsum"]  # the first text has its sentences the other way round


def test_words_are_stemmed() -> None:
    assert judge_texts(["running dogs"], [["run dog"]])["rouge1"] == 100


def test_bleu_by_hand() -> None:
    said, gold = "the cat sat on the mat today", "the cat sat on the mat"
    # 6 of 7 words, 5 of 6 pairs, 4 of 5 triples, 3 of 4 quadruples; longer than the reference, so no penalty
    wanted = 100 * math.exp(sum(map(math.log, (6 / 7, 5 / 6, 4 / 5, 3 / 4))) / 4)
    assert judge_texts([said], [[gold]])["bleu"] == pytest.approx(wanted)


def test_the_corpus_is_judged_as_by_sacrebleu() -> None:
    found = judge_texts(SAID[:2], [GOLD[0], [*GOLD[1], "All day it rained in Paris."]])
    streams = [[GOLD[0][0], GOLD[1][0]], [GOLD[0][1], "All day it rained in Paris."]]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(SAID[:2], streams).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(SAID[:2], streams).score)
    assert 0 < found["bleu"] < 100


def test_rows_may_have_different_numbers_of_references() -> None:
    ragged = judge_texts(SAID, GOLD)
    # the same reference once more changes nothing: neither its n-grams nor the length nearest to the prediction
    filled = judge_texts(SAID, [GOLD[0], GOLD[1] * 2, GOLD[2] * 2])
    assert ragged == pytest.approx(filled)
    assert ragged["bleu"] > 0


def test_exact_match_is_letter_by_letter() -> None:
    found = judge_texts([" yes\n", "Yes", "no", "yes"], [["yes"], ["yes"], ["maybe", "no"], ["yes."]])
    assert found["exact_match"] == 2 / 4


def test_empty_texts_score_nothing() -> None:
    found = judge_texts(["", "  "], [["a word"], ["and more"]])
    assert set(found.values()) == {0}
    assert len(found) == 7
    empty = judge_texts([""], [[""]])
    assert empty["exact_match"] == 1
    assert all(math.isfinite(value) for value in empty.values())


def test_rouge_is_left_out_where_it_knows_no_word() -> None:
    found = judge_texts(["我喜欢猫"], [["我喜欢狗"]])
    assert set(found) == {"bleu", "chrf", "exact_match"}
    assert found["chrf"] > 0
    assert "rouge1" in judge_texts(["我喜欢猫", "cat"], [["我喜欢狗"], ["CAT"]])


@pytest.mark.parametrize(
    ("said", "gold", "words"),
    [
        ([], [], "0 texts"),
        (["a"], [["a"], ["b"]], "1 texts for 2"),
        (["a"], ["a"], "references of row 0 are 'a'"),
        (["a", "b"], [["a"], []], "references of row 1 are"),
    ],
)
def test_nonsense_is_refused(said: list[str], gold: list[list[str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        judge_texts(said, gold)


def test_the_best_and_the_worst_rows_are_named_by_their_numbers() -> None:
    said = ["a cat", "a dog", "", "the cat sat", "no"]
    told = ["a cat", "a cat", "a dog", "the cat sat down", "yes"]
    found = details_of_texts(["s"] * 5, said, told, [10, 11, 12, 13, 14])
    assert [entry["row"] for entry in found["best"]] == [10, 13]
    assert [entry["row"] for entry in found["worst"]] == [12, 14, 11]
    assert (found["best"][0]["exact"], found["best"][0]["chrf"]) == (True, pytest.approx(100.0))
    assert found["best"][1]["chrf"] == pytest.approx(
        sacrebleu.metrics.CHRF().sentence_score("the cat sat", ["the cat sat down"]).score
    )
    assert {key: found["worst"][0][key] for key in ("source", "wanted", "given", "chrf")} == {
        "source": "s", "wanted": "a dog", "given": "", "chrf": 0.0,
    }  # fmt: skip


def test_a_row_that_is_right_is_never_among_the_worst() -> None:
    found = details_of_texts(["s"] * 30, ["x"] * 30, ["x"] * 30, range(30))
    assert (len(found["best"]), found["worst"], found["rows"]) == (5, [], 30)
    assert len(details_of_texts(["s"], ["wrong"], ["right"], [0])["worst"]) == 1
