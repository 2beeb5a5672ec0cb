"""Rows to a cache of token ids, made once and before any process group exists; shared by runs and ranks.

The cache's key covers the content of the data, the tokenizer, the columns and every setting that changes a token, so
another learning rate reuses it and another template does not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import Encoded, Encoder, TooLong, Unusable, tokenizer_fingerprint
from aitrain.data.rows import BadRow, Item, Row
from aitrain.data.samples import cache_dir
from aitrain.data.sources import Source
from aitrain.data.splits import choose, hold_out
from aitrain.data.tokens import Blocks, Rows, TokenTable, write_table
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.plan import Plan

BATCH = 500
SHOWN = 10


@dataclass
class Tally:
    """What became of the rows of one split."""

    read: int = 0
    kept: int = 0
    bad: int = 0
    truncated: int = 0
    dropped: int = 0
    """Rows left out because they are longer than `data.max_length`, with `data.truncation=drop`."""
    tokens: int = 0
    trained_tokens: int = 0
    too_long: int = 0
    """The same rows where `data.truncation=error` refuses them."""
    longest: int = 0
    longest_at: str = ""
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, int]:
        """The counts, for the cache and the report."""
        names = ("read", "kept", "bad", "truncated", "dropped", "tokens", "trained_tokens")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Prepared:
    """The tokenised rows of a run, and what was counted while making them."""

    train: Path | None
    valid: Path | None
    train_rows: int
    valid_rows: int
    facts: dict[str, Any]


def prepare_validation(run: Run, source: Source, choice: ColumnChoice, encoder: Encoder, tokenizer: Any) -> Prepared:
    """Tokenise the validation split alone, for a run that streams its training rows."""
    table = _table(run, source, choice, encoder, tokenizer, "data.valid_split", None)
    rows = _as_asked(run, Rows(table))
    columns = ", ".join(f"{role}={name}" for role, name in choice.columns.items())
    facts = {"train": None, "valid": table.facts, "columns": columns, "reason": choice.reason}
    return Prepared(None, table.folder, 0, len(rows), facts)


def prepare(
    run: Run, train: Source, valid: Source | None, choice: ColumnChoice, encoder: Encoder, tokenizer: Any
) -> Prepared:
    """Tokenise both splits into the cache, or find them there.

    Raises DataError naming file and line of rows that cannot be used, unless `data.on_bad_rows=skip` allows them.
    """
    train_table = _table(run, train, choice, encoder, tokenizer, "data.path", run.data.max_samples)
    valid_table = _table(run, valid, choice, encoder, tokenizer, "data.valid_split", None) if valid else None
    train_rows, valid_rows = choose_rows(run, train_table, valid_table)
    if len(train_rows) == 0:
        raise DataError(
            Problem("data.path", "no row is left to train on", "look at the counts of bad and dropped rows")
        )
    facts = {
        "train": train_table.facts,
        "valid": valid_table.facts if valid_table else None,
        "columns": ", ".join(f"{role}={name}" for role, name in choice.columns.items()),
        "reason": choice.reason,
        "rendering": encoder.describe(tokenizer, choice),
        "train_tokens": int(train_rows.lengths().sum()),
    }
    return Prepared(
        train_table.folder,
        valid_table.folder if valid_table else None,
        len(train_rows),
        len(valid_rows) if valid_rows is not None else 0,
        facts,
    )


def open_rows(run: Run, plan: Plan) -> tuple[Rows | Blocks, Rows | Blocks | None]:
    """The rows to train and to validate on, as `prepare` chose them."""
    train = TokenTable(Path(str(plan.tokens["train"])))
    folder = plan.tokens.get("valid")
    valid = TokenTable(Path(folder)) if folder else None
    return choose_rows(run, train, valid)


def open_validation(run: Run, plan: Plan) -> Rows | Blocks | None:
    """The rows of `data.valid_split`, or None; a stream holds out no rows of its own."""
    folder = plan.tokens.get("valid")
    return _as_asked(run, Rows(TokenTable(Path(folder)))) if folder else None


def choose_rows(run: Run, train: TokenTable, valid: TokenTable | None) -> tuple[Rows | Blocks, Rows | Blocks | None]:
    """Hold out validation rows with the run's seed if no split was named, and cut texts into blocks if asked."""
    if valid is not None:
        chosen, held = Rows(train), Rows(valid)
    else:
        split = hold_out(len(train), run.data.valid_fraction, run.run.seed)
        chosen, held = Rows(train, split.train), Rows(train, split.valid)
    return _as_asked(run, chosen), _as_asked(run, held) if len(held) else None


