"""What a trainer is given on each rank, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder
    from aitrain.data.mixture import FoundSource
    from aitrain.plan import Plan
    from aitrain.rundir.checkpoints import Checkpoint
    from aitrain.rundir.events import EventLog
    from aitrain.rundir.stop import StopRequest


@dataclass(frozen=True)
class Stream:
    """Where a streaming run reads its rows, with what their columns mean, and what tokenises them."""

    sources: Sequence[FoundSource]
    encoder: Encoder


@dataclass(frozen=True)
class Job:
    """One rank's share of a run."""

    run: Run
    plan: Plan
    folder: Path
    rank: int
    world: int
    events: EventLog
    stop: StopRequest
    resume_from: Checkpoint | None
    encoder: Any
    """Turns rows into token ids (`aitrain.data.encoding.Encoder`), the trainer's own; None if there are no tokens."""
    sources: Sequence[FoundSource]
    """Where the rows are, for a trainer that reads them itself; () for the others."""
    metrics: Mapping[str, str]
    """What an evaluation reports, and whether less (`min`) or more (`max`) of it is better."""
    stream: Stream | None
    """What to read while training; None when the rows were tokenised before."""
    adapt: Callable[[Any], Any] | None
    """Puts the adapter on a loaded model; None trains the whole model."""


@dataclass(frozen=True)
class Outcome:
    """What training came to, the same on every rank."""

    steps: int
    epochs: float
    before: dict[str, float] | None
    after: dict[str, float] | None
    baselines: dict[str, Any]
    best: dict[str, Any] | None
    parameters: dict[str, int]
    weights_step: int
    """The step whose weights the model has: the last one, or with `train.load_best` the best one."""
    ended_by: str
    """`steps`, `minutes` or `early_stopping`."""
    ended_because: str | None
    """Why it ended before its last step, in words."""
    tokens: int
    """Tokens seen in training, padding not counted."""
    peak_device_memory_bytes: int | None
    """Most memory of a GPU that was ever taken up, of the rank that took most; None on a CPU."""
    details: dict[str, Any] | None
    """What the saved weights predict of the validation rows, for pictures; None where nothing of rows is predicted."""
    stream_counts: dict[str, int] | None
    """Rows read, bad, truncated and dropped so far in a stream, as this rank counted them."""
