"""What the options that learn from rewards in groups of answers have in common: keys they read, measures, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from aitrain.errors import Problem
from aitrain.trainers.ppo import LEARNING_RATES, METRICS, encoder
from aitrain.trainers.preferences import TASKS, model_not_found, unread

if TYPE_CHECKING:
    from aitrain.config.run import Run

__all__ = ["LEARNING_RATES", "METRICS", "READS", "SHAPES", "TASKS", "common_problems", "encoder", "group_size"]

SHAPES: tuple[Literal["prompts"], Literal["messages"]] = ("prompts", "messages")
READS = ("data.columns.prompt", "data.columns.input", "data.columns.system", "data.columns.messages",
         "data.max_prompt_length", "data.truncation", "data.chat_format", "generate.*",
         "rl.env_type", "rl.env_config*", "rl.reward_fn*", "rl.reward_weights*", "rl.reward_model_path",
         "rl.multi_objective", "rl.on_reward_error", "rl.reward_error_penalty", "rl.allow_code_execution",
         "rl.max_new_tokens", "rl.temperature", "rl.top_k", "rl.top_p", "rl.stop_strings", "rl.chunk_size",
         "rl.optimize_device_cache", "rl.use_vllm", "rl.vllm_*",
         "rl.kl_coef")  # fmt: skip
"""Keys of prompts, of rewards and of how answers are written."""


def group_size(run: Run) -> int:
    """Answers to each prompt."""
    section: Any = run.trainer
    return int(section.num_generations)


def common_problems(run: Run, answers: int, *, held: bool = False) -> Iterator[Problem]:
    """What is wrong whatever the trainer; `answers` is how many are written to each prompt, and `held` says that there
    always is a reference."""
    rl: Any = run.rl
    section: Any = run.trainer
    if rl.name == "none":
        what = f"trainer={section.name} learns from rewards, and rl=none gives none"
        yield Problem("rl", what, "use rl=text_generation", fix="rl=text_generation")
        return
    yield from unread(run, "ref_model", held or rl.kl_coef > 0, "rl.kl_coef=0")
    yield from model_not_found("trainer.ref_model", section.ref_model)
    if run.data.truncation == "right":
        what = "right would cut the end of a question, after which the model is to write"
        yield Problem("data.truncation", what, "use error, drop or left", fix="data.truncation=left")
    yield from _of_sizes(run, answers)


def _of_sizes(run: Run, answers: int) -> Iterator[Problem]:
    rl: Any = run.rl
    train = run.train
    episodes = train.batch_size * train.gradient_accumulation * run.hardware.processes
    if episodes % answers:
        what = f"the {episodes} answers of an update are no whole groups of {answers}"
        advice = "an update has train.batch_size x train.gradient_accumulation x hardware.processes answers"
        fitting = [size for size in range(2, episodes + 1) if episodes % size == 0]
        near = min(fitting, key=lambda size: abs(size - answers), default=None)
        key = "trainer.num_generations" if "num_generations" in type(run.trainer).model_fields else "train.batch_size"
        fix = f"{key}={near}" if near and key.startswith("trainer") else ""
        yield Problem(key, what, advice, **({"fix": fix} if fix else {}))
    if rl.mini_batch_size > episodes:
        what = f"{rl.mini_batch_size} answers are more than the {episodes} of an update"
        advice = "an update has train.batch_size x train.gradient_accumulation x hardware.processes of them"
        yield Problem("rl.mini_batch_size", what, advice, fix=f"rl.mini_batch_size={episodes}")
