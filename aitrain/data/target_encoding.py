"""A text, or two that belong together, to token ids with what is to be predicted of it. No torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.data.columns import ColumnChoice, kind_of, listed
from aitrain.data.encoding import Outcome, TooLong, Truncation, Unusable
from aitrain.data.hub import cached_model
from aitrain.data.rows import Row
from aitrain.data.targets import (
    Classes,
    ClassReader,
    NoTarget,
    Numbers,
    Targets,
    learn_classes,
    learn_numbers,
    unknown_class,
)
from aitrain.data.targets import read_numbers as numbers_of
from aitrain.data.tokens import Encoded, EncodedGroup, Groups, Table
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run
    from aitrain.data.mixture import FoundSource

Value = float | tuple[float, ...]


@dataclass(frozen=True)
class ClassTarget:
    """One class, as its number; or a set of classes, as a 1 or 0 for each."""

    multi_label: bool | None
    separator: str | None
    classes: tuple[str, ...] | None
    """All of them, in order; None for those that occur."""
    names: tuple[str, ...] = ()
    """Names of whole numbers, where the data has a class feature."""
    of_model: tuple[str, ...] = ()
    """The classes that the model's own head tells apart, in its order."""

    def reader(self, choice: ColumnChoice) -> ClassReader:
        """What reads the chosen columns."""
        return ClassReader(choice.targets, self.multi_label, self.separator, self.names)

    def learn(self, choice: ColumnChoice, rows: Iterator[Row], first: Sequence[Mapping[str, Any]]) -> Classes:
        """The classes of the training rows, in the order of the model's outputs. Raises DataError."""
        found = learn_classes(self.reader(choice), rows, first, self.classes)
        if self.classes is None and found.names != self.of_model and set(found.names) == set(self.of_model):
            counts = dict(zip(found.names, found.counts, strict=True))
            return replace(found, names=self.of_model, counts=tuple(counts[name] for name in self.of_model))
        return found

    def read(self, choice: ColumnChoice, row: Mapping[str, Any], targets: Targets | None) -> Value:
        """The row's class or classes as numbers; any, where `targets` are not known yet. Raises NoTarget."""
        reader = self.reader(choice)
        if not isinstance(targets, Classes):  # whether it can be read is all that can be known
            _ = reader.several(row) if reader.holds_sets([row]) else reader.one(row)
            return 0.0
        if not targets.multi_label:
            name = reader.one(row)
            if name not in targets.names:
                raise NoTarget(f"column '{choice.targets[0]}': {unknown_class(name, targets)}")
            return float(targets.names.index(name))
        names = reader.several(row)
        for name in names:
            if name not in targets.names:
                raise NoTarget(f"column '{choice.targets[0]}': {unknown_class(name, targets)}")
        return tuple(float(name in names) for name in targets.names)

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        """What the row has in common with others of its class or classes; None where it says none."""
        try:
            reader = self.reader(choice)
            return tuple(sorted(reader.several(row))) if reader.holds_sets([row]) else reader.one(row)
        except NoTarget:
            return None


@dataclass(frozen=True)
class NumberTarget:
    """One number or several."""

    def learn(self, choice: ColumnChoice, rows: Iterator[Row], first: Sequence[Mapping[str, Any]]) -> Numbers:
        """Mean, deviation and range over the training rows. Raises DataError."""
        return learn_numbers(choice.targets, rows)

    def read(self, choice: ColumnChoice, row: Mapping[str, Any], targets: Targets | None) -> Value:
        """The row's numbers, as many as `targets` has. Raises NoTarget."""
        found = numbers_of(choice.targets, row)
        if isinstance(targets, Numbers) and len(found) != len(targets.names):
            raise NoTarget(f"column {listed(choice.targets)} holds {len(found)} numbers, not {len(targets.names)}")
        return found

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        """Numbers are of no kind."""
        return None


