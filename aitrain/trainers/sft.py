"""`trainer=sft`: supervised fine-tuning. The model learns to write the answers of given conversations.

Cross entropy on the answer's tokens, as in InstructGPT's first step (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.section import OptionSection
from aitrain.errors import Problem

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder

METRICS: dict[str, Literal["min", "max"]] = {"loss": "min", "perplexity": "min", "token_accuracy": "max"}
"""What an evaluation of a language model reports."""


class SFT(OptionSection):
    """Supervised fine-tuning."""

    reads: ClassVar[tuple[str, ...]] = ("data.columns.prompt", "data.columns.input", "data.columns.completion",
                                      "data.columns.messages", "data.columns.system", "data.columns.text",
                                      "data.columns.chosen", "data.columns.rejected", "data.columns.label",
                                      "data.columns.margin", "data.max_length", "data.truncation", "data.train_on",
                                      "data.chat_format", "data.token_weights.*", "data.conversation_extension",
                                      "data.streaming", "data.shuffle_buffer", "generate.*")  # fmt: skip

    name: Literal["sft"]
    """The trainer; choose it with `trainer=sft`."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if run.data.columns.text is not None and "data.train_on" in run.given and run.data.train_on != "all":
            yield Problem(
                "data.train_on",
                f"'{run.data.train_on}' needs to know which part is the answer, which plain text does not say",
                "use data.train_on=all, or name data.columns.prompt and data.columns.completion",
                fix="data.train_on=all",
            )


def encoder(run: Run) -> Encoder:
    """Rows to token ids, with the loss on the answers."""
    from aitrain.data.encoding import ConversationEncoder

    return ConversationEncoder(run)


def train(job: Any) -> Any:
    """Fine-tune on every rank."""
    from aitrain.ml.causal import fit_causal_lm

    return fit_causal_lm(job)
