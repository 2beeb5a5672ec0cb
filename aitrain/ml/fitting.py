"""Fitting a causal language model: transformers' Trainer with our own order of rows, loss, evaluation and checkpoints.

What the Trainer does well is kept: wrapping the model for many processes, mixed precision, optimizer and schedule, the
loop itself. What this project promises is done here: every token weighs the same whatever the batches, a checkpoint
holds the whole state, metrics carry exact numbers, and a run stops cleanly when asked.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from aitrain.data.columns import Shape
from aitrain.data.encoding import load_tokenizer, prompt_ids
from aitrain.data.prepare import open_rows, open_validation
from aitrain.data.rendering import RenderingError
from aitrain.errors import ConfigError, DataError, MachineError, Problem, Stopped, TrainingFailed
from aitrain.ml.collating import TokenDataset, TokenRows, pad, padding_id, tokens_of_rows
from aitrain.ml.evaluating import EvaluationInterrupted, evaluate_causal_lm, unigram_baseline
from aitrain.ml.generating import Prompt, answer, prompts_of_rows
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import adapted, count_parameters, load_causal_lm, model_location
from aitrain.ml.losses import labelled_tokens, summed_loss
from aitrain.ml.ordering import RankBatches, epoch_order
from aitrain.ml.streaming import StreamBatches
from aitrain.rundir.checkpoints import begin, existing, name_of, publish, tidy
from aitrain.rundir.folder import CHECKPOINTS, MODEL, REPORT, read_json
from aitrain.rundir.lineage import lasting_settings

STATE = "aitrain_state.json"
"""File in a checkpoint that holds `Books`."""
OPTIMIZERS = {"adamw": "adamw_torch_fused", "sgd": "sgd", "adafactor": "adafactor"}


def fit_causal_lm(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank.

    Raises Stopped after the checkpoint when a signal asked for it, TrainingFailed when the loss is not finite, and
    MachineError when the launch gave something else than was asked.
    """
    check_precision(job)
    args = training_arguments(job)
    check_launch(args, job)
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(args.device)
    set_seed(job.run.run.seed)
    if job.run.train.deterministic:
        torch.use_deterministic_algorithms(True)
    model_path, section = model_location(job.run.model.path), job.run.model
    tokenizer = load_tokenizer(
        model_path,
        section.revision,
        trust_remote_code=section.trust_remote_code,
        allow_downloads=job.run.run.allow_downloads,
    )
    rows, valid = _rows(job, tokenizer)
    model = _model(job)
    trainer = CausalTrainer(job, args, model, tokenizer, rows, valid)
    if job.rank == 0 and valid is not None:
        trainer.prompts = _prompts(job, tokenizer, valid)
    known = valid is not None and not isinstance(rows, StreamBatches)
    baselines = {"unigram": unigram_baseline(rows, valid, len(tokenizer))} if known else {}
    _train(trainer, job)
    if trainer.stopped_by:
        raise Stopped(trainer.stopped_by, _latest(job))
    return _finish(trainer, job, baselines)


def _rows(job: Job, tokenizer: Any) -> tuple[Any, Any]:
    """Rows to train and to validate on."""
    run, plan = job.run, job.plan
    if job.stream is not None:
        stream = StreamBatches(run, job.stream, tokenizer, rank=job.rank, world=job.world)
        stream.start = (job.resume_from.step if job.resume_from else 0) * run.train.gradient_accumulation
        return stream, open_validation(run, plan)
    rows, valid = open_rows(run, plan)
    if run.train.overfit_batch:
        order = epoch_order(len(rows), run.run.seed, 0)
        return [rows[int(index)] for index in order[: plan.global_batch_size]], None
    return rows, valid


def _model(job: Job) -> Any:
    section = job.run.model
    model = load_causal_lm(
        section.path,
        revision=section.revision,
        dtype=job.plan.dtype,
        trust_remote_code=section.trust_remote_code,
        allow_downloads=job.run.run.allow_downloads,
    )
    model.config.use_cache = False
    if job.adapt is not None:
        if job.run.train.gradient_checkpointing:
            model.enable_input_require_grads()
        model = adapted(model, job.adapt, job.run.peft.model_dump())
    return model


