"""The loss inside the forward pass against transformers' own, a float64 calculation and numeric gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from aitrain.data.tokens import TokenRow
from aitrain.ml import heads
from aitrain.ml.attention import ROWS
from aitrain.ml.collating import amount, lay_end_to_end, pad
from aitrain.ml.evaluating import unigram_baseline
from aitrain.ml.heads import _scored, add_summed_loss, add_token_scores
from aitrain.ml.sample_models import sample_model

MODELS = ["tiny-qwen3", "tiny-mistral", "tiny-gemma2"]


def some_rows(weighted: bool = False) -> list[TokenRow]:
    """Rows of 9, 45 (beyond the models' window), 4 and 2 tokens, partly trained."""
    draw = np.random.default_rng(3)
    rows = []
    for length in (9, 45, 4):
        trained = draw.integers(0, 2, length).astype(np.uint8)
        weights = (trained * draw.uniform(0.1, 2.0, length)).astype(np.float32) if weighted else None
        rows.append(TokenRow(draw.integers(1, 2048, length).astype(np.int32), trained, weights))
    return [*rows, TokenRow(np.asarray([5, 1], np.int32), np.asarray([0, 1], np.uint8))]


def padded(rows: list[TokenRow]) -> dict[str, Any]:
    return pad(rows, 1)  # the pad token is the end token


LAYOUTS: dict[str, Callable[[list[TokenRow]], dict[str, Any]]] = {"padded": padded, "end to end": lay_end_to_end}


def a_model(name: str, layout: str = "padded") -> Any:
    model = AutoModelForCausalLM.from_pretrained(sample_model(name)).train()
    if layout == "end to end":
        model.set_attn_implementation(ROWS)
    return model


def ours(model: Any, batch: dict[str, Any], **more: Any) -> Any:
    return model(**{name: value for name, value in batch.items() if name != "tokens"}, **more)


def by_hand(model: Any, rows: list[TokenRow]) -> tuple[float, int, int]:
    """Loss, right predictions and targets, row by row, with plain loops in float64 over the model's logits."""
    loss, right, targets = 0.0, 0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(row.ids)[None].long()).logits[0].double().tolist()
        for position in range(len(row.ids) - 1):
            if not row.trained[position + 1]:
                continue
            scores, target = logits[position], int(row.ids[position + 1])
            top = max(scores)
            weight = 1.0 if row.weights is None else float(row.weights[position + 1])
            loss += weight * (top + math.log(math.fsum(math.exp(s - top) for s in scores)) - scores[target])
            right += scores.index(top) == target
            targets += 1
    return loss, right, targets


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sum_and_measures_equal_a_float64_calculation_of_single_rows(name: str, layout: str, weighted: bool) -> None:
    rows = some_rows(weighted)
    loss, right, targets = by_hand(a_model(name), rows)
    model = a_model(name, layout)
    add_summed_loss(model)
    batch = LAYOUTS[layout](rows)
    found = ours(model, batch, count_right=True)
    assert found.loss.item() == pytest.approx(loss, rel=2e-6)
    assert int(found.right) == right
    assert len(batch["targets"]) == targets
    counted = sum(float(w) for row in rows for w in ((row.weights if row.weights is not None else row.trained)[1:]))
    assert amount(batch) == pytest.approx(counted, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_sum_and_gradient_are_those_of_transformers_padded_loss(name: str, layout: str) -> None:
    rows = some_rows()
    batch = padded(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    for index, row in enumerate(rows):
        for place in np.flatnonzero(row.trained):
            labels[index, place] = int(row.ids[place])
    reference = a_model(name)
    theirs = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    (theirs * len(batch["targets"])).backward()
    model = a_model(name, layout)
    add_summed_loss(model)
    loss = ours(model, LAYOUTS[layout](rows)).loss
    loss.backward()
    assert loss.item() == pytest.approx(float(theirs) * len(batch["targets"]), rel=1e-5)
    for mine, wanted in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_chunks_change_neither_the_sum_nor_the_gradient(monkeypatch: pytest.MonkeyPatch, weighted: bool) -> None:
    found = []
    for largest in (2**25, 7 * 2048, 1):
        monkeypatch.setattr(heads, "LARGEST_LOGITS", largest)
        model = a_model("tiny-gemma2")
        add_summed_loss(model)
        outcome = ours(model, padded(some_rows(weighted)), count_right=True)
        outcome.loss.backward()
        found.append((outcome.loss.item(), int(outcome.right), [p.grad for p in model.parameters()]))
    for loss, right, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert right == found[0][1]
        for mine, wanted in zip(gradients, found[0][2], strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*MODELS, "tiny-llama", "tiny-lfm2"])
def test_logits_are_made_where_there_are_targets_and_nowhere_else(name: str, layout: str) -> None:
    if name == "tiny-lfm2" and layout == "end to end":
        pytest.skip("a hybrid is always padded")
    model = a_model(name, layout)
    add_summed_loss(model)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()))
    batch = LAYOUTS[layout](some_rows())
    ours(model, batch)
    assert seen == [len(batch["targets"])]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("largest", [2**25, 3 * 2048])
