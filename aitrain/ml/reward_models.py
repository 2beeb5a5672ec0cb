"""A trained reward model (`trainer=reward`) as a reward: whole conversations in, one number each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aitrain.data.encoding import load_tokenizer, one_bos, tokenize_texts
from aitrain.data.rendering import ChatTemplate
from aitrain.errors import ConfigError, Problem
from aitrain.ml.fitting import Fitting
from aitrain.ml.loading import HEAD_IS_NEW, first_line, load_scorer, model_location
from aitrain.rl.episode import Text

KEY = "rl.reward_model_path"
MADE_BY = "name a model that trainer=reward made"
HEADS = ("score", "classifier")
"""What families call the layer that gives the score."""


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
    try:
        model = fitting.frozen_model(path, load_trained_scorer)
        tokenizer = load_tokenizer(
            model_location(path), None, trust_remote_code=section.trust_remote_code, allow_downloads=allow
        )
    except ConfigError as error:
        raise ConfigError(replace(problem, key=KEY, fix="") for problem in error.problems) from error
    except (OSError, ValueError) as error:
        raise ConfigError(Problem(KEY, f"{path} does not load: {first_line(error)}", MADE_BY)) from error
    if tokenizer.get_vocab() != fitting.tokenizer.get_vocab():
        what = f"{path} has another tokenizer than {section.path}"
        raise ConfigError(Problem(KEY, what, f"train one from {section.path}, or name one with its tokenizer"))
    if model.config.get_text_config().pad_token_id is None:  # what an adapter stands on may not say
        known = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        model.config.get_text_config().pad_token_id = known
    return RewardModel(model.to(fitting.args.device), tokenizer, fitting.job.run.train.batch_size)


def load_trained_scorer(
    path: str, *, revision: str | None, dtype: str, trust_remote_code: bool, allow_downloads: bool
) -> Any:
    """A reward model with its own head: a whole one, or an adapter and the head saved with it on the model below.

    Raises ConfigError for anything else.
    """
    loaded: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "allow_downloads": allow_downloads,
    }
    location = Path(model_location(path)).expanduser()
    adapter = location / "adapter_config.json"
    if not adapter.is_file():
        model = load_scorer(path, revision=revision, **loaded)
        if getattr(model, HEAD_IS_NEW, False):
            raise ConfigError(Problem(KEY, f"{path} has no head that gives a score", MADE_BY))
        return model
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    settings = json.loads(adapter.read_text(encoding="utf-8"))
    model = load_scorer(settings["base_model_name_or_path"], revision=settings.get("revision"), **loaded)
    try:
        with safe_open(location / "adapter_model.safetensors", "pt") as tensors:
            has_head = any(part in HEADS for name in tensors.keys() for part in name.split("."))  # noqa: SIM118
        if getattr(model, HEAD_IS_NEW, False) and not has_head:
            raise ConfigError(Problem(KEY, f"{path} has no head that gives a score", MADE_BY))
        return PeftModel.from_pretrained(model, str(location))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(Problem(KEY, f"{path} does not load: {first_line(error)}", MADE_BY)) from error
