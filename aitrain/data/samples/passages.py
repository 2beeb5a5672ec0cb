"""Made-up passages about people, with questions whose answer is a stretch of the passage, known by rule."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

ROWS = 4_000
SEED = 6
PEOPLE = ("user", "client", "host", "parent", "child", "manager", "member", "group")
COLOURS = ("red", "blue", "green", "black", "white", "yellow")
PLACES = ("Oslo", "Rome", "Paris", "Lima", "Cairo", "Delhi", "Tokyo", "Berlin", "Madrid", "Boston")
JOBS = ("baker", "teacher", "doctor", "pilot", "farmer", "painter", "tailor", "nurse")
ANIMALS = ("dog", "cat", "horse", "goat", "parrot", "rabbit", "hamster", "turtle")
FOODS = ("apples", "plums", "bread", "cheese", "rice", "soup", "honey", "nuts")
THINGS = ("boat", "bicycle", "car", "kite", "drum", "piano")
FACTS = {
    "live": ("The {name} lives in {answer}.", "Where does the {name} live?", PLACES),
    "work": ("The {name} works as a {answer}.", "What is the work of the {name}?", JOBS),
    "keep": ("The {name} keeps a {answer}.", "Which animal does the {name} keep?", ANIMALS),
    "eat": ("The {name} likes to eat {answer}.", "What does the {name} like to eat?", FOODS),
    "own": ("The {name} owns a {answer}.", "What does the {name} own?", THINGS),
}
"""A sentence that says it, a question that asks for it, and what it may be. A thing has a colour besides."""
FILLERS = ("The street is quiet in the morning.", "It rained for most of the week.", "The market opens at nine.",
           "Nobody saw the train leave.", "The bridge was painted again last year.")  # fmt: skip
MOST_PEOPLE, MOST_FACTS = 3, 4
"""Of a passage. Each kind of fact is told of one person alone: from nothing, a tiny model does not learn within minutes
whose fact is asked for."""
LONG = 0.02
"""Share of passages that do not fit into one window of the task's default."""
LONG_SENTENCES = 55
OPEN = 0.25
"""Share of the questions of `open_rows` that the passage does not answer."""


def passage_rows() -> Iterator[dict[str, Any]]:
    """`id`, `context`, `question`, and `answers` with `text` and `answer_start`, one each."""
    return _rows(0.0)


def open_rows() -> Iterator[dict[str, Any]]:
    """The same, with questions among them that have no answer: for a kind of fact that the passage lacks."""
    return _rows(OPEN)


def _rows(unanswered: float) -> Iterator[dict[str, Any]]:
    rng = random.Random(SEED)
    seen: set[tuple[str, str]] = set()
    while len(seen) < ROWS:
        told = _facts(rng)
        sentences = [FACTS[fact][0].format(name=name, answer=answer) for (name, fact), answer in told.items()]
        if rng.random() < LONG:
            sentences += [rng.choice(FILLERS) for _ in range(LONG_SENTENCES)]
        rng.shuffle(sentences)
        context = " ".join(sentences)
        asked = rng.choice(_untold(told)) if rng.random() < unanswered else rng.choice(list(told))
        question = FACTS[asked[1]][1].format(name=asked[0])
        if (context, question) not in seen:
            seen.add((context, question))
            answers = _placed(context, asked, told.get(asked))
            yield {"id": f"p{len(seen):04}", "context": context, "question": question, "answers": answers}


def _facts(rng: random.Random) -> dict[tuple[str, str], str]:
    """What a passage tells: of a person and a kind of fact the answer."""
    people = rng.sample(PEOPLE, rng.randint(1, MOST_PEOPLE))
    told = {}
    for fact in rng.sample(list(FACTS), rng.randint(1, MOST_FACTS)):
        colour = f"{rng.choice(COLOURS)} " if fact == "own" else ""
        told[rng.choice(people), fact] = colour + rng.choice(FACTS[fact][2])
    return told


def _untold(told: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """What a passage does not tell of its people: the kinds of facts that it lacks."""
    kinds = {fact for _, fact in told}
    return [(name, fact) for name in dict.fromkeys(name for name, _ in told) for fact in FACTS if fact not in kinds]


def _placed(context: str, asked: tuple[str, str], answer: str | None) -> dict[str, Any]:
    """The answer and where it begins: in the sentence that tells it, since others may hold the same words."""
    if answer is None:
        return {"text": [], "answer_start": []}
    before, _, _ = FACTS[asked[1]][0].format(name=asked[0], answer="\0").partition("\0")
    return {"text": [answer], "answer_start": [context.index(f"{before}{answer}") + len(before)]}
