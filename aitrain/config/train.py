"""`train`: how long, how fast and how carefully."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from aitrain.config.section import Section, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


class Train(Section):
    """The optimisation shared by every trainer."""

    epochs: float = key(gt=0)
    """Passes over the training rows. Not used when `train.max_steps` is set."""
    max_steps: int | None = key(gt=0)
    """Stop after this many optimizer steps. null: `train.epochs` decides."""
    max_minutes: float | None = key(gt=0)
    """Save and stop cleanly after this many minutes of training. null: no limit."""
    batch_size: int = key(gt=0)
    """Rows in one forward pass of one process."""
    eval_batch_size: int | None = key(gt=0, visibility="advanced")
    """Rows in one forward pass of an evaluation. null: `train.batch_size`."""
    gradient_accumulation: int = key(gt=0)
    """Forward passes whose gradients are summed before the optimizer steps."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"]
    """Peak learning rate. auto: what suits the trainer; for sft and pretrain 2e-5 for all weights of a pretrained
    model, 2e-4 for an adapter, 2e-3 for a tiny sample model that begins untrained."""
    scheduler: Literal["linear", "cosine", "constant"]
    """Course of the learning rate after the warm-up."""
    warmup_ratio: float = key(ge=0, lt=1)
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: float = key(ge=0)
    """Decoupled weight decay of AdamW; biases and norms are left out."""
    max_grad_norm: float = key(ge=0)
    """Longest gradient; a longer one is scaled down. 0: no clipping."""
    optimizer: Literal["adamw", "sgd", "adafactor"]
    """Optimizer."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Number format of the computation. auto: bf16 on a GPU that has it, else fp32."""
    padding_free: bool | Literal["auto"]
    """Lay the rows of a batch end to end instead of padding them to the longest. auto: where the model is known to keep
    rows apart and a trial confirms it."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
    logging_steps: int = key(gt=0)
    """Optimizer steps between two lines of training metrics."""
    eval_steps: int | Literal["epoch", "never"]
    """Optimizer steps between two evaluations, `epoch`, or `never`. The end is always evaluated unless `never`."""
    eval_on_start: bool
    """Evaluate the untrained model too, so that the report has a before and an after."""
    save_steps: int | Literal["epoch", "never"]
    """Optimizer steps between two checkpoints, `epoch`, or `never`."""
    save_total_limit: int | None = key(gt=0)
    """Checkpoints kept; the newest and the best one always are. null: all."""
    load_best: bool
    """End with the weights of the best evaluation instead of the last ones."""
    metric_for_best_model: str
    """Measure of an evaluation that says which one is best: `loss`, or another that the trainer reports."""
    early_stopping_patience: int | None = key(gt=0)
    """Stop after this many evaluations without improvement of `train.metric_for_best_model`. null: never."""
    early_stopping_threshold: float = key(ge=0, visibility="advanced")
    """Improvement of `train.metric_for_best_model` that counts."""
    deterministic: bool
    """Refuse operations whose result differs between two equal runs."""
    overfit_batch: bool = key(visibility="advanced")
    """Train on the first batch again and again: a loss that does not go to zero shows a fault in model or data."""

    def problems(self, run: Run) -> Iterator[Problem]:
        yield from _length(self, run)
        yield from _evaluation(self, run)


@dataclass(frozen=True)
class NoEvaluation:
    """Why a run evaluates nothing, what would change that, and how strongly the user asked for it."""

    why: str
    cure: str
    strength: int
    """The strongest of the keys behind it, as `Run.strength` has it."""

    def wastes(self, run: Run, key: str) -> bool:
        """Whether the user set a key that nothing reads without evaluations. One from a recipe gives way to typed
        words that switch evaluations off."""
        return run.strength(key) >= max(1, self.strength)


def no_evaluation(run: Run) -> NoEvaluation | None:
    """Why nothing is evaluated; None when something is."""
    if run.train.overfit_batch:
        why = "train.overfit_batch trains on one batch and evaluates nothing"
        return NoEvaluation(why, "leave one of the two out", run.strength("train.overfit_batch"))
    if not run.data.names_validation_rows and (run.data.valid_fraction == 0 or run.data.streaming):
        key = "data.streaming" if run.data.streaming else "data.valid_fraction"
        cure = "set data.valid_split" if run.data.streaming else "set data.valid_split or data.valid_fraction"
        return NoEvaluation("there are no validation rows", cure, run.strength(key))
    if run.train.eval_steps == "never":
        why = "nothing is evaluated with train.eval_steps=never"
        return NoEvaluation(why, "set train.eval_steps", run.strength("train.eval_steps"))
    return None


def _length(train: Train, run: Run) -> Iterator[Problem]:
    # A recipe's epochs give way to max_steps typed on the command line; otherwise the two clash.
    if train.max_steps is not None and run.strength("train.epochs") >= max(1, run.strength("train.max_steps")):
        yield Problem(
            "train.epochs",
            f"has no effect beside train.max_steps={train.max_steps}",
            "leave it out, or set train.max_steps=null",
        )


def _evaluation(train: Train, run: Run) -> Iterator[Problem]:
    for name in ("eval_steps", "save_steps"):
        if run.data.streaming and getattr(train, name) == "epoch" and f"train.{name}" in run.given:
            yield Problem(f"train.{name}", "a stream has no known epochs", "give a number of steps")
    if isinstance(train.eval_steps, int) and train.eval_steps < 1:
        yield Problem("train.eval_steps", "should be greater than 0", "use never for no evaluation")
    if isinstance(train.save_steps, int) and train.save_steps < 1:
        yield Problem("train.save_steps", "should be greater than 0", "use never for no checkpoint")
    if none := no_evaluation(run):
        why, cure = none.why, none.cure
        if train.early_stopping_patience is not None:
            yield Problem("train.early_stopping_patience", why, cure)
        if train.load_best:
            yield Problem("train.load_best", why, cure)
        if none.wastes(run, "train.metric_for_best_model"):
            yield Problem("train.metric_for_best_model", why, cure)
        if none.wastes(run, "train.eval_steps") and train.eval_steps != "never":
            yield Problem("train.eval_steps", why, cure)
        if none.wastes(run, "train.eval_batch_size"):
            yield Problem("train.eval_batch_size", why, cure)
        if none.wastes(run, "train.eval_on_start") and train.eval_on_start:
            yield Problem("train.eval_on_start", why, cure)
    if train.early_stopping_patience is None and "train.early_stopping_threshold" in run.given:
        yield Problem(
            "train.early_stopping_threshold",
            "has no effect without train.early_stopping_patience",
            "set train.early_stopping_patience too",
        )
    if train.save_steps == "never" and train.load_best:
        yield Problem("train.load_best", "needs checkpoints", "set train.save_steps")
    if train.save_steps == "never" and "train.save_total_limit" in run.given:
        yield Problem("train.save_total_limit", "has no effect with train.save_steps=never", "set train.save_steps")