def _as_asked(run: Run, rows: Rows) -> Rows | Blocks:
    return Blocks(rows, run.data.block_size) if run.trainer.name == "pretrain" else rows


def _table(
    run: Run, source: Source, choice: ColumnChoice, encoder: Encoder, tokenizer: Any, key: str, max_samples: int | None
) -> TokenTable:
    strategy = run.data.max_samples_strategy
    settings = {
        **encoder.settings(),
        "columns": dict(choice.columns),
        "shape": choice.shape,
        "data": source.fingerprint(),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "on_bad_rows": [run.data.on_bad_rows, run.data.max_bad_rows],
        "samples": [max_samples, strategy, run.run.seed if strategy == "random" else None] if max_samples else None,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "tokens" / digest
    if (folder / "facts.json").is_file():
        return TokenTable(folder)
    tally = Tally()
    items = _chosen(run, source, max_samples)
    facts: dict[str, Any] = {"fingerprint": settings["data"]}
    rows = _encoded(run, items, choice, encoder, tokenizer, tally, key)
    return write_table(folder, _counting(rows, tally, facts), facts)


def _counting(rows: Iterable[Encoded], tally: Tally, facts: dict[str, Any]) -> Iterator[tuple[list[int], list[int]]]:
    for row in rows:
        tally.kept += 1
        tally.tokens += len(row.ids)
        tally.trained_tokens += sum(row.trained)
        tally.truncated += row.truncated
        yield row.ids, row.trained
    facts.update(tally.to_dict())


def _chosen(run: Run, source: Source, max_samples: int | None) -> Iterator[Item]:
    """The rows that `data.max_samples` keeps."""
    items = source.rows(on_bad=run.data.on_bad_rows)
    if max_samples is None:
        yield from items
        return
    if run.data.max_samples_strategy == "first":
        for number, item in enumerate(items):
            if number == max_samples:
                return
            yield item
        return
    total = sum(1 for _ in source.rows(on_bad="skip"))
    indices = choose(total, max_samples, run.data.max_samples_strategy, run.run.seed)
    wanted = None if indices is None else set(indices.tolist())
    for number, item in enumerate(items):
        if wanted is None or number in wanted:
            yield item


def _encoded(
    run: Run, items: Iterator[Item], choice: ColumnChoice, encoder: Encoder, tokenizer: Any, tally: Tally, key: str
) -> Iterator[Encoded]:
    skip = run.data.on_bad_rows == "skip"
    while batch := list(islice(items, BATCH)):
        good = [item for item in batch if isinstance(item, Row)]
        tally.read += len(batch)
        for item in batch:
            if isinstance(item, BadRow):
                _bad(tally, skip, Problem(key, item.reason, where=str(item.place)))
        outcomes = encoder.encode(tokenizer, choice, [row.values for row in good])
        for row, outcome in zip(good, outcomes, strict=True):
            if isinstance(outcome, Encoded):
                yield outcome
            elif isinstance(outcome, Unusable):
                advice = "repair it, or set data.on_bad_rows=skip"
                _bad(tally, skip, Problem(key, f"row cannot be used: {outcome.reason}", advice, str(row.place)))
            else:
                _too_long(run, tally, outcome, row)
        if len(tally.problems) >= SHOWN:
            break
    if tally.problems:
        raise DataError(tally.problems[:SHOWN])
    _refuse_too_long(run, tally)
    if tally.bad > run.data.max_bad_rows * tally.read:
        share = tally.bad / tally.read
        raise DataError(
            Problem(
                "data.max_bad_rows",
                f"{tally.bad} of {tally.read} rows ({share:.1%}) are bad, more than {run.data.max_bad_rows:.1%}",
                "repair the data, or raise data.max_bad_rows",
            )
        )


def _bad(tally: Tally, skip: bool, problem: Problem) -> None:
    tally.bad += 1
    if not skip:
        tally.problems.append(problem)


def _too_long(run: Run, tally: Tally, outcome: TooLong, row: Row) -> None:
    if run.data.truncation == "drop":
        tally.dropped += 1
        return
    tally.too_long += 1
    if outcome.tokens > tally.longest:
        tally.longest, tally.longest_at = outcome.tokens, str(row.place)


def _refuse_too_long(run: Run, tally: Tally) -> None:
    """One problem for all of them, with the length that would do."""
    if tally.too_long:
        limit = run.data.max_length
        what = f"{tally.too_long} of {tally.read} rows are longer than {limit} tokens, the longest has {tally.longest}"
        advice = "raise data.max_length, or set data.truncation=right, left or drop"
        raise DataError(
            Problem("data.max_length", what, advice, tally.longest_at, fix=f"data.max_length={tally.longest}")
        )
