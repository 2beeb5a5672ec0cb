"""What an estimator of `task=tabular` brings: its typed keys, what it can learn, and how it is made and searched.

Nothing heavy is imported here or at the top of an estimator's module: the registry imports them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aitrain.config.section import OptionSection

SubTask = Literal["binary", "multiclass", "multilabel", "regression"]
CLASSIFICATION: tuple[SubTask, ...] = ("binary", "multiclass", "multilabel")
REGRESSION: tuple[SubTask, ...] = ("regression",)
ALL: tuple[SubTask, ...] = (*CLASSIFICATION, *REGRESSION)

Encoding = Literal["one_hot", "ordinal", "native"]
"""What becomes of a category: a column of 0 and 1 each, its number, or its number with the estimator told of it."""


@dataclass(frozen=True)
class Goal:
    """What is to be learnt, as far as the making of an estimator depends on it."""

    subtask: SubTask
    targets: int = 1
    """Columns to predict: labels of multilabel, several of a multi-output regression, else 1."""
    classes: int = 0
    """Classes of the one target; 2 a label, 0 for regression."""
    smallest_class: int = 0
    """Rows of the rarest class in the smallest part an estimator is fitted on; 0 for regression."""
    numbers: int = 0
    """Features that are numbers; they come first."""
    categories: int = 0
    """Features that are numbered categories, after the numbers. 0 where they are one-hot."""

    @property
    def is_classification(self) -> bool:
        return self.subtask in CLASSIFICATION

    @property
    def categorical(self) -> list[int]:
        """Positions of the numbered categories among the features."""
        return list(range(self.numbers, self.numbers + self.categories))


@dataclass(frozen=True)
class Real:
    """A real number between two bounds, evenly or, with `log`, evenly in its logarithm."""

    low: float
    high: float
    first: float | None = None
    """The library's own default, tried first; None where it is no number of this range."""
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """A whole number between two bounds, both included."""

    low: int
    high: int
    first: int | None = None
    """As in `Real`."""
    log: bool = False


@dataclass(frozen=True)
class Pick:
    """One of a list; the library's own default is the first."""

    choices: tuple[str | int | float | bool | None, ...]

    @property
    def first(self) -> Any:
        return self.choices[0]


Space = Real | Whole | Pick


@dataclass(frozen=True)
class OwnFormat:
    """How a library that has a file format of its own keeps a fitted estimator, without code in the file."""

    suffix: str
    write: Callable[[Any, Path], None]
    read: Callable[[Path, Goal], Any]
    """An object with `predict` and, for classes, `predict_proba`."""


@dataclass(frozen=True)
class Estimator:
    """How rows become predictions.

    `make(section, goal, seed, threads, **found)` returns the library's own estimator, not fitted, of one target or, if
    `several`, of all; `found` are searched values. `search_space(section, goal)` names what is searched: the keys
    that are null.
    """

    section: type[OptionSection]
    subtasks: tuple[SubTask, ...]
    make: Callable[..., Any]
    search_space: Callable[[Any, Goal], dict[str, Space]]
    needs: tuple[str, str | None] = ("sklearn", None)
    """The package it needs and the extra of ours that installs it, if it is not always there."""
    encoding: Encoding = "one_hot"
    scaler: Literal["standard", "none"] = "standard"
    """What `numeric_scaler=auto` becomes."""
    takes_missing: bool = False
    """Whether it has an answer of its own to missing numbers; otherwise they are filled."""
    several: bool = False
    """Whether it learns several targets by itself; otherwise there is one estimator a target."""
    frame: bool = False
    """Whether it wants a data frame, with categories as integers, instead of an array of floats."""
    only_for: Mapping[str, tuple[SubTask, ...]] = field(default_factory=dict)
    """Keys that have an effect for some sub-tasks only."""
    fit_options: Callable[[Goal], dict[str, Any]] = field(default=lambda goal: {})
    """What `fit` is told besides rows and targets."""
    threads_to_predict: int | None = None
    """Threads of a fitted estimator, where more would add up its answers in an order of chance. None: as made."""
    own_format: OwnFormat | None = None
    """None: skops keeps it."""

    @property
    def name(self) -> str:
        """As in `trainer=NAME`."""
        return str(self.section.model_fields["name"].annotation.__args__[0])  # type: ignore[union-attr]


def unset(section: OptionSection, space: Mapping[str, Space]) -> dict[str, Space]:
    """The part of a search space whose keys are null; a value that is set is never searched."""
    return {key: values for key, values in space.items() if getattr(section, key) is None}


def arguments(section: OptionSection, found: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the library's constructor is given: the keys that are set and what was found for others. Raises ValueError
    for a found value whose key is set, or that is no key."""
    given = {key: value for key, value in section.model_dump(exclude={"name"}).items() if value is not None}
    wrong = sorted(set(found) & set(given)) or sorted(set(found) - set(type(section).model_fields))
    if wrong:
        raise ValueError(f"{wrong[0]} of {section.name} cannot be searched: it is set, or no key")
    return {key: value for key, value in {**given, **found}.items() if key not in without}