class TextTargetEncoder:
    """Texts with their targets. Examples are one row of token ids each, and the target's number or numbers."""

    group = 1
    weighted = False
    loss = "of what is predicted of the row"
    cuts_validation = True
    """`data.max_samples` leaves a fifth as many rows of a split to validate on."""

    def __init__(
        self, run: Run, target: ClassTarget | NumberTarget, reported: Callable[[Any], Sequence[str]] | None = None
    ) -> None:
        self.reported = reported
        """What evaluations report of such targets; None for everything that the trainer may report."""
        self.max_length = run.data.max_length
        self.truncation: Truncation = run.data.truncation
        self.target = target
        self.targets: Targets | None = None
        """None until the training rows were read."""

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "text-target-1",
            "max_length": self.max_length,
            "truncation": self.truncation,
            "targets": self.targets.to_dict() if isinstance(self.targets, Classes) else None,
            "reader": repr(self.target),
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return "two texts together" if "text_pair" in choice.columns else "plain text"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Groups:
        return Groups(table, indices)

    # --- targets ---

    def learnt(
        self, run: Run, sources: Sequence[FoundSource], rows: Callable[[FoundSource], Iterator[Row]]
    ) -> TextTargetEncoder:
        """The same encoder, which knows the targets of the training rows. Raises DataError for unfit ones."""
        found = copy.copy(self)
        (source,) = sources
        assert source.choice is not None
        if isinstance(self.target, ClassTarget):
            names = source.train.class_names(source.choice.targets[0])
            found.target = replace(self.target, names=names, of_model=classes_of_model(run))
        first = [row.values for row in source.train.head(20, "skip")]
        found.targets = found.target.learn(source.choice, rows(source), first)
        if problems := without_effect(run, found.targets):
            raise DataError(problems)
        if self.reported is not None and (wanted := run.train.metric_for_best_model) not in (
            known := self.reported(found.targets)
        ):
            what = f"is not reported of these rows, which hold {found.targets.described}"
            advice = f"there is {', '.join(known)}"
            raise DataError(Problem("train.metric_for_best_model", f"'{wanted}' {what}", advice))
        return found

    def notes_on(self, train: Groups, valid: Groups | None) -> Iterator[str]:
        """What is odd about the rows held out."""
        if not isinstance(self.targets, Classes) or self.targets.multi_label or valid is None:
            return
        told = {int(value) for value in values_of(valid)}
        absent = [name for number, name in enumerate(self.targets.names) if number not in told]
        if absent:
            many = f"{len(absent)} of the {len(self.targets.names)} classes"
            yield f"no validation row is of {many}: {listed(absent)}; what is said of them tells nothing"
        kept = {int(value) for value in values_of(train)}
        if lost := [self.targets.names[number] for number in sorted(told - kept)]:
            yield f"no training row is of {listed(lost)}, which validation rows are"

    def with_targets(self, targets: Targets) -> TextTargetEncoder:
        """The same encoder, which knows the targets by an earlier look."""
        found = copy.copy(self)
        found.targets = targets
        if isinstance(self.target, ClassTarget) and isinstance(targets, Classes):
            found.target = replace(self.target, names=targets.numbered)
        return found

    def said(self, example: EncodedGroup) -> str:
        """The target of an example in words."""
        value = example.value
        if isinstance(self.targets, Classes):
            there = (
                [name for name, is_there in zip(self.targets.names, value, strict=True) if is_there]
                if isinstance(value, tuple)
                else [self.targets.names[int(value or 0)]]
            )
            return f"target {', '.join(there) or 'none'}"
        numbers = value if isinstance(value, tuple) else (value,)
        return f"target {', '.join(f'{number:g}' for number in numbers if number is not None)}"

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        """What rows of `data.max_samples_strategy=balanced` have in common."""
        return self.target.kind(choice, row)

    def strata(self, table: Table) -> NDArray[np.float64] | None:
        """The class of each example, so that each class has its share among the rows held out; None without classes."""
        single = isinstance(self.targets, Classes) and not self.targets.multi_label
        return table.values if single else None

    # --- rows ---

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        return self.text_fault(choice, row) or self._target_fault(choice, row)

    def text_fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        """What keeps the texts of a row from being read; ''."""
        for role in ("text", "text_pair"):
            if role in choice.columns:
                column = choice.columns[role]
                value = row.get(column)
                if not isinstance(value, str):
                    return f"column '{column}' holds {'nothing' if value is None else kind_of(value)}, no text"
                if not value.strip():
                    return f"column '{column}' is empty"
        return ""

    def _target_fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        try:
            self.target.read(choice, row, self.targets)
        except NoTarget as error:
            return str(error)
        return ""

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        faults = [self.text_fault(choice, row) for row in rows]
        usable = [row for row, fault in zip(rows, faults, strict=True) if not fault]
        tokens = iter(self.tokenise(tokenizer, choice, usable))
        for row, fault in zip(rows, faults, strict=True):
            yield Unusable(fault) if fault else self._outcome(choice, row, next(tokens))

    def _outcome(self, choice: ColumnChoice, row: Mapping[str, Any], tokens: Encoded | TooLong) -> Outcome:
        if isinstance(tokens, TooLong):
            return tokens
        try:
            return EncodedGroup((tokens,), self.target.read(choice, row, self.targets))
        except NoTarget as error:
            return Unusable(str(error))

    def tokenise(
        self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Encoded | TooLong]:
        """Token ids of the texts of rows that have some, cut to `data.max_length` as `data.truncation` says."""
        if not rows:
            return
        pairs = [texts_of(choice, row) for row in rows]
        whole = _tokens(tokenizer, pairs)
        for texts, (ids, types) in zip(pairs, whole, strict=True):
            if len(ids) <= self.max_length:
                yield Encoded(ids, [0] * len(ids), types=types)
            elif self.truncation in ("error", "drop"):
                yield TooLong(len(ids))
            else:
                ((cut, types),) = _tokens(tokenizer, [texts], max_length=self.max_length, side=self.truncation)
                yield Encoded(cut, [0] * len(cut), truncated=True, types=types)


