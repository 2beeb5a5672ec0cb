"""`preview --html=FILE`: the first rows on one page that needs no network, in light and dark.

The page is built from `report_html.tag`, which escapes every text, so a row that holds `<script>` is shown, never run;
the page's own policy allows no script at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aitrain.commands.preview_rows import Piece, Refused, Section, Shown, ShownRow, are_prompts, in_all, marks
from aitrain.errors import DataError, Problem
from aitrain.report_html import Markup, escaped, tag
from aitrain.rundir.folder import write_text

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
DEEPEST = 2.0
"""Weights from here on are shown in the deepest colour."""

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --text: #1d2126; --quiet: #5f6b76; --line: #dfe3e6;
  --trained: 34 139 84; --odd: 196 120 0; --warn: #a03b00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1c2024; --text: #e4e8eb; --quiet: #97a3ad;
  --line: #333a40; --trained: 72 187 120; --odd: 236 168 54; --warn: #ffb07a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; }
dt, .quiet, summary { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0;
  padding: .8rem 1rem; }
article header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
.note { color: var(--warn); font-weight: 600; }
.bar { height: .35rem; border-radius: .2rem; background: var(--line); margin: .5rem 0; overflow: hidden; }
.bar i { display: block; height: 100%; background: rgb(var(--trained)); }
pre { font: .9rem/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; }
mark { color: inherit; border-radius: .15rem; background: rgb(var(--trained) / var(--deep, .28));
  box-shadow: inset 0 -2px rgb(var(--trained)); -webkit-box-decoration-break: clone; box-decoration-break: clone; }
mark.odd { background: rgb(var(--odd) / var(--deep)); box-shadow: inset 0 -2px rgb(var(--odd)); }
sub { font-size: .7rem; color: var(--quiet); user-select: none; }
.end { color: var(--quiet); user-select: none; }
.legend { font: .9rem/1.6 ui-monospace, monospace; }
details { margin-top: .5rem; }
"""


def write_page(path: Path, title: str, sections: Sequence[Section], *, ids: bool) -> bool:
    """Write the page, with the token ids below each row if `ids`; whether it replaced a file.

    Raises DataError when it cannot be written.
    """
    replaced = path.exists()
    try:
        write_text(path, page(title, sections, ids=ids))
    except OSError as error:
        raise DataError(Problem("--html", f"{path} cannot be written: {error.strerror}")) from error
    return replaced


def page(title: str, sections: Sequence[Section], *, ids: bool = False) -> str:
    """The whole document."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=CONTENT_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    rows = [row for section in sections for row in section.rows]
    body = tag(
        "body",
        tag("h1", title),
        tag("p", f"in all {in_all(rows)}", class_="quiet"),
        _legend(rows),
        *(_section(section, ids) for section in sections),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _legend(rows: Sequence[Shown]) -> Markup | None:
    if are_prompts(rows):
        return None
    weights = {piece.weight for row in rows if isinstance(row, ShownRow) for piece in row.pieces} - {0, 1}
    odd = [part for weight in sorted(weights) for part in (_piece(Piece("counts otherwise", weight)), " ")]
    return tag("p", _piece(Piece(marks(rows), 1)), " ", *odd, "other tokens", class_="legend")


def _section(section: Section, ids: bool) -> Markup:
    facts = [part for name, value in section.facts for part in (tag("dt", name), tag("dd", value))]
    return tag("section", tag("dl", *facts), *(_row(row, ids) for row in section.rows))


def _row(row: Shown, ids: bool) -> Markup:
    if isinstance(row, Refused):
        return tag("article", tag("header", tag("h2", row.name), tag("span", row.reason, class_="note")))
    note = tag("span", row.note, class_="note") if row.note else None
    share = 100 * row.trained / max(1, len(row.ids))
    return tag(
        "article",
        tag("header", tag("h2", row.name), tag("span", row.counts, class_="quiet"), note),
        tag("div", tag("i", style=f"width: {share:.2f}%"), class_="bar") if row.columns is None else None,
        tag("pre", *(_piece(piece) for piece in row.pieces)),
        tag("p", f"for rewards: {row.for_rewards}", class_="quiet") if row.for_rewards else None,
        _ids(row) if ids else None,
    )


def _piece(piece: Piece) -> Markup:
    if piece.weight == 0:
        return _ends(piece.text)
    if piece.weight == 1:
        return tag("mark", _ends(piece.text))
    deep = f"--deep: {0.1 + 0.4 * min(piece.weight, DEEPEST) / DEEPEST:.2f}"
    text = tag("mark", _ends(piece.text), class_="odd", style=deep, title=f"counts {piece.weight:g}")
    return Markup(text + tag("sub", f"×{piece.weight:g}"))


def _ends(text: str) -> Markup:
    """The text with its line ends to be seen: whether one is trained shows in its colour."""
    end = tag("span", "↵", class_="end", aria_hidden="true")
    return Markup(f"{end}\n".join(escaped(line) for line in text.split("\n")))


def _ids(row: ShownRow) -> Markup:
    return tag("details", tag("summary", "token ids"), tag("pre", " ".join(str(token) for token in row.ids)))
