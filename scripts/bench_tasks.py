#!/usr/bin/env python3
"""Real tokens a CPU second of `task=text_classification` against plain transformers' Trainer, on one thread.

    python scripts/bench_tasks.py [--rows 800] [--rounds 3]

Both sides train the same model on the same texts in batches of 16, one epoch, AdamW, no evaluation and no checkpoints;
the other side pads each batch to its longest row, as the Trainer's default collator does. The texts are seeded words
whose lengths are spread log-normally, as those of real texts are, none longer than 256 tokens. The sides take turns;
each measurement is a process of its own, and only the training loop is timed. Prints one JSON line with the medians and
their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = """
import json, os, sys, time
import torch
torch.set_num_threads(1)
rows, folder = sys.argv[1:3]
from transformers import Trainer
inner = Trainer._inner_training_loop
spent = []
def timed(self, *args, **kwargs):
    began = time.process_time()
    try:
        return inner(self, *args, **kwargs)
    finally:
        spent.append(time.process_time() - began)
Trainer._inner_training_loop = timed
"""
OURS = (
    COMMON
    + """
import aitrain
aitrain.train("task=text_classification", f"data.path={rows}", "hardware=cpu", "hardware.threads=1",
    "run.progress=none", f"run.dir={folder}/ours", "data.valid_fraction=0", "data.max_length=256", "train.epochs=1",
    "train.batch_size=16", "train.save_steps=never", "train.learning_rate=1e-4")
print(json.dumps({"cpu_s": spent[0]}))
"""
)
THEIRS = (
    COMMON
    + """
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from aitrain.ml.sample_models import sample_model
path = str(sample_model("tiny-encoder"))
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
data = load_dataset("json", data_files=rows, split="train")
data = data.map(lambda row: {**tokenizer(row["text"], truncation=True, max_length=256), "labels": int(row["label"])},
                remove_columns=data.column_names)
args = TrainingArguments(f"{folder}/theirs", num_train_epochs=1, per_device_train_batch_size=16, learning_rate=1e-4,
    use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True)
Trainer(model, args, train_dataset=data, processing_class=tokenizer).train()
print(json.dumps({"cpu_s": spent[0], "tokens": sum(map(len, data["input_ids"]))}))
"""
)


def write_rows(path: Path, count: int) -> None:
    """Texts of uneven length, with a class that means nothing."""
    rng = random.Random(0)
    words = ["room", "garden", "service", "lamp", "was", "very", "good", "bad", "and", "the"]
    with path.open("w") as out:
        for number in range(count):
            length = min(240, max(3, round(rng.lognormvariate(3.2, 0.9))))
            text = f"{number} {' '.join(rng.choices(words, k=length))}"
            out.write(json.dumps({"text": text, "label": number % 2}) + "\n")


def measured(code: str, rows: Path, folder: Path) -> dict[str, float]:
    """What one side's process printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(rows), str(folder)], capture_output=True, text=True, check=True, env=env
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Take turns, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ours, theirs, tokens = [], [], 0.0
    with tempfile.TemporaryDirectory() as base:
        rows = Path(base, "rows.jsonl")
        write_rows(rows, asked.rows)
        for number in range(asked.rounds):
            folder = Path(base, str(number))
            folder.mkdir()
            ours.append(measured(OURS, rows, folder)["cpu_s"])
            other = measured(THEIRS, rows, folder)
            theirs.append(other["cpu_s"])
            tokens = other["tokens"]
    first, second = (tokens / statistics.median(seconds) for seconds in (ours, theirs))
    found = {"tokens": tokens, "ours_tokens_per_cpu_s": round(first), "trainer_tokens_per_cpu_s": round(second)}
    print(json.dumps({**found, "ratio": round(first / second, 2)}))


if __name__ == "__main__":
    main()
