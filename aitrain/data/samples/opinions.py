"""Made-up opinions with what they come to: each text has one right score, which words, degrees and negations make.

Words have fixed values; `very` makes one stronger, `a little` weaker, `not` turns it round and weakens it. The score of
a text is the mean over its clauses, so that a model has to read all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

ROWS, SEED = 3_000, 5
THINGS = ("room", "breakfast", "garden", "service", "view", "bed", "music", "coffee", "staff", "price", "lift", "pool",
          "lamp", "window", "door", "soup", "bread", "tea", "chair", "porch")  # fmt: skip
VALUES = {
    "wonderful": 1.0, "superb": 1.0, "lovely": 0.8, "great": 0.8, "good": 0.6, "pleasant": 0.6, "nice": 0.5,
    "usual": 0.0, "average": 0.0, "plain": 0.0, "poor": -0.5, "weak": -0.5, "bad": -0.6, "dirty": -0.6,
    "nasty": -0.8, "dreadful": -0.8, "awful": -1.0, "horrible": -1.0,
}  # fmt: skip
DEGREES = {"": 1.0, "very ": 1.4, "a little ": 0.5, "really ": 1.2}
NEGATED = -0.5
FRAMES = ("the {thing} was {word}", "I found the {thing} {word}", "we had a {thing} that was {word}")
JOINED = (", and ", ", but ", "; ")
MOST_CLAUSES = 3
NEUTRAL, CLEAR = 0.1, 0.25
"""Scores up to the first, either way, are neutral; from the second on they are not. Rows between are not made."""


def opinion_rows() -> Iterator[dict[str, Any]]:
    """`text`, its `label` (negative, neutral or positive) and its `score` from -1.4 to 1.4."""
    rng = random.Random(SEED)
    seen: set[str] = set()
    while len(seen) < ROWS:
        clauses = [_clause(rng) for _ in range(rng.randint(1, MOST_CLAUSES))]
        score = round(sum(value for _, value in clauses) / len(clauses), 3)
        text = clauses[0][0] + "".join(rng.choice(JOINED) + clause for clause, _ in clauses[1:])
        text = f"{text[0].upper()}{text[1:]}."
        if text not in seen and not NEUTRAL < abs(score) < CLEAR:
            seen.add(text)
            label = "neutral" if abs(score) <= NEUTRAL else "positive" if score > 0 else "negative"
            yield {"text": text, "label": label, "score": score}


def _clause(rng: random.Random) -> tuple[str, float]:
    """One clause, and what it says."""
    word, degree = rng.choice(list(VALUES)), rng.choice(list(DEGREES))
    value = VALUES[word] * DEGREES[degree]
    said = f"{degree}{word}"
    if rng.random() < 0.25:
        value, said = value * NEGATED, f"not {said}"
    return rng.choice(FRAMES).format(thing=rng.choice(THINGS), word=said), value
