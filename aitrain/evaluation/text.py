"""How near written texts come to reference texts: summaries, translations and the like.

ROUGE: Lin 2004, https://aclanthology.org/W04-1013/, by rouge_score, which follows the Perl script ROUGE-1.5.5.
BLEU: Papineni et al. 2002, https://aclanthology.org/P02-1040/, and chrF: Popović 2015,
https://aclanthology.org/W15-3049/, both by sacrebleu (Post 2018, https://arxiv.org/abs/1804.08771).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_ROUGE_WORD = re.compile(r"[a-z0-9]")
"""rouge_score drops all other characters, as the Perl script did."""


def judge_texts(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Measures of texts (n,), each against one or more references, whose number may differ from row to row.

    `rouge1`, `rouge2`, `rougeL` and `rougeLsum` (0 to 100) are F-measures of stemmed words, each the mean over rows of
    the best over the row's references; for `rougeLsum` every line is a sentence. They know only a-z and 0-9, and are
    left out when no reference holds any: for Chinese or Arabic look at `chrf`. `bleu` (13a words, so that of a script
    without spaces means little) and `chrf` (characters) are of the corpus as a whole, 0 to 100, as sacrebleu computes
    them by default. `exact_match` is the share (0 to 1) of rows that are a reference, letter by letter but for outer
    white space. An empty prediction is legal and scores 0.

    Raises ValueError for no rows, for as many references as there are not texts, and for a row without reference.
    """
    _require_rows(predicted, references)
    exact = [
        said.strip() in {text.strip() for text in texts} for said, texts in zip(predicted, references, strict=True)
    ]
    return _rouge(predicted, references) | _of_corpus(predicted, references) | {"exact_match": sum(exact) / len(exact)}


SHOWN_BEST, SHOWN_WORST = 5, 15
"""Rows that the details hold."""
LONGEST_TEXT = 600
"""Characters of a text there."""


def details_of_texts(
    sources: Sequence[str], predicted: Sequence[str], references: Sequence[str], numbers: Sequence[int]
) -> dict[str, Any]:
    """The texts nearest to their reference, and of those that differ from it the furthest, by chrF of each row.

    All have length n; `numbers` are what rows are called. Among equals earlier rows come first; none is in both lists.
    """
    from sacrebleu.metrics import CHRF

    _require_rows(predicted, [[text] for text in references])
    scorer = CHRF()
    scores = [
        float(scorer.sentence_score(said, [text]).score) for said, text in zip(predicted, references, strict=True)
    ]
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    best = order[: min(SHOWN_BEST, len(order) // 2)]
    missed = [row for row in order[len(best) :] if predicted[row].strip() != references[row].strip()]
    worst = sorted(missed, key=lambda row: scores[row])[:SHOWN_WORST]

    def entry(row: int) -> dict[str, Any]:
        return {
            "row": int(numbers[row]),
            "source": sources[row][:LONGEST_TEXT],
            "wanted": references[row][:LONGEST_TEXT],
            "given": predicted[row][:LONGEST_TEXT],
            "chrf": scores[row],
            "exact": predicted[row].strip() == references[row].strip(),
        }

    found = {"kind": "texts", "rows": len(scores)}
    return {**found, "best": [entry(row) for row in best], "worst": [entry(row) for row in worst]}


def _rouge(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    if not any(_ROUGE_WORD.search(text.lower()) for texts in references for text in texts):
        return {}
    scorer = RougeScorer(ROUGE, use_stemmer=True)
    rows = [scorer.score_multi(texts, said) for said, texts in zip(predicted, references, strict=True)]
    return {name: 100 * float(sum(row[name].fmeasure for row in rows)) / len(rows) for name in ROUGE}


def _of_corpus(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    from sacrebleu.metrics import BLEU, CHRF

    # sacrebleu wants the first references of all rows, then the second ones, and passes over None
    streams = [list(stream) for stream in zip_longest(*references)]
    said = list(predicted)
    return {
        # `force` only silences its warning about texts whose punctuation stands apart
        "bleu": float(BLEU(force=True).corpus_score(said, streams).score),
        "chrf": float(CHRF().corpus_score(said, streams).score),
    }


def _require_rows(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not len(predicted) or len(predicted) != len(references):
        raise ValueError(f"{len(predicted)} texts for {len(references)} rows of references")
    for row, texts in enumerate(references):
        if isinstance(texts, str) or not texts:
            raise ValueError(f"references of row {row} are {texts!r}, where a list of at least one text is needed")
