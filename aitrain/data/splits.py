"""Which rows: split names with slices, the held-out validation rows, and the rows `data.max_samples` keeps."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]

_NAME = re.compile(r"\w+([.-]\w+)*", re.ASCII)
_BOUND = re.compile(r"(-?\d+)(%?)", re.ASCII)

# Each draw gets a stream of its own, so that holding out and choosing with one seed do not pick related rows.
_HOLD_OUT_STREAM, _CHOOSE_STREAM = 1, 2


@dataclass(frozen=True)
class Split:
    """A split and the part of it to use: `train`, `train[:10%]`, `train[100:200]`, `train[-50:]`.

    `start` and `stop` are row numbers from 0, or whole percents when `percent`; negative ones count from the end and
    None is an open end.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    percent: bool = False

    @classmethod
    def parse(cls, text: str, *, key: str = "data.train_split") -> Split:
        """Reads what the user typed.

        Raises DataError, naming `key` and the nearest right form, for anything the `datasets` library would not take,
        for mixed units (`[10%:200]`, which that library reads as percents) and for a slice that is always empty.
        """
        name, bracket, rest = text.partition("[")
        if not bracket and _NAME.fullmatch(name):
            return cls(name)
        if not _NAME.fullmatch(name) or not rest.endswith("]") or rest.count(":") != 1:
            raise _refused(key, f"{text!r} is not a split", _nearest_form(text))
        bounds = [part and _BOUND.fullmatch(part) for part in rest[:-1].split(":")]
        if None in bounds:
            raise _refused(key, f"{text!r}: a slice holds whole numbers or whole percents", _nearest_form(text))
        units = {match[2] for match in bounds if match}
        if len(units) > 1:
            raise _refused(key, f"{text!r} mixes rows and percents", "use one unit, as in train[10%:20%] or train[5:9]")
        start, stop = (int(match[1]) if match else None for match in bounds)
        split = cls(name, start, stop, percent=units == {"%"})
        if split.percent and any(abs(bound) > 100 for bound in (start, stop) if bound is not None):
            raise _refused(key, f"{text!r}: a percent lies between -100 and 100", "")
        if split._always_empty():
            raise _refused(key, f"{text!r} selects no rows", "the first number is the smaller one, as in train[10:20]")
        return split

    def _always_empty(self) -> bool:
        start, stop = self.start or 0, self.stop
        return stop is not None and (start < 0) == (stop < 0) and start >= stop

    @property
    def sliced(self) -> bool:
        return self.start is not None or self.stop is not None

    @property
    def needs_total(self) -> bool:
        """Whether the number of rows must be known before the first row of the slice is."""
        return self.percent or any(bound is not None and bound < 0 for bound in (self.start, self.stop))

    def range(self, n_rows: int) -> tuple[int, int]:
        """First row and the row after the last, of `n_rows`.

        As in the `datasets` library: percents are rounded to the closest row (halves to even), negative bounds count
        from the end, bounds past an end are drawn in.
        """
        start = 0 if self.start is None else self._absolute(self.start, n_rows)
        stop = n_rows if self.stop is None else self._absolute(self.stop, n_rows)
        return start, max(start, stop)

    def _absolute(self, bound: int, n_rows: int) -> int:
        if self.percent:
            bound = round(bound * n_rows / 100.0)
        if bound < 0:
            bound = max(n_rows + bound, 0)
        return min(bound, n_rows)

    def __str__(self) -> str:
        if not self.sliced:
            return self.name
        unit = "%" if self.percent else ""
        start, stop = ("" if bound is None else f"{bound}{unit}" for bound in (self.start, self.stop))
        return f"{self.name}[{start}:{stop}]"


def _refused(key: str, what: str, advice: str) -> DataError:
    return DataError(Problem(key, what, advice))


def _nearest_form(text: str) -> str:
    """Advice that shows the right form of what was probably meant."""
    example = "write it as train, train[:10%] or train[100:200]"
    if "+" in text:
        return "name one split; to join splits put their files in one folder or name them in data.files"
    name = re.match(r"\s*(\w+)\s*[\[({]", text, re.ASCII)
    if not name:
        return example
    inside = re.sub(r"\s+", "", text[name.end() :].split("]")[0].split(")")[0].split("}")[0])
    if inside.count(":") > 1:
        return f"a slice has no step; write {name[1]}[:10%]"
    fraction = re.fullmatch(r"(:?)0?(\.\d+)(:?)", inside)
    if fraction:
        percent = f"{max(1, round(float(fraction[2]) * 100))}%"
        return f"did you mean '{name[1]}[{percent}:]'?" if fraction[3] else f"did you mean '{name[1]}[:{percent}]'?"
    if re.fullmatch(r"\d+%?", inside):
        return f"did you mean '{name[1]}[:{inside}]'?"
    if re.fullmatch(r"(-?\d+%?)?[:-](-?\d+%?)?", inside) and len(inside) > 1:
        start, stop = re.split(r"(?<=[\d%])[:-]|^:", inside, maxsplit=1)
        return f"did you mean '{name[1]}[{start}:{stop}]'?"
    return example


