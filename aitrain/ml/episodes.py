"""What the trainers have in common whose model learns from episodes that it plays itself.

A step is one update: the model plays `global_batch_size` episodes, which are scored, and learns from them. Everything
that decides an update (which prompts, which random numbers) follows from the seed and the number of the step, so
neither a restart nor another number of processes changes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from aitrain.data.samples import cache_dir
from aitrain.data.tokens import PromptRow, TokenRow
from aitrain.errors import ConfigError, Problem, TrainingFailed
from aitrain.ml.evaluating import EvaluationInterrupted
from aitrain.ml.experience import Scored, gathered, measures_of
from aitrain.ml.fitting import Fitting
from aitrain.ml.generating import Prompt, end_ids, question_of
from aitrain.ml.heads import add_token_scores
from aitrain.ml.job import Job
from aitrain.ml.layout import choose_layout
from aitrain.ml.ordering import epoch_order
from aitrain.ml.reward_models import load_reward_model
from aitrain.ml.rollouts import Player, Rollout, Seconds
from aitrain.ml.run_loop import RunLoop
from aitrain.ml.sampling import Sampling
from aitrain.rl.chosen import make_environment
from aitrain.rl.environment import Environment, total
from aitrain.rl.rows import KEPT, kept_rows, rows_of

EVALUATION = 1 << 40
"""Added to the numbers of episodes of an evaluation, so that they draw other random numbers than training."""
STAND_IN = TokenRow(np.zeros(2, np.int32), np.zeros(2, np.uint8))
"""A row in which nothing was written, for a rank that has none of a mini-batch."""


class EpisodeLoop(RunLoop):
    """The Trainer's optimizer, schedule and wrapping, with updates from episodes in place of its loop over batches.

    Comes before the Trainer. `begin_episodes` is to be called once that is made.
    """

    # What transformers' Trainer, which comes after this class, has.
    callback_handler: Any
    lr_scheduler: Any
    optimizer: Any
    _load_rng_state: Any
    _prepare_for_training: Any
    _get_learning_rate: Any
    _prepare_inputs: Any

    answers: int = 1
    """Episodes that are played of a prompt in an update."""
    answers_of_item: int = 1
    """Episodes that cannot be learnt from one by one."""

    def holding(self, job: Job) -> float:
        """How strongly the policy is held to a reference; 0 where there is none."""
        rl: Any = job.run.rl
        return float(rl.kl_coef)

    def scoring_temperature(self, rl: Any) -> float:
        """What logits are divided by where log-probabilities are asked for: as the answers were drawn."""
        return float(rl.temperature)

    def begin_episodes(self, fitting: Fitting, policy: Any) -> None:
        """Take over a Trainer that was just made; `policy` is the model that writes."""
        job = fitting.job
        self.kl_coef = self.holding(job)
        self.layout = choose_layout(policy, job.run.train.padding_free, job.plan.precision)
        self.reference = None
        if self.kl_coef:
            self.reference = _reference(fitting, policy, self.scoring_temperature(job.run.rl))
        rows = fitting.rows
        if job.run.train.overfit_batch:  # the rows of a step; a step has several episodes of each
            rows = [rows[number] for number in range(max(1, len(rows) // self.answers))]
        self.begin_run(job, fitting.tokenizer, rows, fitting.valid)
        self.collate = self.layout.collate(self.pad_id)
        self.frozen = [parameter for parameter in self.model.parameters() if not parameter.requires_grad]
        self.told: set[str] = set()
        """Rewards whose first fault was told in words."""
        self.player = _player(fitting, policy, self.accelerator)
        self.asked = _asked(fitting)
        self.prompts = [_prompt(row, fitting.tokenizer) for row in self.asked]

    def generating(self) -> AbstractContextManager[None]:
        return self.layout.generating(self.trained_model())

    def judged(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same with the reward of each, where an episode is one answer."""
        environment = self.player.environment
        if environment.max_turns > 1 or len(samples) != len(self.asked):
            return samples
        episodes = [environment.reset(row.record) for row in self.asked]
        for episode, sample in zip(episodes, samples, strict=True):
            episode.turns.append({"role": "assistant", "content": str(sample["text"])})
        scores = environment.score(episodes)
        return [
            {**sample, "reward": total(components, environment.weights), "rewards": components}
            for sample, components in zip(samples, scores, strict=True)
        ]

    # --- what a trainer says ---

    def judge(self, rollouts: Sequence[Rollout]) -> Sequence[Scored]:
        """What the policy as it is, and its reference, make of this rank's episodes."""
        raise NotImplementedError

    def lessons(self, episodes: Sequence[Any]) -> tuple[Sequence[Any], dict[str, float]]:
        """What is learnt from the episodes of all ranks, item by item, and what to report of that."""
        raise NotImplementedError

    def learn(self, model: Any, items: Sequence[Any]) -> dict[str, float]:
        """The optimizer steps of an update, and what was measured along them."""
        raise NotImplementedError

    def updated(self, measures: dict[str, float]) -> None:
        """Called after an update, with what was measured of its episodes."""

    # --- an update ---

    def update(self, model: Any) -> bool:
        """One update; False when a signal asks to stop before anything was learnt."""
        played = self.played()
        if played is None:
            return False
        rollouts, seconds = played
        self.empty_cache()
        began = time.monotonic()
        episodes = gathered(self.judge(rollouts), self.job.world)
        items, measures = self.lessons(episodes)
        judged = time.monotonic() - began
        began = time.monotonic()
        self.books.take_step(sum(len(episode.row.ids) for episode in episodes))
        learnt = self.learn(model, items)
        self.empty_cache()
        seconds_of = {
            "generation": seconds.generation,
            "scoring": seconds.scoring,
            "judging": judged,
            "update": time.monotonic() - began,
        }
        measures = {**measures_of(episodes), **measures}
        self.books.take_measures({**measures, **learnt, **_speeds(episodes, seconds_of)}, 1)
        self.updated(measures)
        return True

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
            if not self.update(model):
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

    # --- episodes ---

    def played(self) -> tuple[list[Rollout], Seconds] | None:
        """This rank's episodes of the update that comes next. None on every rank once any has seen a signal."""
        batch, rows = self.job.plan.global_batch_size, len(self.rows)
        first = self.state.global_step * batch
        share = math.ceil(batch / self.job.world)
        numbers = list(range(first, first + batch))[self.job.rank * share : (self.job.rank + 1) * share]
        places = [number // self.answers for number in numbers]
        orders = {epoch: epoch_order(rows, self.args.seed, epoch) for epoch in {place // rows for place in places}}
        prompts = [self.rows[int(orders[place // rows][place % rows])] for place in places]
        faults = self._faults()
        with self.generating(), self.accelerator.autocast():
            found = self._play(prompts, numbers)
        if self._agree(int(found is None)):
            return None
        if self._counts_faults:
            self.books.take_counts({"reward_faults": self._faults_of_all(self._faults() - faults)})
        return found

    @property
    def _counts_faults(self) -> bool:
        rl: Any = self.job.run.rl
        return bool(rl.on_reward_error == "penalty")

    def _faults(self) -> int:
        """Rewards of this rank so far for which the penalty stood in."""
        return sum(self.player.environment.faults.values())

    def _faults_of_all(self, own: int) -> int:
        """The sum over all ranks; the first fault of each reward is told in words. Collective."""
        everyone: list[Any] = [(own, dict(self.player.environment.first_faults))]
        if self.job.world > 1:
            mine, everyone = everyone[0], [None] * self.job.world
            dist.all_gather_object(everyone, mine)
        for _, texts in everyone:
            for name, text in texts.items():
                if name not in self.told:
                    self.told.add(name)
                    self.job.events.add("note", self.state.global_step, text=f"reward '{name}' failed: {text}")
        return sum(faults for faults, _ in everyone)

    def _play(self, prompts: Sequence[PromptRow], numbers: Sequence[int]) -> tuple[list[Rollout], Seconds] | None:
        interrupted: Callable[[], bool] = lambda: bool(self.job.stop.requested())  # noqa: E731
        return self.player.play(self.trained_model(), prompts, numbers, interrupted=interrupted)

    def of_rows(
        self, judge: Callable[..., tuple[Tensor, ...]], rollouts: Sequence[Rollout]
    ) -> list[tuple[Tensor, ...]]:
        """What is said of each episode's written tokens, on the CPU; similar lengths are computed together."""
        order = sorted(range(len(rollouts)), key=lambda number: len(rollouts[number].ids))
        found: dict[int, tuple[Tensor, ...]] = {}
        for start in range(0, len(order), self.args.per_device_train_batch_size):
            part = order[start : start + self.args.per_device_train_batch_size]
            said = judge(**self.inputs([rollouts[number].row for number in part]))
            sizes = [rollouts[number].length for number in part]
            found |= dict(zip(part, zip(*(item.float().cpu().split(sizes) for item in said), strict=True), strict=True))
        return [found[number] for number in range(len(rollouts))]

    def of_reference(self, policy: Any, rollouts: Sequence[Rollout]) -> list[Tensor] | None:
        """The reference's log-probabilities of what was written; None where nothing holds the policy."""
        if self.kl_coef == 0:
            return None
        if self.reference is not None:
            found = self.of_rows(only_logps(self.reference), rollouts)
        else:
            with policy.disable_adapter():
                found = self.of_rows(only_logps(policy), rollouts)
            for parameter in self.frozen:  # switching an adapter off and on unfreezes all of it
                parameter.requires_grad_(False)
        return [logps for (logps,) in found]

    def inputs(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """A batch for `model(kept=, targets=)`."""
        batch = self.collate(rows)
        batch.pop("tokens")
        prepared: dict[str, Any] = self._prepare_inputs(batch)
        return prepared

    # --- learning ---

    def share_of(self, batch: Sequence[Any]) -> list[Sequence[Any]]:
        """This rank's part of a mini-batch in micro-batches, of which each rank has as many; some may be empty."""
        share = math.ceil(len(batch) / self.job.world)
        own = batch[self.job.rank * share : (self.job.rank + 1) * share]
        micro = max(1, self.args.per_device_train_batch_size // self.answers_of_item)
        return [own[start : start + micro] for start in range(0, share, micro)]

    def take_step(self, model: Any, loss: float) -> None:
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

    def note_learnt(self, measured: Sequence[dict[str, float]]) -> dict[str, float]:
        """Means over the optimizer steps of an update that measured it; the loss and the gradient's length go to the
        books."""
        self.books.step_loss = float(np.mean([m["loss"] for m in measured]))
        self.grad_norm = float(np.mean([m["grad_norm"] for m in measured]))
        names = dict.fromkeys(name for found in measured for name in found if name not in ("loss", "grad_norm"))
        return {
            **{name: float(np.mean([found[name] for found in measured if name in found])) for name in names},
            "optimizer_steps": float(len(measured)),
        }

    def empty_cache(self) -> None:
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
        faults = self._faults()
        with self.generating():
            played = self._play([self.valid[number] for number in numbers], [EVALUATION + n for n in numbers])
        if self._agree(int(played is None)):
            raise EvaluationInterrupted
        assert played is not None
        found = self._means(played[0])
        if self._counts_faults:
            found["reward_faults"] = self._faults_of_all(self._faults() - faults)
        return found

    def _means(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Means over the episodes of all ranks, the same to the last digit on however many. Collective."""
        weights = self.player.environment.weights
        own = [
            {
                "reward": total(rollout.components, weights),
                "length": rollout.length,
                "ended": float(rollout.episode.ended),
                **{f"reward/{name}": value for name, value in rollout.components.items()},
            }
            for rollout in rollouts
        ]
        everyone: list[Any] = [own]
        if self.job.world > 1:
            everyone = [None] * self.job.world
            dist.all_gather_object(everyone, own)
        episodes = [episode for part in everyone for episode in part]
        names = dict.fromkeys(name for episode in episodes for name in episode)
        found = {name: math.fsum(each.get(name, 0.0) for each in episodes) / len(episodes) for name in names}
        parts = [name for name in found if name.startswith("reward/")]
        return found if len(parts) > 1 else {name: value for name, value in found.items() if name not in parts}


def _speeds(episodes: Sequence[Scored], seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of the parts of an update, and the tokens a second: of what was written for generation and scoring,
    of prompts and answers for the others, each counted once however often it was passed over."""
    written = sum(int(episode.row.trained.sum()) for episode in episodes)
    whole = sum(len(episode.row.ids) for episode in episodes)
    tokens = {"generation": written, "scoring": written, "judging": whole, "update": whole}
    return {
        **{f"seconds/{name}": value for name, value in seconds.items()},
        **{f"tokens_per_second/{name}": tokens[name] / value for name, value in seconds.items() if value > 0},
    }


def only_logps(model: Any) -> Callable[..., tuple[Tensor]]:
    """The log-probabilities alone of what a model says of a batch."""
    return lambda **inputs: (model(**inputs).logps,)


def _reference(fitting: Fitting, policy: Any, temperature: float) -> Any:
    """What the policy is held to; None where its adapter is switched off instead."""
    section: Any = fitting.job.run.trainer
    if section.ref_model is None and fitting.job.adapt is not None:
        return None
    found = fitting.frozen_model(section.ref_model).to(fitting.args.device)
    ours, theirs = (model.get_input_embeddings().num_embeddings for model in (policy, found))
    if ours != theirs:
        what = f"{section.ref_model} has {theirs} tokens and the model {ours}: they read different token ids"
        raise ConfigError(Problem("trainer.ref_model", what, "name a model with the same tokenizer"))
    add_token_scores(found, temperature)
    choose_layout(found, fitting.job.run.train.padding_free, fitting.job.plan.precision)
    return found


def _player(fitting: Fitting, policy: Any, accelerator: Any) -> Player:
    run = fitting.job.run
    chosen: Any = run.rl
    environment = make_environment(chosen, partial(load_reward_model, fitting))
    _make_rows_again(fitting, environment)
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
    player = Player(environment, fitting.tokenizer, settings, chosen.chunk_size, run.run.seed, positions)
    if not chosen.use_vllm:
        return player
    from aitrain.ml.vllm_writing import VLLMWriter

    prompt = run.data.max_prompt_length
    longest = prompt + settings.max_new_tokens if prompt and environment.max_turns == 1 else positions
    return replace(player, writer=VLLMWriter(run, policy, accelerator, fitting.tokenizer, settings, longest))


def _make_rows_again(fitting: Fitting, environment: Environment) -> None:
    """Let a class that brought the rows make them here too: it may keep by case what it scores answers with.

    Raises ConfigError where they are others than those that were tokenised.
    """
    name = next((auto.value for auto in fitting.job.plan.autos if auto.key == "data.path"), None)
    if name is None:
        return
    _, digest = rows_of(environment, fitting.tokenizer, str(name))
    if not kept_rows(digest, cache_dir() / KEPT).is_file():
        what = f"{name} brings other rows each time"
        raise ConfigError(Problem("rl.env_type", what, "draw what is random with a seed of its own"))


def _asked(fitting: Fitting) -> list[PromptRow]:
    """Validation rows whose prompts are answered in the report."""
    job, valid = fitting.job, fitting.valid
    if job.rank != 0 or valid is None:
        return []
    count = min(job.run.generate.count, len(valid))
    return [valid[n * len(valid) // count] for n in range(count)]


def _prompt(row: PromptRow, tokenizer: Any) -> Prompt:
    """A prompt of the report. No answer is the one right answer."""
    ids = row.ids.tolist()
    return Prompt(ids, question_of(tokenizer, ids), None)
