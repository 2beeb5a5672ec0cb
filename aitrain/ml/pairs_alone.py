"""Trainers on pairs without a reference model, whose loss has a part that is a mean over tokens.

TRL keeps them among its experiments, where they share names and the form of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from aitrain.ml.examples import COUNTS, EXAMPLES, Example
from aitrain.ml.preference import PreferenceLoop, padded, pair_counts

NLL = "nll"
"""The count of a batch that weighs the cross entropy: the chosen tokens it is a mean over."""


IGNORED = -100
"""The label of a token without loss, as torch's cross entropy knows it."""


class RowsAsTheyAre:
    """Stands for a dataset while TRL's trainer is made: its rows are token ids already, so no step changes them."""

    def map(self, *args: Any, **kwargs: Any) -> RowsAsTheyAre:
        """Nothing to do."""
        return self

    def __len__(self) -> int:
        return 1


class PairsAlone(PreferenceLoop):
    """The mean over pairs, and the cross entropy as the mean over all tokens of the step."""

    _stored_metrics: Any

    def nll_tokens(self, example: Example) -> int:
        """Tokens of an example that the cross entropy counts."""
        raise NotImplementedError

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Chosen and rejected rows apart, with labels; as TRL's `DPODataCollatorWithPadding`."""
        batch: dict[str, Any] = {}
        for side, name in enumerate(("chosen", "rejected")):
            made = padded([example.group.rows[side] for example in examples], self.pad_id)
            batch[f"{name}_input_ids"] = made["input_ids"]
            batch[f"{name}_attention_mask"] = made["attention_mask"]
            batch[f"{name}_labels"] = made["input_ids"].masked_fill(made["completion_mask"] == 0, IGNORED)
        counts = pair_counts(examples)
        counts[NLL] = sum(map(self.nll_tokens, examples)) if counts[EXAMPLES] else 0
        return {**batch, COUNTS: counts}

    def look_ahead(self, batches: Iterable[dict[str, Any]]) -> None:
        seen = np.sum([[batch[COUNTS][EXAMPLES], batch[COUNTS][NLL]] for batch in batches] or [[0, 0]], axis=0)
        found = torch.tensor(seen, dtype=torch.float64)
        if self.job.world > 1:
            found = found.to(self.args.device)
            dist.all_reduce(found)
        self.tokens_an_example = float(found[1]) / max(float(found[0]), 1)

    def mean_of_batch(self, model: Any, inputs: Any, counts: Mapping[str, float]) -> Tensor:
        # A stand-in weighs nothing in the end.
        self.nll_weight = counts[NLL] / max(counts[EXAMPLES], 1) / self.tokens_an_example
        return super().mean_of_batch(model, inputs, counts)

    def concatenated_forward(self, model: Any, batch: Any) -> tuple[Any, ...]:
        """The cross entropy is a mean over this micro-batch's tokens. It will count by the share of the step's examples
        that are here; times this weight, it counts by the share of the step's tokens."""
        trl: Any = super()
        found = list(trl.concatenated_forward(model, batch))
        self.nll = found[4].detach()
        found[4] = found[4] * self.nll_weight
        return tuple(found)

    def recorded(self) -> dict[str, float]:
        found = {name: values[-1] for name, values in self._stored_metrics["train"].items()}
        self._stored_metrics.clear()
        return {**found, "nll_loss": self.nll.item()}
