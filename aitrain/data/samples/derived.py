"""What follows from the standard library besides questions and text: classes, token types, preferences."""

from __future__ import annotations

import io
import keyword
import random
import token
import tokenize
from collections import Counter
from collections.abc import Iterator
from typing import Any

from aitrain.data.samples import pydoc, skills

CLASSES = 8
"""The modules and packages with the most docstrings are the classes; the others have too few rows to learn from."""
LINES = 4_000
SHORTEST_LINE, LONGEST_LINE = 4, 32
"""Tokens of a line of source."""
TAGS = {token.NUMBER: "NUMBER", token.STRING: "STRING", token.OP: "OPERATOR", tokenize.COMMENT: "COMMENT"}
APART = 7
"""How far away in the list of questions the answer stands that is rejected."""

SECOND_LETTERS = 4_000
SECOND_LETTERS_SEED = 3
SKILL_PAIRS = 4_000
SKILL_PAIRS_SEED = 2
"""Other questions than those of the samples to fine-tune on."""


def class_rows() -> Iterator[dict[str, Any]]:
    """`text` is the first paragraph of a docstring, `label` the module or package it belongs to."""
    rows: dict[str, str] = {}
    for item in pydoc.documented_library(pydoc.library_folder()):
        rows.setdefault(pydoc.first_paragraph(item.docstring), item.signature.split(".")[0].split("(")[0])
    most = {label for label, _ in Counter(rows.values()).most_common(CLASSES)}
    yield from ({"text": text, "label": label} for text, label in rows.items() if label in most and len(text) > 2)


def token_rows() -> Iterator[dict[str, Any]]:
    """`tokens` are those of a line of source, `tags` their types: KEYWORD, NAME, NUMBER, STRING, OPERATOR, COMMENT."""
    seen: set[tuple[str, ...]] = set()
    for path in pydoc.library_files(pydoc.library_folder()):
        for tokens, tags in _lines(path.read_bytes()):
            if SHORTEST_LINE <= len(tokens) <= LONGEST_LINE and tuple(tokens) not in seen:
                seen.add(tuple(tokens))
                yield {"tokens": tokens, "tags": tags}
                if len(seen) == LINES:
                    return


def _lines(source: bytes) -> Iterator[tuple[list[str], list[str]]]:
    tokens: list[str] = []
    tags: list[str] = []
    for kind, text, *_ in tokenize.tokenize(io.BytesIO(source).readline):
        if kind in (token.NEWLINE, tokenize.NL):
            yield tokens, tags
            tokens, tags = [], []
        elif kind in TAGS and "\n" not in text:
            tokens.append(text)
            tags.append(TAGS[kind])
        elif kind == token.NAME:
            tokens.append(text)
            tags.append("KEYWORD" if keyword.iskeyword(text) else "NAME")


def preference_rows() -> Iterator[dict[str, Any]]:
    """`prompt` asks about a function or class, `chosen` is its own docstring, `rejected` that of another one."""
    rows = list(pydoc.question_rows())
    for number, row in enumerate(rows):
        other = rows[(number + APART) % len(rows)]
        yield {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}


def skill_pairs() -> Iterator[dict[str, Any]]:
    """`prompt` is a small task, `chosen` its right answer, `rejected` that of another task of the same skill."""
    rng = random.Random(SKILL_PAIRS_SEED)
    seen: set[str] = set()
    while len(seen) < SKILL_PAIRS:
        skill = rng.choice(skills.SKILLS)
        (prompt, right), (_, wrong) = skill.make(rng), skill.make(rng)
        if prompt not in seen and right != wrong:
            seen.add(prompt)
            yield {"prompt": prompt, "chosen": right, "rejected": wrong}


def second_letters() -> Iterator[dict[str, Any]]:
    """`prompt` asks for a letter that no skill is about, `answer` says it: something left to learn from rewards."""
    rng = random.Random(SECOND_LETTERS_SEED)
    seen: set[str] = set()
    while len(seen) < SECOND_LETTERS:
        # Any letter anywhere: in words that can be spoken a vowel mostly comes second, which is half a solution.
        made = "".join(rng.choices(skills.CONSONANTS + skills.VOWELS, k=rng.randint(3, 5)))
        if made not in seen:
            seen.add(made)
            yield {"prompt": f"What is the second letter of {made}?", "answer": made[1]}
