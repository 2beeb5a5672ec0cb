"""What answers cut out of a text are worth, row by row and by kind of question, for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aitrain.evaluation.answers import is_exact, judge_answers, judge_optional_answers, normalise, overlap_f1

LISTED = 20
"""Wrong answers that are listed, the worst first."""
AROUND = 90
"""Characters of the context on either side of the answer."""
ASKING = ("what", "who", "whom", "whose", "where", "when", "which", "why", "how many", "how much", "how")
LENGTHS = ((0, "none"), (1, "1 word"), (2, "2 words"), (5, "3 to 5 words"), (10, "6 to 10 words"))
"""Words of an answer up to the number, and what such answers are called."""
LONGER = "more than 10 words"
COUNTS = ("total", "HasAns_total", "NoAns_total")


def judge_given(
    best: Sequence[str],
    answers: Sequence[Sequence[str]],
    null_differences: Sequence[float] | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """Measures of SQuAD 1.1, or with `null_differences` (how much more no answer scores than the best span) those of
    2.0, where it is given from above `threshold`."""
    if null_differences is None:
        return judge_answers(best, answers)
    found = judge_optional_answers(best, answers, null_differences, threshold)
    return {name: value for name, value in found.items() if name not in COUNTS}


def score_row(given: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of one row, 0 to 1; where it has no answer, whether none is given."""
    if not any(normalise(answer) for answer in answers):
        right = float(not normalise(given))
        return right, right
    exact = max(float(is_exact(given, answer)) for answer in answers)
    return exact, max(exact, *(overlap_f1(given, answer) for answer in answers))


def details_of_answers(
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[Sequence[str]],
    given: Sequence[str],
    scores: Sequence[float],
) -> dict[str, Any]:
    """For `report.json`: the worst rows, and the measures by how a question asks and by the length of its answer.

    `scores` are the probabilities of the spans; of rows that are equally wrong the surest come first.
    """
    found = [score_row(said, golds) for said, golds in zip(given, answers, strict=True)]
    wrong = [row for row, (exact, _) in enumerate(found) if not exact]
    wrong.sort(key=lambda row: (found[row][1], -scores[row], row))
    return {
        "kind": "qa",
        "split": "validation",
        "rows": len(found),
        "right": len(found) - len(wrong),
        "wrong": [
            {
                "row": row,
                "question": questions[row],
                "context": snippet(contexts[row], answers[row], given[row]),
                "truth": list(answers[row]),
                "prediction": given[row],
                "f1": round(found[row][1], 4),
                "probability": round(float(scores[row]), 6),
            }
            for row in wrong[:LISTED]
        ],
        "by_question": _by(questions, found, asked_with),
        "by_length": _by([golds[0] if golds else "" for golds in answers], found, length_of),
    }


def snippet(context: str, answers: Sequence[str], given: str) -> str:
    """The part of a context where the answer stands, or where there is none, what was given."""
    around = next((text for text in (*answers[:1], given) if text and text in context), "")
    place = context.find(around)
    low, high = max(0, place - AROUND), min(len(context), place + len(around) + AROUND)
    return ("…" if low else "") + context[low:high] + ("…" if high < len(context) else "")


def asked_with(question: str) -> str:
    """The word with which a question asks."""
    said = f" {normalise(question)} "
    places = {word: said.find(f" {word} ") for word in ASKING}
    there = [word for word in ASKING if places[word] >= 0]
    return min(there, key=lambda word: places[word]) if there else "other"


def length_of(answer: str) -> str:
    """How long an answer is, in words."""
    words = len(answer.split())
    return next((name for most, name in LENGTHS if words <= most), LONGER)


def _by(
    texts: Sequence[str], scores: Sequence[tuple[float, float]], kind_of: Callable[[str], str]
) -> list[Mapping[str, Any]]:
    """Measures (0 to 100) of the rows of each kind, the most frequent first."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for text, score in zip(texts, scores, strict=True):
        kinds.setdefault(kind_of(text), []).append(score)
    ordered = sorted(kinds.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [
        {"name": name, "rows": len(found), "exact_match": 100 * _mean(found, 0), "f1": 100 * _mean(found, 1)}
        for name, found in ordered
    ]


def _mean(scores: Sequence[tuple[float, float]], which: int) -> float:
    return float(np.mean([score[which] for score in scores]))
