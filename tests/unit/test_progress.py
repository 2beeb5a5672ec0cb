"""What a line of progress says."""

from __future__ import annotations

from typing import Any

import pytest

from aitrain.progress import Clock, describe

TRAIN: dict[str, Any] = {"event": "train", "step": 5, "loss": 0.5, "learning_rate": 1e-3, "tokens_per_second": 1234.5}
EVAL: dict[str, Any] = {"event": "eval", "step": 5, "loss": 0.25}


@pytest.mark.parametrize(("event", "line"), [
    (TRAIN, "step 5/9  loss 0.5000  lr 1.00e-03  1,234 tokens/s"),
    ({**TRAIN, "rewards/accuracies": 0.75, "rewards/margins": 0.1234},
     "step 5/9  loss 0.5000  accuracy 75.0%  margin 0.123  lr 1.00e-03  1,234 tokens/s"),
    (EVAL, "step 5/9  validation loss 0.2500"),
    ({**EVAL, "token_accuracy": 0.5}, "step 5/9  validation loss 0.2500  token accuracy 50.0%"),
    ({**EVAL, "margin": -0.5, "accuracy": 0.4}, "step 5/9  validation loss 0.2500  accuracy 40.0%  margin -0.500"),
    ({**EVAL, "rewards/margins": 2.0}, "step 5/9  validation loss 0.2500  margin 2.000"),
])  # fmt: skip
def test_a_line_says_how_well_it_goes(event: dict[str, Any], line: str) -> None:
    assert describe(event, 9, Clock(9)) == line
