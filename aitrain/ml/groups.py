"""What the trainers have in common that compare answers to the same prompt: TRL computes the loss of a micro-batch.

Episodes, log-probabilities, evaluation and checkpoints are this project's. The loss of a mini-batch is the mean over
its answers or tokens, whatever the micro-batches and the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from aitrain.ml.episodes import STAND_IN, EpisodeLoop, only_logps
from aitrain.ml.experience import Scored, gathered, measures_of
from aitrain.ml.fitting import Fitting
from aitrain.ml.heads import TokenScores, add_token_scores
from aitrain.ml.job import Job
from aitrain.ml.preference import Totals
from aitrain.ml.rollouts import Rollout
from aitrain.rl.environment import total

ANSWERS, TOKENS = "answers", "tokens"
"""What measures are weighed by."""
SMALL = 1e-4
"""Added to a spread that is divided by, as TRL does."""


@dataclass(frozen=True)
class Compared(Scored):
    """An answer as the policy that wrote it saw it. Sequences have an entry for each token that it wrote."""

    logps: Tensor | None
    """None where the policy has not changed before it learns from the answer."""
    ref_logps: Tensor | None
    """None where no reference holds the policy."""


@dataclass(frozen=True)
class Learnable:
    """An answer and its advantage over the others of its group."""

    answer: Compared
    advantage: float


def settings_of(job: Job, **more: Any) -> dict[str, Any]:
    """What TRL's settings have in common. They are of no step: one has as many answers as the plan says."""
    rl: Any = job.run.rl
    section: Any = job.run.trainer
    return {
        "gradient_accumulation_steps": 1,
        "generation_batch_size": job.plan.global_batch_size,
        "num_generations": section.num_generations,
        "num_iterations": section.num_iterations,
        "max_completion_length": rl.max_new_tokens,
        "temperature": rl.temperature,
        "epsilon": rl.clip_range,
        "beta": 0.0,  # TRL would load a reference of its own
        "router_aux_loss_coef": 0.0,
        "disable_dropout": True,
        **more,
    }


def no_reward(*args: Any, **kwargs: Any) -> list[float]:
    """Stands where TRL wants a reward function; the rewards come from the environment."""
    raise NotImplementedError


