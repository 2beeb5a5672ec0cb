"""The arithmetic of PPO against plain Python in float64, token by token."""

from __future__ import annotations

import math
import random

import pytest
import torch

from aitrain.ml.advantages import (
    KL_ESTIMATORS,
    AdaptiveKL,
    Spread,
    estimate_advantages,
    policy_losses,
    token_rewards,
    value_losses,
    whiten,
)

LENGTHS = (5, 1, 0, 7)


def ragged(seed: int) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.gauss(0, 1) for _ in range(length)] for length in LENGTHS]


def padded(rows: list[list[float]], fill: float = 99.0) -> torch.Tensor:
    """Rows as one tensor; what lies behind their end must not matter."""
    return torch.tensor([row + [fill] * (max(LENGTHS) - len(row)) for row in rows], dtype=torch.float64)


MASK = padded([[1.0] * length for length in LENGTHS], 0.0)


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.7, 0.0)])
def test_advantages_and_returns_are_the_sums_that_the_paper_writes(gamma: float, gae_lambda: float) -> None:
    rewards, values = ragged(1), ragged(2)
    found, returns = estimate_advantages(padded(rewards), padded(values), MASK, gamma=gamma, gae_lambda=gae_lambda)
    for number, length in enumerate(LENGTHS):
        value = [*values[number], 0.0]
        deltas = [rewards[number][t] + gamma * value[t + 1] - value[t] for t in range(length)]
        for t in range(length):
            wanted = sum((gamma * gae_lambda) ** (later - t) * deltas[later] for later in range(t, length))
            assert found[number, t].item() == pytest.approx(wanted, abs=1e-12)
            assert returns[number, t].item() == pytest.approx(wanted + value[t], abs=1e-12)
    assert not found[MASK == 0].any()
    assert not returns[MASK == 0].any()


def test_with_lambda_one_a_return_is_the_discounted_sum_of_rewards() -> None:
    rewards, values = ragged(3), ragged(4)
    _, returns = estimate_advantages(padded(rewards), padded(values), MASK, gamma=0.9, gae_lambda=1.0)
    for number, length in enumerate(LENGTHS):
        for t in range(length):
            wanted = sum(0.9 ** (later - t) * rewards[number][later] for later in range(t, length))
            assert returns[number, t].item() == pytest.approx(wanted, abs=1e-12)


def test_the_score_stands_at_the_last_token_and_the_penalty_at_each() -> None:
    penalties, scores = ragged(5), [1.0, 2.0, 3.0, 4.0]
    found = token_rewards(torch.tensor(scores, dtype=torch.float64), padded(penalties), MASK)
    for number, length in enumerate(LENGTHS):
        wanted = [-penalty for penalty in penalties[number]]
        if length:
            wanted[-1] += scores[number]
        assert found[number, :length].tolist() == pytest.approx(wanted)
        assert not found[number, length:].any()


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_the_estimators_have_the_divergence_as_their_mean(name: str) -> None:
    """Exactly for k1 and k3, over every token of two small distributions; k2 only where they are close."""
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(50, dtype=torch.float64, generator=draw).log_softmax(0)
    theirs = (ours + 0.02 * torch.randn(50, dtype=torch.float64, generator=draw)).log_softmax(0)
    wanted = (ours.exp() * (ours - theirs)).sum().item()
    found = (ours.exp() * KL_ESTIMATORS[name](ours - theirs)).sum().item()
    assert found == pytest.approx(wanted, rel=0.05 if name == "k2" else 1e-9)
    if name != "k1":
        assert (KL_ESTIMATORS[name](ours - theirs) >= 0).all()


def test_losses_token_by_token() -> None:
    draw = random.Random(6)
    rows = [[draw.gauss(0, 1) for _ in range(6)] for _ in range(400)]
    new, old, advantage, value, old_value, returned = torch.tensor(rows, dtype=torch.float64).T
    policy, clipped = policy_losses(new, old, advantage, 0.2)
    valued, value_clipped = value_losses(value, old_value, returned, 0.3)
    unclipped, never = value_losses(value, old_value, returned, None)
    for number, (n, o, a, v, ov, r) in enumerate(rows):
        ratio = math.exp(n - o)
        held = min(max(ratio, 0.8), 1.2)
        assert policy[number].item() == pytest.approx(-min(ratio * a, held * a), abs=1e-12)
        assert bool(clipped[number]) == (held * a < ratio * a)
        near = ov + min(max(v - ov, -0.3), 0.3)
        assert valued[number].item() == pytest.approx(0.5 * max((v - r) ** 2, (near - r) ** 2), abs=1e-12)
        assert bool(value_clipped[number]) == (abs(v - ov) > 0.3 and (near - r) ** 2 > (v - r) ** 2)
        assert unclipped[number].item() == pytest.approx(0.5 * (v - r) ** 2, abs=1e-12)
    assert 0 < clipped.double().mean() < 1
    assert 0 < value_clipped.double().mean() < 1
    assert not never.any()


def test_whitening_is_that_of_all_parts_together() -> None:
    draw = torch.Generator().manual_seed(1)
    values = 3 + 2 * torch.randn(101, dtype=torch.float64, generator=draw)
    spread = Spread(len(values), float(values.sum()), float(values.square().sum()))
    assert spread.mean == pytest.approx(values.mean().item())
    assert spread.variance == pytest.approx(values.var().item())
    parts = torch.cat([whiten(part, spread) for part in values.split(7)])
    assert torch.allclose(parts, (values - values.mean()) / values.std(), atol=1e-6)
    shifted = whiten(values, spread, shift_mean=False)
    assert shifted.mean().item() == pytest.approx(values.mean().item())
    assert shifted.std().item() == pytest.approx(1, abs=1e-6)
    assert Spread(1, 5.0, 25.0).variance == Spread(0, 0.0, 0.0).variance == Spread(0, 0.0, 0.0).mean == 0


def test_the_controller_moves_the_coefficient_towards_its_target() -> None:
    controller = AdaptiveKL(target=2.0, horizon=1000)
    assert controller.next(0.1, 2.0, 100) == pytest.approx(0.1)
    assert controller.next(0.1, 2.2, 100) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert controller.next(0.1, 50.0, 100) == pytest.approx(0.1 * (1 + 0.2 * 0.1))
    assert controller.next(0.1, 0.0, 100) == pytest.approx(0.1 * (1 - 0.2 * 0.1))