def _prompts(job: Job, tokenizer: Any, valid: TokenRows) -> list[Prompt]:
    texts = job.run.generate.prompts
    if texts is None:
        return prompts_of_rows(valid, tokenizer, job.run.generate.count)
    # The opening of the report names the column of plain texts, which are no conversations: neither is a prompt then.
    columns = str((read_json(job.folder / REPORT) or {}).get("data", {}).get("columns"))
    shape: Shape = "text" if columns.startswith("text=") else "messages"
    try:
        ids = prompt_ids(tokenizer, texts, job.encoder, shape)
    except RenderingError as error:
        raise ConfigError(Problem("generate.prompts", str(error), "leave it out for prompts of the data")) from error
    return [Prompt(row, text, None) for row, text in zip(ids, texts, strict=True)]


def _train(trainer: CausalTrainer, job: Job) -> None:
    checkpoint = job.resume_from
    try:
        if checkpoint is None:
            trainer.train()
            return
        trainer.restore_books(checkpoint.path)
        if checkpoint.path.parent.parent.resolve() != job.folder.resolve():
            trainer.books.forget_best()  # its checkpoint lies elsewhere, where it may be removed any time
        if trainer.books.evaluation_pending or trainer.has_ended():
            trainer.load_weights(checkpoint.path)
        if trainer.evaluate_if_pending() and not trainer.has_ended():
            trainer.train(resume_from_checkpoint=str(checkpoint.path))
    except DataError as error:  # a row of a stream, which is read while training
        if trainer.state.global_step == 0:
            raise
        raise TrainingFailed(f"after step {trainer.state.global_step}: {error}") from error


def _finish(trainer: CausalTrainer, job: Job, baselines: dict[str, float]) -> Outcome:
    books = trainer.books
    best, after = books.best, books.after
    checkpoint_of_best = None
    if best is not None:
        folder = job.folder / CHECKPOINTS / name_of(best["step"])
        checkpoint_of_best = folder.relative_to(job.folder).as_posix() if folder.is_dir() else None
        if job.run.train.load_best and checkpoint_of_best and best["step"] != trainer.state.global_step:
            trainer.load_weights(folder)
            after = best["measures"]
    if job.rank == 0:
        _save_model(trainer, job)
    total, trainable = count_parameters(trainer.accelerator.unwrap_model(trainer.model))
    return Outcome(
        steps=trainer.state.global_step,
        epochs=trainer.epochs(),
        before=books.before,
        after=after,
        baselines=baselines,
        best={"step": best["step"], "loss": best["measures"]["loss"], "checkpoint": checkpoint_of_best}
        if best
        else None,
        parameters={"total": total, "trainable": trainable},
        ended_by=trainer.ended_by,
        tokens=books.tokens,
        peak_device_memory_bytes=trainer.peak_device_memory(),
        stream_counts=trainer.rows.counts if isinstance(trainer.rows, StreamBatches) else None,
    )


