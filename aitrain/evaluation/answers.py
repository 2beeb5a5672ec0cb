"""Answers cut out of a text, scored as the official scripts of SQuAD 1.1 and 2.0 score them, on a scale of 0 to 100.

Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250, section 6.1 (exact match and F1, each the best over the gold
answers); 2018, https://arxiv.org/abs/1806.03822 (questions without an answer, and the threshold for giving none).
Scripts: https://rajpurkar.github.io/SQuAD-explorer/. The keys of 2.0 are theirs, but for `exact_match`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, none of the words a, an and the, and one space between words.

    Punctuation goes first and leaves no space: "U.S.A." becomes "usa" and "a-b" becomes "ab".
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def is_exact(prediction: str, answer: str) -> bool:
    """Whether both are the same once normalised."""
    return normalise(prediction) == normalise(answer)


def overlap_f1(prediction: str, answer: str) -> float:
    """F1 in [0, 1] of the words of the prediction against those of the answer, each word as often as it comes.

    0 when they share none, so too when both are empty, as in the script of 1.1.
    """
    said, gold = normalise(prediction).split(), normalise(answer).split()
    shared = sum((Counter(said) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def judge_answers(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """`exact_match` and `f1` (0 to 100) of SQuAD 1.1: the mean over rows of the best over a row's gold `answers`.

    Raises ValueError for no rows, for as many answers as there are not predictions, and for a row without an answer.
    """
    _require_rows(predicted, answers)
    for row, golds in enumerate(answers):
        if not golds:
            raise ValueError(f"row {row} has no answer; questions without one are for judge_optional_answers")
    rows = list(zip(predicted, answers, strict=True))
    return {
        "exact_match": 100 * float(np.mean([max(is_exact(said, gold) for gold in golds) for said, golds in rows])),
        "f1": 100 * float(np.mean([max(overlap_f1(said, gold) for gold in golds) for said, golds in rows])),
    }


def judge_optional_answers(
    predicted: Sequence[str],
    answers: Sequence[Sequence[str]],
    no_answer: Sequence[float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """The figures of SQuAD 2.0, 0 to 100, where a row without `answers` has none and "" is the prediction of none.

    `exact_match` and `f1` and the number of rows, `total`; the same three as `HasAns_exact`, `HasAns_f1`,
    `HasAns_total` over rows with an answer and as `NoAns_…` over those without, where there are any.

    `no_answer` (n,) is how sure the model is that there is no answer. Above `threshold` it counts as having said none.
    With it come `best_exact` and `best_f1`, the best that a threshold reaches on these very rows, and the thresholds,
    `best_exact_thresh` and `best_f1_thresh`. They do not depend on `threshold`. The script takes rows one by one from
    the least `no_answer`, those of the same value in their order, so that among equals its best can lie between two of
    them, where no threshold can; ours does the same.

    Raises ValueError for no rows, lengths that differ, and a `no_answer` that is not finite.
    """
    _require_rows(predicted, answers)
    has_answer = np.array([bool(golds) for golds in answers])
    scores = {name: _optional_scores(predicted, answers, score) for name, score in _SCORES.items()}
    if no_answer is None:
        return _by_kind(scores, has_answer)
    doubt = np.asarray(no_answer, dtype=np.float64)
    if doubt.shape != has_answer.shape or not np.isfinite(doubt).all():
        raise ValueError(f"no_answer needs {len(answers)} finite numbers")
    kept = {name: np.where(doubt > threshold, ~has_answer, values) for name, values in scores.items()}
    found = _by_kind(kept, has_answer)
    # a wrong answer where there is none loses the point of having given none
    losses = -np.array([bool(said) for said in predicted], dtype=np.float64)
    for name, values in scores.items():
        best, best_threshold = _best_threshold(np.where(has_answer, values, losses), int((~has_answer).sum()), doubt)
        found |= {f"best_{name}": 100 * best / len(answers), f"best_{name}_thresh": best_threshold}
    return found


def _optional_f1(prediction: str, answer: str) -> float:
    """As in the script of 2.0: where either is empty, 1 if both are."""
    if not normalise(prediction) or not normalise(answer):
        return float(is_exact(prediction, answer))
    return overlap_f1(prediction, answer)


_SCORES = {"exact": is_exact, "f1": _optional_f1}


def _optional_scores(predicted: Sequence[str], answers: Sequence[Sequence[str]], score: Any) -> NDArray[np.float64]:
    """The best score of each row over its answers, leaving aside those of which normalising leaves nothing."""
    told = [[gold for gold in golds if normalise(gold)] or [""] for golds in answers]
    return np.array(
        [max(float(score(said, gold)) for gold in golds) for said, golds in zip(predicted, told, strict=True)]
    )


def _by_kind(scores: dict[str, NDArray[np.float64]], has_answer: NDArray[np.bool_]) -> dict[str, float]:
    """Means over all rows, over those that have an answer and over those that have none."""
    found = {
        "exact_match": 100 * float(scores["exact"].mean()),
        "f1": 100 * float(scores["f1"].mean()),
        "total": float(len(has_answer)),
    }
    for kind, chosen in (("HasAns", has_answer), ("NoAns", ~has_answer)):
        if chosen.any():
            found |= {f"{kind}_{name}": 100 * float(values[chosen].mean()) for name, values in scores.items()}
            found[f"{kind}_total"] = float(chosen.sum())
    return found


def _best_threshold(gains: NDArray[np.float64], unanswerable: int, doubt: NDArray[np.float64]) -> tuple[float, float]:
    """The most points, and the `doubt` up to which to answer for them; 0 and no answer at all, if none gets more.

    Without an answer to any row there is a point for each unanswerable one; answering a row adds its gain.
    """
    order = np.argsort(doubt, kind="stable")
    points = unanswerable + np.cumsum(gains[order])
    best = int(points.argmax())
    if points[best] <= unanswerable:
        return float(unanswerable), 0.0
    return float(points[best]), float(doubt[order[best]])


def _require_rows(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
    if not len(predicted) or len(predicted) != len(answers):
        raise ValueError(f"{len(predicted)} predictions for {len(answers)} rows of answers")
    for row, golds in enumerate(answers):
        if isinstance(golds, str):
            raise ValueError(f"answers of row {row} are one string, where a list of strings is needed")
