"""The summed loss against transformers' own, a float64 calculation, and numeric gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from aitrain.data.tokens import TokenRow
from aitrain.ml.collating import IGNORED, pad
from aitrain.ml.evaluating import unigram_baseline
from aitrain.ml.losses import labelled_tokens, summed_loss, summed_measures
from aitrain.ml.sample_models import sample_model


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """Rows of 9, 4 and 2 tokens, partly labelled; pad and end token are the same."""
    draw = np.random.default_rng(3)
    rows = [
        TokenRow(draw.integers(1, 2048, n).astype(np.int32), draw.integers(0, 2, n).astype(np.uint8)) for n in (9, 4)
    ]
    rows.append(TokenRow(np.asarray([5, 1], np.int32), np.asarray([0, 1], np.uint8)))
    return pad(rows, 1)


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, int, int]:
    """Loss, right predictions and tokens with plain loops in float64."""
    loss, right, tokens = 0.0, 0, 0
    for row, targets in zip(logits.double().tolist(), labels.tolist(), strict=True):
        for position in range(len(targets) - 1):
            target = targets[position + 1]
            if target == IGNORED:
                continue
            scores = row[position]
            top = max(scores)
            loss += top + math.log(math.fsum(math.exp(score - top) for score in scores)) - scores[target]
            right += scores.index(top) == target
            tokens += 1
    return loss, right, tokens


@pytest.mark.parametrize("name", ["tiny-qwen3", "tiny-mistral", "tiny-gemma2"])
def test_the_sum_is_the_models_mean_times_tokens_and_so_is_the_gradient(
    name: str, batch: dict[str, torch.Tensor]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(sample_model(name))
    theirs = model(**batch).loss * labelled_tokens(batch["labels"])
    gradients = torch.autograd.grad(theirs, list(model.parameters()))
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    ours = summed_loss(model(**inputs).logits, batch["labels"])
    assert abs(ours.item() - theirs.item()) < 1e-5 * theirs.item()
    for mine, wanted in zip(torch.autograd.grad(ours, list(model.parameters())), gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_loss_and_measures_equal_a_float64_calculation(batch: dict[str, torch.Tensor]) -> None:
    logits = torch.randn(*batch["labels"].shape, 2048, generator=torch.Generator().manual_seed(1)) * 3
    target = batch["labels"][0, batch["labels"][0] != IGNORED][-1]
    logits[0, :, target] += 30.0  # at least one prediction is right
    loss, right, tokens = by_hand(logits, batch["labels"])
    assert right > 0
    assert abs(summed_loss(logits, batch["labels"]).item() - loss) < 1e-6 * loss
    measures = summed_measures(logits, batch["labels"])
    assert abs(measures[0] - loss) < 1e-6 * loss
    assert measures[1:] == (right, tokens)
    assert int(labelled_tokens(batch["labels"])) == tokens


def test_the_gradient_is_that_of_a_float64_calculation() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 6, generator=generator)
    labels = torch.tensor([[0, 3, IGNORED, 5], [IGNORED, IGNORED, 2, IGNORED]])
    probabilities = torch.softmax(logits.double(), -1)
    wanted = torch.zeros_like(probabilities)
    for row, position, target in ((0, 0, 3), (0, 2, 5), (1, 1, 2)):
        wanted[row, position] = probabilities[row, position]
        wanted[row, position, target] -= 1
    logits.requires_grad_()
    summed_loss(logits, labels).backward()
    torch.testing.assert_close(logits.grad, wanted.float(), rtol=1e-6, atol=1e-7)


def test_nothing_labelled_is_zero_with_a_gradient_of_zero() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    labels = torch.tensor([[4, IGNORED, IGNORED]])  # the first token is never predicted
    loss = summed_loss(logits, labels)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert summed_measures(logits, labels) == (0.0, 0, 0)


def test_the_loss_of_half_precision_logits_is_computed_in_float32(batch: dict[str, torch.Tensor]) -> None:
    logits = torch.randn(*batch["labels"].shape, 2048, generator=torch.Generator().manual_seed(1)).bfloat16()
    loss, _, _ = by_hand(logits, batch["labels"])
    assert summed_loss(logits, batch["labels"]).dtype == torch.float32
    assert abs(summed_loss(logits, batch["labels"]).item() - loss) < 1e-6 * loss


def test_the_unigram_baseline_equals_a_calculation_by_hand() -> None:
    def row(ids: list[int], trained: list[int]) -> TokenRow:
        return TokenRow(np.asarray(ids, np.int32), np.asarray(trained, np.uint8))

    train = [row([0, 1, 1, 2], [1, 1, 1, 0]), row([3, 2], [0, 1])]
    # Trained, predicted tokens are 1, 1, 2; with one more for each of 4 tokens: 1, 3, 2, 1 of 7.
    valid = [row([1, 1, 3], [1, 1, 1]), row([0, 2, 2], [0, 0, 1])]
    wanted = -(math.log(3 / 7) + math.log(1 / 7) + math.log(2 / 7)) / 3
    assert abs(unigram_baseline(train, valid, 4) - wanted) < 1e-12
    assert abs(unigram_baseline(train, valid, 4, limit=1) + (math.log(3 / 6) + 2 * math.log(1 / 6)) / 3) < 1e-12
