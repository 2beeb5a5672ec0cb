"""`preview`: the first rows as the trainer will see them, with the tokens that carry loss marked. No torch."""

from __future__ import annotations

import os
import sys
from typing import Any

from aitrain.commands.words import read_words
from aitrain.data.encoding import Encoded, TooLong, Unusable
from aitrain.errors import DataError, Problem
from aitrain.registry import TRAINERS
from aitrain.start import check, run_tokenizer

ROWS = 3
TRAINED, PLAIN, END = "\x1b[30;42m", "\x1b[2m", "\x1b[0m"


def preview(words: list[str]) -> int:
    """Print the first rows rendered. `--rows=N` chooses how many, `--ids` prints token ids too.

    Raises DataError when a row cannot be used.
    """
    count, ids, rest = _flags(words)
    read = read_words(rest)
    read.refuse_flags("preview")
    checked = check(read.request)
    run, data = checked.run, checked.found.data
    assert data is not None
    assert data.choice is not None
    tokenizer = run_tokenizer(run)
    encoder = TRAINERS[run.trainer.name].encoder(run)
    rows = data.train.head(count, run.data.on_bad_rows)
    outcomes = list(encoder.encode(tokenizer, data.choice, [row.values for row in rows]))
    print(f"columns    {', '.join(f'{r}={n}' for r, n in data.choice.columns.items())}  ({data.choice.reason})")
    print(f"rendering  {encoder.describe(tokenizer, data.choice)}")
    print(f"legend     {mark('trained tokens', 1)} {mark('other tokens', 0)}")
    for row, outcome in zip(rows, outcomes, strict=True):
        print()
        if isinstance(outcome, Encoded):
            _print_row(str(row.place), outcome, tokenizer, ids)
        elif isinstance(outcome, TooLong):
            print(f"{row.place}: {outcome.tokens} tokens, more than data.max_length={run.data.max_length}")
        else:
            print(f"{row.place}: cannot be used: {outcome.reason}")
    bad = [(row, o) for row, o in zip(rows, outcomes, strict=True) if isinstance(o, Unusable)]
    if bad and len(bad) == len(rows):
        raise DataError(
            Problem("data.path", f"none of the first {len(rows)} rows can be used", where=str(bad[0][0].place))
        )
    return 0


def _flags(words: list[str]) -> tuple[int, bool, list[str]]:
    count, ids, rest = ROWS, False, []
    for word in words:
        if word.startswith("--rows="):
            if not word[7:].isdigit() or int(word[7:]) < 1:
                raise DataError(Problem("--rows", f"{word[7:]!r} is no number of rows", "write --rows=3"))
            count = int(word[7:])
        elif word == "--ids":
            ids = True
        else:
            rest.append(word)
    return count, ids, rest


def _print_row(place: str, row: Encoded, tokenizer: Any, ids: bool) -> None:
    trained = sum(row.trained)
    share = trained / len(row.ids)
    note = "" if 0 < share < 1 else "  <- every token is trained" if share else "  <- nothing is trained"
    cut = ", cut" if row.truncated else ""
    print(f"{place}: {len(row.ids)} tokens{cut}, {trained} trained ({share:.0%}){note}")
    print(marked_text(row, tokenizer))
    if ids:
        print(
            "ids      " + " ".join(f"{token}{'*' if t else ''}" for token, t in zip(row.ids, row.trained, strict=True))
        )


def marked_text(row: Encoded, tokenizer: Any) -> str:
    """The row's text, runs of trained tokens marked."""
    pieces: list[str] = []
    start = 0
    for end in range(1, len(row.ids) + 1):
        if end == len(row.ids) or row.trained[end] != row.trained[start]:
            pieces.append(mark(tokenizer.decode(row.ids[start:end]), row.trained[start]))
            start = end
    return "".join(pieces)


def mark(text: str, trained: int) -> str:
    """Colour on a terminal; brackets around trained text in a pipe, or where NO_COLOR asks for it."""
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        colour = TRAINED if trained else PLAIN
        return "\n".join(f"{colour}{line}{END}" for line in text.split("\n"))
    return f"[[{text}]]" if trained else text
