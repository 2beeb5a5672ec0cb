"""`trainer=ppo`: proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

The model answers prompts, a reward scores the answers, and a value function learns what to expect of them; answers that
did better than expected become likelier, held to a reference model by a penalty on every token, as in InstructGPT
(Ouyang et al. 2022, https://arxiv.org/abs/2203.02155). The episodes and what rewards them are in `rl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import Problem
from aitrain.trainers.preferences import TASKS, model_not_found, unread

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder

METRICS: dict[str, Literal["min", "max"]] = {"reward": "max", "length": "min", "ended": "max"}
"""What an evaluation reports: mean reward of answers to the validation prompts, their tokens, and the share that ended
by itself; and each reward by its name where there are several."""
LEARNING_RATES = {"full": 1e-6, "adapter": 1e-5, "scratch": 1e-3, "taught": 1e-3}
"""What `train.learning_rate=auto` becomes."""


class PPO(OptionSection):
    """Proximal policy optimisation."""

    reads: ClassVar[tuple[str, ...]] = ("data.columns.prompt", "data.columns.input", "data.columns.system",
                                      "data.columns.messages", "data.max_prompt_length", "data.truncation",
                                      "data.chat_format", "generate.*", "rl.*")  # fmt: skip

    name: Literal["ppo"]
    """The trainer; choose it with `trainer=ppo`."""
    ref_model: str | None
    """Reference model: a folder, a Hub id or a sample. null: the starting model, for an adapter by switching it off."""
    value_model: str | None
    """A model of its own for the value function: a folder, a Hub id or a sample; all of it is trained. null: a head on
    the policy's hidden states, which costs next to nothing."""
    kl_estimator: Literal["k1", "k2", "k3"] = key(visibility="advanced")
    """How the penalty is estimated from a drawn token (http://joschu.net/blog/kl-approx.html): `k1` unbiased, `k2`
    with less variance, `k3` both and never negative."""
    kl_target: float | None = key(gt=0)
    """KL divergence of an episode, in nats, that `rl.kl_coef` is steered to (Ziegler et al. 2019,
    https://arxiv.org/abs/1909.08593, section 2.2). null: it stays as it is."""
    kl_horizon: int = key(gt=0, visibility="advanced")
    """Episodes over which it is steered: each update changes the coefficient by at most 0.2 x episodes / horizon."""
    entropy_coef: float = key(ge=0)
    """Weight of a bonus for the entropy of the policy."""
    whiten_advantages: bool = key(visibility="advanced")
    """Scale the advantages of a mini-batch, of all processes together, to mean 0 and variance 1."""
    whiten_rewards: bool = key(visibility="advanced")
    """Scale the rewards of an update's tokens to variance 1."""
    missing_eos_penalty: float | None = key(gt=0)
    """Taken off the score of an answer that did not end within `rl.max_new_tokens`. null: nothing."""
    target_kl: float | None = key(gt=0)
    """Passes over the episodes stop once the policy is this far, in nats a token, from the one that wrote them. null:
    `rl.num_ppo_epochs` always."""

    def problems(self, run: Run) -> Iterator[Problem]:
        rl: Any = run.rl
        if rl.name == "none":
            yield Problem(
                "rl",
                "trainer=ppo learns from rewards, and rl=none gives none",
                "use rl=text_generation",
                fix="rl=text_generation",
            )
            return
        held = rl.kl_coef > 0
        for name in ("ref_model", "kl_target", "kl_estimator"):
            yield from unread(run, name, held, "rl.kl_coef=0")
        yield from unread(run, "kl_horizon", self.kl_target is not None, "trainer.kl_target=null")
        for name, path in (("ref_model", self.ref_model), ("value_model", self.value_model)):
            yield from model_not_found(f"trainer.{name}", path)
        if run.data.truncation == "right":
            what = "right would cut the end of a question, after which the model is to write"
            yield Problem("data.truncation", what, "use error, drop or left", fix="data.truncation=left")
        yield from self._of_sizes(run, rl)

    def _of_sizes(self, run: Run, rl: Any) -> Iterator[Problem]:
        episodes = run.train.batch_size * run.train.gradient_accumulation * run.hardware.processes
        if rl.mini_batch_size > episodes:
            what = f"{rl.mini_batch_size} episodes are more than the {episodes} of an update"
            advice = "an update has train.batch_size x train.gradient_accumulation x hardware.processes of them"
            yield Problem("rl.mini_batch_size", what, advice, fix=f"rl.mini_batch_size={episodes}")


def encoder(run: Run) -> Encoder:
    """Rows to prompts that end where the model begins to write."""
    from functools import partial

    from aitrain.data.prompt_encoding import PromptEncoder
    from aitrain.rl.chosen import tool_schemas

    return PromptEncoder(run, partial(tool_schemas, run.rl))


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.ppo_trainer import fit_ppo

    return fit_ppo(job)


TRAINER = Trainer(
    PPO,
    tasks=TASKS,
    shapes=("prompts", "messages"),
    metrics=METRICS,
    encoder=encoder,
    train=train,
    learning_rates=LEARNING_RATES,
    load=Load(rows=1),
)
