"""Online DPO: TRL's loss of pairs on this project's episodes (see `aitrain.ml.compared`).

The model writes two answers to a prompt, the one with the higher reward is taken as chosen. Guo et al. 2024,
https://arxiv.org/abs/2402.04792.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aitrain.ml.compared import ASKED_FOR, Compared, ComparedLoop, no_reward, written_mask
from aitrain.ml.examples import Totals
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.preference import right_order

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is an experiment, which may change: the version of trl is pinned
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, in the order they were written where neither is better."""

    chosen: Compared
    rejected: Compared
    margin: float


def fit_online_dpo(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    section: Any = job.run.trainer
    rl: Any = job.run.rl
    settings = {
        "gradient_accumulation_steps": 1,  # a step has as many answers as the plan says
        "beta": [section.beta],
        "loss_type": section.loss_type,
        "disable_dropout": True,
        "max_new_tokens": rl.max_new_tokens,
        "max_length": rl.max_new_tokens + 1,  # of prompts that TRL would cut; it sees none
    }
    return fit(job, training_arguments(job, OnlineDPOConfig, **settings), OnlineDPOFit)


class OnlineDPOFit(ComparedLoop, OnlineDPOTrainer):
    """TRL's loss on this project's episodes."""

    answers = answers_of_item = 2
    measured: Sequence[str] = (
        *("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"),
        *("logps/chosen", "logps/rejected", "kl", "entropy"),
    )

    def __init__(self, fitting: Fitting) -> None:
        super().__init__(
            model=fitting.model(),
            ref_model=nn.Identity(),  # TRL would copy the model; see `_forward`
            reward_funcs=[no_reward],
            args=fitting.args,
            train_dataset=ASKED_FOR,
            processing_class=fitting.tokenizer,
        )
        self.begin_compared(fitting)
        self.micro_batch: Sequence[Compared] = ()

    def holding(self, job: Job) -> float:
        """The loss is of what the policy makes likelier than the reference does, so there always is one."""
        section: Any = job.run.trainer
        return float(section.beta)

    def scoring_temperature(self, rl: Any) -> float:
        """As the loss is derived for the model itself, however its answers were drawn."""
        return 1.0

    def looks_back(self) -> bool:
        """The loss has no ratio to the policy that wrote."""
        return False

    def lessons(self, answers: Sequence[Compared]) -> tuple[list[Pair], dict[str, float]]:
        section: Any = self.job.run.trainer
        penalty = section.missing_eos_penalty or 0.0
        worth = [answer.score - penalty * (not answer.ended) for answer in answers]
        pairs = []
        for first in range(0, len(answers), 2):
            one, other = (first, first + 1) if worth[first] >= worth[first + 1] else (first + 1, first)
            pairs.append(Pair(answers[one], answers[other], worth[one] - worth[other]))
        margins = [pair.margin for pair in pairs]
        return pairs, {
            "score_margin": sum(margins) / len(pairs),
            "pairs_alike": sum(margin == 0 for margin in margins) / len(pairs),
        }

    def loss_of(self, model: Any, part: Sequence[Pair], batch: Sequence[Pair]) -> Tensor:
        """Pairs of which neither answer is better count as having no loss; TRL would take the first as chosen."""
        told = [pair for pair in part if pair.margin > 0]
        self.micro_batch = [*(pair.chosen for pair in part), *(pair.rejected for pair in part)]
        self._score(model)
        if not told:
            return self.logps.sum() * 0.0
        rows = [n for n, pair in enumerate(part) if pair.margin > 0]
        self.taken = [*rows, *(n + len(part) for n in rows)]
        self.worth = torch.tensor([pair.margin for pair in told] + [0.0] * len(told), device=self.args.device)
        with held_back(self.accelerator) as losses:
            OnlineDPOTrainer.training_step(self, model, {"prompt": [""] * len(told)})
        for noted in self.stats.values():
            noted.clear()
        return losses[0] * (len(told) * self.job.world / len(batch))

    def _score(self, model: Any) -> None:
        """What the model and the reference make of the micro-batch, (answers, tokens)."""
        rows = [answer.row for answer in self.micro_batch]
        self.logps, self.entropies = self.scores_of(model, rows)
        self.mask = written_mask(rows, self.args.device)
        theirs = [answer.ref_logps for answer in self.micro_batch if answer.ref_logps is not None]
        self.ref_logps = pad_sequence(theirs, batch_first=True).to(self.args.device)

    def note(self, totals: Totals, part: Sequence[Pair]) -> None:
        section: Any = self.job.run.trainer
        ours, apart = self.logps.detach().sum(1), (self.logps.detach() - self.ref_logps).sum(1)
        told = torch.tensor([pair.margin > 0 for pair in part], device=self.args.device)
        if told.any():  # of pairs that are alike neither answer was chosen
            chosen, rejected = (side[told] for side in (section.beta * apart).split(len(part)))
            logps_chosen, logps_rejected = (side[told] for side in ours.split(len(part)))
            for name, value in {
                "rewards/chosen": chosen.mean(),
                "rewards/rejected": rejected.mean(),
                "rewards/margins": (chosen - rejected).mean(),
                "rewards/accuracies": right_order(chosen, rejected),
                "logps/chosen": logps_chosen.mean(),
                "logps/rejected": logps_rejected.mean(),
            }.items():
                totals.add(name, float(value), int(told.sum()))
        totals.add("kl", float(apart.mean()), len(self.micro_batch))
        tokens = float(self.mask.sum())
        totals.add("entropy", float(self.entropies.detach().sum()) / tokens, tokens)

    # --- what TRL asks for ---

    def _generate(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """The answers of the micro-batch, of prompts without tokens."""
        mask = self.mask[self.taken].long()
        ids = torch.zeros_like(mask)
        return ids[:, :0], ids[:, :0], ids, mask, None

    def _forward(self, model: Any, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = self.ref_logps if model is self.ref_model else self.logps
        return found[self.taken]

    def _calculate_rewards_from_functions(self, *args: Any, **kwargs: Any) -> Tensor:
        """The chosen answers come first, so that TRL chooses the same."""
        return self.worth


@contextmanager
def held_back(accelerator: Any) -> Iterator[list[Tensor]]:
    """TRL goes backward by itself; here the loss is first made its part of the mini-batch. Gives the losses."""
    losses: list[Tensor] = []
    accelerator.backward = lambda loss, **kwargs: losses.append(loss)
    try:
        yield losses
    finally:
        del accelerator.backward
