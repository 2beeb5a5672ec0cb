"""What tests of the trainers that learn from answers of their own have in common: reading runs, figures by hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import distance, weights

from aitrain.ml.loading import load_causal_lm
from aitrain.rundir.events import read_events

MEASURES = (
    *("loss", "reward", "reward_std", "groups_alike", "kl", "entropy", "length", "ended", "policy_clip_fraction"),
    *("policy_clip_fraction/low", "policy_clip_fraction/high", "grad_norm", "optimizer_steps"),
)


def training(folder: Path) -> list[dict[str, Any]]:
    """The lines of training of a run."""
    return [event for event in read_events(folder) if event["event"] == "train"]


def measures(event: dict[str, Any]) -> dict[str, float]:
    """What a line says, but for how long it took."""
    return {
        name: value
        for name, value in event.items()
        if isinstance(value, int | float) and not name.startswith(("seconds", "tokens_per_second"))
    }


def assert_alike(folder: Path, other: Path, tolerance: float = 1e-4) -> None:
    """Two runs measured and learnt the same."""
    assert len(training(folder)) == len(training(other)) > 0
    for mine, theirs in zip(training(folder), training(other), strict=True):
        assert measures(mine) == pytest.approx(measures(theirs), rel=1e-3, abs=tolerance), mine["step"]
    assert distance(weights(folder / "model"), weights(other / "model")) <= tolerance


def recording(trainer: type[Any], kept: dict[str, Any]) -> type[Any]:
    """The trainer, which keeps what its last optimizer step is made of: the policy is no longer the one that wrote."""

    class Recorded(trainer):
        def advantages(self, answers: Any) -> Any:
            found = super().advantages(answers)
            kept.update(advantages=found[0].tolist())
            return found

        def lessons(self, answers: Any) -> Any:
            kept.update(answers=answers, old=state(self))
            return super().lessons(answers)

        def _optimize(self, model: Any, batch: Any) -> dict[str, float]:
            kept.update(batch=batch, new=state(self))
            kept["measured"] = super()._optimize(model, batch)
            return dict(kept["measured"])

    return Recorded


def state(trainer: Any) -> dict[str, torch.Tensor]:
    """The weights as they are, in float64."""
    return {name: weight.detach().double() for name, weight in trainer.model.state_dict().items()}


def plain(path: str, weights: dict[str, torch.Tensor] | None = None) -> Any:
    """A model in float64, with these weights or its own."""
    model = load_causal_lm(path, revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False)
    model = model.double().eval()
    if weights is not None:
        model.load_state_dict(weights)
    return model


@torch.no_grad()
def logps(model: Any, row: Any, temperature: float = 0.8) -> list[float]:
    """Log-probabilities of the written tokens of one row."""
    shares = (model(input_ids=torch.tensor(row.ids.tolist())[None]).logits[0] / temperature).log_softmax(-1)
    return [shares[place - 1][row.ids[place]].item() for place in np.flatnonzero(row.trained)]


def signal_in(patch: pytest.MonkeyPatch, owner: Any, where: str, call: int) -> None:
    """Send this process SIGTERM in a call of a part of `owner`, counted from 1."""
    original, seen = getattr(owner, where), iter(range(1, 10**6))

    def signalled(*args: Any, **kwargs: Any) -> Any:
        if next(seen) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    patch.setattr(owner, where, signalled)
