"""How the rows of a batch lie in memory: end to end without padding, or padded to the longest.

Laid end to end nothing is computed for padding, which is 40 % of a batch of chats. It is the same computation only if
no layer looks from one row into another, which the family of the model decides and a probe confirms before training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aitrain.config.architectures import why_padded
from aitrain.data.tokens import TokenRow
from aitrain.errors import MachineError, Problem
from aitrain.ml.attention import ROWS, VARLEN, attention
from aitrain.ml.collating import lay_end_to_end, pad
from aitrain.ml.heads import core_of

PROBE = (7, 1, 12, 5)
"""Lengths of the rows that are tried."""
TOLERANCE = {torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
"""Largest difference of a logit, relative to the largest logit. A leak is far above: 0.1 and more."""


@dataclass(frozen=True)
class Layout:
    """How batches are made, and how the model must attend to them."""

    padding_free: bool
    reason: str
    ordinary: str
    """The attention that the model was loaded with; generation needs it."""

    def collate(self, pad_id: int) -> Callable[[Sequence[TokenRow]], dict[str, Any]]:
        """Makes a batch of rows."""
        return lay_end_to_end if self.padding_free else lambda rows: pad(rows, pad_id)

    @contextmanager
    def generating(self, model: Any) -> Iterator[None]:
        """Attention with a cache, for as long as text is generated."""
        with attention(core_of(model), self.ordinary):
            yield


def choose_layout(model: Any, asked: bool | str, precision: str) -> Layout:
    """The layout for a model just loaded, which is set to attend accordingly.

    `asked` is `train.padding_free`. Raises MachineError when it is true and this model, here, cannot.
    """
    core = core_of(model)
    ordinary = core.config._attn_implementation
    if asked is False:
        return Layout(False, "train.padding_free=false", ordinary)
    why = why_padded(core.config.to_dict())
    if why is None:
        name = VARLEN if _has_varlen(core, precision) else ROWS if core.device.type == "cpu" else None
        why = _why_not(core, name, ordinary) if name else "no attention for rows laid end to end on this device"
    if why is None:
        core.set_attn_implementation(name)
        return Layout(True, "each row attends to itself alone; logits agree with those of single rows", ordinary)
    if asked is True:
        raise MachineError(Problem("train.padding_free", why, "use train.padding_free=auto"))
    return Layout(False, why, ordinary)


def _has_varlen(core: Any, precision: str) -> bool:
    """Whether torch's kernel for rows of any length can run: on CUDA from Ampere on, in half precision."""
    half = precision in ("bf16", "fp16") or core.dtype in (torch.bfloat16, torch.float16)
    if core.device.type != "cuda" or not half or torch.cuda.get_device_capability(core.device) < (8, 0):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:
        return False
    return True


@torch.no_grad()
def _why_not(core: Any, name: str, ordinary: str) -> str | None:
    """Run rows alone and laid end to end. Says why the second will not do, or None."""
    draw = torch.Generator().manual_seed(0)
    vocabulary = core.get_input_embeddings().weight.shape[0]
    rows = [torch.randint(0, vocabulary, (length,), generator=draw) for length in PROBE]
    was_training = core.training
    core.eval()
    half = torch.bfloat16 if name == VARLEN and core.dtype == torch.float32 else None
    try:
        with torch.autocast(core.device.type, dtype=half or torch.bfloat16, enabled=half is not None):
            alone = torch.cat([core(input_ids=row[None].to(core.device)).logits[0] for row in rows]).float()
            with attention(core, name):
                together = core(**_end_to_end(rows, core.device)).logits[0].float()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"the model does not run on rows laid end to end: {str(error).splitlines()[0]}"
    finally:
        core.train(was_training)
    difference = float((together - alone).abs().max() / alone.abs().max().clamp(min=1e-6))
    limit = TOLERANCE[half or core.dtype]
    if difference <= limit:
        return None
    return f"rows laid end to end change the logits by {difference:.1e} of the largest (limit {limit:.0e})"


def _end_to_end(rows: Sequence[Tensor], device: torch.device) -> dict[str, Any]:
    batch = lay_end_to_end([TokenRow(row.int().numpy(), row.bool().numpy().astype("uint8")) for row in rows])
    inputs = {name: value for name, value in batch.items() if name not in ("kept", "targets", "weights", "tokens")}
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
