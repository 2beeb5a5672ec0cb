"""Events of a run as named numbers: `train/loss`, `validation/loss`, `generate/correct`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WITHOUT_METRICS = ("start", "resume", "end", "note")


def metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """Every number an event carries, named by its kind (an evaluation by its split); empty if it carries none.

    `generate/correct` is the share of the fixed prompts with a known answer that were answered right.
    """
    kind = event["event"]
    if kind in WITHOUT_METRICS:
        return {}
    if kind == "generate":
        judged = [sample["correct"] for sample in event["samples"] if sample["correct"] is not None]
        return {"generate/correct": sum(judged) / len(judged)} if judged else {}
    prefix = event["split"] if kind == "eval" else kind
    return {
        f"{prefix}/{name}": float(value)
        for name, value in event.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