def test_scores_of_single_tokens(name: str, layout: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probabilities and entropies at a temperature against float64, and the hidden states that they are made of."""
    monkeypatch.setattr(heads, "LARGEST_LOGITS", largest)
    rows, plain, temperature = some_rows(), a_model(name).double(), 0.7
    logps, entropies = [], []
    for row in rows:
        with torch.no_grad():
            logits = plain(input_ids=torch.from_numpy(row.ids)[None].long()).logits[0] / temperature
        shares = logits.exp() / logits.exp().sum(-1, keepdim=True)
        for place in np.flatnonzero(row.trained[1:]):
            logps.append(shares[place, int(row.ids[place + 1])].log().item())
            entropies.append(-(shares[place] * shares[place].log()).sum().item())
    model = a_model(name, layout)
    add_token_scores(model, temperature)
    found = ours(model, LAYOUTS[layout](rows))
    assert found.logps.tolist() == pytest.approx(logps, abs=2e-5)
    assert found.entropies.tolist() == pytest.approx(entropies, abs=2e-5)
    assert found.hidden.shape == (len(logps), model.config.hidden_size)
    found.logps.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_head_that_cannot_be_run_apart_makes_all_logits() -> None:
    model = a_model("tiny-qwen3")
    forward = model.forward

    def scaled(*args: Any, **inputs: Any) -> Any:
        found = forward(*args, **inputs)
        found.logits = found.logits * model.model.norm.weight.sum()  # what stands in for the layers has no norm
        return found

    model.forward = scaled
    batch = padded(some_rows())
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(logits[batch["kept"]], batch["targets"], reduction="sum").item()
    add_summed_loss(model)
    assert ours(model, batch).loss.item() == pytest.approx(wanted, rel=1e-6)


def test_nothing_to_predict_is_zero_with_a_gradient_of_zero() -> None:
    model = a_model("tiny-qwen3")
    add_summed_loss(model)
    row = TokenRow(np.asarray([4, 7, 9], np.int32), np.asarray([1, 0, 0], np.uint8))  # the first is never predicted
    found = ours(model, padded([row]), count_right=True)
    found.loss.backward()
    assert found.loss.item() == 0.0
    assert int(found.right) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_half_precision_logits_are_summed_in_float32() -> None:
    model = a_model("tiny-qwen3").bfloat16()
    loss, _, _ = by_hand(model, some_rows()[:1])
    add_summed_loss(model)
    found = ours(model, padded(some_rows()[:1])).loss
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss, rel=1e-3)


def test_without_targets_the_model_is_what_it_was() -> None:
    model = a_model("tiny-qwen3").eval()
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    written = model.generate(ids, max_new_tokens=3, do_sample=False)
    add_summed_loss(model)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False), written)


def test_the_unigram_baseline_equals_a_calculation_by_hand() -> None:
    def row(ids: list[int], trained: list[int]) -> TokenRow:
        return TokenRow(np.asarray(ids, np.int32), np.asarray(trained, np.uint8))

    train = [row([0, 1, 1, 2], [1, 1, 1, 0]), row([3, 2], [0, 1])]
    # Trained, predicted tokens are 1, 1, 2; with one more for each of 4 tokens: 1, 3, 2, 1 of 7.
    valid = [row([1, 1, 3], [1, 1, 1]), row([0, 2, 2], [0, 0, 1])]
    wanted = -(math.log(3 / 7) + math.log(1 / 7) + math.log(2 / 7)) / 3
    assert abs(unigram_baseline(train, valid, 4) - wanted) < 1e-12
    assert abs(unigram_baseline(train, valid, 4, limit=1) + (math.log(3 / 6) + 2 * math.log(1 / 6)) / 3) < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(("of_logps", "of_entropies"), [(1.0, 0.0), (0.0, 1.0), (1.0, -0.3)])
def test_scores_of_tokens_have_the_gradients_of_autograd(
    of_logps: float, of_entropies: float, temperature: float
) -> None:
    """Against the formulas in float64."""
    random = torch.Generator().manual_seed(0)
    states = torch.randn(7, 5, generator=random).requires_grad_()
    head = torch.randn(11, 5, generator=random)
    ids = torch.randint(11, (7,), generator=random)
    weights = torch.rand(7, generator=random)
    scores = _scored(lambda hidden: hidden @ head.T, states, ids, temperature, 11)
    parts = [(of_logps, scores.logps), (of_entropies, scores.entropies)]
    sum(factor * (weights * values).sum() for factor, values in parts if factor).backward()
    exact = states.detach().double().requires_grad_()
    shares = (exact @ head.double().T / temperature).log_softmax(-1)
    logps, entropies = shares.gather(-1, ids[:, None])[:, 0], -(shares.exp() * shares).sum(-1)
    (weights * (of_logps * logps + of_entropies * entropies)).sum().backward()
    assert scores.logps.tolist() == pytest.approx(logps.tolist(), abs=1e-5)
    assert scores.entropies.tolist() == pytest.approx(entropies.tolist(), abs=1e-5)
    assert states.grad is not None
    assert exact.grad is not None
    assert (states.grad - exact.grad).abs().max() < 1e-5
