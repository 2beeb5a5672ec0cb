#!/usr/bin/env python3
"""Pairs a CPU second of `trainer=dpo` and `trainer=reward` against TRL's own trainers, on one thread.

    python scripts/bench_preference.py [--pairs 256] [--rounds 3] [--trainers dpo reward]

Both sides train the same model on the same texts in batches of 8, one epoch, AdamW, no evaluation and no checkpoints.
The texts are seeded pseudo-words whose lengths are spread as those of preference data are: log-normal, the prompt about
as long as an answer, none longer than 512 tokens in all. The sides take turns; each measurement is a process of its
own, and only the training loop is timed. Prints one JSON line a trainer with the medians and their ratio.
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
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import torch
torch.set_num_threads(1)
kind, rows, folder, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
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
aitrain.train(f"trainer={kind}", f"data.path={rows}", "model.path=sample:tiny-llama", "hardware=cpu",
    "hardware.threads=1", "run.progress=none", f"run.dir={folder}/ours", "data.valid_fraction=0", "train.epochs=1",
    f"train.batch_size={size}", "train.save_steps=never", "data.max_length=512", "data.truncation=right",
    "train.learning_rate=1e-4", *(["generate.count=0"] if kind != "reward" else []))
print(json.dumps({"cpu_s": spent[0]}))
"""
)
THEIRS = (
    COMMON
    + """
import logging, warnings
warnings.simplefilter("ignore")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from aitrain.ml.sample_models import sample_model
path = sample_model("tiny-llama")
pairs = [json.loads(line) for line in open(rows)]
def turn(role, text):
    return [{"role": role, "content": text}]
data = Dataset.from_list([{"prompt": turn("user", p["prompt"]), "chosen": turn("assistant", p["chosen"]),
                           "rejected": turn("assistant", p["rejected"])} for p in pairs])
common = dict(output_dir=f"{folder}/theirs", num_train_epochs=1, per_device_train_batch_size=size, use_cpu=True,
              bf16=False, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
              learning_rate=1e-4, warmup_steps=1, max_length=512)
tokenizer = AutoTokenizer.from_pretrained(path)
if kind == "dpo":
    trainer = DPOTrainer(AutoModelForCausalLM.from_pretrained(path, dtype="float32"), args=DPOConfig(**common),
        ref_model=AutoModelForCausalLM.from_pretrained(path, dtype="float32"), train_dataset=data,
        processing_class=tokenizer)
else:
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype="float32", num_labels=1)
    trainer = RewardTrainer(model, args=RewardConfig(**common), train_dataset=data, processing_class=tokenizer)
trainer.train()
print(json.dumps({"cpu_s": spent[0], "pairs": len(trainer.train_dataset)}))
"""
)


def write_pairs(path: Path, count: int) -> None:
    """Prompts with two answers each, of widely different length."""
    generator = random.Random(11)
    words = ["".join(generator.choices("abcdefghijklmnoprstuw", k=generator.randint(2, 7))) for _ in range(400)]

    def text() -> str:
        length = min(60, max(2, round(generator.lognormvariate(2.8, 0.8))))
        return " ".join(generator.choices(words, k=length))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps({"prompt": text(), "chosen": text(), "rejected": text()}) + "\n")


def measure(program: str, kind: str, rows: Path, folder: str, size: int) -> float:
    """CPU seconds of a training loop in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, kind, str(rows), folder, str(size)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["cpu_s"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--trainers", nargs="+", default=["dpo", "reward"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "pairs.jsonl"
        write_pairs(rows, options.pairs)
        for kind in options.trainers:
            ours, theirs = [], []
            for _ in range(options.rounds):
                for program, found in ((THEIRS, theirs), (OURS, ours)):
                    with tempfile.TemporaryDirectory() as folder:
                        found.append(measure(program, kind, rows, folder, options.batch_size))
            speeds = [options.pairs / statistics.median(times) for times in (ours, theirs)]
            line = {
                "trainer": kind,
                "pairs": options.pairs,
                "ours_pairs_per_cpu_s": round(speeds[0], 2),
                "trl_pairs_per_cpu_s": round(speeds[1], 2),
                "ratio": round(speeds[0] / speeds[1], 3),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
