"""What the options that learn from preferences have in common: keys they read, measures, and combinations refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder

TASKS = ("llm",)
READS = ("data.columns.prompt", "data.columns.input", "data.columns.system", "data.max_length",
         "data.max_prompt_length", "data.truncation", "data.chat_format")  # fmt: skip
"""Keys of the data that act with every trainer on preferences."""
PAIRS = (*READS, "data.columns.chosen", "data.columns.rejected")
"""The same where rows are pairs."""
GENERATES = ("generate.*",)
"""Keys of trainers whose model writes text."""
REWARDS: dict[str, Literal["min", "max"]] = {
    "rewards/chosen": "max",
    "rewards/rejected": "min",
    "rewards/margins": "max",
}
LOGPS: dict[str, Literal["min", "max"]] = {"logps/chosen": "max", "logps/rejected": "min"}
ACCURACY: dict[str, Literal["min", "max"]] = {"rewards/accuracies": "max"}


def pair_encoder(run: Run) -> Encoder:
    """A pair to two rows of token ids that begin with the same prompt. A margin is not looked at."""
    from aitrain.data.preference_encoding import PairEncoder

    return PairEncoder(run, margins=False)


def ignored(run: Run) -> Iterator[Problem]:
    """Shared keys that act with other trainers only."""
    if "train.padding_free" in run.given:
        what = f"has no effect with trainer={run.trainer.name}, which pads its batches of rows of similar length"
        yield Problem("train.padding_free", what, "leave it out", fix="~train.padding_free")


def adapted_head(run: Run) -> Iterator[Problem]:
    """An adapter on the output head, which the loss would go past."""
    peft: Any = run.peft
    targets = getattr(peft, "target_modules", None)
    if isinstance(targets, list) and any(name.rpartition(".")[2] == "lm_head" for name in targets):
        what = "an adapter on lm_head would never be trained: the loss multiplies by the head's own weights"
        yield Problem("peft.target_modules", what, "leave lm_head out of it")


def unread(run: Run, name: str, acts: bool, chosen: str) -> Iterator[Problem]:
    """A key of the trainer that was set where nothing reads it."""
    if not acts and f"trainer.{name}" in run.given:
        yield Problem(f"trainer.{name}", f"has no effect with {chosen}", "leave it out")


def reference_problems(section: Any, run: Run) -> Iterator[Problem]:
    """What is wrong with the keys about a reference model."""
    for name in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
        yield from unread(run, name, section.sync_ref_model, "trainer.sync_ref_model=false")
    own_copy = section.ref_model is not None or run.peft.name == "none"
    if section.sync_ref_model and run.peft.name != "none":
        what = f"with peft={run.peft.name} there is no whole model to move the reference towards"
        yield Problem("trainer.sync_ref_model", what, "leave one of the two out")
    if own_copy and section.ref_model is not None:
        yield from model_not_found("trainer.ref_model", section.ref_model)


def model_not_found(key: str, path: str | None) -> Iterator[Problem]:
    """What is wrong with the name of a further model that a trainer needs; nothing is downloaded to find out."""
    from pathlib import Path

    from aitrain.data.samples import known_model
    from aitrain.errors import ConfigError

    if path is None:
        return
    if path.startswith("sample:"):
        try:
            known_model(path.removeprefix("sample:"))
        except ConfigError as error:
            yield from (Problem(key, problem.what, problem.advice) for problem in error.problems)
    elif path.startswith(("/", ".", "~")) and not Path(path).expanduser().is_dir():
        yield Problem(key, f"there is no folder {path}", "name a folder, a Hub id or a sample")
