"""Evaluation that weights by tokens, whatever the batches and the number of processes; and the unigram baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from aitrain.ml.collating import TokenDataset, TokenRows, amount
from aitrain.ml.ordering import EvaluationBatches


class EvaluationInterrupted(Exception):
    """A stop request arrived while evaluating; the evaluation is repeated when the run continues."""


def evaluate_causal_lm(
    model: Any,
    rows: TokenRows,
    *,
    lengths: Any,
    batch_size: int,
    collate: Callable[[Any], dict[str, Any]],
    rank: int,
    world: int,
    device: torch.device,
    interrupted: Callable[[], bool],
) -> dict[str, float]:
    """Loss in nats a token, perplexity, share of tokens whose most likely prediction is right, and tokens.

    `model` is one that `aitrain.ml.heads.add_summed_loss` was applied to. A token's loss counts by its weight.

    Sums are taken over all ranks in float64 before dividing, so that uneven batches weigh by their tokens. Raises
    EvaluationInterrupted on every rank once any of them sees a stop request.
    """
    batches = EvaluationBatches(lengths, batch_size=batch_size, rank=rank, world=world)
    loader = DataLoader(TokenDataset(rows), batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
    sums = torch.zeros(5, dtype=torch.float64)
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            if interrupted():
                sums[4] = 1
                break
            counted = amount(batch)
            del batch["tokens"]
            with torch.no_grad():
                inputs = {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in batch.items()}
                found = model(**inputs, count_right=True)
            predicted = len(batch["targets"])
            sums[:4] += torch.tensor([float(found.loss), float(found.right), predicted, counted], dtype=torch.float64)
    finally:
        model.train(was_training)
    if world > 1:
        sums = sums.to(device)
        dist.all_reduce(sums)
    loss, right, tokens, counted, stops = sums.tolist()
    if stops:
        raise EvaluationInterrupted
    mean = loss / counted if counted else 0.0
    return {
        "loss": mean,
        "perplexity": math.exp(mean) if mean < 700 else float("1e304"),
        "token_accuracy": right / max(tokens, 1),
        "tokens": int(tokens),
    }


def unigram_baseline(train: TokenRows, valid: TokenRows, vocabulary: int, limit: int = 20_000) -> float:
    """Loss on the validation rows' trained tokens of a model that knows only how often each token is trained.

    Counts come from the first `limit` training rows, plus one for each token of the vocabulary (Laplace).
    """
    counts = np.ones(vocabulary)
    for index in range(min(len(train), limit)):
        row = train[index]
        counts += np.bincount(row.ids[1:][row.trained[1:] == 1], minlength=vocabulary)
    log_probability = np.log(counts / counts.sum())
    total, tokens = 0.0, 0
    for index in range(len(valid)):
        row = valid[index]
        targets = row.ids[1:][row.trained[1:] == 1]
        total -= float(log_probability[targets].sum())
        tokens += len(targets)
    return total / max(tokens, 1)