def _save_model(trainer: CausalTrainer, job: Job) -> None:
    """Final weights and tokenizer, written aside and renamed."""
    partial, final = job.folder / f".{MODEL}", job.folder / MODEL
    shutil.rmtree(partial, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.config.use_cache = True
    model.save_pretrained(partial)
    trainer.processing_class.save_pretrained(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def training_arguments(job: Job) -> TrainingArguments:
    """The Trainer's settings. Its own logging, evaluation and saving are off; we do them."""
    train, plan = job.run.train, job.plan
    return TrainingArguments(
        output_dir=str(job.folder / CHECKPOINTS),
        max_steps=plan.steps,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=train.scheduler if train.scheduler != "constant" else "constant_with_warmup",
        warmup_steps=math.ceil(train.warmup_ratio * plan.steps),
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=OPTIMIZERS[train.optimizer],
        bf16=plan.precision == "bf16",
        fp16=plan.precision == "fp16",
        activation_checkpointing=train.gradient_checkpointing,
        seed=job.run.run.seed,
        use_cpu=plan.device == "cpu",
        ddp_backend="gloo" if plan.device == "cpu" and plan.processes > 1 else None,
        ddp_timeout=int(job.run.hardware.collective_timeout),
        ddp_find_unused_parameters=False,
        ignore_data_skip=job.run.data.streaming,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        average_tokens_across_devices=True,
    )


def check_precision(job: Job) -> None:
    """Raises MachineError when torch cannot use the GPU, or the GPU not the number format planned."""
    if not job.plan.device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        what = f"torch {torch.__version__} can use no CUDA device here"
        raise MachineError(Problem("hardware.device", what, "install a torch that fits, or use hardware.device=cpu"))
    if job.plan.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        what = f"{torch.cuda.get_device_name()} does not compute in bf16"
        raise MachineError(Problem("train.precision", what, "use train.precision=fp16 or fp32"))


def check_launch(args: TrainingArguments, job: Job) -> None:
    """Compare what was asked with what this process got. Raises MachineError naming what fell back."""
    asked: dict[str, Any] = {
        "hardware.processes": job.plan.processes,
        "hardware.device": job.plan.device.partition(":")[0],
    }
    got: dict[str, Any] = {"hardware.processes": args.world_size, "hardware.device": args.device.type}
    if job.plan.processes > 1:
        asked["distributed type"] = "MULTI_CPU" if job.plan.device == "cpu" else "MULTI_GPU"
        got["distributed type"] = str(args.distributed_state.distributed_type.value)
    if args.n_gpu > 1:  # the Trainer would spread each batch over all of them
        asked["devices of a process"], got["devices of a process"] = 1, args.n_gpu
    differing = [key for key in asked if asked[key] != got[key]]
    if differing:
        raise MachineError(
            Problem(
                key,
                f"asked for {asked[key]}, but the workers got {got[key]}",
                "the launch fell back; nothing was trained",
            )
            for key in differing
        )


class CausalTrainer(Trainer):
    """The Trainer with this project's rows, loss, evaluation and checkpoints."""

    def __init__(
        self, job: Job, args: TrainingArguments, model: Any, tokenizer: Any, rows: TokenRows | StreamBatches, valid: Any
    ) -> None:
        dataset = rows if isinstance(rows, StreamBatches) else TokenDataset(rows)
        super().__init__(model=model, args=args, train_dataset=dataset, processing_class=tokenizer)
        for unwanted in (PrinterCallback, ProgressCallback):
            self.remove_callback(unwanted)
        self.add_callback(Watch(self))
        self.job = job
        self.rows = rows
        self.valid = valid
        self.pad_id = padding_id(tokenizer)
        self.loss_is_scaled_for_ga = True
        self.books = Books()
        self.prompts: list[Prompt] = []
        self.began = self.started = time.monotonic()
        self.grad_norm = 0.0
        """Length of the gradient of the step under way, before clipping."""
        self.ended_by = "steps"
        self.stopped_by = 0

    # --- rows ---

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batches of this rank, in the order that seed and epoch give, or as they stream in."""
        if isinstance(self.rows, StreamBatches):
            return DataLoader(self.rows, batch_size=None, generator=torch.Generator())
        batches = RankBatches(
            len(self.rows),
            batch_size=self.args.per_device_train_batch_size,
            rank=self.job.rank,
            world=self.job.world,
            seed=self.args.seed,
        )
        return EpochLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=lambda rows: pad(rows, self.pad_id),
            generator=torch.Generator(),
        )

    # --- loss ---

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        tokens = sum((labelled_tokens(batch["labels"]) for batch in batch_samples), torch.tensor(0)).to(device)
        read = torch.tensor(sum(int(tokens_of_rows(batch)) for batch in batch_samples))
        seen = torch.stack([tokens, read.to(device)])
        if self.job.world > 1:
            dist.all_reduce(seen)
        self.books.take_step(int(seen[1]))
        return seen[0]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """This micro-batch's part of the step's mean loss over tokens, times the number of ranks.

        The ranks' gradients are averaged, which divides by it again.
        """
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        return summed_loss(logits, labels) / num_items_in_batch.clamp(min=1) * self.job.world

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
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = float(norm)
        return norm

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
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

    def _log_training(self, learning_rate: Any) -> None:
        self.job.events.add(
            "train",
            self.state.global_step,
            epoch=self.epochs(),
            learning_rate=learning_rate,
            grad_norm=self.grad_norm if math.isfinite(self.grad_norm) else None,
            seconds=time.monotonic() - self.started + self.books.seconds_before,
            **self.books.close_window(),
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
                measures = evaluate_causal_lm(
                    self.accelerator.unwrap_model(self.model),
                    self.valid,
                    lengths=self.valid.lengths(),
                    batch_size=self.job.run.train.eval_batch_size or self.job.run.train.batch_size,
                    pad_id=self.pad_id,
                    rank=self.job.rank,
                    world=self.job.world,
                    device=self.args.device,
                    interrupted=lambda: bool(self.job.stop.requested()),
                )
        except EvaluationInterrupted:
            self.books.evaluation_pending = True
            return self._agreed_signal()
        if not math.isfinite(measures["loss"]):
            raise TrainingFailed(
                f"the validation loss is {measures['loss']} at step {step}. Try a lower train.learning_rate."
            )
        self.books.evaluation_pending = False
        self.books.note_evaluation(step, measures, self.job.run.train.early_stopping_threshold)
        seconds = time.monotonic() - began
        self.job.events.add("eval", step, epoch=self.epochs(), split="validation", **measures, seconds=seconds)
        if self.job.rank == 0 and self.prompts:
            model = self.accelerator.unwrap_model(self.model)
            samples = answer(model, self.processing_class, self.prompts, self.job.run.generate.max_new_tokens)
            self.job.events.add("generate", step, samples=samples)
        return 0

    # --- checkpoints ---

    def _save(self, model: Any) -> None:
        """Write model, optimizer, schedule, scaler, RNG of each rank and our books aside, then publish."""
        began, step = time.monotonic(), self.state.global_step
        folder = self._shared_folder()
        if self.job.rank == 0:
            self.accelerator.unwrap_model(self.model).save_pretrained(folder)
            self.processing_class.save_pretrained(folder)
            self.state.save_to_json(str(folder / "trainer_state.json"))
            self.books.seconds_before += time.monotonic() - self.started
            self.started = time.monotonic()
            (folder / STATE).write_text(json.dumps(self.books.to_dict(), allow_nan=False))
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
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

    def restore_books(self, checkpoint: Path) -> None:
        """Take over what a checkpoint knows besides model, optimizer and RNG."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        saved = read_json(checkpoint / STATE)
        if saved is not None:
            self.books = Books(**saved)

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
            return True
        return False

    def load_weights(self, checkpoint: Path) -> None:
        """Put a checkpoint's weights (whole or adapter) into the model."""
        self._load_from_checkpoint(str(checkpoint))


def _due(step: int, every: int | None, ends: bool) -> bool:
    return every is not None and (ends or step % every == 0)


class EpochLoader(DataLoader):
    """A DataLoader that passes the epoch on to its order of rows."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class Watch(TrainerCallback):
    """Evaluates before the first step, and stops before the optimizer takes a step from a loss that is no number."""

    def __init__(self, trainer: CausalTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        untrained = state.global_step == 0 and trainer.job.plan.eval_every is not None
        if untrained and trainer.job.run.train.eval_on_start:
            signum = trainer._evaluate_here()
            if signum:
                raise Stopped(signum, _latest(trainer.job))
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


def _latest(job: Job) -> str | None:
    found = existing(job.folder)
    return found[-1].path.as_posix() if found else None


class Books:
    """What is counted while training, saved with each checkpoint, so that a resumed run logs the same numbers."""

    def __init__(self, **saved: Any) -> None:
        self.window_loss = 0.0
        """Sum of the step losses since the last line of training metrics."""
        self.window_steps = 0
        self.window_tokens = 0
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
        return {name: value for name, value in vars(self).items() if name != "step_loss" and not name.startswith("_")}

    def take_step(self, tokens: int) -> None:
        """Begin an optimizer step of so many tokens."""
        self.step_loss = 0.0
        self._step_tokens = tokens

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
        }
        self.window_loss, self.window_steps, self.window_tokens = 0.0, 0, 0
        self._window_began = time.monotonic()
        return line

    def note_evaluation(self, step: int, measures: dict[str, float], threshold: float) -> None:
        """Keep before, after and best."""
        if step == 0:
            self.before = measures
            return
        self.after = measures
        if self.best is None or measures["loss"] < self.best["measures"]["loss"] - threshold:
            self.evaluations_without_gain = 0
        else:
            self.evaluations_without_gain += 1
        if self.best is None or measures["loss"] < self.best["measures"]["loss"]:
            self.best = {"step": step, "measures": measures}

    def forget_best(self) -> None:
        """Look for the best evaluation anew."""
        self.best = None
        self.evaluations_without_gain = 0

    def patience_is_over(self, patience: int | None) -> bool:
        """Whether early stopping says stop."""
        return patience is not None and self.evaluations_without_gain >= patience
