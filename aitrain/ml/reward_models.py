"""A trained reward model (`trainer=reward`) as a reward: whole conversations in, one number each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aitrain.data.encoding import load_tokenizer, one_bos, tokenize_texts
from aitrain.data.rendering import ChatTemplate
from aitrain.errors import ConfigError, Problem
from aitrain.ml.fitting import Fitting
from aitrain.ml.loading import HEAD_IS_NEW, load_scorer, model_location
from aitrain.rl.episode import Text

KEY = "rl.reward_model_path"


@dataclass(frozen=True)
class RewardModel:
    """Scores prompts with their completions, as `trainer=reward` saw them: through the chat template, end included."""

    model: Any
    tokenizer: Any
    batch_size: int

    @torch.no_grad()
    def __call__(self, prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
        rows = [self._ids(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        scores = [0.0] * len(rows)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            for number, score in zip(part, self._scores([rows[n] for n in part]), strict=True):
                scores[number] = score
        return scores

    def _ids(self, prompt: Text, completion: Text) -> list[int]:
        chat = not isinstance(prompt, str) and not isinstance(completion, str)
        if chat:
            text = ChatTemplate(self.tokenizer).whole([*prompt, *completion])
        else:
            text = f"{prompt}{completion}{self.tokenizer.eos_token or ''}"
        ids, _, _ = next(tokenize_texts(self.tokenizer, [text], not chat))
        return one_bos(self.tokenizer, list(ids), [0] * len(ids))[0]

    def _scores(self, rows: Sequence[list[int]]) -> list[float]:
        """Padded on the right: the score is read at the last token of a row."""
        longest, pad = max(map(len, rows)), self.model.config.get_text_config().pad_token_id
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        found: list[float] = self.model(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
        return found


def load_reward_model(fitting: Fitting, path: str) -> RewardModel:
    """Load it as the run loads its model. Raises ConfigError for one that gives no score or reads other tokens."""
    section = fitting.job.run.model
    allow = fitting.job.run.run.allow_downloads
    model = fitting.frozen_model(path, load_scorer)
    if model.config.num_labels != 1 or getattr(model, HEAD_IS_NEW, False):
        what = (
            f"{path} gives {model.config.num_labels} outputs"
            if model.config.num_labels != 1
            else f"{path} has no head that gives a score"
        )
        raise ConfigError(Problem(KEY, what, "name a model that trainer=reward made"))
    tokenizer = load_tokenizer(
        model_location(path), None, trust_remote_code=section.trust_remote_code, allow_downloads=allow
    )
    return RewardModel(model.to(fitting.args.device), tokenizer, fitting.job.run.train.batch_size)
