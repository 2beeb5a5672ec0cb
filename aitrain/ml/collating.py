"""Token rows to batches, padded or laid end to end, with what is to be predicted in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aitrain.data.tokens import TokenRow


class TokenRows(Protocol):
    """Rows by number: `aitrain.data.tokens.Rows` and `Blocks`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TokenRow: ...


class TokenDataset(Dataset[TokenRow]):
    """Rows for a DataLoader; row -1 is an empty stand-in without loss."""

    def __init__(self, rows: TokenRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TokenRow:
        if index < 0:
            return TokenRow(np.zeros(2, np.int32), np.zeros(2, np.uint8))
        return self.rows[index]


def padding_id(tokenizer: Any) -> int:
    """What fills short rows. Any id would do, since neither attention nor loss sees it; a tokenizer may have none."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0


def pad(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Any]:
    """A batch padded on the right: `input_ids`, `attention_mask`, each (rows, longest row), and `what_to_predict`."""
    longest = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        mask[index, : len(row.ids)] = 1
    starts = [index * longest for index in range(len(rows))]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        **what_to_predict(rows, starts),
    }


def lay_end_to_end(rows: Sequence[TokenRow]) -> dict[str, Any]:
    """A batch without padding: `input_ids` and `position_ids`, each (1, tokens), where rows begin under the names of
    transformers' flash attention (`cu_seq_lens_q` and so on), and `what_to_predict`."""
    lengths = [len(row.ids) for row in rows]
    bounds = np.cumsum([0, *lengths])
    spans = torch.from_numpy(bounds.astype(np.int32))
    return {
        "input_ids": torch.from_numpy(np.concatenate([row.ids for row in rows]).astype(np.int64))[None],
        "position_ids": torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        "cu_seq_lens_q": spans,
        "cu_seq_lens_k": spans,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        **what_to_predict(rows, bounds[:-1].tolist()),
    }


def what_to_predict(rows: Sequence[TokenRow], starts: Sequence[int]) -> dict[str, Tensor]:
    """`targets` are the trained tokens and `kept` the positions before them, counted through the whole batch in which
    row i begins at starts[i]; a row's first token is never predicted. `weights`, where a row has some, say how much
    each counts. `tokens` is the number of tokens in rows that train anything."""
    kept, targets, weights, tokens = [], [], [], 0
    for row, start in zip(rows, starts, strict=True):
        places = np.flatnonzero(row.trained[1:])
        kept.append(places + start)
        targets.append(row.ids[1:][places])
        weights.append(np.ones(len(places), np.float32) if row.weights is None else row.weights[1:][places])
        tokens += len(row.ids) if len(places) else 0
    found = {
        "kept": torch.from_numpy(np.concatenate(kept)),
        "targets": torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        "tokens": torch.tensor(tokens),
    }
    if any(row.weights is not None for row in rows):
        found["weights"] = torch.from_numpy(np.concatenate(weights).astype(np.float32))
    return found


def amount(batch: dict[str, Any]) -> float:
    """What a batch counts in the mean of a step: its targets, each by its weight."""
    return float(batch["weights"].double().sum()) if "weights" in batch else float(len(batch["targets"]))
