"""`code`: programs that have to pass tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from aitrain.errors import Problem
from aitrain.rl.environments.built_in import Asked, BuiltInEnvironment, Options, no_reward
from aitrain.rl.episode import Episode, Step
from aitrain.rl.rewards.code import Code
from aitrain.rl.rewards.combine import Specs, Weights, as_columns, by_name
from aitrain.rl.settings import option

FAILED = "The tests do not pass:\n\n```\n{error}\n```\n\nWrite the whole program again."


class CodeOptions(Options):
    tests: str = "test"
    """The column of tests."""
    entry_point: str = "entry_point"
    """The column with the name of the function under test, where there is one."""
    preamble: str | None = None
    """The column of code that the answer continues or stands on. null: the prompt, where it is Python."""
    seconds: float = option(10.0, gt=0, le=600)
    """Time for each program."""
    memory_mb: int = option(1024, ge=64)
    """Address space of each process of a program."""
    processes: int = option(16, ge=1)
    """Processes a program may have at once."""
    workers: int = option(0, ge=0)
    """Programs run side by side. 0: one a core, 8 at most."""


class CodeTests(BuiltInEnvironment):
    """`passes` counts 1, `syntax` (can be read as Python) 0.1. With more turns the model is shown what failed."""

    options_class: ClassVar[type[Options]] = CodeOptions

    @classmethod
    def parts(cls, options: Any, asked: Asked) -> tuple[Specs, Weights, str]:
        own = {name: getattr(options, name) for name in CodeOptions.__annotations__}
        rewards = {"passes": {"name": "code", **own}, "syntax": "python"}
        return (
            rewards,
            {"passes": 1.0, "syntax": 0.1, **by_name(asked.weights, list(rewards))},
            f"{asked.key}.env_config",
        )

    @classmethod
    def own_problems(cls, options: Any, asked: Asked) -> Iterable[Problem]:
        yield from no_reward("code", asked, "choose rl=text_generation with it, or rl=multi_objective for several")
        if options.tools:
            yield Problem(f"{asked.key}.env_config.tools", "has no effect, further turns show what failed", "remove it")

    def step(self, episode: Episode) -> Step:
        if episode.answers >= self.max_turns:
            return Step()
        code = self.rewards.functions["passes"]
        assert isinstance(code, Code)
        outcome = code.outcomes(*as_columns([episode])[:2], **as_columns([episode])[2])[0]
        if outcome.passed:
            return Step()
        error = {"time": f"stopped after {code.seconds:g} seconds"}.get(
            outcome.reason, outcome.error or "it ended early"
        )
        return Step([{"role": "user", "content": FAILED.format(error=error)}], done=False)
