"""The order that puts examples of similar length together: nothing is lost, and any division of a step is the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aitrain.ml.length_groups import WINDOW, LengthGroupedBatches, grouped_order

LENGTHS = np.random.Generator(np.random.PCG64(5)).integers(3, 900, 2 * WINDOW * 8 + 157)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 400, 401, len(LENGTHS)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_example_comes_once_an_epoch(rows: int, epoch: int) -> None:
    order = grouped_order(LENGTHS[:rows], global_batch=8, seed=1, epoch=epoch)
    assert sorted(order.tolist()) == list(range(rows))


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    first = grouped_order(LENGTHS, global_batch=8, seed=1, epoch=0)
    assert (first == grouped_order(LENGTHS, global_batch=8, seed=1, epoch=0)).all()
    for seed, epoch in ((2, 0), (1, 1)):
        assert (first != grouped_order(LENGTHS, global_batch=8, seed=seed, epoch=epoch)).any()


def test_batches_are_alike_in_length_and_come_in_no_order_of_length() -> None:
    order = grouped_order(LENGTHS, global_batch=8, seed=1, epoch=0)
    batches = LENGTHS[order][: len(order) // 8 * 8].reshape(-1, 8)
    shuffled = np.random.Generator(np.random.PCG64(9)).permutation(LENGTHS)[: batches.size].reshape(-1, 8)

    def padding(rows: np.ndarray) -> float:
        return 1 - rows.sum() / (rows.max(axis=1) * 8).sum()

    assert padding(batches) < 0.03 < 0.3 < padding(shuffled)
    means = batches.mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25
    # The batches of a window are not next to each other, so that a window is not an age of the epoch.
    assert np.abs(np.diff(means)).mean() > 100


def test_what_fills_no_batch_comes_last() -> None:
    order = grouped_order(LENGTHS[:83], global_batch=8, seed=1, epoch=0)
    assert (np.diff(LENGTHS[order[80:]]) <= 0).all()


@pytest.mark.parametrize("rows", [64, 61, 5])
def test_a_step_holds_the_same_examples_however_it_is_divided(rows: int) -> None:
    def steps(batch: int, accumulation: int, world: int) -> list[set[int]]:
        ranks = [
            list(
                LengthGroupedBatches(
                    LENGTHS[:rows], batch_size=batch, accumulation=accumulation, rank=rank, world=world, seed=3
                )
            )
            for rank in range(world)
        ]
        assert len({len(batches) for batches in ranks}) == 1, "ranks take equally many micro-steps"
        found = []
        for start in range(0, len(ranks[0]), accumulation):
            parts = [batch for batches in ranks for batch in batches[start : start + accumulation]]
            numbers = [number for number in itertools.chain(*parts) if number != -1]
            assert len(numbers) == len(set(numbers))
            found.append(set(numbers))
        return found

    whole = steps(8, 1, 1)
    assert len(whole) == -(-rows // 8)
    for batch, accumulation, world in ((4, 2, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 1, 8)):
        assert steps(batch, accumulation, world) == whole


def test_an_epoch_that_is_chosen_is_the_one_that_comes() -> None:
    batches = LengthGroupedBatches(LENGTHS[:40], batch_size=4, accumulation=2, rank=0, world=1, seed=3)
    batches.set_epoch(2)
    wanted = grouped_order(LENGTHS[:40], global_batch=8, seed=3, epoch=2)
    assert list(itertools.chain(*batches)) == wanted.tolist()
    assert len(batches) == 10