class HeldOut(NamedTuple):
    """Row numbers of both sides in file order, and why there are that many."""

    train: Indices
    valid: Indices
    reason: str


def hold_out(n: int, fraction: float, seed: int, strata: NDArray[Any] | None = None) -> HeldOut:
    """Draws round(n * fraction) of `n` rows for validation; the same rows on every machine for the same three numbers.

    Neither side is emptied: too small a fraction holds out nothing, too large a one leaves one training row. With
    `strata`, a number for each row, each number has its share among the rows held out, and keeps a row to train on.
    `fraction` is in [0, 1), `seed` is not negative; anything else is a ValueError.
    """
    import numpy as np

    if not 0 <= fraction < 1 or n < 0:
        raise ValueError(f"hold_out({n}, {fraction}): n is at least 0 and fraction lies in [0, 1)")
    wanted, kept = round(n * fraction), held_out_rows(n, fraction)
    is_valid = np.zeros(n, dtype=bool)
    is_valid[draw(n, kept, seed, _HOLD_OUT_STREAM) if strata is None else _by_stratum(strata, kept, seed)] = True
    train, valid = np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
    return HeldOut(train, valid, _held_out_reason(n, fraction, wanted, kept))


def _by_stratum(strata: NDArray[Any], wanted: int, seed: int) -> Indices:
    """About `wanted` rows, of each stratum its share by largest remainders, but never all of it."""
    import numpy as np

    _, numbers, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    shares = sizes * (wanted / max(1, len(strata)))
    quota = np.minimum(np.floor(shares).astype(np.int64), sizes - 1)
    for stratum in np.argsort(-(shares - np.floor(shares)), kind="stable"):
        if quota.sum() < wanted and quota[stratum] < sizes[stratum] - 1:
            quota[stratum] += 1
    order = draw(len(strata), len(strata), seed, _HOLD_OUT_STREAM)
    grouped = order[np.argsort(numbers[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    return np.sort(np.concatenate([grouped[s : s + q] for s, q in zip(starts, quota, strict=True)]))


def held_out_rows(n: int, fraction: float) -> int:
    """How many rows `hold_out` draws."""
    return max(0, min(round(n * fraction), n - 1))


def _held_out_reason(n: int, fraction: float, wanted: int, kept: int) -> str:
    if fraction == 0:
        return "no validation rows: data.valid_fraction is 0"
    share = f"{fraction:g} of {n} rows"
    if wanted == 0:
        return f"no validation rows: {share} is less than one"
    if kept < wanted:
        return f"{kept} validation rows: {share} would leave no training row"
    return f"{kept} validation rows: {share}"


def choose_balanced(kinds: Sequence[Hashable], max_samples: int) -> Indices | None:
    """Row numbers, in file order, of as many rows of each kind as `max_samples` allows, the first ones of each.

    Kinds with fewer rows than their part leave the rest to the others; kinds that came first have one row more where it
    does not divide evenly. A row of no kind (None) is not kept. None when all rows are kept.
    """
    import numpy as np

    if max_samples >= len(kinds):
        return None
    sizes: dict[Hashable, int] = {}
    for kind in kinds:
        if kind is not None:
            sizes[kind] = sizes.get(kind, 0) + 1
    quota = dict.fromkeys(sizes, 0)
    left, open_kinds = max_samples, list(sizes)
    while left and open_kinds:
        each = max(1, left // len(open_kinds))
        for kind in open_kinds[: max(1, left // each)]:
            more = min(each, sizes[kind] - quota[kind], left)
            quota[kind] += more
            left -= more
        open_kinds = [kind for kind in open_kinds if quota[kind] < sizes[kind]]
    kept = []
    for number, kind in enumerate(kinds):
        if quota.get(kind):
            quota[kind] -= 1
            kept.append(number)
    return np.asarray(kept, dtype=np.int64)


def choose(n: int, max_samples: int | None, strategy: Literal["first", "even", "random"], seed: int) -> Indices | None:
    """Row numbers that `data.max_samples` keeps, in file order; None when it keeps all of them."""
    import numpy as np

    if max_samples is None or max_samples >= n:
        return None
    if strategy == "first":
        return np.arange(max_samples, dtype=np.int64)
    if strategy == "even":
        return np.arange(max_samples, dtype=np.int64) * n // max_samples
    return np.sort(draw(n, max_samples, seed, _CHOOSE_STREAM))


def draw(n: int, k: int, seed: int, *stream: int) -> Indices:
    """`k` of `n` row numbers in a random order: those with the smallest random keys. Other streams draw otherwise.

    The keys are the raw output of PCG64, which numpy promises not to change; `Generator.permutation` has no such
    promise.
    """
    import numpy as np

    if k == 0:
        return np.empty(0, dtype=np.int64)
    keys = np.random.PCG64(np.random.SeedSequence([seed, *stream])).random_raw(n)
    return np.argsort(keys, kind="stable")[:k].astype(np.int64)
