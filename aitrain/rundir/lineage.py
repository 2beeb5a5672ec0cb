"""What a checkpoint says of the run that wrote it, so that no other kind of run goes on from it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.errors import Problem
from aitrain.rundir.checkpoints import MANIFEST, Checkpoint
from aitrain.rundir.folder import read_json

if TYPE_CHECKING:
    from aitrain.config.run import Run

MAY_DIFFER = ("dropout",)
"""Keys of `peft` on which neither weights nor optimizer depend."""


def lasting_settings(run: Run) -> dict[str, Any]:
    """The settings without which a checkpoint's weights and optimizer mean nothing, by key; for its manifest."""
    return {
        "trainer": run.trainer.name,
        "model.path": run.model.path,
        "train.optimizer": run.train.optimizer,
        "peft": run.peft.name,
        **{f"peft.{k}": v for k, v in run.peft.model_dump().items() if k != "name" and k not in MAY_DIFFER},
    }


def resume_problems(run: Run, checkpoint: Checkpoint) -> list[Problem]:
    """What keeps a run from going on from a checkpoint of another one: weights or an optimizer that do not fit.

    A checkpoint without a note of its settings is taken on trust.
    """
    before: dict[str, Any] | None = (read_json(checkpoint.path / MANIFEST) or {}).get("settings")
    if before is None:
        return []
    now = lasting_settings(run)
    if before.get("peft") != now["peft"]:  # all further keys of peft differ then too
        before, now = _without_details(before), _without_details(now)
    advice = "set the same, or begin without run.resume"
    return [
        Problem("run.resume", f"{checkpoint.path} is of a run with {key}={before.get(key)}, not {now.get(key)}", advice)
        for key in dict.fromkeys([*before, *now])
        if not _same(key, before.get(key), now.get(key))
    ]


def _without_details(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if not key.startswith("peft.")}


def _same(key: str, first: Any, second: Any) -> bool:
    if key == "model.path" and first and second:
        return Path(first).expanduser().resolve() == Path(second).expanduser().resolve()
    return bool(first == second)
