"""Small runs of tasks that predict something of a row, and what plain transformers makes of the same model."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from runs import run
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from aitrain.report import Report

WORDS = ("sun", "rain", "storm", "mild", "frost", "breeze", "cloud", "hail", "calm", "grey", "bright", "cold")


def texts(count: int, seed: int = 0) -> list[str]:
    """Made-up texts of one to fifteen words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 15))) for _ in range(count)]


def weather(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with a text, a class that one of its words decides, several classes, and two numbers."""
    rows = []
    for text in texts(count, seed):
        told = text.split()
        label = "wet" if "rain" in told or "hail" in told else "cold" if "frost" in told or "cold" in told else "dry"
        there = [name for name in ("sun", "storm", "cloud") if name in told]
        numbers = {"words": len(told), "suns": 3.5 * told.count("sun") - 1}
        rows.append({"text": text, "label": label, "skies": there, **numbers})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows as a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small(folder: Path, data: Path, task: str = "text_classification", **changes: Any) -> Report:
    """Train a small run of a task in this process."""
    common = {"task": task, "model__path": "sample:tiny-encoder", "data__path": data, "data__max_samples": None,
              "generate__count": None, "train__epochs": None, "train__max_steps": 3}  # fmt: skip
    return run(folder, **{**common, **changes})


def plain_logits(folder: Path, rows: Sequence[dict[str, Any]], *, pair: str | None = None) -> torch.Tensor:
    """What plain transformers makes of the rows, each alone and in float64."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for row in rows:
            inputs = tokenizer(row["text"], row[pair] if pair else None, return_tensors="pt")
            known = {name: inputs[name] for name in tokenizer.model_input_names if name in inputs}
            found.append(model(**known).logits[0])
    return torch.stack(found)
