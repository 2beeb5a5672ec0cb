"""What an environment is: it makes episodes of rows, answers turns, and scores what came of them.

One environment serves many episodes, so it keeps nothing of any of them: all state is in the Episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aitrain.rl.episode import Episode, Step
from aitrain.rl.tools import answer_calls


class Environment:
    """The base of environments. A class of yours may have it as its base, or just the same methods."""

    max_turns: int = 1
    """Turns of the model in an episode at most."""
    tools: Sequence[Callable[..., Any]] = ()
    """Functions the model may call. Signature and docstring, in Google's form, become what it is told of them."""
    weights: Mapping[str, float] = {}
    """What each component of a score counts in the total; 1 where nothing is said."""

    faults: Mapping[str, int] = {}
    """How often each component was replaced by a penalty so far."""
    first_faults: Mapping[str, str] = {}
    """The first fault of each, in words."""

    def rows(self, tokenizer: Any) -> Sequence[Mapping[str, Any]] | None:
        """Rows with a `prompt`, where the environment brings its own; None where the data do."""
        return None

    def bind(self, model: Any, tokenizer: Any) -> None:
        """Called before the first episode, for environments that look at the model."""

    def reset(self, row: Mapping[str, Any]) -> Episode:
        """A new episode from a row."""
        return Episode(row["prompt"], {name: value for name, value in row.items() if name != "prompt"})

    def step(self, episode: Episode) -> Step:
        """What is said to the model's turn, the last of `episode.turns`: here the answers of the tools it called."""
        if episode.answers >= self.max_turns:
            return Step()
        messages = answer_calls(episode, self.tools)
        return Step(messages, done=not messages)

    def score(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        """Named components of each episode."""
        raise NotImplementedError(f"{type(self).__name__} has no method score(episodes)")


def total(components: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The reward of an episode: the weighted sum of its components."""
    return float(sum(weights.get(name, 1.0) * value for name, value in components.items()))


Answer = tuple[str, bool]
"""The text of a turn, and whether it ended by itself."""


def play(
    environment: Environment, rows: Sequence[Mapping[str, Any]], answer: Callable[[list[Episode]], Sequence[Answer]]
) -> list[Episode]:
    """Plays an episode of each row to its end; all that are still going on are answered together."""
    episodes = [environment.reset(row) for row in rows]
    going = list(episodes)
    while going:
        still = []
        for episode, (text, ended) in zip(going, answer(going), strict=True):
            if advance(environment, episode, text, ended):
                still.append(episode)
        going = still
    return episodes


def advance(environment: Environment, episode: Episode, text: str, ended: bool) -> bool:
    """Adds the model's turn and what the environment says to it; whether the episode goes on."""
    episode.turns.append({"role": "assistant", "content": text})
    episode.ended = ended
    step = environment.step(episode)
    if step.done or episode.answers >= environment.max_turns:
        return False
    episode.turns.extend(step.messages)
    return True
