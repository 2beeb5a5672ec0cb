"""Small runs for the tests of training: started in this process, and read back from their folders."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import aitrain
from aitrain.errors import Stopped
from aitrain.ml.run_loop import RunLoop
from aitrain.report import Report
from aitrain.rundir.events import read_events

SMALL = {
    "model.path": "sample:tiny-qwen3",
    "data.max_samples": 40,
    "hardware": "cpu",
    "hardware.threads": 1,
    "run.progress": "none",
    "generate.count": 0,
    "train.logging_steps": 1,
}
REPEATABLE = ("event", "step", "epoch", "learning_rate", "grad_norm", "loss", "tokens", "perplexity", "token_accuracy",
              "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
              "logps/rejected", "mean_token_accuracy", "nll_loss", "log_odds_ratio", "log_odds_chosen", "kl",
              "accuracy", "margin", "mean_reward", "reward", "length")  # fmt: skip
"""What two equal runs record alike; seconds and speeds differ."""


def words(folder: Path | None, **changes: Any) -> list[str]:
    """Overrides of a small run. `train__batch_size=4` becomes `train.batch_size=4`; None leaves the key out."""
    chosen = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    if folder is not None:
        chosen["run.dir"] = folder
    return [f"{key}={value}" for key, value in chosen.items() if value is not None]


def run(folder: Path, **changes: Any) -> Report:
    """Train a small run in this process."""
    return aitrain.train(*words(folder, **changes))


def events(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """What a run recorded, of some kinds, without what differs between equal runs."""
    found = [event for event in read_events(folder) if event["event"] in (kinds or ("train", "eval"))]
    return [{name: event[name] for name in REPEATABLE if name in event} for event in found]


def losses(folder: Path) -> list[float]:
    """Training losses, one a step."""
    return [event["loss"] for event in events(folder, "train")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model or checkpoint folder, whole or adapter."""
    name = "adapter_model.safetensors" if (folder / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(folder / name)


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of any weight. 0.0 means bit-equal."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def assert_same_run(folder: Path, other: Path) -> None:
    """Events and final weights are equal to the last bit."""
    assert events(folder) == events(other)
    assert distance(weights(folder / "model"), weights(other / "model")) == 0.0


def report(folder: Path) -> dict[str, Any]:
    """What `report.json` says."""
    return json.loads((folder / "report.json").read_text())


def signal_at(monkeypatch: pytest.MonkeyPatch, micro_step: int, signum: int = signal.SIGTERM) -> Callable[[], int]:
    """Send this process a signal while it computes a micro-step, counted from 1 in this process."""
    original = RunLoop.training_step
    seen = 0

    def training_step(self: RunLoop, *args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == micro_step:
            os.kill(os.getpid(), signum)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RunLoop, "training_step", training_step)
    return lambda: seen


def run_stopped_at(micro_step: int, folder: Path, signum: int = signal.SIGTERM, **changes: Any) -> Stopped:
    """Train until a signal arrives in the given micro-step; the run must stop because of it."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, micro_step, signum)
        with pytest.raises(Stopped) as stopped:
            run(folder, **changes)
    return stopped.value
