"""The nearest of the names that data brings along: files, splits, columns. Config keys have `errors.nearest`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name` in any case, with or without its ending; None when none is alike."""
    names = list(known)
    by_key: dict[str, str] = {}
    for candidate in sorted(names):
        by_key.setdefault(candidate.lower(), candidate)
    for candidate in sorted(names):
        by_key.setdefault(candidate.lower().partition(".")[0], candidate)
    found = difflib.get_close_matches(name.lower(), by_key, n=1, cutoff=0.6)
    return by_key[found[0]] if found else None
