"""Small tasks with one right answer, made by rule: a model of a million weights learns them from scratch in a minute.

Words are made up and in capitals, because the samples' tokenizer gives each of these capitals and each digit a token of
its own: a model sees the letters it is asked about. Most words are new, so a right answer to a held-out row was worked
out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

CONSONANTS = "BCDFGHJKLMNPQRSTVWXYZ"
VOWELS = "AEIOU"


@dataclass(frozen=True)
class Skill:
    """A kind of task. `make` draws one question and its answer."""

    name: str
    make: Callable[[random.Random], tuple[str, str]]


def word(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """A made-up word that can be spoken, mostly: consonants and vowels take turns, with slips."""
    vowel = rng.random() < 0.3
    letters = []
    for _ in range(rng.randint(shortest, longest)):
        letters.append(rng.choice(VOWELS if vowel else CONSONANTS))
        vowel = not vowel if rng.random() < 0.8 else vowel
    return "".join(letters)


def _backwards(rng: random.Random) -> tuple[str, str]:
    made = word(rng)
    return f"Spell {made} backwards.", made[::-1]


def _sort(rng: random.Random) -> tuple[str, str]:
    made = word(rng, 3, 4)
    return f"Sort the letters of {made}.", "".join(sorted(made))


def _first(rng: random.Random) -> tuple[str, str]:
    made = word(rng)
    return f"What is the first letter of {made}?", made[0]


def _last(rng: random.Random) -> tuple[str, str]:
    made = word(rng)
    return f"What is the last letter of {made}?", made[-1]


def _count(rng: random.Random) -> tuple[str, str]:
    made = word(rng, 2, 9)
    return f"How many letters has {made}?", str(len(made))


def _successor(rng: random.Random) -> tuple[str, str]:
    number = rng.randrange(10000)
    return f"Which number follows {number}?", str(number + 1)


def _larger(rng: random.Random) -> tuple[str, str]:
    left, right = rng.sample(range(10, 100), 2)
    return f"Which is larger, {left} or {right}?", str(max(left, right))


SKILLS = (
    Skill("backwards", _backwards),
    Skill("sort", _sort),
    Skill("first", _first),
    Skill("last", _last),
    Skill("count", _count),
    Skill("successor", _successor),
    Skill("larger", _larger),
)


def skill_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """`prompt` and `completion` without end, each prompt once, the skills in random order."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        prompt, completion = rng.choice(SKILLS).make(rng)
        if prompt not in seen:
            seen.add(prompt)
            yield {"prompt": prompt, "completion": completion}


def some_skill_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The first `count` of `skill_rows`."""
    return islice(skill_rows(seed), count)
