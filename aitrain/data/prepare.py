"""Rows to a cache of token ids, made once and before any process group exists; shared by runs and ranks.

The cache's key covers the content of the data, the tokenizer, the columns and every setting that changes a token, so
another learning rate reuses it and another template does not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.data.encoding import (
    Encoder,
    HasNotes,
    KeepsTogether,
    LearnsTargets,
    TooLong,
    Unusable,
    tokenizer_fingerprint,
)
from aitrain.data.extension import Result, encode_rows
from aitrain.data.mixture import FoundSource, compose_epoch
from aitrain.data.origins import Noted, Origins, Where
from aitrain.data.rows import Item, Place, Row
from aitrain.data.samples import cache_dir
from aitrain.data.sources import Source
from aitrain.data.splits import choose, choose_balanced, hold_out
from aitrain.data.tokens import (
    Blocks,
    Encoded,
    EncodedGroup,
    Groups,
    JoinedTables,
    Prompts,
    Rows,
    TokenTable,
    write_table,
)
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.data import DataSource
    from aitrain.config.run import Run
    from aitrain.plan import Plan

Example = Encoded | EncodedGroup
Examples = Rows | Blocks | Groups | Prompts
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
    shortest: int | None = None
    """Tokens of the shortest row that is longer than `data.max_length`."""
    problems: list[Problem] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    """How many examples a usable row gave; one, but for a pair that is two judged answers."""

    def to_dict(self) -> dict[str, int]:
        """The counts, for the cache and the report."""
        names = ("read", "kept", "bad", "truncated", "dropped", "tokens", "trained_tokens")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Prepared:
    """The tokenised rows of a run, and what was counted while making them."""

    tokens: Mapping[str, str]
    """Folder of each table, by its `slot`."""
    train_rows: int
    valid_rows: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class SourceTables:
    """The token tables of one source. `train` is None in a run that streams its training rows."""

    chosen: DataSource
    train: TokenTable | None
    valid: TokenTable | None
    """The rows of a split to validate on, if one was named."""


@dataclass(frozen=True)
class Chosen:
    """The examples that a run trains and is judged on."""

    train: Examples
    valid: Examples | None
    counts: list[int]
    """Examples to train on of each source: rows, also where they are then cut into blocks."""
    left_out: list[int]
    """Examples of each source that are not trained on because another source validates on their rows."""


def slot(split: str, number: int, sources: int) -> str:
    """The name of a table in `plan.tokens`: `train`, or `train[1]` of the second source of several."""
    return split if sources == 1 else f"{split}[{number}]"


def prepare(run: Run, sources: Sequence[FoundSource], encoder: Encoder, tokenizer: Any) -> Prepared:
    """Tokenise the rows of every source into the cache, or find them there; of a stream those to validate on.

    Raises DataError naming file and line of rows that cannot be used, unless `data.on_bad_rows=skip` allows them, and
    when nothing is left to train or to validate on.
    """
    streams = run.data.streaming
    encoder = knowing_targets(run, sources, encoder)
    tables = [_tables(run, source, encoder, tokenizer, streams) for source in sources]
    _refuse_empty(tables)
    refuse_unlike(tables)
    tokens = {
        slot(split, number, len(tables)): str(table.folder)
        for number, found in enumerate(tables)
        for split, table in (("train", found.train), ("valid", found.valid))
        if table is not None
    }
    facts = _facts(run, sources, tables, encoder, tokenizer)
    if streams:
        valid = _whole(encoder, [found.valid for found in tables if found.valid is not None])
        return Prepared(tokens, 0, len(valid) if valid is not None else 0, facts)
    chosen = choose_rows(run, encoder, tables)
    valid_rows = len(chosen.valid) if chosen.valid is not None else 0
    rows = sum(_rows_of(encoder, _train(found)) for found in tables)
    if problem := too_few_to_validate(run, rows, valid_rows):
        raise DataError(problem)
    if len(chosen.train) == 0:
        raise DataError(Problem("data.path", "the rows hold no token to predict", "they need two tokens at least"))
    if isinstance(encoder, LearnsTargets):
        facts["notes"] = [*facts.get("notes", ()), *encoder.notes_on(chosen.train, chosen.valid)]
    facts["train_tokens"] = int(chosen.train.lengths().sum())
    facts |= judged(encoder, chosen.train)
    for entry, count, left in zip(facts.get("sources", ()), chosen.counts, chosen.left_out, strict=False):
        entry |= {"examples": count, "share": count / sum(chosen.counts), **({"left_out": left} if left else {})}
    return Prepared(tokens, len(chosen.train), valid_rows, facts)


def knowing_targets(run: Run, sources: Sequence[FoundSource], encoder: Encoder) -> Encoder:
    """The encoder with what it has to know of all training rows before it can encode one: which classes there are.

    Raises DataError where there is nothing to predict.
    """
    if not isinstance(encoder, LearnsTargets):
        return encoder

    def rows_of(source: FoundSource) -> Iterator[Row]:
        kind = _kind(encoder, source)
        found = numbered_rows(run, source.train, source.chosen.max_samples, kind)
        return (item for _, item in found if isinstance(item, Row))

    return encoder.learnt(run, sources, rows_of)


def _kind(encoder: Encoder, source: FoundSource) -> Callable[[Mapping[str, Any]], Hashable] | None:
    """What rows of one kind have in common, where a task tells them apart."""
    choice = source.choice
    if not isinstance(encoder, LearnsTargets) or choice is None:
        return None
    return partial(encoder.kind, choice)


def judged(encoder: Encoder, examples: Examples) -> dict[str, int]:
    """How many answers are wanted and how many are not, where examples are single answers with a judgement."""
    if not isinstance(examples, Groups) or examples.table.group > 1 or examples.table.values is None:
        return {}
    if isinstance(encoder, LearnsTargets):
        return {}
    values = examples.table.values if examples.indices is None else examples.table.values[examples.indices]
    wanted = int((values > 0).sum())
    return {"wanted_rows": wanted, "unwanted_rows": len(values) - wanted}


def open_rows(run: Run, plan: Plan, encoder: Encoder) -> tuple[Examples, Examples | None]:
    """The examples to train and to validate on, as `prepare` chose them."""
    chosen = choose_rows(run, encoder, _open_tables(run, plan))
    return chosen.train, chosen.valid


def open_validation(plan: Plan, encoder: Encoder) -> Examples | None:
    """The examples of the splits that were named to validate on, or None; a stream holds out none of its own."""
    folders = [folder for name, folder in plan.tokens.items() if name.startswith("valid") and folder]
    return _whole(encoder, [TokenTable(Path(folder)) for folder in folders])


def choose_rows(run: Run, encoder: Encoder, sources: Sequence[SourceTables]) -> Chosen:
    """Hold out validation examples of each source that names no split for them, then mix what is left.

    They are drawn before anything is repeated. A row on which one source validates is trained on in no other one, which
    may read the same file with another slice, other columns or another `max_samples`. Raises DataError when that leaves
    a source without an example.
    """
    tables = [_train(source) for source in sources]
    seed = run.run.seed
    fractions = [0.0 if source.valid is not None else run.data.valid_fraction for source in sources]
    splits = [_held_out(encoder, table, share, seed) for table, share in zip(tables, fractions, strict=True)]
    if len(sources) == 1 and sources[0].valid is not None:
        return Chosen(encoder.view(tables[0]), encoder.view(sources[0].valid), [tables[0].examples()], [0])
    drawn = [len(train) for train, _ in splits]
    if len(sources) > 1:
        splits = _apart(sources, splits)
    left_out = [count - len(train) for count, (train, _) in zip(drawn, splits, strict=True)]
    weights = [source.chosen.weight for source in sources]
    first = _offsets(tables)
    parts = [train + start for (train, _), start in zip(splits, first, strict=True)]
    epoch = compose_epoch(parts, weights, run.data.mixture_stopping, seed)
    held = [
        (table, valid) if source.valid is None else (source.valid, None)
        for source, table, (_, valid) in zip(sources, tables, splits, strict=True)
    ]
    return Chosen(_joined(encoder, tables, epoch), _view_of_parts(encoder, held), _counts(epoch, first), left_out)


def _apart(
    sources: Sequence[SourceTables], splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The same, without examples to train on that hold a row which another source validates on."""
    noted = [Noted.read(_train(source).folder) for source in sources]
    validated = [
        rows.rows_of(valid) if source.valid is None else Noted.read(source.valid.folder).identities
        for source, rows, (_, valid) in zip(sources, noted, splits, strict=True)
    ]
    found, problems = [], []
    for number, (source, (train, valid)) in enumerate(zip(sources, splits, strict=True)):
        kept = noted[number].without(train, [rows for other, rows in enumerate(validated) if other != number])
        if not len(kept):
            what = f"each row of {source.chosen.name} is one that another source validates on"
            problems.append(Problem(f"{source.chosen.key}.path", what, "leave the source out, or give it other rows"))
        found.append((kept, valid))
    if problems:
        raise DataError(problems)
    return found


