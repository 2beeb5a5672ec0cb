"""The loss inside a causal language model's forward pass, so that logits exist only where there are labels.

A hidden state that nothing is predicted from needs no logits; where vocabulary times tokens is large they are made in
chunks that are thrown away and made again in the backward pass, so that the logits of a whole batch never exist
(Chen et al. 2016, https://arxiv.org/abs/1604.06174; the same idea as in torchtune's and Liger's chunked losses).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from aitrain.config.architectures import LARGEST_LOGITS


@dataclass
class SummedLoss(ModelOutput):
    """What the forward pass returns when it is given targets."""

    loss: Tensor | None = None
    """Sum of the negative log-likelihoods in nats, each times its weight."""
    right: Tensor | None = None
    """How many targets are the most likely token."""


class TokenScores(NamedTuple):
    """What the forward pass returns when each target is asked for by itself; all (targets,), float32."""

    logps: Tensor
    """Log-probability of the target."""
    entropies: Tensor
    """Entropy in nats of the distribution that it was drawn from."""
    hidden: Tensor
    """(targets, width): the hidden states that the logits are made of."""


def add_token_scores(model: Any, temperature: float = 1.0) -> None:
    """Let `model(..., kept=, targets=)` return the `TokenScores` of logits divided by `temperature`.

    Otherwise as `add_summed_loss`. Raises TypeError for a model whose layers cannot be run without its head.
    """
    core, whole, head = _apart(model)
    if head is None:
        raise TypeError(f"the layers of {type(core).__name__} cannot be run without its head")

    @wraps(whole)
    def forward(*args: Any, kept: Tensor | None = None, targets: Tensor | None = None, **inputs: Any) -> Any:
        if targets is None:
            return whole(*args, **inputs)
        hidden = core._modules[core.base_model_prefix](*args, **inputs)[0].flatten(0, -2)[kept]
        vocabulary = core.get_output_embeddings().weight.shape[0]
        return _scored(head, hidden, targets, temperature, vocabulary)

    core.forward = forward


def add_summed_loss(model: Any) -> None:
    """Let `model(..., kept=, targets=, weights=)` return a `SummedLoss`; without targets it does what it did.

    kept: (targets,) numbers of the positions, counted through rows x length, that the targets are predicted from;
    targets: (targets,) token ids; weights: (targets,) or None for all alike. The head is the model's own code, run on
    the kept hidden states alone, with whatever it does to logits; a model that cannot be run so makes all logits.
    """
    core, whole, head = _apart(model)

    @wraps(whole)  # its signature is what transformers and peft look at
    def forward(
        *args: Any,
        kept: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
        count_right: bool = False,
        **inputs: Any,
    ) -> Any:
        if targets is None:
            return whole(*args, **inputs)
        if head is None:
            logits = whole(*args, **inputs).logits
            picked = logits.flatten(0, -2)[kept]
        else:
            hidden = core._modules[core.base_model_prefix](*args, **inputs)[0]
            picked = hidden.flatten(0, -2)[kept]
        vocabulary = core.get_output_embeddings().weight.shape[0]
        return _summed(head or _itself, picked, targets, weights, vocabulary, count_right)

    core.forward = forward


def core_of(model: Any) -> Any:
    """The transformers model inside adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _apart(model: Any) -> tuple[Any, Callable[..., Any], Callable[[Tensor], Tensor] | None]:
    """The transformers model, its forward pass, and its head alone if that gives the same."""
    core = core_of(model)
    whole = core.forward
    head = _head(core, whole)
    return core, whole, head if _agrees(core, whole, head) else None


def _itself(logits: Tensor) -> Tensor:
    return logits


