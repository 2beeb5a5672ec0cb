"""The table at the end of a run: what was measured, why it ended, whose weights the model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aitrain.report import Report, summary

VALUES: dict[str, Any] = {
    "status": "finished", "steps": 12, "planned_steps": 60, "weights_step": 12, "ended_because": None,
    "metrics": {"before": {"loss": 0.693147}, "after": {"loss": 0.693101, "accuracy": 0.75}, "baselines": {}},
}  # fmt: skip


def said(folder: Path, *events: str, **changes: Any) -> str:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{event}\n" for event in events))
    return summary(Report(folder, {**VALUES, **changes}))


def test_numbers_side_by_side_differ_where_their_values_do(tmp_path: Path) -> None:
    text = said(tmp_path)
    assert "loss                 0.69315     0.69310\n" in text
    assert "accuracy                   -      0.7500\n" in text
    metrics = {"before": {"loss": 1.0, "rewards/chosen": 0.0}, "after": {"loss": 1.0, "rewards/chosen": -0.0000232}}
    text = said(tmp_path, metrics={**metrics, "baselines": {}})
    assert "loss                  1.0000      1.0000\n" in text
    assert "rewards/chosen       0.00000    -0.00002\n" in text
    baselines = {"metrics": {**VALUES["metrics"], "baselines": {"unigram": 0.6931}}}
    assert "loss                0.693147    0.693101    0.693100\n" in said(tmp_path, **baselines)


def test_an_early_end_and_the_weights_it_kept_are_said(tmp_path: Path) -> None:
    text = said(tmp_path, ended_because="loss has not improved in 2 evaluations (best 0.5 at step 8)", weights_step=8)
    assert "finished after 12 of 60 steps: loss has not improved in 2 evaluations (best 0.5 at step 8)\n" in text
    assert f"model   {tmp_path / 'model'}  (step 8's weights)" in text
    assert said(tmp_path).splitlines()[-2:] == ["finished after 12 of 60 steps", f"model   {tmp_path / 'model'}"]


@pytest.mark.parametrize(("prompt", "shown"), [
    ("What is 1?", "What is 1?"),
    ("word " * 40 + "end?", "… " + "word " * 19 + "end?"),
    ("x" * 150, "…" + "x" * 100),
])  # fmt: skip
def test_a_long_prompt_begins_with_a_whole_word(tmp_path: Path, prompt: str, shown: str) -> None:
    sample = f'{{"prompt": "{prompt}", "expected": null, "text": "a", "correct": null}}'
    event = f'{{"event": "generate", "step": 0, "samples": [{sample}]}}'
    assert f"  asked   {shown}\n" in said(tmp_path, event)
