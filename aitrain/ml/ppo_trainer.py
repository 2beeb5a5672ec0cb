"""Proximal policy optimisation: the policy answers prompts, an environment scores the answers, both learn from that.

The episodes of an update (see `aitrain.ml.episodes`) are judged by policy, reference and value function; then
`rl.num_ppo_epochs` times they are shuffled into mini-batches, which follow from the seed and the number of the step,
with an optimizer step each.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347; Ouyang et al. 2022, https://arxiv.org/abs/2203.02155; the
details of Huang et al. 2024, https://arxiv.org/abs/2403.17031.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import Trainer
from trl.trainer.utils import disable_dropout_in_model

from aitrain.ml.actor_critic import ActorCritic, Judged
from aitrain.ml.advantages import AdaptiveKL, Spread, policy_losses, value_losses, whiten
from aitrain.ml.episodes import STAND_IN, EpisodeLoop
from aitrain.ml.experience import Experience, Settings, Valued, learn_from, spread_of
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.layout import choose_layout
from aitrain.ml.rollouts import Rollout
from aitrain.rl.environment import total

CONTROLLER = "ppo.json"
"""File in a checkpoint that holds the coefficient of the penalty."""
OF_TOKENS = ("policy_loss", "value_loss", "approx_kl", "policy_clip_fraction", "value_clip_fraction")


def fit_ppo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job, gradient_accumulation_steps=1), PPOFit)


class PPOFit(EpisodeLoop, Trainer):
    """Episodes judged by policy, reference and value function, and what policy and value function learn from them."""

    def __init__(self, fitting: Fitting) -> None:
        job = fitting.job
        rl: Any = job.run.rl
        section: Any = job.run.trainer
        policy = fitting.model()
        model = ActorCritic(policy, temperature=rl.temperature, value_trunk=_value_trunk(fitting, section))
        disable_dropout_in_model(model)
        super().__init__(model=model, args=fitting.args, train_dataset=[0], processing_class=fitting.tokenizer)
        self.begin_episodes(fitting, policy)
        self.controller = AdaptiveKL(section.kl_target, section.kl_horizon) if section.kl_target else None

    def trained_model(self) -> Any:
        """The policy; the value function is of no use without the training."""
        return self.accelerator.unwrap_model(self.model).policy

    def lessons(self, episodes: Sequence[Valued]) -> tuple[Sequence[Experience], dict[str, float]]:
        return learn_from(episodes, self._settings(), self.kl_coef)

    def updated(self, measures: dict[str, float]) -> None:
        if self.controller and "kl" in measures:
            self.kl_coef = self.controller.next(self.kl_coef, measures["kl"], self.job.plan.global_batch_size)

    def _settings(self) -> Settings:
        rl: Any = self.job.run.rl
        section: Any = self.job.run.trainer
        return Settings(
            rl.gamma, rl.gae_lambda, section.kl_estimator, section.whiten_rewards, section.missing_eos_penalty
        )

    # --- episodes ---

    @torch.no_grad()
    def judge(self, rollouts: Sequence[Rollout]) -> list[Valued]:
        """Log-probabilities and values of what was written, as policy, reference and value function are now."""
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        with self.accelerator.autocast():
            ours = self.of_rows(model, rollouts)
            theirs = self.of_reference(model.policy, rollouts)
        model.train()
        weights = self.player.environment.weights
        found = []
        for number, (rollout, (logps, entropies, values)) in enumerate(zip(rollouts, ours, strict=True)):
            score = total(rollout.components, weights)
            found.append(
                Valued(
                    number=rollout.number,
                    row=rollout.row,
                    score=score,
                    components=rollout.components,
                    ended=rollout.episode.ended,
                    logps=logps,
                    entropies=entropies,
                    values=values,
                    ref_logps=None if theirs is None else theirs[number],
                )
            )
        return found

    # --- learning ---

    def learn(self, model: Any, experience: Sequence[Experience]) -> dict[str, float]:
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
        return self.note_learnt(measured)

    def _optimize(self, model: Any, batch: Sequence[Experience]) -> dict[str, float]:
        """One optimizer step on a mini-batch of all ranks: its mean losses over tokens, however it is divided."""
        section: Any = self.job.run.trainer
        tokens = sum(len(item.logps) for item in batch)
        spread = spread_of(torch.cat([item.advantages for item in batch])) if section.whiten_advantages else None
        parts = self.share_of(batch)
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
        self.take_step(model, float(sums[0]))
        found = dict(zip(("loss", "entropy_now", *OF_TOKENS), sums.tolist(), strict=True))
        return {**found, "grad_norm": self.grad_norm}

    def _loss(
        self, model: Any, part: Sequence[Experience], tokens: int, spread: Spread | None
    ) -> tuple[Tensor, Tensor]:
        """A micro-batch's part of the mini-batch's mean loss, and its part of what is measured."""
        rl: Any = self.job.run.rl
        section: Any = self.job.run.trainer
        judged: Judged = model(**self.inputs([item.row for item in part] or [STAND_IN]))
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
        loss = policy + rl.value_loss_coef * value
        if section.entropy_coef:
            loss = loss - section.entropy_coef * judged.entropies
        moved = (judged.logps - old).detach()
        seen = (loss, judged.entropies, policy, value, moved.square() / 2, policy_clipped, value_clipped)
        measured = torch.stack([item.detach().double().sum() for item in seen]).cpu() / tokens
        return loss.sum() / tokens, measured

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


def _value_trunk(fitting: Fitting, section: Any) -> Any:
    """The layers of the value function's own model, or None where it reads the policy's hidden states."""
    if section.value_model is None:
        return None
    found = fitting.further_model(section.value_model).to(fitting.args.device)
    choose_layout(found, fitting.job.run.train.padding_free, fitting.job.plan.precision)
    return found.base_model
