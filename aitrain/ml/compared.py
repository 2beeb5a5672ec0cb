"""What the trainers have in common that compare answers to the same prompt: TRL computes the loss of a micro-batch.

Episodes, log-probabilities, evaluation and checkpoints are this project's. The loss of a mini-batch is the mean over
its answers, tokens or pairs, whatever the micro-batches and the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from aitrain.data.tokens import TokenRow
from aitrain.ml.episodes import STAND_IN, EpisodeLoop, only_logps
from aitrain.ml.examples import Totals
from aitrain.ml.experience import Scored
from aitrain.ml.fitting import Fitting
from aitrain.ml.heads import TokenScores, add_token_scores
from aitrain.ml.preference import of_this_rank
from aitrain.ml.rollouts import Rollout
from aitrain.rl.environment import total


@dataclass(frozen=True)
class Compared(Scored):
    """An answer as the policy that wrote it saw it. Sequences have an entry for each token that it wrote."""

    logps: Tensor | None
    """None where the policy has not changed before it learns from the answer."""
    ref_logps: Tensor | None
    """None where no reference holds the policy."""


def no_reward(*args: Any, **kwargs: Any) -> list[float]:
    """Stands where TRL wants a reward function; the rewards come from the environment."""
    raise NotImplementedError


ASKED_FOR = Dataset.from_dict({"prompt": [""]})
"""Stands where TRL wants prompts."""


class ComparedLoop(EpisodeLoop):
    """One of TRL's trainers on answers of the model that are compared with each other. Comes before it; its loss is
    what is used of it.

    TRL takes prompts and answers side by side, padded. Here the answers alone are given to it, as the tokens that the
    model wrote, and what it then asks of the model is computed on rows laid end to end.

    What is learnt from are items: of what kind, `lessons` decides. `begin_compared` is to be called once TRL's trainer
    is made.
    """

    measured: Sequence[str]
    """What is measured of a micro-batch, besides its loss."""
    passes: int

    def begin_compared(self, fitting: Fitting) -> None:
        """Take over TRL's trainer that was just made."""
        section: Any = fitting.job.run.trainer
        add_token_scores(self.model, self.scoring_temperature(fitting.job.run.rl))
        self.begin_episodes(fitting, self.model)
        self.passes = section.num_iterations

    # --- what TRL would do besides ---

    def _send_telemetry(self) -> None:
        """Tells nobody of this run."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is this project's."""

    def _prepare_inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is one, not prompts to answer."""
        trainer: Any = self
        prepared: dict[str, Any] = Trainer._prepare_inputs(trainer, batch)
        return prepared

    # --- an update ---

    def looks_back(self) -> bool:
        """Whether the probabilities that the answers had when they were written are to be remembered."""
        raise NotImplementedError

    @torch.no_grad()
    def judge(self, rollouts: Sequence[Rollout]) -> list[Compared]:
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        with self.accelerator.autocast():
            ours = self.of_rows(only_logps(model), rollouts) if self.looks_back() else None
            theirs = self.of_reference(model, rollouts)
        model.train()
        weights = self.player.environment.weights
        return [
            Compared(
                number=rollout.number,
                row=rollout.row,
                score=total(rollout.components, weights),
                components=rollout.components,
                ended=rollout.episode.ended,
                logps=None if ours is None else ours[number][0],
                ref_logps=None if theirs is None else theirs[number],
            )
            for number, rollout in enumerate(rollouts)
        ]

    # --- learning ---

    def learn(self, model: Any, items: Sequence[Any]) -> dict[str, float]:
        """Passes over the items in mini-batches; means of what was measured over all optimizer steps."""
        rl: Any = self.job.run.rl
        size = max(1, rl.mini_batch_size // self.answers_of_item)
        measured: list[dict[str, float]] = []
        for each in range(self.passes):
            order = np.random.default_rng([self.args.seed, self.state.global_step, each]).permutation(len(items))
            measured += [
                self._optimize(model, [items[n] for n in order[start : start + size]])
                for start in range(0, len(order), size)
            ]
        return self.note_learnt(measured)

    def _optimize(self, model: Any, batch: Sequence[Any]) -> dict[str, float]:
        """One optimizer step on a mini-batch of all ranks."""
        parts = self.share_of(batch)
        totals = Totals(("loss", *self.measured))
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss = self._loss(model, part, batch)
                self.accelerator.backward(loss)  # the ranks' gradients are averaged
            totals.add("loss", loss.item() / self.job.world, 1)
            if part:
                self.note(totals, part)
        found = totals.take(self.job.world, self.args.device)
        loss_of_all = found.pop("loss")[0]
        self.take_step(model, loss_of_all)
        means = {name: value / weight for name, (value, weight) in found.items() if weight}
        return {"loss": loss_of_all, **means, "grad_norm": self.grad_norm}

    def _loss(self, model: Any, part: Sequence[Any], batch: Sequence[Any]) -> Tensor:
        """A micro-batch's part of the mean loss of the mini-batch `batch`, times the number of ranks."""
        if part:
            with of_this_rank(self.accelerator):
                return self.loss_of(model, part, batch)
        scores: TokenScores = model(**self.inputs([STAND_IN]))
        return scores.logps.sum() * 0.0

    def loss_of(self, model: Any, part: Sequence[Any], batch: Sequence[Any]) -> Tensor:
        """TRL's loss of a micro-batch, made its part of the mean over the mini-batch `batch` times the ranks."""
        raise NotImplementedError

    def note(self, totals: Totals, part: Sequence[Any]) -> None:
        """Add what was measured of the micro-batch whose loss was just computed."""
        raise NotImplementedError

    def scores_of(self, model: Any, rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of what was written, (rows, tokens), filled up with zeros."""
        scores: TokenScores = model(**self.inputs(rows))
        lengths = [written(row) for row in rows]
        logps, entropies = (
            pad_sequence(values.split(lengths), batch_first=True) for values in (scores.logps, scores.entropies)
        )
        return logps, entropies


def written(row: TokenRow) -> int:
    """Tokens that the model wrote."""
    return int(row.trained.sum())


def written_mask(rows: Sequence[TokenRow], device: Any) -> Tensor:
    """1 for each token that the model wrote, 0 where a row is filled up, (rows, tokens)."""
    return pad_sequence([torch.ones(written(row), device=device) for row in rows], batch_first=True)
