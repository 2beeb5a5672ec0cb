"""Token rows to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from aitrain.data.tokens import TokenRow

IGNORED = -100
"""The label of a token without loss, as torch's cross entropy knows it."""


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


def tokens_of_rows(batch: dict[str, Tensor]) -> Tensor:
    """Tokens in a padded batch, without padding and stand-ins."""
    rows = (batch["labels"] != IGNORED).any(dim=1)
    return batch["attention_mask"][rows].sum()


def pad(rows: Sequence[TokenRow], pad_id: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and `labels`, each (rows, longest row), padded on the right.

    Labels are not shifted; padding and tokens without loss are IGNORED, also where the pad token is the end token.
    """
    longest = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    labels = np.full((len(rows), longest), IGNORED, np.int64)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = row.ids
        mask[index, :length] = 1
        labels[index, :length] = np.where(row.trained == 1, row.ids, IGNORED)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
    }
