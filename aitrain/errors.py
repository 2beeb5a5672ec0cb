"""What can go wrong, as exceptions; each carries the exit code the command line returns.

    AitrainError
    ├── Refused              2    nothing was started; lists every problem found
    │   ├── ConfigError           a key, a group option or a recipe is wrong
    │   ├── DataError             the rows are missing, unreadable or of the wrong shape
    │   └── MachineError          this machine cannot do it: an extra, a device, disk space, a busy folder
    ├── TrainingFailed       1    training began and could not go on
    └── Stopped         128+n     a signal ended the run after its checkpoint

A user's mistake is one of these and prints no traceback. Anything else is a bug and prints one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with what to do about it."""

    key: str
    """The config key (`train.batch_size`), or the file the problem is about."""
    what: str
    """What is wrong, without a full stop."""
    advice: str = ""
    """What to do: the nearest valid name, the command to run, the key to set."""
    where: str = ""
    """`file:line` when the value came from a file."""
    fix: str = ""
    """An override that repairs it, as it would be typed; `~KEY` leaves the word out, and a key alone is the right name
    of this one. The whole corrected command is printed."""

    def __str__(self) -> str:
        line = f"{self.key}: {self.what}"
        if self.advice:
            line += f"; {self.advice}"
        if self.where:
            line += f"  ({self.where})"
        return line


class AitrainError(Exception):
    """The root of the tree above."""

    exit_code = 1


class Refused(AitrainError):
    """Refused before training. `problems` holds everything found, in the order of the config tree."""

    exit_code = 2
    begun = False
    """Whether the run had opened already, and the model or the first rows of a stream were the reason."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[Refused], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class ConfigError(Refused):
    """A key, an option or a recipe is wrong."""


class DataError(Refused):
    """Rows are missing, unreadable or of the wrong shape."""


class MachineError(Refused):
    """This machine cannot do what was asked."""


class TrainingFailed(AitrainError):
    """Training began and could not go on."""


class Stopped(AitrainError):
    """A signal ended the run. `checkpoint` is the folder that holds its state, if there is one."""

    def __init__(self, signum: int, checkpoint: str | None = None) -> None:
        self.signum = signum
        self.checkpoint = checkpoint
        self.exit_code = 128 + signum
        super().__init__(f"stopped by signal {signum}")

    def __reduce__(self) -> tuple[type[Stopped], tuple[int, str | None]]:
        return type(self), (self.signum, self.checkpoint)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is alike. Of dotted keys the last word is compared first."""
    candidates: Sequence[str] = sorted(known)
    by_leaf: dict[str, list[str]] = {}
    for candidate in candidates:
        by_leaf.setdefault(candidate.rpartition(".")[2], []).append(candidate)
    leaf = name.rpartition(".")[2]
    alike = difflib.get_close_matches(leaf, by_leaf, n=1, cutoff=0.6)
    if not alike:
        return None
    return max(by_leaf[alike[0]], key=lambda c: difflib.SequenceMatcher(None, c, name).ratio())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what there is when nothing is alike and the list is short."""
    candidates = sorted(known)
    near = nearest(name, candidates)
    if near:
        return f"did you mean '{near}'?"
    if len(candidates) > 12:
        return "see 'aitrain show params'"
    return "there is " + ", ".join(candidates) if candidates else ""