class GroupLoop(EpisodeLoop):
    """One of TRL's trainers on groups of answers. Comes before it; its `_compute_loss` is what is used of it.

    TRL takes prompts and answers side by side, padded. Here the answers alone are given to it, as the tokens that the
    model wrote, and what it then asks of the model is computed on rows laid end to end.
    """

    weighed_by: Mapping[str, str]
    """The measures of TRL that are reported, and what each is a mean over."""
    _compute_loss: Any
    _metrics: Any

    def __init__(self, fitting: Fitting) -> None:
        section: Any = fitting.job.run.trainer
        rl: Any = fitting.job.run.rl
        self.answers = section.num_generations
        super().__init__(  # type: ignore[call-arg]
            model=fitting.model(),
            reward_funcs=[no_reward],
            args=fitting.args,
            train_dataset=Dataset.from_dict({"prompt": [""]}),
            processing_class=fitting.tokenizer,
        )
        add_token_scores(self.model, rl.temperature)
        self.begin_episodes(fitting, self.model)
        self.micro_batch: Sequence[Learnable] = ()
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

    def advantages(self, answers: Sequence[Compared]) -> tuple[Tensor, dict[str, float]]:
        """How much better each answer is than the others of its group, and what to report of that."""
        raise NotImplementedError

    def update(self, model: Any) -> bool:
        played = self.played()
        if played is None:
            return False
        rollouts, seconds = played
        self.empty_cache()
        began = time.monotonic()
        answers = gathered(self._compared(rollouts), self.job.world)
        advantages, measures = self.advantages(answers)
        judged = time.monotonic() - began
        began = time.monotonic()
        self.books.take_step(sum(len(answer.row.ids) for answer in answers))
        learnt = self._learn(model, [Learnable(*pair) for pair in zip(answers, advantages.tolist(), strict=True)])
        self.empty_cache()
        seconds_of = {
            "seconds/generation": seconds.generation,
            "seconds/scoring": seconds.scoring,
            "seconds/judging": judged,
            "seconds/update": time.monotonic() - began,
        }
        self.books.take_measures({**measures_of(answers), **measures, **learnt, **seconds_of}, 1)
        return True

    def looks_back(self) -> bool:
        """Whether the policy changes before it has learnt from all answers, so that the old one is to be remembered."""
        rl: Any = self.job.run.rl
        return bool(self.passes > 1 or rl.mini_batch_size < self.job.plan.global_batch_size)

    @torch.no_grad()
    def _compared(self, rollouts: Sequence[Rollout]) -> list[Compared]:
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

    def _learn(self, model: Any, answers: Sequence[Learnable]) -> dict[str, float]:
        """Passes over the answers in mini-batches; means of what was measured over all optimizer steps."""
        rl: Any = self.job.run.rl
        measured: list[dict[str, float]] = []
        for each in range(self.passes):
            order = np.random.default_rng([self.args.seed, self.state.global_step, each]).permutation(len(answers))
            measured += [
                self._optimize(model, [answers[n] for n in order[start : start + rl.mini_batch_size]])
                for start in range(0, len(order), rl.mini_batch_size)
            ]
        return self.note_learnt(measured)

    def _optimize(self, model: Any, batch: Sequence[Learnable]) -> dict[str, float]:
        """One optimizer step on a mini-batch of all ranks."""
        parts = self.share_of(batch)
        totals = Totals(("loss", "kl", *self.weighed_by))
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss = self._loss(model, part, batch)
                self.accelerator.backward(loss)  # the ranks' gradients are averaged
            totals.add("loss", loss.item() / self.job.world, 1)
            if part:
                self._note(totals, part)
        found = totals.take(self.job.world, self.args.device)
        loss_of_all = found.pop("loss")[0]
        self.take_step(model, loss_of_all)
        means = {NAMES.get(name, name): value / weight for name, (value, weight) in found.items() if weight}
        return {"loss": loss_of_all, **means, "grad_norm": self.grad_norm}

    def _loss(self, model: Any, part: Sequence[Learnable], batch: Sequence[Learnable]) -> Tensor:
        """A micro-batch's part of the mean loss of the mini-batch `batch`, times the number of ranks."""
        self.micro_batch = part
        if not part:
            scores: TokenScores = model(**self.inputs([STAND_IN]))
            return scores.logps.sum() * 0.0
        with of_this_rank(self.accelerator):
            return self.loss_of(model, self._given(part), len(part) * self.job.world / len(batch), batch)

    def loss_of(self, model: Any, given: dict[str, Any], share: float, batch: Sequence[Learnable]) -> Tensor:
        """TRL's loss of a micro-batch, which has this share of the mini-batch."""
        raise NotImplementedError

    def counted(self, item: Learnable) -> bool:
        """Whether anything is learnt from an answer."""
        return True

    def _given(self, part: Sequence[Learnable]) -> dict[str, Any]:
        """A micro-batch as TRL takes it, of prompts without tokens."""
        device = self.args.device
        lengths = [written(item) for item in part]
        ids = torch.zeros(len(part), max(lengths), dtype=torch.long, device=device)
        mask = pad_sequence([torch.ones(length, device=device) for length in lengths], batch_first=True)
        mask *= torch.tensor([[float(self.counted(item))] for item in part], device=device)
        found = {
            "prompt_ids": ids[:, :0],
            "prompt_mask": ids[:, :0],
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": torch.tensor([item.advantage for item in part], device=device),
        }
        old = [item.answer.logps for item in part if item.answer.logps is not None]
        if old:
            found["old_per_token_logps"] = pad_sequence(old, batch_first=True).to(device)
        reference = [item.answer.ref_logps for item in part if item.answer.ref_logps is not None]
        if reference:
            found["ref_per_token_logps"] = pad_sequence(reference, batch_first=True).to(device)
        self.mask, self.ref_logps = mask, found.get("ref_per_token_logps")
        return found

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
        """What TRL asks of the model for the micro-batch under way."""
        scores: TokenScores = model(**self.inputs([item.answer.row for item in self.micro_batch]))
        lengths = [written(item) for item in self.micro_batch]
        logps, entropies = (
            pad_sequence(values.split(lengths), batch_first=True) for values in (scores.logps, scores.entropies)
        )
        self.logps = logps.detach()
        return logps, entropies, None

    def _note(self, totals: Totals, part: Sequence[Learnable]) -> None:
        """Add what TRL noted of a micro-batch, and how far the policy is from its reference."""
        weights = {ANSWERS: len(part), TOKENS: float(self.mask.sum())}
        noted = self._metrics["train"]
        for name, kind in self.weighed_by.items():
            if noted.get(name):
                totals.add(name, noted[name][-1], weights[kind])
        noted.clear()
        if self.ref_logps is not None:
            totals.add("kl", float((self.logps - self.ref_logps).sum()) / len(part), len(part))


NAMES = {
    "clip_ratio/region_mean": "policy_clip_fraction",
    "clip_ratio/low_mean": "policy_clip_fraction/low",
    "clip_ratio/high_mean": "policy_clip_fraction/high",
    "cispo_clip_ratio": "policy_clip_fraction",
    "vespo/phi_seq_mean": "weight",
}
"""What this project calls the measures of TRL."""


def written(item: Learnable) -> int:
    """Tokens that the model wrote."""
    return int(item.answer.row.trained.sum())


@contextmanager
def of_this_rank(accelerator: Any) -> Iterator[None]:
    """TRL gathers its measures over ranks in each micro-batch; here they are summed once a mini-batch instead."""

    def as_it_is(value: Any, *args: Any, **kwargs: Any) -> Any:
        return value

    names = ("gather", "gather_for_metrics", "reduce", "pad_across_processes")
    for name in names:
        setattr(accelerator, name, as_it_is)
    try:
        yield
    finally:
        for name in names:
            delattr(accelerator, name)


def spread(groups: Tensor) -> Tensor:
    """Standard deviation of each row, with Bessel's correction."""
    return groups.std(1) if groups.shape[1] > 1 else torch.zeros(len(groups), dtype=groups.dtype)
