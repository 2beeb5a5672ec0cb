"""What every trainer's run has in common: logging, evaluation, checkpoints, stopping, and the books that are kept.

A mixin that comes before transformers' Trainer, or one of TRL's, in the order of classes. What the Trainer does well is
kept: wrapping the model for many processes, mixed precision, optimizer and schedule, the loop itself. What this project
promises is done here: a checkpoint holds the whole state, metrics carry exact numbers, and a run stops cleanly when
asked. What a step computes is the trainer's own.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from aitrain.errors import Stopped, TrainingFailed
from aitrain.ml.collating import padding_id
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.generating import Prompt, answer
from aitrain.ml.job import Job
from aitrain.ml.streaming import StreamBatches
from aitrain.rundir.checkpoints import begin, existing, publish, tidy
from aitrain.rundir.folder import read_json
from aitrain.rundir.lineage import lasting_settings

STATE = "aitrain_state.json"
"""File in a checkpoint that holds `Books`."""


class RunLoop:
    """Logging, evaluation, checkpoints and stopping. Comes before the Trainer that it is mixed into."""

    # What transformers' Trainer, which comes after this class, has.
    args: Any
    model: Any
    state: Any
    control: Any
    accelerator: Any
    processing_class: Any

    def begin_run(self, job: Job, tokenizer: Any, rows: Any, valid: Any) -> None:
        """Take over a Trainer that was just made. `rows` and `valid` are what it trains and is judged on."""
        trainer: Any = self
        for unwanted in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(unwanted)
        trainer.add_callback(Watch(self))
        self.job = job
        self.rows = rows
        self.valid = valid
        self.pad_id = padding_id(tokenizer)
        self.loss_is_scaled_for_ga = True
        self.metric = job.run.train.metric_for_best_model
        self.books = Books(metric=self.metric, aim=job.metrics[self.metric])
        self.prompts: list[Prompt] = []
        self.began = self.started = time.monotonic()
        self.grad_norm = 0.0
        """Length of the gradient of the step under way, before clipping."""
        self.ended_by = "steps"
        self.stopped_by = 0

    def measure(self) -> dict[str, float]:
        """Judge the model by the validation rows: `loss` and what else the trainer reports, the same on every rank.

        Raises EvaluationInterrupted on every rank once any of them sees a stop request.
        """
        raise NotImplementedError

    def derived(self, measures: dict[str, float]) -> dict[str, float]:
        """Measures of training or of an evaluation, with those that follow from others."""
        return measures

    def trained_model(self) -> Any:
        """The model that the run is about, as it is saved at the end."""
        return self.accelerator.unwrap_model(self.model)

    def generating(self) -> AbstractContextManager[None]:
        """Makes the model ready to write text."""
        return nullcontext()

    def judged(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to the prompts of the report, with what the trainer has to say of each. Only on rank 0."""
        return samples

    def save_more(self, folder: Path) -> None:
        """Put what the trainer needs besides into a checkpoint that is being written. Only on rank 0."""

    def save_beside(self, folder: Path) -> None:
        """Put what belongs to the finished model beside its weights. Only on rank 0."""

    def described(self) -> dict[str, Any] | None:
        """What the final weights make of the validation rows, in more than a number; None for nothing. Collective."""
        return None

    # --- a step ---

    def mean_step_loss(self) -> float:
        """The step's loss over the tokens of all ranks."""
        loss = self.books.step_loss
        if self.job.world > 1:
            tensor = torch.tensor(loss, dtype=torch.float64, device=self.args.device)
            dist.all_reduce(tensor)
            loss = float(tensor) / self.job.world
        self.books.step_loss = loss
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        self.grad_norm = float(norm)
        return norm

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.books.step_loss += loss.item()
        return loss

    # --- after each optimizer step ---

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, model: Any, *rest: Any, **more: Any) -> None:
        """Log, evaluate, save, stop: in this order, at the steps that the plan names."""
        step = self.state.global_step
        if step == self.books.last_step:  # the Trainer calls again at the end of an epoch
            return
        self.books.last_step = step
        self.books.close_step()
        plan, last = self.job.plan, step >= self.job.plan.steps
        if step % self.job.run.train.logging_steps == 0 or last:
            self._log_training(more.get("learning_rate"))
        signum = self._agreed_signal()
        out_of_time = self._agree(int(self._minutes_are_over()))
        ends = last or bool(out_of_time)
        if not signum and _due(step, plan.eval_every, ends):
            signum = self._evaluate_here()
            ends = ends or self.books.patience_is_over(self.job.run.train.early_stopping_patience)
        elif signum and _due(step, plan.eval_every, ends):
            self.books.evaluation_pending = True
        best_now = self.books.best is not None and self.books.best["step"] == step
        if plan.save_every is not None and (_due(step, plan.save_every, ends) or best_now or signum):
            self._save(model)
        if signum or ends:
            self.stopped_by = signum
            self.ended_by = self._why_ended(signum, bool(out_of_time), last)
            self._say_why_early()
            self.control.should_training_stop = True

    def epochs(self) -> float:
        """Passes over the rows so far; of a stream, whose length is not known, the share of the planned steps."""
        if isinstance(self.rows, StreamBatches):  # the Trainer counts anew when a stream is continued
            return self.state.global_step / self.job.plan.steps
        return float(self.state.epoch or 0.0)

    def _why_ended(self, signum: int, out_of_time: bool, last: bool) -> str:
        if signum:
            return "signal"
        if last:
            return "steps"
        return "minutes" if out_of_time else "early_stopping"

    @property
    def ended_because(self) -> str | None:
        """The reason for an end before the last step that the run itself chose; None for other ends."""
        if self.ended_by == "minutes":
            return f"train.max_minutes={self.job.run.train.max_minutes:g} are over"
        threshold = self.job.run.train.early_stopping_threshold
        return self.books.why_no_more(threshold) if self.ended_by == "early_stopping" else None

    def _say_why_early(self) -> None:
        if self.ended_because is not None:
            self.job.events.add("note", self.state.global_step, text=f"stopped: {self.ended_because}")

    def _log_training(self, learning_rate: Any) -> None:
        self.job.events.add(
            "train",
            self.state.global_step,
            epoch=self.epochs(),
            learning_rate=learning_rate,
            grad_norm=self.grad_norm if math.isfinite(self.grad_norm) else None,
            seconds=time.monotonic() - self.started + self.books.seconds_before,
            **self.derived(self.books.close_window()),
        )

    def _minutes_are_over(self) -> bool:
        limit = self.job.run.train.max_minutes
        return limit is not None and time.monotonic() - self.began > 60 * limit

    def _agree(self, value: int) -> int:
        """The largest value among the ranks."""
        if self.job.world == 1:
            return value
        tensor = torch.tensor(value, device=self.args.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def _agreed_signal(self) -> int:
        return self._agree(self.job.stop.requested())

    # --- evaluation ---

    def _evaluate_here(self) -> int:
        """Evaluate and answer the fixed prompts. Returns the signal that interrupted it, or 0."""
        if self.valid is None:
            return 0
        step, began = self.state.global_step, time.monotonic()
        try:
            with self.accelerator.autocast():  # an evaluation made up for comes before the model is wrapped
                measures = self.measure()
        except EvaluationInterrupted:
            self.books.evaluation_pending = True
            return self._agreed_signal()
        loss = measures.get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingFailed(f"the validation loss is {loss} at step {step}. Try a lower train.learning_rate.")
        if self.metric not in measures:
            why = f"the validation rows do not tell '{self.metric}'"
            raise TrainingFailed(f"{why} at step {step}. Choose another train.metric_for_best_model.")
        self.books.evaluation_pending = False
        self.books.note_evaluation(step, measures, self.job.run.train.early_stopping_threshold)
        seconds = time.monotonic() - began
        self.job.events.add("eval", step, epoch=self.epochs(), split="validation", **measures, seconds=seconds)
        if self.job.rank == 0 and self.prompts:
            longest = self.job.run.generate.max_new_tokens
            with self.generating():
                samples = answer(self.trained_model(), self.processing_class, self.prompts, longest)
            self.job.events.add("generate", step, samples=self.judged(samples))
        return 0

    # --- checkpoints ---

    def _save(self, model: Any) -> None:
        """Write model, optimizer, schedule, scaler, RNG of each rank and our books aside, then publish."""
        trainer: Any = self
        began, step = time.monotonic(), self.state.global_step
        folder = self._shared_folder()
        if self.job.rank == 0:
            self.accelerator.unwrap_model(self.model).save_pretrained(folder)
            self.processing_class.save_pretrained(folder)
            self.state.save_to_json(str(folder / "trainer_state.json"))
            self.save_more(folder)
            self.books.seconds_before += time.monotonic() - self.started
            self.started = time.monotonic()
            (folder / STATE).write_text(json.dumps(self.books.to_dict(), allow_nan=False))
        trainer._save_optimizer_and_scheduler(str(folder))
        trainer._save_scaler(str(folder))
        trainer._save_rng_state(str(folder))
        self._wait()
        if self.job.rank == 0:
            facts = {"world_size": self.job.world, "settings": lasting_settings(self.job.run)}
            published = publish(folder, self.job.folder, step, facts)
            best = self.books.best["step"] if self.books.best else None
            tidy(self.job.folder, newest=step, keep=self.job.run.train.save_total_limit, best=best)
            size = sum(p.stat().st_size for p in published.path.rglob("*") if p.is_file())
            relative = published.path.relative_to(self.job.folder).as_posix()
            self.job.events.add(
                "checkpoint", step, path=relative, seconds=time.monotonic() - began, bytes=size, best=best == step
            )
        self._wait()

    def _shared_folder(self) -> Path:
        names: list[Any] = [str(begin(self.job.folder)) if self.job.rank == 0 else None]
        if self.job.world > 1:
            dist.broadcast_object_list(names, src=0)
        return Path(names[0])

    def _wait(self) -> None:
        if self.job.world > 1:
            dist.barrier()

    def peak_device_memory(self) -> int | None:
        """The most that tensors took up of a GPU, over all ranks; None on a CPU."""
        device = self.args.device
        return self._agree(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None

    def is_saved(self) -> bool:
        """Whether the state after the last step lies in a checkpoint already. Collective."""
        found = existing(self.job.folder)
        return bool(self._agree(int(bool(found) and found[-1].step == self.state.global_step)))

    def restore_books(self, checkpoint: Path) -> None:
        """Take over what a checkpoint knows besides model, optimizer and RNG."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        saved = read_json(checkpoint / STATE)
        if saved is not None:
            self.books = Books(**{**saved, "metric": self.books.metric, "aim": self.books.aim})

    def evaluate_if_pending(self) -> bool:
        """Make up for an evaluation that a signal kept from happening. False when another signal stops this one too."""
        if self.books.evaluation_pending:
            self.stopped_by = self._evaluate_here()
        return not self.stopped_by

    def has_ended(self) -> bool:
        """Whether nothing is left to train: the process ended between the last checkpoint and the report."""
        if self.state.global_step >= self.job.plan.steps:
            return True
        if self.books.patience_is_over(self.job.run.train.early_stopping_patience):
            self.ended_by = "early_stopping"
            self._say_why_early()
            return True
        return False

    def load_weights(self, checkpoint: Path) -> None:
        """Put a checkpoint's weights (whole or adapter) into the model."""
        trainer: Any = self
        trainer._load_from_checkpoint(str(checkpoint))


def _due(step: int, every: int | None, ends: bool) -> bool:
    return every is not None and (ends or step % every == 0)


class EpochLoader(DataLoader):
    """A DataLoader that passes the epoch on to its order of rows."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class Watch(TrainerCallback):
    """Evaluates before the first step, and stops before the optimizer takes a step from a loss that is no number."""

    def __init__(self, trainer: RunLoop) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        untrained = state.global_step == 0 and trainer.job.plan.eval_every is not None
        if untrained and trainer.job.run.train.eval_on_start:
            signum = trainer._evaluate_here()
            if signum:
                raise Stopped(signum, latest_checkpoint(trainer.job))
        trainer.started = trainer.books._window_began = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        found = {"loss": trainer.mean_step_loss()}
        if not args.fp16:  # there the scaler leaves such a step out and goes on with a smaller scale
            found["gradient's length"] = trainer.grad_norm
        for name, value in found.items():
            if not math.isfinite(value):
                raise TrainingFailed(
                    f"the {name} is {value} at step {state.global_step + 1}; the weights are still those of step "
                    f"{state.global_step}. Try a lower train.learning_rate, or look at the rows of this step."
                )


def latest_checkpoint(job: Job) -> str | None:
    """The newest whole checkpoint of a run, if there is one."""
    found = existing(job.folder)
    return found[-1].path.as_posix() if found else None


class Books:
    """What is counted while training, saved with each checkpoint, so that a resumed run logs the same numbers."""

    def __init__(self, *, metric: str = "loss", aim: str = "min", **saved: Any) -> None:
        self.metric = metric
        """What the best evaluation is judged by."""
        self.aim = aim
        """`min` or `max`: which values of it are better."""
        self.window_loss = 0.0
        """Sum of the step losses since the last line of training metrics."""
        self.window_steps = 0
        self.window_tokens = 0
        self.window_measures: dict[str, list[float]] = {}
        """For each further measure of the steps since then: weighted sum, and sum of the weights."""
        self.window_counts: dict[str, int] = {}
        """What was counted in the steps since then."""
        self.tokens = 0
        """Tokens seen since the start, padding not counted."""
        self.last_step = 0
        self.best: dict[str, Any] | None = None
        self.before: dict[str, float] | None = None
        self.after: dict[str, float] | None = None
        self.evaluations_without_gain = 0
        self.evaluation_pending = False
        self.seconds_before = 0.0
        for name, value in saved.items():
            setattr(self, name, value)
        self.step_loss = 0.0
        self._step_tokens = 0
        self._window_began = time.monotonic()

    def to_dict(self) -> dict[str, Any]:
        """Everything that has to survive a restart."""
        left_out = ("step_loss", "metric", "aim")
        return {name: value for name, value in vars(self).items() if name not in left_out and name[0] != "_"}

    def take_step(self, tokens: int) -> None:
        """Begin an optimizer step of so many tokens."""
        self.step_loss = 0.0
        self._step_tokens = tokens

    def take_measures(self, measures: Mapping[str, float], weight: float) -> None:
        """Count what a micro-batch told besides its loss."""
        for name, value in measures.items():
            total = self.window_measures.setdefault(name, [0.0, 0.0])
            total[0] += value * weight
            total[1] += weight

    def take_counts(self, counts: Mapping[str, int]) -> None:
        """Add to what is counted, not averaged, until the next line of metrics."""
        for name, count in counts.items():
            self.window_counts[name] = self.window_counts.get(name, 0) + count

    def close_step(self) -> None:
        """Count the step that just ended."""
        self.window_loss += self.step_loss
        self.window_steps += 1
        self.window_tokens += self._step_tokens
        self.tokens += self._step_tokens

    def close_window(self) -> dict[str, float]:
        """Mean loss since the last line of metrics, and the speed; begins a new window."""
        seconds = time.monotonic() - self._window_began
        line = {
            "loss": self.window_loss / self.window_steps,
            "tokens": self.tokens,
            "tokens_per_second": self.window_tokens / max(seconds, 1e-9),
            **{name: total / weight for name, (total, weight) in self.window_measures.items() if weight},
            **self.window_counts,
        }
        self.window_loss, self.window_steps, self.window_tokens = 0.0, 0, 0
        self.window_measures, self.window_counts = {}, {}
        self._window_began = time.monotonic()
        return line

    def note_evaluation(self, step: int, measures: dict[str, float], threshold: float) -> None:
        """Keep before, after and best."""
        if step == 0:
            self.before = measures
            return
        self.after = measures
        gain = math.inf if self.best is None else self._gain(self.best["measures"], measures)
        self.evaluations_without_gain = 0 if gain > threshold else self.evaluations_without_gain + 1
        if gain > 0:
            self.best = {"step": step, "measures": measures}

    def _gain(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        difference = after[self.metric] - before[self.metric]
        return difference if self.aim == "max" else -difference

    def forget_best(self) -> None:
        """Look for the best evaluation anew."""
        self.best = None
        self.evaluations_without_gain = 0

    def why_no_more(self, threshold: float) -> str:
        """Why early stopping says stop, in words."""
        assert self.best is not None
        count, name = self.evaluations_without_gain, self.metric.replace("_", " ")
        enough = f" by more than {threshold:g}" if threshold else ""
        evaluations = f"{count} evaluation{'s' if count > 1 else ''}"
        best = f"best {self.best['measures'][self.metric]:.4g} at step {self.best['step']}"
        return f"{name} has not improved{enough} in {evaluations} ({best})"

    def patience_is_over(self, patience: int | None) -> bool:
        """Whether early stopping says stop."""
        return patience is not None and self.evaluations_without_gain >= patience
