"""`trainer=pretrain`: next-token prediction on plain text laid end to end and cut into blocks.

No tail is lost: the last block is shorter. No padding is trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.section import OptionSection

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.encoding import Encoder


class Pretrain(OptionSection):
    """Next-token prediction on plain text."""

    reads: ClassVar[tuple[str, ...]] = ("data.columns.text", "data.block_size", "data.add_eos", "data.streaming",
                                      "data.shuffle_buffer", "generate.*")  # fmt: skip

    name: Literal["pretrain"]
    """The trainer; choose it with `trainer=pretrain`."""


def encoder(run: Run) -> Encoder:
    """Texts to blocks of token ids, every token trained."""
    from aitrain.data.encoding import BlockEncoder

    return BlockEncoder(run)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.causal import fit_causal_lm

    return fit_causal_lm(job)
