"""Made-up flats whose rent follows from what is said of them: a table with numbers, words, dates and gaps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

ROWS, SEED = 2_000, 6
DISTRICTS = {"harbour": 1.3, "old town": 1.6, "hill": 1.1, "north": 0.8, "station": 0.9}
MISSING = 0.03
"""Share of the areas that are not known."""
CHEAP, DEAR = 620, 1080
"""Rents up to the first are cheap, from the second on dear."""


def flat_rows() -> Iterator[dict[str, Any]]:
    """`district`, `area`, `rooms`, `built` (a date), `lift` (yes or no), and the bracket of the rent as `target`."""
    for row, rent in _flats():
        yield {**row, "target": "cheap" if rent <= CHEAP else "dear" if rent >= DEAR else "fair"}


def rent_rows() -> Iterator[dict[str, Any]]:
    """The same with the rent itself as `target`."""
    for row, rent in _flats():
        yield {**row, "target": rent}


def _flats() -> Iterator[tuple[dict[str, Any], int]]:
    rng = random.Random(SEED)
    for number in range(ROWS):
        district, area, lift = rng.choice(list(DISTRICTS)), rng.randint(25, 120), rng.random() < 0.4
        year = rng.randint(1950, 2020)
        rent = round(DISTRICTS[district] * (150 + 9 * area) * (1.1 if lift else 1.0) + 2 * (year - 1950))
        yield (
            {
                "id": number + 1,
                "district": district,
                "area": None if rng.random() < MISSING else area,
                "rooms": max(1, round(area / 25)),
                "built": f"{year}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
                "lift": "yes" if lift else "no",
            },
            rent,
        )
