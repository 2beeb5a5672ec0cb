"""`preview`: the first rows as the trainer will see them, with the tokens that carry loss marked. No torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.commands.preview_html import write_page
from aitrain.commands.preview_rows import Piece, Refused, Section, Shown, ShownRow, has_marks, in_all, marks, shown
from aitrain.commands.words import read_words
from aitrain.data.extension import encode_rows
from aitrain.data.prepare import knowing_targets, longest_row
from aitrain.data.target_encoding import TextTargetEncoder
from aitrain.data.tokens import EncodedGroup
from aitrain.errors import ConfigError, DataError, Problem
from aitrain.registry import trainer_of
from aitrain.start import check, run_tokenizer, with_rows

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder
    from aitrain.data.mixture import FoundSource

ROWS = 3
TRAINED, PART, PLAIN, END = "\x1b[30;42m", "\x1b[30;43m", "\x1b[2m", "\x1b[0m"


@dataclass(frozen=True)
class _Flags:
    rows: int = ROWS
    ids: bool = False
    page: Path | None = None


def preview(words: list[str]) -> int:
    """Print the first rows rendered. `--rows=N` chooses how many of each source, `--ids` prints token ids too, and
    `--html=FILE` writes them on a page instead.

    Raises DataError when no row can be used, or the page cannot be written.
    """
    flags, rest = _flags(words)
    read = read_words(rest)
    read.refuse_flags("preview")
    checked = check(read.request, judge_rows=False)  # rows that cannot be used are shown with the reason
    run = checked.run
    make = trainer_of(run).encoder
    if make is None:
        what = "shows rows as token ids, which this task makes none of"
        raise ConfigError(Problem("preview", what, "'aitrain check' shows the columns and the first row"))
    tokenizer = run_tokenizer(run)
    data = with_rows(checked, tokenizer).found.data
    assert data is not None
    encoder = make(run)
    sections = [_section(run, source, encoder, tokenizer, flags.rows) for source in data.sources]
    rows = [row for section in sections for row in section.rows]
    if flags.page is None:
        _print_sections(sections, flags.ids)
    else:
        replaced = write_page(flags.page, f"{run.run.name}: rows as the trainer sees them", sections, ids=flags.ids)
        print(f"page       {flags.page}{' (replaced)' if replaced else ''}")
    print(f"in all     {in_all(rows)}")
    _refuse_unusable(rows)
    return 0


def _section(run: Run, source: FoundSource, encoder: Encoder, tokenizer: Any, count: int) -> Section:
    choice, extension = source.choice, source.chosen.conversation_extension
    assert choice is not None
    if isinstance(encoder, TextTargetEncoder):
        encoder = knowing_targets(run, (source,), encoder)
    rows = source.train.head(count * extension, run.data.on_bad_rows)
    results = encode_rows(encoder, tokenizer, choice, iter(rows), extension)
    if extension > 1:
        results = islice(results, count)
    facts = [
        ("data", source.chosen.path),
        ("columns", f"{source.columns}  ({choice.reason})"),
        ("rendering", encoder.describe(tokenizer, choice)),
    ]
    is_scored = trainer_of(run).scores
    if is_scored:
        facts.append(("loss", getattr(encoder, "loss", "of a score of each row, read at its last token")))
    limit = "=".join(map(str, longest_row(run)))
    parts = getattr(encoder, "parts", None)
    found: list[Shown] = []
    for place, outcome, _ in results:
        if isinstance(encoder, TextTargetEncoder) and isinstance(outcome, EncodedGroup):
            parts = (encoder.said(outcome),)
        found += shown(place, outcome, tokenizer, limit, is_scored=is_scored, parts=parts)
    return Section(tuple(facts), tuple(found))


def _refuse_unusable(rows: Sequence[Shown]) -> None:
    bad = [row for row in rows if isinstance(row, Refused) and row.is_unusable]
    if bad and len(bad) == len(rows):
        raise DataError(Problem("data.path", f"none of the first {len(rows)} rows can be used", where=bad[0].name))


# --- flags ---------------------------------------------------------------------------------------------------------


def _flags(words: list[str]) -> tuple[_Flags, list[str]]:
    rows, ids, page, rest = ROWS, False, None, []
    for word in words:
        name, _, value = word.partition("=")
        if name == "--rows" and word != name:
            if not value.isdecimal() or int(value) < 1:
                raise DataError(Problem("--rows", f"{value!r} is no number of rows", "write --rows=3"))
            rows = int(value)
        elif word == "--ids":
            ids = True
        elif name == "--html":
            page = _page(value)
        else:
            rest.append(word)
    return _Flags(rows, ids, page), rest


def _page(value: str) -> Path:
    """Where the page goes. A page that is there already is replaced; nothing else ever is."""
    page = Path(value)
    problem = ""
    if page.suffix.lower() not in (".html", ".htm"):
        problem = f"{value!r} does not end in .html"
    elif not page.parent.is_dir():
        problem = f"there is no folder {page.parent}"
    elif page.is_dir():
        problem = f"{value} is a folder"
    elif not os.access(page if page.exists() else page.parent, os.W_OK):
        problem = f"{value} cannot be written"
    if problem:
        raise DataError(Problem("--html", problem, "write --html=preview.html"))
    return page


# --- terminal ------------------------------------------------------------------------------------------------------


def _print_sections(sections: Sequence[Section], ids: bool) -> None:
    weights = {piece.weight for section in sections for piece in _pieces(section)}
    marked = marks([row for section in sections for row in section.rows])
    for number, section in enumerate(sections):
        if number:
            print()
        for name, value in section.facts:
            if name != "data" or len(sections) > 1:
                print(f"{name:<11}{value}")
        if not number and has_marks([row for section in sections for row in section.rows]):
            odd = [mark("tokens that count otherwise", weight) for weight in sorted(weights - {0, 1})[:1]]
            print("legend     " + " ".join([mark(marked, 1), *odd, mark("other tokens", 0)]))
        for row in section.rows:
            print()
            _print_row(row, ids)
    print()


def _pieces(section: Section) -> Iterator[Piece]:
    return (piece for row in section.rows if isinstance(row, ShownRow) for piece in row.pieces)


def _print_row(row: Shown, ids: bool) -> None:
    if isinstance(row, Refused):
        print(f"{row.name}: {row.reason}")
        return
    print(f"{row.name}: {row.counts}{f'  <- {row.note}' if row.note else ''}")
    print("".join(mark(piece.text, piece.weight) for piece in row.pieces))
    if row.for_rewards:
        print(f"for rewards: {row.for_rewards}")
    if ids:
        counts = zip(row.ids, row.weights, strict=True)
        print("ids      " + " ".join(f"{token}{_star(weight)}" for token, weight in counts))


def _star(weight: float) -> str:
    return "" if weight == 0 else "*" if weight == 1 else f"*{weight:g}"


def mark(text: str, weight: float) -> str:
    """Colour on a terminal; brackets around trained text in a pipe, or where NO_COLOR asks for it.

    A weight that is neither 0 nor 1 stands behind the text.
    """
    times = "" if weight in (0, 1) else f"×{weight:g}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        colour = PLAIN if weight == 0 else TRAINED if weight == 1 else PART
        lines = "\n".join(f"{colour}{line}{END}" for line in text.split("\n"))
        return lines + (f"{PLAIN}{times}{END}" if times else "")
    return f"[[{text}]]{times}" if weight else text