def classes_of_model(run: Run) -> tuple[str, ...]:
    """The classes that the head of the model at `model.path` was trained for, in its order; () where it says none."""
    path = run.model.path
    folder = Path(path).expanduser() if Path(path).expanduser().is_dir() else cached_model(path, run.model.revision)
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"] if folder else {}
        ordered = [str(names[number]) for number in sorted(names, key=int)]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return () if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else tuple(ordered)


def without_effect(run: Run, targets: Targets) -> list[Problem]:
    """Keys that were set and do nothing for these targets."""
    found = []
    section: Any = run.task
    if isinstance(targets, Classes) and not targets.multi_label and "task.threshold" in run.given:
        what = "has no effect: each row has exactly one class, the most probable one"
        found.append(Problem("task.threshold", what, "leave it out", fix="~task.threshold"))
    if isinstance(targets, Classes) and targets.multi_label and section.sampling == "balanced":
        what = "a row with several classes cannot be drawn by its class"
        found.append(Problem("task.sampling", what, "use task.class_weights=balanced", fix="task.sampling=natural"))
    return found


def values_of(examples: Groups) -> NDArray[np.float64]:
    """The numbers of all examples, in their order."""
    values = examples.table.values
    assert values is not None
    return values if examples.indices is None else values[examples.indices]


def texts_of(choice: ColumnChoice, row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The text of a row, and the second one if it has two."""
    pair = choice.columns.get("text_pair")
    return row[choice.columns["text"]], row[pair] if pair else None


def _tokens(
    tokenizer: Any, texts: Sequence[tuple[str, str | None]], *, max_length: int | None = None, side: str = "right"
) -> list[tuple[list[int], list[int] | None]]:
    """Ids and, where the model tells texts of a pair apart, the text each token belongs to (0 or 1)."""
    seconds = [second for _, second in texts if second is not None]
    tokenizer.truncation_side = side
    found = tokenizer(
        [first for first, _ in texts],
        seconds or None,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids="token_type_ids" in tokenizer.model_input_names and bool(seconds),
        verbose=False,
    )
    types = found.get("token_type_ids") or [None] * len(texts)
    return list(zip(found["input_ids"], types, strict=True))
