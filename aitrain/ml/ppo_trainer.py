"""Proximal policy optimisation: the policy answers prompts, an environment scores the answers, both learn from that.

A step is one update: `global_batch_size` episodes are played, scored and judged by policy, reference and value
function; then `rl.num_ppo_epochs` times the episodes are shuffled into mini-batches with an optimizer step each.
Everything that decides an update (which prompts, which random numbers, which mini-batches) follows from the seed and
the number of the step, so neither a restart nor another number of processes changes it.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347; Ouyang et al. 2022, https://arxiv.org/abs/2203.02155; the
details of Huang et al. 2024, https://arxiv.org/abs/2403.17031.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import Trainer
from trl.trainer.utils import disable_dropout_in_model

from aitrain.data.tokens import TokenRow
from aitrain.errors import ConfigError, Problem, TrainingFailed
from aitrain.ml.actor_critic import ActorCritic, Judged
from aitrain.ml.advantages import AdaptiveKL, Spread, policy_losses, value_losses, whiten
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.experience import Experience, Scored, Settings, gathered, learn_from, spread_of
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.generating import Prompt, end_ids, question_of
from aitrain.ml.heads import add_token_scores
from aitrain.ml.job import Job, Outcome
from aitrain.ml.layout import choose_layout
from aitrain.ml.ordering import epoch_order
from aitrain.ml.reward_models import load_reward_model
from aitrain.ml.rollouts import Player, Rollout, Seconds
from aitrain.ml.run_loop import RunLoop
from aitrain.ml.sampling import Sampling
from aitrain.rl.chosen import make_environment
from aitrain.rl.environment import total

EVALUATION = 1 << 40
"""Added to the numbers of episodes of an evaluation, so that they draw other random numbers than training."""
STAND_IN = TokenRow(np.zeros(2, np.int32), np.zeros(2, np.uint8))
"""A row in which nothing was written, for a rank that has none of a mini-batch."""
CONTROLLER = "ppo.json"
"""File in a checkpoint that holds the coefficient of the penalty."""
OF_TOKENS = ("policy_loss", "value_loss", "approx_kl", "policy_clip_fraction", "value_clip_fraction")


def fit_ppo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job, gradient_accumulation_steps=1), PPOFit)


class PPOFit(RunLoop, Trainer):
    """The Trainer's optimizer, schedule and wrapping, with the updates of PPO in place of its loop over batches."""

    def __init__(self, fitting: Fitting) -> None:
        job = fitting.job
        rl: Any = job.run.rl
        section: Any = job.run.trainer
        policy = fitting.model()
        model = ActorCritic(policy, temperature=rl.temperature, value_trunk=_value_trunk(fitting, section))
        disable_dropout_in_model(model)
        super().__init__(model=model, args=fitting.args, train_dataset=[0], processing_class=fitting.tokenizer)
        self.layout = choose_layout(policy, job.run.train.padding_free, job.plan.precision)
        self.reference = _reference(fitting, policy, rl, section)
        self.begin_run(job, fitting.tokenizer, fitting.rows, fitting.valid)
        self.collate = self.layout.collate(self.pad_id)
        self.frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.kl_coef = rl.kl_coef
        self.controller = AdaptiveKL(section.kl_target, section.kl_horizon) if section.kl_target else None
        self.player = _player(fitting, policy)
        self.prompts = _prompts(fitting)

    def trained_model(self) -> Any:
        """The policy; the value function is of no use without the training."""
        return self.accelerator.unwrap_model(self.model).policy

    def generating(self) -> AbstractContextManager[None]:
        return self.layout.generating(self.trained_model())

    # --- the loop ---

    def _inner_training_loop(self, *args: Any, resume_from_checkpoint: Any = None, **kwargs: Any) -> None:
        steps = self.job.plan.steps
        model, _ = self._prepare_for_training(steps, None, resume_from_checkpoint)
        if resume_from_checkpoint is not None:
            self._load_rng_state(resume_from_checkpoint)
        model.zero_grad()
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        while self.state.global_step < steps and not self.control.should_training_stop:
            learning_rate = self._get_learning_rate()
            if not self._update(model):
                self._stop_before_update(model)
                return
            self.lr_scheduler.step()
            self.state.global_step += 1
            self.state.epoch = self.state.global_step / self.job.plan.steps_per_epoch
            self._maybe_log_save_evaluate(None, None, model, learning_rate=learning_rate)

    def _stop_before_update(self, model: Any) -> None:
        """A signal came while episodes were played: forget them, and keep the state before them."""
        self.stopped_by = self._agreed_signal()
        self.ended_by = "signal"
        if self.state.global_step and not self.is_saved():
            self._save(model)

    def _update(self, model: Any) -> bool:
        """One update; False when a signal asks to stop before anything was learnt."""
        played = self._played()
        if played is None:
            return False
        rollouts, seconds = played
        self._empty_cache()
        began = time.monotonic()
        episodes = gathered(self._judge(rollouts), self.job.world)
        experience, measures = learn_from(episodes, self._settings(), self.kl_coef)
        judged = time.monotonic() - began
        began = time.monotonic()
        self.books.take_step(sum(len(episode.row.ids) for episode in episodes))
        learnt = self._learn(model, experience)
        self._empty_cache()
        seconds_of = {
            "seconds/generation": seconds.generation,
            "seconds/scoring": seconds.scoring,
            "seconds/judging": judged,
            "seconds/update": time.monotonic() - began,
        }
        self.books.take_measures({**measures, **learnt, **seconds_of}, 1)
        if self.controller and "kl" in measures:
            self.kl_coef = self.controller.next(self.kl_coef, measures["kl"], len(episodes))
        return True

    def _settings(self) -> Settings:
        rl: Any = self.job.run.rl
        section: Any = self.job.run.trainer
        return Settings(
            rl.gamma, rl.gae_lambda, section.kl_estimator, section.whiten_rewards, section.missing_eos_penalty
        )

    # --- episodes ---

    def _played(self) -> tuple[list[Rollout], Seconds] | None:
        """This rank's episodes of the update that comes next. None on every rank once any has seen a signal."""
        batch, rows = self.job.plan.global_batch_size, len(self.rows)
        first = self.state.global_step * batch
        share = math.ceil(batch / self.job.world)
        numbers = list(range(first, first + batch))[self.job.rank * share : (self.job.rank + 1) * share]
        orders = {n // rows: epoch_order(rows, self.args.seed, n // rows) for n in (*numbers[:1], *numbers[-1:])}
        for epoch in range(min(orders, default=0), max(orders, default=0)):
            orders.setdefault(epoch, epoch_order(rows, self.args.seed, epoch))
        prompts = [self.rows[int(orders[n // rows][n % rows])] for n in numbers]
        with self.generating(), self.accelerator.autocast():
            found = self.player.play(
                self.trained_model(), prompts, numbers, interrupted=lambda: bool(self.job.stop.requested())
            )
        return None if self._agree(int(found is None)) else found

    @torch.no_grad()
    def _judge(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """Log-probabilities and values of what was written, as policy, reference and value function are now."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        with self.accelerator.autocast():
            ours = self._of_rows(model, rollouts)
            theirs = self._of_reference(model, rollouts)
        model.train()
        weights = self.player.environment.weights
        found = []
        for number, (rollout, (logps, entropies, values)) in enumerate(zip(rollouts, ours, strict=True)):
            score = total(rollout.components, weights)
            ref_logps = None if theirs is None else theirs[number][0]
            ended = rollout.episode.ended
            found.append(
                Scored(
                    rollout.number,
                    rollout.row,
                    score,
                    rollout.components,
                    ended,
                    logps,
                    entropies,
                    values,
                    ref_logps,
                )
            )
        return found

    def _of_reference(self, model: ActorCritic, rollouts: Sequence[Rollout]) -> list[tuple[Tensor, ...]] | None:
        if self.kl_coef == 0:
            return None
        if self.reference is not None:
            return self._of_rows(_only_logps(self.reference), rollouts)
        with model.policy.disable_adapter():
            found = self._of_rows(_only_logps(model.policy), rollouts)
        for parameter in self.frozen:  # switching an adapter off and on unfreezes all of it
            parameter.requires_grad_(False)
        return found

    def _of_rows(
        self, judge: Callable[..., tuple[Tensor, ...]], rollouts: Sequence[Rollout]
    ) -> list[tuple[Tensor, ...]]:
        """What is said of each episode's written tokens, on the CPU; similar lengths are computed together."""
        order = sorted(range(len(rollouts)), key=lambda number: len(rollouts[number].ids))
        found: dict[int, tuple[Tensor, ...]] = {}
        for start in range(0, len(order), self.args.per_device_train_batch_size):
            part = order[start : start + self.args.per_device_train_batch_size]
            said = judge(**self._inputs([rollouts[number].row for number in part]))
            sizes = [rollouts[number].length for number in part]
            found |= dict(zip(part, zip(*(item.float().cpu().split(sizes) for item in said), strict=True), strict=True))
        return [found[number] for number in range(len(rollouts))]

    def _inputs(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        batch = self.collate(rows)
        batch.pop("tokens")
        prepared: dict[str, Any] = self._prepare_inputs(batch)
        return prepared

    # --- learning ---

    def _learn(self, model: Any, experience: Sequence[Experience]) -> dict[str, float]:
        """Epochs over the episodes, in mini-batches; means of what was measured over all optimizer steps."""
        rl: Any = self.job.run.rl
        section: Any = self.job.run.trainer
        measured: list[dict[str, float]] = []
        for epoch in range(rl.num_ppo_epochs):
            order = np.random.default_rng([self.args.seed, self.state.global_step, epoch]).permutation(len(experience))
            of_epoch = [
                self._optimize(model, [experience[n] for n in order[start : start + rl.mini_batch_size]])
                for start in range(0, len(order), rl.mini_batch_size)
            ]
            measured += of_epoch
            if section.target_kl and np.mean([m["approx_kl"] for m in of_epoch]) > section.target_kl:
                break
        self.books.step_loss = float(np.mean([m["loss"] for m in measured]))
        self.grad_norm = float(np.mean([m["grad_norm"] for m in measured]))
        names = [name for name in measured[0] if name not in ("loss", "grad_norm")]
        return {
            **{name: float(np.mean([m[name] for m in measured])) for name in names},
            "optimizer_steps": float(len(measured)),
        }

    def _optimize(self, model: Any, batch: Sequence[Experience]) -> dict[str, float]:
        """One optimizer step on a mini-batch of all ranks: its mean losses over tokens, however it is divided."""
        section: Any = self.job.run.trainer
        tokens = sum(len(item.logps) for item in batch)
        spread = spread_of(torch.cat([item.advantages for item in batch])) if section.whiten_advantages else None
        share = math.ceil(len(batch) / self.job.world)
        own = list(batch[self.job.rank * share : (self.job.rank + 1) * share])
        micro = self.args.per_device_train_batch_size
        parts = [own[start : start + micro] for start in range(0, share, micro)]
        sums = torch.zeros(len(OF_TOKENS) + 2, dtype=torch.float64)
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss, of_part = self._loss(model, part, tokens, spread)
                self.accelerator.backward(loss * self.job.world)  # the ranks' gradients are averaged
            sums += of_part
        if self.job.world > 1:
            sums = sums.to(self.args.device)
            dist.all_reduce(sums)
        self._step(model, float(sums[0]))
        found = dict(zip(("loss", "entropy_now", *OF_TOKENS), sums.tolist(), strict=True))
        return {**found, "grad_norm": self.grad_norm}

    def _loss(
        self, model: Any, part: Sequence[Experience], tokens: int, spread: Spread | None
    ) -> tuple[Tensor, Tensor]:
        """A micro-batch's part of the mini-batch's mean loss, and its part of what is measured."""
        rl: Any = self.job.run.rl
        section: Any = self.job.run.trainer
        judged: Judged = model(**self._inputs([item.row for item in part] or [STAND_IN]))
        if not part:
            return (judged.logps.sum() + judged.values.sum()) * 0.0, torch.zeros(
                len(OF_TOKENS) + 2, dtype=torch.float64
            )
        old, advantages, old_values, returns = (
            torch.cat([getattr(item, name) for item in part]).to(judged.logps.device)
            for name in ("logps", "advantages", "values", "returns")
        )
        if spread is not None:
            advantages = whiten(advantages, spread)
        policy, policy_clipped = policy_losses(judged.logps, old, advantages, rl.clip_range)
        value, value_clipped = value_losses(judged.values, old_values, returns, rl.value_clip_range)
        loss = policy + rl.value_loss_coef * value - section.entropy_coef * judged.entropies
        moved = (judged.logps - old).detach()
        seen = (loss, judged.entropies, policy, value, moved.square() / 2, policy_clipped, value_clipped)
        measured = torch.stack([item.detach().double().sum() for item in seen]).cpu() / tokens
        return loss.sum() / tokens, measured

    def _step(self, model: Any, loss: float) -> None:
        """Clip the gradients and let the optimizer take a step. Raises TrainingFailed before one of no number."""
        limit = self.args.max_grad_norm or math.inf
        norm = self.accelerator.clip_grad_norm_(model.parameters(), limit)
        self.grad_norm = float(norm) if norm is not None else math.nan
        found = {"loss": loss, **({} if self.args.fp16 else {"gradient's length": self.grad_norm})}
        for name, value in found.items():
            if not math.isfinite(value):
                raise TrainingFailed(
                    f"the {name} is {value} in update {self.state.global_step + 1}. "
                    "Try a lower train.learning_rate, or look at the rewards of this step."
                )
        self.optimizer.step()
        model.zero_grad()

    def _empty_cache(self) -> None:
        """Give memory that one phase held and the next has no use for back to the device (`optimize_device_cache`)."""
        chosen: Any = self.job.run.rl
        if self.device_type == "cuda" and (chosen.optimize_device_cache is True or self._is_crowded()):
            torch.cuda.empty_cache()

    @property
    def device_type(self) -> str:
        """`cuda`, `cpu` …"""
        return str(self.args.device.type)

    def _is_crowded(self) -> bool:
        """Whether more than half of the GPU's memory is reserved (`optimize_device_cache=auto`)."""
        chosen: Any = self.job.run.rl
        if chosen.optimize_device_cache != "auto":
            return False
        _, whole = torch.cuda.mem_get_info(self.args.device)
        return torch.cuda.memory_reserved(self.args.device) > whole / 2

    # --- evaluation ---

    def measure(self) -> dict[str, float]:
        numbers = list(range(self.job.rank, len(self.valid), self.job.world))
        prompts = [self.valid[number] for number in numbers]
        with self.generating():
            played = self.player.play(
                self.trained_model(),
                prompts,
                [EVALUATION + number for number in numbers],
                interrupted=lambda: bool(self.job.stop.requested()),
            )
        if self._agree(int(played is None)):
            raise EvaluationInterrupted
        assert played is not None
        return self._means(played[0])

    def _means(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        environment = self.player.environment
        sums: dict[str, float] = {"reward": 0.0, "length": 0.0, "ended": 0.0}
        for rollout in rollouts:
            sums["reward"] += total(rollout.components, environment.weights)
            sums["length"] += rollout.length
            sums["ended"] += float(rollout.episode.ended)
            for name, value in rollout.components.items():
                sums[f"reward/{name}"] = sums.get(f"reward/{name}", 0.0) + value
        everyone: list[Any] = [(sums, len(rollouts))]
        if self.job.world > 1:
            everyone = [None] * self.job.world
            dist.all_gather_object(everyone, (sums, len(rollouts)))
        count = sum(number for _, number in everyone)
        names = dict.fromkeys(name for part, _ in everyone for name in part)
        found = {name: sum(part.get(name, 0.0) for part, _ in everyone) / count for name in names}
        parts = [name for name in found if name.startswith("reward/")]
        return found if len(parts) > 1 else {name: value for name, value in found.items() if name not in parts}

    # --- checkpoints ---

    def save_more(self, folder: Path) -> None:
        (folder / CONTROLLER).write_text(json.dumps({"kl_coef": self.kl_coef}))

    def restore_books(self, checkpoint: Path) -> None:
        super().restore_books(checkpoint)
        self.kl_coef = json.loads((checkpoint / CONTROLLER).read_text())["kl_coef"]

    def _load_from_checkpoint(self, resume_from_checkpoint: Any, model: Any = None) -> None:
        """The policy's weights (whole or adapter) and the value function of a checkpoint."""
        folder = Path(resume_from_checkpoint)
        ours: ActorCritic = self.accelerator.unwrap_model(self.model)
        super()._load_from_checkpoint(str(folder), ours.policy)
        ours.load_value(folder)


def _only_logps(model: Any) -> Callable[..., tuple[Tensor]]:
    return lambda **inputs: (model(**inputs).logps,)


def _reference(fitting: Fitting, policy: Any, rl: Any, section: Any) -> Any:
    """What the policy is held to; None where nothing holds it, or where its adapter is switched off instead."""
    own = section.ref_model is None
    if rl.kl_coef == 0 or (own and fitting.job.adapt is not None):
        return None
    found = fitting.frozen_model(section.ref_model).to(fitting.args.device)
    ours, theirs = (model.get_input_embeddings().num_embeddings for model in (policy, found))
    if ours != theirs:
        what = f"{section.ref_model} has {theirs} tokens and the model {ours}: they read different token ids"
        raise ConfigError(Problem("trainer.ref_model", what, "name a model with the same tokenizer"))
    add_token_scores(found, rl.temperature)
    choose_layout(found, fitting.job.run.train.padding_free, fitting.job.plan.precision)
    return found


def _value_trunk(fitting: Fitting, section: Any) -> Any:
    """The layers of the value function's own model, or None where it reads the policy's hidden states."""
    if section.value_model is None:
        return None
    found = fitting.further_model(section.value_model).to(fitting.args.device)
    choose_layout(found, fitting.job.run.train.padding_free, fitting.job.plan.precision)
    return found.base_model


def _player(fitting: Fitting, policy: Any) -> Player:
    run = fitting.job.run
    chosen: Any = run.rl
    environment = make_environment(chosen, partial(load_reward_model, fitting))
    environment.bind(policy, fitting.tokenizer)
    settings = Sampling(
        max_new_tokens=chosen.max_new_tokens,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        end_ids=tuple(end_ids(fitting.tokenizer)),
        stop_strings=tuple(chosen.stop_strings),
    )
    config = policy.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return Player(environment, fitting.tokenizer, settings, chosen.chunk_size, run.run.seed, positions)


def _prompts(fitting: Fitting) -> list[Prompt]:
    """Prompts of the validation rows to answer in the report. No answer is the one right answer."""
    job, tokenizer, valid = fitting.job, fitting.tokenizer, fitting.valid
    if job.rank != 0 or valid is None:
        return []
    count = min(job.run.generate.count, len(valid))
    found: Iterator[list[int]] = (valid[n * len(valid) // count].ids.tolist() for n in range(count))
    return [Prompt(ids, question_of(tokenizer, ids), None) for ids in found]
