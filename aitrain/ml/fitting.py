"""Fitting a model: from a rank's job to the outcome, whatever the trainer computes.

Checks that the launch gave what was asked, opens rows and tokenizer, lets the option make its trainer, trains, resumes,
evaluates and saves. `aitrain.ml.run_loop` is what happens at each step.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from aitrain.data.encoding import load_tokenizer
from aitrain.data.prepare import open_rows, open_validation
from aitrain.errors import DataError, MachineError, Problem, Stopped, TrainingFailed
from aitrain.ml.generating import end_ids
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import adapted, count_parameters, load_causal_lm, model_location
from aitrain.ml.ordering import epoch_order
from aitrain.ml.run_loop import latest_checkpoint
from aitrain.ml.streaming import StreamBatches
from aitrain.rundir.checkpoints import name_of
from aitrain.rundir.folder import CHECKPOINTS, MODEL

OPTIMIZERS = {"adamw": "adamw_torch_fused", "sgd": "sgd", "adafactor": "adafactor"}


@dataclass(frozen=True)
class Fitting:
    """What an option makes its trainer of."""

    job: Job
    args: TrainingArguments
    tokenizer: Any
    rows: Any
    """Examples to train on: a view of token tables, a list of examples, or a stream."""
    valid: Any
    """Examples to judge by, or None."""

    def model(self, load: Callable[..., Any] = load_causal_lm) -> Any:
        """The model of `model.path`, with its adapter in place."""
        return _model(self.job, load)

    def frozen_model(self, path: str | None = None, load: Callable[..., Any] = load_causal_lm) -> Any:
        """A model that is not trained, in evaluation mode: `path`, or the one of `model.path` as it is at the start."""
        model = _loaded(self.job, load, path)
        model.requires_grad_(False)
        return model.eval()

    def further_model(self, path: str) -> Any:
        """Another causal language model that is trained beside that of `model.path`, all of its weights."""
        return _loaded(self.job, load_causal_lm, path)


def fit(
    job: Job,
    args: TrainingArguments,
    make_trainer: Callable[[Fitting], Any],
    baselines: Callable[[Fitting], dict[str, Any]] = lambda fitting: {},
) -> Outcome:
    """Train, evaluate, save. Runs on every rank.

    `make_trainer` gives a Trainer with `RunLoop` before it. Raises Stopped after the checkpoint when a signal asked for
    it, TrainingFailed when the loss is not finite, and MachineError when the launch gave something else than was asked.
    """
    check_precision(job)
    check_launch(args, job)
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(args.device)
    set_seed(job.run.run.seed)
    if job.run.train.deterministic:
        torch.use_deterministic_algorithms(True)
    tokenizer = _tokenizer(job)
    fitting = Fitting(job, args, tokenizer, *_rows(job, tokenizer))
    trainer = make_trainer(fitting)
    found = baselines(fitting)
    _train(trainer, job)
    if trainer.stopped_by:
        raise Stopped(trainer.stopped_by, latest_checkpoint(job))
    return _finish(trainer, job, found)


def _tokenizer(job: Job) -> Any:
    section = job.run.model
    return load_tokenizer(
        model_location(section.path),
        section.revision,
        trust_remote_code=section.trust_remote_code,
        allow_downloads=job.run.run.allow_downloads,
        chat_format=job.run.data.chat_format,
    )


def _rows(job: Job, tokenizer: Any) -> tuple[Any, Any]:
    """Rows to train and to validate on."""
    run, plan = job.run, job.plan
    if job.stream is not None:
        stream = StreamBatches(run, job.stream, tokenizer, rank=job.rank, world=job.world)
        stream.start = (job.resume_from.step if job.resume_from else 0) * run.train.gradient_accumulation
        return stream, open_validation(plan, job.encoder)
    rows, valid = open_rows(run, plan, job.encoder)
    if run.train.overfit_batch:
        order = epoch_order(len(rows), run.run.seed, 0)
        return [rows[int(index)] for index in order[: plan.global_batch_size]], None
    return rows, valid


def _loaded(job: Job, load: Callable[..., Any], path: str | None = None) -> Any:
    section = job.run.model
    model = load(
        path or section.path,
        revision=None if path else section.revision,
        dtype=job.plan.dtype,
        trust_remote_code=section.trust_remote_code,
        allow_downloads=job.run.run.allow_downloads,
    )
    model.config.use_cache = False
    return model


def _model(job: Job, load: Callable[..., Any]) -> Any:
    model = _loaded(job, load)
    if job.adapt is not None:
        if job.run.train.gradient_checkpointing:
            model.enable_input_require_grads()
        model = adapted(model, job.adapt, job.run.peft.model_dump())
    return model


def _train(trainer: Any, job: Job) -> None:
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


def _finish(trainer: Any, job: Job, baselines: dict[str, Any]) -> Outcome:
    books = trainer.books
    best, after = books.best, books.after
    checkpoint_of_best = None
    weights_step = trainer.state.global_step
    if best is not None:
        folder = job.folder / CHECKPOINTS / name_of(best["step"])
        checkpoint_of_best = folder.relative_to(job.folder).as_posix() if folder.is_dir() else None
        if job.run.train.load_best and checkpoint_of_best:
            if best["step"] != trainer.state.global_step:
                trainer.load_weights(folder)
                after, weights_step = best["measures"], best["step"]
            job.events.add("note", trainer.state.global_step, text=_whose_weights(weights_step, trainer))
    details = trainer.described()
    if job.rank == 0:
        _save_model(trainer, job)
    total, trainable = count_parameters(trainer.trained_model())
    return Outcome(
        steps=trainer.state.global_step,
        epochs=trainer.epochs(),
        before=books.before,
        after=after,
        baselines=baselines,
        best={
            "step": best["step"],
            "loss": best["measures"].get("loss"),
            "metric": books.metric,
            "value": best["measures"][books.metric],
            "checkpoint": checkpoint_of_best,
        }
        if best
        else None,
        parameters={"total": total, "trainable": trainable},
        weights_step=weights_step,
        ended_by=trainer.ended_by,
        ended_because=trainer.ended_because,
        tokens=books.tokens,
        peak_device_memory_bytes=trainer.peak_device_memory(),
        details=details,
        stream_counts=trainer.rows.counts if isinstance(trainer.rows, StreamBatches) else None,
    )


def _whose_weights(step: int, trainer: Any) -> str:
    """Which weights `train.load_best` leaves the model with."""
    how = "kept" if step == trainer.state.global_step else "loaded"
    value = trainer.books.best["measures"][trainer.books.metric]
    return f"step {step}'s weights {how}, which are the best ({trainer.books.metric.replace('_', ' ')} {value:.4g})"


def _save_model(trainer: Any, job: Job) -> None:
    """Final weights and tokenizer, written aside and renamed."""
    partial, final = job.folder / f".{MODEL}", job.folder / MODEL
    shutil.rmtree(partial, ignore_errors=True)
    model = trainer.trained_model()
    model.config.use_cache = True
    if getattr(model, "generation_config", None) is not None:  # who loads the model stops where it learnt to
        model.generation_config.eos_token_id = end_ids(trainer.processing_class) or None
    model.save_pretrained(partial)
    trainer.processing_class.save_pretrained(partial)
    trainer.save_beside(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def training_arguments(job: Job, cls: type[Any] = TrainingArguments, **more: Any) -> Any:
    """The Trainer's settings, as `cls` with `more` of its own. Its logging, evaluation and saving are off."""
    train, plan = job.run.train, job.plan
    settings: dict[str, Any] = dict(
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
    return cls(**{**settings, **more})


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
