"""Every row once an epoch, and the same rows in a step however the global batch is divided."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from aitrain.data.tokens import TokenRow
from aitrain.ml.collating import TokenDataset, amount, pad
from aitrain.ml.ordering import EvaluationBatches, RankBatches, epoch_order

FILLER = [-1]


def joined(parts: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(parts))


def steps_of(rows: int, batch: int, accumulation: int, world: int, epoch: int) -> list[list[int]]:
    """Rows of all ranks in each optimizer step."""
    ranks = []
    for rank in range(world):
        batches = RankBatches(rows, batch_size=batch, rank=rank, world=world, seed=7)
        batches.set_epoch(epoch)
        ranks.append(list(batches))
        assert len(batches) == len(ranks[-1])
    assert len({len(batches) for batches in ranks}) == 1, "every rank takes part in as many collective operations"
    assert all(FILLER not in batches[:-1] for batches in ranks), "stand-ins come at the end only"
    micro = [joined(batches[k] for batches in ranks if batches[k] != FILLER) for k in range(len(ranks[0]))]
    return [joined(micro[k : k + accumulation]) for k in range(0, len(micro), accumulation)]


@pytest.mark.parametrize("rows", [1, 5, 12, 13, 24, 37])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("batch", "accumulation"), [(1, 4), (2, 2), (4, 1), (3, 2)])
def test_a_step_sees_the_same_rows_however_the_batch_is_divided(
    rows: int, world: int, batch: int, accumulation: int
) -> None:
    for epoch in (0, 3):
        order = epoch_order(rows, 7, epoch).tolist()
        size = batch * accumulation * world
        wanted = [sorted(order[i : i + size]) for i in range(0, rows, size)]
        assert [sorted(step) for step in steps_of(rows, batch, accumulation, world, epoch)] == wanted
        assert steps_of(rows, size, 1, 1, epoch) == [order[i : i + size] for i in range(0, rows, size)]
        assert sorted(itertools.chain(*wanted)) == list(range(rows))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert tuple(epoch_order(50, 1, 2)) in orders


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4, 7, 50])
def test_evaluation_sees_every_row_once_longest_first(world: int, batch: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 40, 23)
    batches = [list(EvaluationBatches(lengths, batch_size=batch, rank=r, world=world)) for r in range(world)]
    assert sorted(row for rank in batches for part in rank for row in part) == list(range(23))
    for rank in batches:
        longest = [lengths[part].max() for part in rank]
        assert longest == sorted(longest, reverse=True)


def test_a_stand_in_has_no_label_and_no_tokens() -> None:
    rows = TokenDataset([TokenRow(np.asarray([5, 6, 7], np.int32), np.asarray([0, 1, 1], np.uint8))])
    filler = pad([rows[-1]], 0)
    assert len(filler["targets"]) == amount(filler) == int(filler["tokens"]) == 0
    both = pad([rows[0], rows[0]], 0)
    assert int(both["tokens"]) == 6
    assert both["targets"].tolist() == [6, 7, 6, 7]
    assert both["kept"].tolist() == [0, 1, 3, 4]
