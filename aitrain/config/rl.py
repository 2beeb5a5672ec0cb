"""`rl`: what answers a model writes for itself are worth, how it writes them, and how it learns from them.

One option is one YAML in `conf/rl`; all of them have these keys, of which each trainer reads those that it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run


ROWS = ("data.path", "data.mixture", "data.files", "data.config", "data.train_split", "data.valid_split")
"""Keys that say where rows are."""


class RL(OptionSection):
    """Rewards, episodes, and learning from them."""

    env_type: str
    """The environment: `text_generation`, `multi_objective`, `preference_comparison`, `math`, `code`, or a class of
    yours as `file.py:Class`."""
    env_config: dict[str, Any]
    """Its options: those of docs/rewards.md, or the keywords that your class is made with."""
    reward_fn: str | dict[str, Any] | list[str | dict[str, Any]] | None
    """What scores an answer: the name of a reward (`correctness`, `length` …), `file.py:function`, a mapping with the
    reward's `name` and options, or a list of these. null: the environment scores by itself."""
    reward_weights: dict[str, float] | list[float] | None
    """What each reward counts, by name or in the order of `rl.reward_fn`. null: 1 each."""
    reward_model_path: str | None
    """A reward model (see trainer=reward) that scores answers, alone or beside `rl.reward_fn`."""
    multi_objective: bool
    """Let several rewards count, each logged by its name. false: several are refused."""
    on_reward_error: Literal["raise", "penalty"]
    """What a reward that fails or gives no number leads to: the end of the run, or a penalty in its place, counted."""
    reward_error_penalty: float = key(visibility="advanced")
    """That penalty."""
    allow_code_execution: bool
    """Run programs that the model wrote, for rewards by tests. No sandbox makes that safe; see docs/rewards.md."""

    max_new_tokens: int = key(gt=0)
    """Longest answer in tokens, of each turn."""
    temperature: float = key(gt=0)
    """Divides the logits before an answer's tokens are drawn; log-probabilities are those at this temperature."""
    top_k: int = key(ge=0)
    """Draw from the k likeliest tokens. 0: from all."""
    top_p: float = key(gt=0, le=1)
    """Draw from the likeliest tokens that have this probability together."""
    stop_strings: list[str]
    """Texts that end an answer, besides the tokens that end it in the chat template."""
    chunk_size: int = key(gt=0)
    """Answers that are written at once. Changes speed and memory, never an answer."""
    optimize_device_cache: Literal["auto"] | bool
    """Give cached memory back to the device between the phases of an update. auto: on a GPU whose memory the phases
    would not share otherwise, when more than half of it is reserved."""

    use_vllm: bool
    """Let vLLM write the answers of training and evaluation; it takes over the weights before each. Its random numbers
    are its own: a continued run is then another one."""
    vllm_mode: Literal["colocate", "server"]
    """Whether vLLM shares the GPU of each process, or is a server that a single process asks (`trl vllm-serve`)."""
    vllm_server_url: str | None
    """Address of that server, as `http://host:8000`."""
    vllm_gpu_memory_utilization: float = key(gt=0, lt=1, visibility="advanced")
    """Share of the GPU's memory that vLLM takes for weights and cache where it shares one."""
    vllm_enable_sleep_mode: bool = key(visibility="advanced")
    """Let vLLM give that memory back while the model learns."""

    gamma: float = key(ge=0, le=1)
    """Discount of later rewards, by the token. 1: none, as is usual for texts."""
    gae_lambda: float = key(ge=0, le=1)
    """Bias against variance of the advantages (https://arxiv.org/abs/1506.02438); 1 trusts the value function least."""
    kl_coef: float = key(ge=0)
    """Weight of the penalty for leaving the reference model. 0: no reference model is loaded."""
    clip_range: float = key(gt=0)
    """How far a token's probability may move in an update, as a ratio, before it earns nothing more."""
    value_clip_range: float | None = key(gt=0)
    """How far a value may move in an update before it earns nothing more. null: not clipped."""
    value_loss_coef: float = key(ge=0)
    """Weight of the value function's loss."""
    num_ppo_epochs: int = key(gt=0)
    """Passes over the episodes of an update."""
    mini_batch_size: int = key(gt=0)
    """Episodes of an optimizer step, over all processes."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if not any(name.startswith("rl.") for name in run.trainer.reads):
            what = f"rl={self.name} has no effect with trainer={run.trainer.name}"
            yield Problem("rl", what, "it acts with trainer=ppo and others that learn from rewards", fix="rl=none")
            return
        from aitrain.rl.chosen import environment_problems

        yield from self._of_vllm(run)
        found = list(environment_problems(self))
        yield from found
        if not any(problem.key == "rl.env_type" for problem in found):
            yield from self._of_rows(run)

    def _of_vllm(self, run: Run) -> Iterator[Problem]:
        for name, acts in {
            "vllm_mode": self.use_vllm,
            "vllm_server_url": self.use_vllm and self.vllm_mode == "server",
            "vllm_gpu_memory_utilization": self.use_vllm and self.vllm_mode == "colocate",
            "vllm_enable_sleep_mode": self.use_vllm and self.vllm_mode == "colocate",
            "chunk_size": not self.use_vllm or self.vllm_mode == "colocate",
        }.items():
            if f"rl.{name}" in run.given and not acts:
                why = f"rl.vllm_mode={self.vllm_mode}" if self.use_vllm else "rl.use_vllm=false"
                yield Problem(f"rl.{name}", f"has no effect with {why}", "leave it out", fix=f"~rl.{name}")
        if not self.use_vllm or self.vllm_mode == "colocate":
            return
        if self.vllm_server_url is None:
            yield Problem("rl.vllm_server_url", "rl.vllm_mode=server asks a server", "set it to http://HOST:PORT")
        if run.hardware.processes > 1:
            what = f"rl.vllm_mode=server writes for one process, and there are {run.hardware.processes}"
            yield Problem("rl.vllm_mode", what, "use colocate", fix="rl.vllm_mode=colocate")

    def _of_rows(self, run: Run) -> Iterator[Problem]:
        """Rows from the environment and from the data at once, or from neither."""
        from aitrain.rl.environments import ENVIRONMENTS, brings_rows
        from aitrain.rl.rows import NAMED, rows_from

        if self.env_type in ENVIRONMENTS:
            return
        if rows_from(run) is None:
            if brings_rows(self.env_type) is False and not any(key in run.given for key in NAMED):
                what = f"{self.env_type} brings no prompts, and data.path names none"
                yield Problem("rl.env_type", what, "set data.path=PATH, or give the class build_dataset(tokenizer)")
            return
        for named in ROWS:
            if named in run.given:
                what = f"has no effect: {self.env_type} (rl.env_type) brings its own rows"
                yield Problem(named, what, "leave it out, or take the method that makes them out of the class")


class TextGeneration(RL):
    """Single answers, scored by `rl.reward_fn`."""

    name: Literal["text_generation"]
    """The kind of environment; choose it with `rl=text_generation`."""


class MultiObjective(RL):
    """Several rewards at once, each logged by its name."""

    name: Literal["multi_objective"]
    """The kind of environment; choose it with `rl=multi_objective`."""


class PreferenceComparison(RL):
    """Answers against the reference answer of their row."""

    name: Literal["preference_comparison"]
    """The kind of environment; choose it with `rl=preference_comparison`."""


class Math(RL):
    """Problems with a number as their answer."""

    name: Literal["math"]
    """The kind of environment; choose it with `rl=math`."""


class Code(RL):
    """Programs that must pass tests."""

    name: Literal["code"]
    """The kind of environment; choose it with `rl=code`."""


class Custom(RL):
    """An environment or a reward of your own."""

    name: Literal["custom"]
    """The kind of environment; choose it with `rl=custom`."""

    def problems(self, run: Run) -> Iterator[Problem]:
        found = list(super().problems(run))
        yield from found
        names_none = self.env_type == "text_generation" and self.reward_fn is None and self.reward_model_path is None
        if names_none and not found:
            what = "rl=custom names neither an environment nor a reward of yours"
            advice = "set rl.env_type=FILE.py:CLASS, rl.reward_fn=FILE.py:FUNCTION or rl.reward_model_path=MODEL"
            yield Problem("rl", what, advice)
