"""Episodes: a model answers prompts, an environment replies and scores, and what the model wrote is marked as such."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aitrain.data.encoding import tokenize_texts
from aitrain.data.prompt_encoding import continuation
from aitrain.data.rendering import ChatTemplate, Message, RenderingError
from aitrain.data.tokens import PromptRow, TokenRow
from aitrain.errors import TrainingFailed
from aitrain.ml.sampling import Answer, Sampling, sample
from aitrain.rl.environment import Environment
from aitrain.rl.episode import Episode


@dataclass
class Rollout:
    """An episode as token ids."""

    episode: Episode
    ids: list[int]
    """The prompt, then what the model and the environment wrote in turn."""
    written: list[int]
    """1 where the model wrote the token, as long as `ids`."""
    number: int
    """Place of the episode among all of the run, from which its random numbers follow."""
    tools: Any = None
    """Schemas of what the model may call, as its prompt has them."""
    components: dict[str, float] = field(default_factory=dict)
    """What the environment gave it, by name."""

    @property
    def row(self) -> TokenRow:
        """The tokens as a row of which those that the model wrote are predicted."""
        return TokenRow(np.asarray(self.ids, np.int32), np.asarray(self.written, np.uint8))

    @property
    def length(self) -> int:
        """Tokens that the model wrote."""
        return sum(self.written)


@dataclass(frozen=True)
class Seconds:
    """How long the parts of making episodes took."""

    generation: float
    scoring: float


class Writer(Protocol):
    """Something faster than the model that writes with its weights."""

    def take_weights(self) -> None:
        """Take over the model's weights as they are."""

    def write(self, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        """An answer to each prompt (token ids), in order."""


@dataclass(frozen=True)
class Player:
    """Lets a model play episodes of an environment."""

    environment: Environment
    tokenizer: Any
    settings: Sampling
    chunk_size: int
    """Episodes that are written at once."""
    seed: int
    positions: int | None
    """Tokens that an episode may have in all; None for no limit."""
    writer: Writer | None = None
    """What writes in the model's place, with its weights; None for the model itself."""

    def play(
        self,
        model: Any,
        prompts: Sequence[PromptRow],
        numbers: Sequence[int],
        *,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Rollout], Seconds] | None:
        """One finished and scored episode for each prompt, or None once `interrupted`.

        Raises TrainingFailed, naming the function and the prompt, where a reward is none.
        """
        began = time.monotonic()
        rollouts = [self._begin(prompt, number) for prompt, number in zip(prompts, numbers, strict=True)]
        active = rollouts
        if self.writer is not None:
            self.writer.take_weights()
        for turn in range(self.environment.max_turns):
            seeds = [(self.seed, rollout.number, turn) for rollout in active]
            prompts_so_far = [rollout.ids for rollout in active]
            if self.writer is not None:
                answers = None if interrupted() else self.writer.write(prompts_so_far)
            else:
                answers = sample(
                    model,
                    self.tokenizer,
                    prompts_so_far,
                    seeds,
                    self.settings,
                    chunk_size=self.chunk_size,
                    interrupted=interrupted,
                )
            if answers is None:
                return None
            active = [r for r, answer in zip(active, answers, strict=True) if self._goes_on(r, answer, turn)]
            if not active:
                break
        generated = time.monotonic()
        self._score(rollouts)
        return rollouts, Seconds(generated - began, time.monotonic() - generated)

    def _begin(self, prompt: PromptRow, number: int) -> Rollout:
        ids = prompt.ids.tolist()
        return Rollout(
            self.environment.reset(prompt.record), ids, [0] * len(ids), number, tools=prompt.record.get("tools")
        )

    def _goes_on(self, rollout: Rollout, answer: Answer, turn: int) -> bool:
        """Take an answer into the episode; whether the model is to write another one."""
        rollout.ids += answer.ids
        rollout.written += [1] * len(answer.ids)
        rollout.episode.turns.append({"role": "assistant", "content": self._text(answer)})
        rollout.episode.ended = answer.ended
        if not answer.ended or turn + 1 == self.environment.max_turns:
            return False  # an answer that was cut off leaves the environment nothing to reply to
        step = self.environment.step(rollout.episode)
        if step.done:
            return False
        said = self._reply(rollout, list(step.messages), answer)
        if self.positions and len(rollout.ids) + len(said) + self.settings.max_new_tokens > self.positions:
            return False
        rollout.episode.turns += step.messages
        rollout.ids += said
        rollout.written += [0] * len(said)
        return True

    def _text(self, answer: Answer) -> str:
        """The answer without what ended it."""
        text = str(self.tokenizer.decode(answer.ids, skip_special_tokens=True))
        if answer.ended:
            found = [place for stop in self.settings.stop_strings if (place := text.rfind(stop)) >= 0]
            text = text[: min(found)] if found else text
        return text.strip() if self.tokenizer.chat_template else text

    def _reply(self, rollout: Rollout, messages: list[Message], answer: Answer) -> list[int]:
        """Tokens of what the environment says, up to where the model goes on."""
        episode = rollout.episode
        if isinstance(episode.prompt, str):
            text, ends = "".join(str(message["content"]) for message in messages), ""
        else:
            try:
                turns = [*episode.prompt, *episode.turns, *messages]
                text = continuation(ChatTemplate(self.tokenizer), turns, rollout.tools)
            except RenderingError as error:
                raise TrainingFailed(f"the environment's turn cannot be written: {error}") from error
            ends = self.tokenizer.decode(answer.ids[-1:]) if answer.ended else ""
        ids, _, _ = next(tokenize_texts(self.tokenizer, [text.removeprefix(ends)], False))
        return list(ids)

    def _score(self, rollouts: Sequence[Rollout]) -> None:
        found = self.environment.score([rollout.episode for rollout in rollouts])
        for rollout, components in zip(rollouts, found, strict=True):
            rollout.components = components