def _head(core: Any, whole: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """From hidden states (tokens, width) to logits (tokens, vocabulary).

    By the model's own forward pass, its layers replaced by the hidden states they gave: that keeps scalings and soft
    caps that a family applies to its logits.
    """
    prefix = core.base_model_prefix

    def head(hidden: Tensor) -> Tensor:
        layers = core._modules[prefix]
        core._modules[prefix] = _Given(hidden[None])
        try:
            logits: Tensor = whole(inputs_embeds=hidden[None]).logits[0]
        finally:
            core._modules[prefix] = layers
        return logits

    return head


class _Given(nn.Module):
    """Stands in for the layers of a model and returns hidden states that are there already."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.hidden)


@torch.no_grad()
def _agrees(core: Any, whole: Callable[..., Any], head: Callable[[Tensor], Tensor]) -> bool:
    """Whether layers and head apart give the logits of the whole, on a few tokens."""
    if core.base_model_prefix not in core._modules:
        return False
    places = torch.arange(4, device=core.device)
    span = torch.tensor([0, len(places)], dtype=torch.int32, device=core.device)
    # One row laid end to end, which an ordinary attention takes as it is.
    inputs = {"input_ids": places[None], "position_ids": places[None], "cu_seq_lens_q": span, "cu_seq_lens_k": span,
              "max_length_q": len(places), "max_length_k": len(places)}  # fmt: skip
    was_training = core.training
    core.eval()
    try:
        expected = whole(**inputs).logits[0]
        found = head(core._modules[core.base_model_prefix](**inputs)[0][0])
        return bool(torch.equal(found, expected))
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return False
    finally:
        core.train(was_training)


def _summed(
    logits_of: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    vocabulary: int,
    count_right: bool,
) -> SummedLoss:
    if len(targets) == 0:  # every rank takes part in the backward pass
        return SummedLoss(loss=hidden.sum() * 0.0, right=torch.zeros((), dtype=torch.long, device=hidden.device))
    size = max(1, LARGEST_LOGITS // vocabulary)

    def part(states: Tensor, ids: Tensor, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        return _loss_of(logits_of(states), ids, counts, count_right)

    if len(targets) <= size:
        return SummedLoss(*part(hidden, targets, weights))
    losses, rights = [], []
    for start in range(0, len(targets), size):
        chunk = slice(start, start + size)
        given = hidden[chunk], targets[chunk], None if weights is None else weights[chunk]
        again = torch.is_grad_enabled()
        loss, right = checkpoint(part, *given, use_reentrant=False) if again else part(*given)
        losses.append(loss)
        rights.append(right)
    return SummedLoss(loss=torch.stack(losses).sum(), right=torch.stack(rights).sum())


def _scored(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperature: float, vocabulary: int
) -> TokenScores:
    if len(targets) == 0:  # every rank takes part in the backward pass
        nothing = hidden.sum(-1).float() * 0.0
        return TokenScores(nothing, nothing.detach(), hidden)

    def part(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = _ScoreTokens.apply(logits_of(states), ids, temperature)
        return found

    size = max(1, LARGEST_LOGITS // vocabulary)
    chunks = zip(hidden.split(size), targets.split(size), strict=True)
    again = torch.is_grad_enabled() and len(targets) > size
    found = [checkpoint(part, *given, use_reentrant=False) if again else part(*given) for given in chunks]
    return TokenScores(torch.cat([logps for logps, _ in found]), torch.cat([more for _, more in found]), hidden)


class _ScoreTokens(torch.autograd.Function):
    """Log-probabilities of targets and entropies from logits (tokens, vocabulary), both (tokens,) in float32.

    Written out, because the gradient of either is a pass or two over the logits, and autograd makes seven; that of the
    entropies is left out where nothing asks for it.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        scaled = logits.float() if temperature == 1 else logits.float() / temperature
        shares = scaled.log_softmax(-1)
        entropies = -torch.linalg.vecdot(shares.exp(), shares)
        ctx.save_for_backward(shares, ids, entropies)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return shares.gather(-1, ids[:, None])[:, 0], entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        of_logps, of_entropies = grads
        shares, ids, entropies = ctx.saved_tensors
        found = shares.exp()
        if of_entropies is None:
            assert of_logps is not None
            found *= -of_logps[:, None]
        else:
            weights = (shares + entropies[:, None]) * -of_entropies[:, None]
            found *= weights if of_logps is None else weights - of_logps[:, None]
        if of_logps is not None:
            found.scatter_add_(-1, ids[:, None], of_logps[:, None])
        if ctx.temperature != 1:
            found /= ctx.temperature
        return found.to(ctx.dtype), None, None


def _loss_of(logits: Tensor, targets: Tensor, weights: Tensor | None, count_right: bool) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    if weights is None:
        loss = F.cross_entropy(logits, targets, reduction="sum")
    else:
        loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum()
    with torch.no_grad():
        right = (logits.argmax(-1) == targets).sum() if count_right else targets.new_zeros(())
    return loss, right
