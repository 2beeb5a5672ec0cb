"""The page of a run: everything is shown, nothing breaks out of its place, nothing is fetched."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aitrain import report_html
from aitrain.errors import DataError
from aitrain.report_html import CONTENT_POLICY, Curve, Figure, Scale, fitted, origin_kind, smoothed, thinned, write_html

PROMPTS = [
    ("Reverse: stone", "enots"),
    ("Sort: 7 3 9 1", "1 3 7 9"),
    ("Add: 17 + 25", "42"),
    ("Escape: </script><script>alert(1)</script>", "&lt;b&gt;"),
    ("Continue: def read(path):", None),
]


def train_loss(step: int) -> float:
    return 2.9 + 4.7 * math.exp(-step / 45) + 0.12 * math.sin(step * 2.1)


def answer(prompt: str, expected: str | None, step: int, index: int) -> str:
    learned = step >= 60 + 40 * index
    if expected is None:
        return '\n    with open(path) as file:\n        return file.read()\n' + "x = 1\n" * (60 if step > 150 else 2)
    return expected if learned else ["", "zz zz", "the the", "<img src=x onerror=alert(1)>"][(step // 50 + index) % 4]


def run_events(steps: int = 200) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"event": "start", "step": 0, "time": "2026-11-20T10:00:00+00:00"}]
    for step in range(steps + 1):
        if step % 50 == 0:
            loss = train_loss(step) + 0.1 if step else 7.62
            events.append(
                {
                    "event": "eval",
                    "step": step,
                    "epoch": step / 66.7,
                    "split": "validation",
                    "loss": loss,
                    "perplexity": math.exp(loss),
                    "token_accuracy": 0.001 + 0.41 * step / steps,
                    "tokens": 9000,
                    "seconds": 1.2,
                }
            )
            answers = [(p, e, answer(p, e, step, i)) for i, (p, e) in enumerate(PROMPTS)]
            listed = [
                {"prompt": p, "expected": e, "text": t, "correct": None if e is None else t == e} for p, e, t in answers
            ]
            events.append({"event": "generate", "step": step, "samples": listed})
        if step and step % 2 == 0:
            events.append(
                {
                    "event": "train",
                    "step": step,
                    "epoch": step / 66.7,
                    "loss": train_loss(step),
                    "learning_rate": 1e-3 * min(1, step / 20) * 0.5 * (1 + math.cos(math.pi * step / steps)),
                    "grad_norm": 1.2 + math.sin(step) * 0.3 + (9 if step == 84 else 0),
                    "tokens": step * 1500,
                    "tokens_per_second": 4321.0 + 200 * math.sin(step / 7),
                    "seconds": step * 0.36,
                }
            )
        if step and step % 50 == 0:
            path = f"checkpoints/step-{step:06d}"
            saved = {"event": "checkpoint", "step": step, "path": path, "seconds": 0.2, "bytes": 13_631_488}
            events.append({**saved, "best": step <= 150})
    events.append({"event": "note", "step": 84, "text": "gradient clipped from 10.4 <b>to</b> 1.0"})
    events.append({"event": "end", "step": steps, "time": "2026-11-20T10:01:13+00:00"})
    return events


REPORT = {
    "status": "finished",
    "name": "reverse-words",
    "task": "llm",
    "trainer": "sft",
    "started": "2026-11-20T10:00:00+00:00",
    "ended": "2026-11-20T10:01:13+00:00",
    "seconds": 73.2,
    "steps": 200,
    "planned_steps": 200,
    "epochs": 3.0,
    "metrics": {
        "before": {"loss": 7.62, "perplexity": 2038.5, "token_accuracy": 0.001},
        "after": {"loss": 3.1, "perplexity": 22.2, "token_accuracy": 0.411},
        "baselines": {"unigram": 5.4},
    },
    "best": {"step": 150, "loss": 3.0, "checkpoint": "checkpoints/step-000150"},
    "peak_memory_bytes": 812_646_400,
    "data": {
        "train_rows": 1000,
        "valid_rows": 50,
        "bad_rows": 0,
        "truncated": 3,
        "dropped": 0,
        "train_tokens": 148_213,
        "trained_tokens": 61_007,
        "columns": "prompt=instruction, completion=response",
        "reason": "instruction and response are the usual names of a prompt and its answer",
    },
    "parameters": {"total": 1_700_000, "trainable": 1_700_000},
    "error": None,
    "command": "python -m aitrain recipes/reverse.yaml 'run.name=reverse-words' train.learning_rate=0.001",
    "processes": 1,
}

PLAN = {
    "steps": 200,
    "global_batch_size": 16,
    "processes": 1,
    "threads": 2,
    "device": "cpu",
    "argv": ["python", "-m", "aitrain.worker", "config.json"],
    "autos": [
        {"key": "train.precision", "value": "float32", "reason": "this CPU has no fast bfloat16"},
        {"key": "data.max_length", "value": 256, "reason": "the 99th percentile of the rows, rounded up to 64"},
    ],
    "origins": {
        "train.learning_rate": "command line",
        "run.name": "command line",
        "trainer.name": "conf/trainer/sft.yaml:2",
        "data.path": "recipes/reverse.yaml:7",
        "train.batch_size": "recipes/reverse.yaml:9",
    },
}

CONFIG = """\
run: {name: reverse-words, dir: outputs/reverse-words/1, seed: 42, resume: never, progress: auto}
task: {name: llm}
trainer: {name: sft, loss: cross_entropy}
model: {path: 'sample:tiny', revision: null, dtype: auto, trust_remote_code: false}
data: {path: 'sample:skills', max_length: auto, columns: {prompt: instruction, completion: response}, train_on: [answer]}
train:
  epochs: 3
  batch_size: 4
  gradient_accumulation: 4
  learning_rate: 0.001
  scheduler: cosine
  warmup_ratio: 0.1
  weight_decay: 0.0
  max_grad_norm: 1.0
  optimizer: adamw
  precision: auto
peft: {name: none}
hardware: {device: auto, processes: 1, nodes: 1}
"""

LOCK = {
    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
    "git": {"commit": "ebe711c", "dirty": True},
    "data": {"fingerprint": "sha256:9f2c", "rows": 1050},
    "seeds": {"python": 42, "torch": 42},
    "user_code": {},
}


def write_run(folder: Path, events: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A run directory with every file; `changes` replace entries of report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "step-000150").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "lock.json").write_text(json.dumps(LOCK))
    (folder / "report.json").write_text(json.dumps({**REPORT, **changes}))
    lines = [json.dumps(event) for event in (run_events() if events is None else events)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder
