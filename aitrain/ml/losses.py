"""Cross entropy over labelled tokens, as a sum, so that it can be weighted by tokens over ranks and accumulation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aitrain.ml.collating import IGNORED


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (tokens, vocabulary) in float32 and targets (tokens,) of the labelled positions only.

    logits: (rows, length, vocabulary); labels: (rows, length), IGNORED where there is no loss. Position t predicts t+1.
    """
    targets = labels[:, 1:]
    keep = targets != IGNORED
    return logits[:, :-1][keep].float(), targets[keep]


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods in nats. Zero, with a gradient of zero, when nothing is labelled."""
    picked, targets = shifted(logits, labels)
    if len(targets) == 0:
        return logits.sum() * 0.0
    return F.cross_entropy(picked, targets, reduction="sum")


def labelled_tokens(labels: Tensor) -> Tensor:
    """How many positions are predicted; the first token of a row never is."""
    return (labels[:, 1:] != IGNORED).sum()


@torch.no_grad()
def summed_measures(logits: Tensor, labels: Tensor) -> tuple[float, int, int]:
    """Summed loss, tokens predicted right, tokens."""
    picked, targets = shifted(logits, labels)
    if len(targets) == 0:
        return 0.0, 0, 0
    loss = F.cross_entropy(picked, targets, reduction="sum").double().item()
    return loss, int((picked.argmax(-1) == targets).sum()), len(targets)
