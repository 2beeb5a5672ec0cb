"""What a line of progress says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aitrain.plan import Machine, Rows, plan
from aitrain.progress import Clock, describe, progress_view

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


NOTES = ("stopped: loss has not improved in 2 evaluations (best 0.5 at step 4)", "step 4's weights [loaded]")


@pytest.mark.parametrize("kind", ["plain", "rich", "none"])
def test_notes_stand_on_the_terminal_and_in_the_log(
    kind: str, run_of: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(f"run.progress={kind}")
    made = plan(run, Rows(8, 0), Machine(1, ()), tmp_path)
    with closing(progress_view(run, made, tmp_path)) as view:
        for text in NOTES:
            view.log({"event": "note", "step": 1, "text": text})
    shown = " ".join(capsys.readouterr().out.split())
    logged = (tmp_path / "log.txt").read_text()
    for text in NOTES:
        assert f"step 1/1  {text}\n" in logged
        assert (f"step 1/1 {text}" in shown) == (kind != "none")
