"""What GRPO and RLOO have in common: answers are judged against others of their group (see `aitrain.ml.compared`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aitrain.ml.compared import ASKED_FOR, Compared, ComparedLoop, no_reward, written_mask
from aitrain.ml.examples import Totals
from aitrain.ml.fitting import Fitting
from aitrain.ml.job import Job

ANSWERS, TOKENS = "answers", "tokens"
"""What measures are weighed by."""
SMALL = 1e-4
"""Added to a spread that is divided by, as TRL does."""


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


class GroupLoop(ComparedLoop):
    """One of TRL's trainers on groups of answers. Comes before it; its `_compute_loss` is what is used of it."""

    weighed_by: Mapping[str, str]
    """The measures of TRL that are reported, and what each is a mean over."""
    _compute_loss: Any
    _metrics: Any

    def __init__(self, fitting: Fitting) -> None:
        section: Any = fitting.job.run.trainer
        self.answers = section.num_generations
        super().__init__(  # type: ignore[call-arg]
            model=fitting.model(),
            reward_funcs=[no_reward],
            args=fitting.args,
            train_dataset=ASKED_FOR,
            processing_class=fitting.tokenizer,
        )
        self.begin_compared(fitting)
        self.micro_batch: Sequence[Learnable] = ()

    @property
    def measured(self) -> list[str]:  # type: ignore[override]
        """What is measured of a micro-batch."""
        return ["kl", *(NAMES.get(name, name) for name in self.weighed_by)]

    # --- an update ---

    def advantages(self, answers: Sequence[Compared]) -> tuple[Tensor, dict[str, float]]:
        """How much better each answer is than the others of its group, and what to report of that."""
        raise NotImplementedError

    def lessons(self, answers: Sequence[Compared]) -> tuple[Sequence[Learnable], dict[str, float]]:
        advantages, measures = self.advantages(answers)
        return [Learnable(*pair) for pair in zip(answers, advantages.tolist(), strict=True)], measures

    def looks_back(self) -> bool:
        """Where the policy changes before it has learnt from all answers."""
        rl: Any = self.job.run.rl
        return bool(self.passes > 1 or rl.mini_batch_size < self.job.plan.global_batch_size)

    # --- learning ---

    def loss_of(self, model: Any, part: Sequence[Learnable], batch: Sequence[Learnable]) -> Tensor:
        self.micro_batch = part
        return self.group_loss(model, self._given(part), len(part) * self.job.world / len(batch), batch)

    def group_loss(self, model: Any, given: dict[str, Any], share: float, batch: Sequence[Learnable]) -> Tensor:
        """TRL's loss of a micro-batch, which has this share of the mini-batch."""
        raise NotImplementedError

    def counted(self, item: Learnable) -> bool:
        """Whether anything is learnt from an answer."""
        return True

    def _given(self, part: Sequence[Learnable]) -> dict[str, Any]:
        """A micro-batch as TRL takes it, of prompts without tokens."""
        device = self.args.device
        mask = written_mask([item.answer.row for item in part], device)
        ids = torch.zeros(mask.shape, dtype=torch.long, device=device)
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
        logps, entropies = self.scores_of(model, [item.answer.row for item in self.micro_batch])
        self.logps = logps.detach()
        return logps, entropies, None

    def note(self, totals: Totals, part: Sequence[Learnable]) -> None:
        """What TRL noted, and how far the policy is from its reference."""
        weights = {ANSWERS: len(part), TOKENS: float(self.mask.sum())}
        noted = self._metrics["train"]
        for name, kind in self.weighed_by.items():
            if noted.get(name):
                totals.add(NAMES.get(name, name), noted[name][-1], weights[kind])
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


def spread(groups: Tensor) -> Tensor:
    """Standard deviation of each row, with Bessel's correction."""
    return groups.std(1) if groups.shape[1] > 1 else torch.zeros(len(groups), dtype=groups.dtype)