def _held_out(
    encoder: Encoder, table: TokenTable, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Examples to train and to validate on; those of one row of the data stay on one side."""
    import numpy as np

    if isinstance(encoder, KeepsTogether):
        firsts = encoder.firsts(table)
        split = hold_out(len(firsts), share, seed)
        return _all_of(split.train, firsts, table), _all_of(split.valid, firsts, table)
    together = int(table.facts.get("together", 1))
    strata = encoder.strata(table) if isinstance(encoder, LearnsTargets) else None
    split = hold_out(table.examples() // together, share, seed, strata)
    if together == 1:
        return split.train, split.valid
    train, valid = ((rows[:, None] * together + np.arange(together)).reshape(-1) for rows in (split.train, split.valid))
    return train, valid


def _all_of(rows: NDArray[np.int64], firsts: NDArray[np.int64], table: TokenTable) -> NDArray[np.int64]:
    """Every example of these rows, where `firsts` is the first one of each row of the table."""
    import numpy as np

    ends = np.append(firsts[1:], table.examples())
    return np.concatenate([np.arange(firsts[row], ends[row]) for row in rows] or [np.empty(0, np.int64)])


def _rows_of(encoder: Encoder, table: TokenTable) -> int:
    """Rows of the data that a table's examples come from."""
    if isinstance(encoder, KeepsTogether):
        return len(encoder.firsts(table))
    return table.examples() // int(table.facts.get("together", 1))


def _train(source: SourceTables) -> TokenTable:
    assert source.train is not None
    return source.train


def _offsets(tables: Sequence[TokenTable]) -> NDArray[np.int64]:
    """The number of each table's first example in all of them together."""
    import numpy as np

    return np.cumsum([0, *(table.examples() for table in tables[:-1])])


def _counts(epoch: NDArray[np.int64], first: NDArray[np.int64]) -> list[int]:
    import numpy as np

    return [int(count) for count in np.bincount(first.searchsorted(epoch, side="right") - 1, minlength=len(first))]


def _joined(encoder: Encoder, tables: Sequence[TokenTable], indices: NDArray[np.int64]) -> Examples:
    return encoder.view(tables[0] if len(tables) == 1 else JoinedTables(tables), indices)


def _view_of_parts(encoder: Encoder, parts: Sequence[tuple[TokenTable, NDArray[np.int64] | None]]) -> Examples | None:
    """Some examples of each table (None: all), as one set; None when there is none."""
    import numpy as np

    tables = [table for table, _ in parts]
    wanted = [
        (np.arange(table.examples(), dtype=np.int64) if numbers is None else numbers) + start
        for (table, numbers), start in zip(parts, _offsets(tables), strict=True)
    ]
    indices = np.concatenate(wanted)
    return _joined(encoder, tables, indices) if len(indices) else None


def _whole(encoder: Encoder, tables: Sequence[TokenTable]) -> Examples | None:
    return _view_of_parts(encoder, [(table, None) for table in tables]) if tables else None


def _open_tables(run: Run, plan: Plan) -> list[SourceTables]:
    chosen = run.data.sources()
    return [
        SourceTables(source, *(_open(plan, slot(split, number, len(chosen))) for split in ("train", "valid")))
        for number, source in enumerate(chosen)
    ]


def _open(plan: Plan, name: str) -> TokenTable | None:
    folder = plan.tokens.get(name)
    return TokenTable(Path(folder)) if folder else None


# --- what is refused of the whole ----------------------------------------------------------------------------------


def _refuse_empty(tables: Sequence[SourceTables]) -> None:
    advice = "look at the counts of bad and dropped rows"
    problems = [
        Problem(found.chosen.key_of(key), f"no row of {found.chosen.name} is left to {verb} on", advice)
        for found in tables
        for key, verb, table in (("path", "train", found.train), ("valid_split", "validate", found.valid))
        if table is not None and not table.examples()
    ]
    if problems:
        raise DataError(problems)


def refuse_unlike(tables: Sequence[SourceTables]) -> None:
    """Raise DataError where some examples have a number of their own, a margin, and others have none."""
    parts = [(found.chosen, table) for found in tables for table in (found.train, found.valid) if table is not None]
    lacking = [chosen.key for chosen, table in parts if table.values is None and len(table)]
    if lacking and len(lacking) < sum(len(table) > 0 for _, table in parts):
        what = "no column for it, and another source has one"
        raise DataError(Problem(f"{lacking[0]}.columns.margin", what, "give every source a margin, or none"))


def too_few_to_validate(run: Run, examples: int, valid: int) -> Problem | None:
    """What is wrong when none of the examples could be held out for a validation that was asked for."""
    from aitrain.config.train import no_evaluation

    fraction = run.data.valid_fraction
    if valid or run.data.names_validation_rows or not examples or no_evaluation(run):
        return None
    advice = "set data.valid_fraction=0 to train without validation, or name data.valid_split"
    if examples == 1:
        what = "the only row cannot be both trained and validated on"
        return Problem("data.valid_fraction", what, advice, fix="data.valid_fraction=0")
    if "data.valid_fraction" in run.given:
        what = f"{fraction:g} of {examples} rows is less than one row"
        return Problem("data.valid_fraction", what, f"raise it to {1 / examples:.2g}, or set 0")
    return None


# --- facts ---------------------------------------------------------------------------------------------------------


def _facts(
    run: Run, sources: Sequence[FoundSource], tables: Sequence[SourceTables], encoder: Encoder, tokenizer: Any
) -> dict[str, Any]:
    facts: dict[str, Any] = {split: _sums(tables, split) for split in ("train", "valid")}
    if isinstance(encoder, LearnsTargets) and encoder.targets is not None:
        facts["targets"] = encoder.targets.to_dict()
        facts["roles"] = dict(sources[0].choice.columns) if sources[0].choice else None
    choices = [source.choice for source in sources if source.choice is not None]
    renderings = dict.fromkeys(encoder.describe(tokenizer, choice) for choice in choices)
    facts |= {**describe_columns(sources), "rendering": "; ".join(renderings)}
    if isinstance(encoder, HasNotes):
        read = [table for found in tables for table in (found.train, found.valid) if table is not None]
        values = [table.values for table in read if table.values is not None]
        facts["notes"] = list(encoder.notes(tokenizer, choices, values))
    if run.data.mixture is not None:
        facts["sources"] = [_source_facts(*pair) for pair in zip(sources, tables, strict=True)]
    return facts


def describe_columns(sources: Sequence[FoundSource]) -> dict[str, str]:
    """The columns and the reason for them; of several sources each way once."""
    columns = dict.fromkeys(source.columns for source in sources)
    reasons = dict.fromkeys(source.choice.reason for source in sources if source.choice is not None)
    return {"columns": "; ".join(columns), "reason": "; ".join(reasons)}


def _sums(tables: Sequence[SourceTables], split: str) -> dict[str, Any] | None:
    """What was counted of a split, over all sources; of one source with the fingerprint of its rows."""
    found = [table.facts for source in tables if (table := getattr(source, split)) is not None]
    if len(tables) == 1 or not found:
        return found[0] if found else None
    return {name: sum(facts[name] for facts in found) for name in Tally().to_dict()}


def _source_facts(source: FoundSource, tables: SourceTables) -> dict[str, Any]:
    assert source.choice is not None
    train, valid = (None if table is None else table.facts for table in (tables.train, tables.valid))
    chosen = source.chosen
    return {
        "name": chosen.name,
        "path": chosen.path,
        "weight": chosen.weight,
        "columns": source.columns,
        "reason": source.choice.reason,
        **({name: train[name] for name in Tally().to_dict()} if train else {}),
        "fingerprint": {split: facts["fingerprint"] for split, facts in (("train", train), ("valid", valid)) if facts},
    }


# --- tables --------------------------------------------------------------------------------------------------------


def _tables(run: Run, source: FoundSource, encoder: Encoder, tokenizer: Any, only_valid: bool) -> SourceTables:
    train = None if only_valid else _table(run, source, source.train, encoder, tokenizer)
    valid = _table(run, source, source.valid, encoder, tokenizer) if source.valid else None
    return SourceTables(source.chosen, train, valid)


def _table(run: Run, found: FoundSource, rows: Source, encoder: Encoder, tokenizer: Any) -> TokenTable:
    """The tokens of one split of a source."""
    chosen, choice, trains = found.chosen, found.choice, rows is found.train
    assert choice is not None
    key = chosen.key_of("path" if trains else "valid_split")
    max_samples = limit_of(encoder, chosen, trains=trains)
    kind = _kind(encoder, found)
    strategy = run.data.max_samples_strategy
    is_mixed = run.data.mixture is not None and len(run.data.mixture) > 1
    settings = {
        **encoder.settings(),
        "columns": dict(choice.columns),
        "targets_of": list(choice.targets),
        "shape": choice.shape,
        "data": rows.fingerprint(),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "on_bad_rows": [run.data.on_bad_rows, run.data.max_bad_rows],
        "samples": [max_samples, strategy, run.run.seed if strategy == "random" else None] if max_samples else None,
        "extension": chosen.conversation_extension if chosen.conversation_extension > 1 else None,
        "origins": is_mixed,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "tokens" / digest
    if (folder / "facts.json").is_file():
        return TokenTable(folder)
    tally, origins = Tally(), Origins(rows.identity) if is_mixed else None
    items = numbered_rows(run, rows, max_samples, kind)
    followed = (item for _, item in items) if origins is None else origins.follow(items)
    results = encode_rows(encoder, tokenizer, choice, followed, chosen.conversation_extension)
    facts: dict[str, Any] = {"fingerprint": settings["data"]}
    counted = _counting(_usable(run, results, tally, key, origins), tally, facts)
    beside = None if origins is None else origins.save
    return write_table(folder, counted, facts, group=encoder.group, weighted=encoder.weighted, beside=beside)


def _counting(examples: Iterable[Example], tally: Tally, facts: dict[str, Any]) -> Iterator[Example]:
    for example in examples:
        rows = example.rows if isinstance(example, EncodedGroup) else (example,)
        tally.kept += 1
        tally.truncated += any(row.truncated for row in rows)
        for row in rows:
            tally.tokens += len(row.ids)
            tally.trained_tokens += sum(row.trained)
        yield example
    together = tally.sizes.pop() if len(tally.sizes) == 1 else 1
    facts.update({**tally.to_dict(), "together": together})


VALIDATED = 0.2
"""Of `data.max_samples`, so many rows of the split to validate on: for encoders that say `cuts_validation`."""


def limit_of(encoder: Encoder, chosen: DataSource, *, trains: bool) -> int | None:
    """How many rows of a split are used at most."""
    if trains or chosen.max_samples is None:
        return chosen.max_samples if trains else None
    return max(1, math.ceil(VALIDATED * chosen.max_samples)) if getattr(encoder, "cuts_validation", False) else None


def chosen_rows(
    run: Run,
    source: Source,
    max_samples: int | None,
    kind: Callable[[Mapping[str, Any]], Hashable] | None = None,
) -> Iterator[Item]:
    """The rows that `data.max_samples` keeps."""
    return (item for _, item in numbered_rows(run, source, max_samples, kind))


def numbered_rows(
    run: Run,
    source: Source,
    max_samples: int | None,
    kind: Callable[[Mapping[str, Any]], Hashable] | None = None,
) -> Iterator[tuple[Where, Item]]:
    """The same, each with the number of its file and its own number there.

    `kind` says what the rows have in common of which `data.max_samples_strategy=balanced` takes as many of each.
    """
    items = source.numbered(run.data.on_bad_rows)
    if max_samples is None:
        yield from items
        return
    if run.data.max_samples_strategy == "first":
        yield from islice(items, max_samples)
        return
    if run.data.max_samples_strategy == "balanced":
        kinds = [kind(item.values) if kind and isinstance(item, Row) else None for item in source.rows(on_bad="skip")]
        indices = choose_balanced(kinds, max_samples)
    else:
        total = sum(1 for _ in source.rows(on_bad="skip"))
        indices = choose(total, max_samples, run.data.max_samples_strategy, run.run.seed)
    wanted = None if indices is None else set(indices.tolist())
    for number, item in enumerate(items):
        if wanted is None or number in wanted:
            yield item


def _usable(
    run: Run, results: Iterator[Result], tally: Tally, key: str, origins: Origins | None = None
) -> Iterator[Example]:
    """The examples; raises DataError where rows are bad or too long in a way that the run does not allow."""
    skip = run.data.on_bad_rows == "skip"
    for place, outcome, rows in results:
        tally.read += rows
        made: Sequence[Example] = ()
        if isinstance(outcome, Encoded | EncodedGroup):
            made = (outcome,)
        elif isinstance(outcome, list):
            made = outcome
        elif isinstance(outcome, Unusable):
            _bad(tally, skip, rows, unusable(key, outcome, place))
        else:
            _too_long(run, tally, outcome, str(place))
        if made:
            tally.sizes.add(len(made))
        if origins is not None:
            origins.take(rows, len(made))
        yield from made
        if len(tally.problems) >= SHOWN:
            break
    if tally.problems:
        raise DataError(tally.problems)
    _refuse_too_long(run, tally)
    refuse_many_bad(run, tally.bad, tally.read)


def refuse_many_bad(run: Run, bad: int, read: int) -> None:
    """Raise DataError where more rows are bad than `data.max_bad_rows` allows."""
    if bad > run.data.max_bad_rows * read:
        what = f"{bad} of {read} rows ({bad / read:.1%}) are bad, more than {run.data.max_bad_rows:.1%}"
        raise DataError(Problem("data.max_bad_rows", what, "repair the data, or raise data.max_bad_rows"))


def unusable(key: str, outcome: Unusable, place: Place) -> Problem:
    """The words for a row that cannot be used."""
    return Problem(key, f"row cannot be used: {outcome.reason}", outcome.advice, str(place))


def _bad(tally: Tally, skip: bool, rows: int, problem: Problem) -> None:
    tally.bad += rows
    if not skip:
        tally.problems.append(problem)


def _too_long(run: Run, tally: Tally, outcome: TooLong, place: str) -> None:
    tally.shortest = min(outcome.tokens, tally.shortest or outcome.tokens)
    if run.data.truncation == "drop":
        tally.dropped += 1
        return
    tally.too_long += 1
    if outcome.tokens > tally.longest:
        tally.longest, tally.longest_at = outcome.tokens, place


def longest_row(run: Run) -> tuple[str, int | None]:
    """The key that says how long a row may be, and its value: rows that are prompts have one of their own."""
    of_prompts = "data.max_length" not in run.trainer.reads and "data.max_prompt_length" in run.trainer.reads
    key = "data.max_prompt_length" if of_prompts else "data.max_length"
    return key, getattr(run.data, key.removeprefix("data."))


def _refuse_too_long(run: Run, tally: Tally) -> None:
    """One problem for all of them, with the length that would do."""
    key, limit = longest_row(run)
    ways = "left or drop" if key == "data.max_prompt_length" else "right, left or drop"
    if tally.too_long:
        what = f"{tally.too_long} of {tally.read} rows are longer than {limit} tokens, the longest has {tally.longest}"
        advice = f"raise {key}, or set data.truncation={ways}"
        raise DataError(Problem(key, what, advice, tally.longest_at, fix=f"{key}={tally.longest}"))
    if tally.dropped and tally.dropped == tally.read:
        what = f"all {tally.read} rows are longer than {limit} tokens and left out; the shortest has {tally.shortest}"
        cut = ways.removesuffix(" or drop").replace(", ", " or ")
        raise DataError(Problem(key, what, f"raise {key}, or set data.truncation={cut}"))
