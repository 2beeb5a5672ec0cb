#!/usr/bin/env python3
"""Launcher latency as ratios, measured in turn with a floor in the same run.

    python scripts/bench_cli.py [--rounds 5] [--first-step]

The floor of the quick verbs is a process that imports hydra and pydantic and does nothing. The floor of the first step
is a hand-written script that imports the same classes, tokenises the same rows and takes one optimizer step. Prints a
table and one JSON line; medians over the rounds, least and largest in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOOR = [sys.executable, "-c", "import hydra, pydantic"]
QUICK = {
    "--help": (["--help"], 0),
    "show": (["show"], 0),
    "check": (["check"], 0),
    "misspelt key": (["train.max_stepss=5"], 2),
}
"""Words of a command and the exit code it must give."""
HAND_WRITTEN = """
import sys, torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
import json
folder, rows, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
texts = [json.loads(line) for line in open(rows)][:256]
turn = lambda role, text: {"role": role, "content": text}
chats = [[turn("user", row["prompt"]), turn("assistant", row["completion"])] for row in texts]
chats = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
ids = [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats]
def collate(batch):
    longest = max(map(len, batch))
    x = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
    return {"input_ids": x, "attention_mask": (x != 0).long(), "labels": x}
args = TrainingArguments(output_dir=out, max_steps=1, per_device_train_batch_size=8, report_to="none", use_cpu=True,
                         disable_tqdm=True, save_strategy="no", remove_unused_columns=False)
Trainer(model=model, args=args, train_dataset=ids, data_collator=collate).train()
"""


def timed(command: list[str], cwd: str, code: int = 0) -> tuple[float, float]:
    """Wall and CPU seconds of one process. Raises RuntimeError when it gives another exit code: what failed, or worked
    where it should be refused, is no measurement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    wall = time.perf_counter() - began
    if done.returncode != code:
        said = done.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"exit code {done.returncode} instead of {code}: {shlex.join(command)}\n{said}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(
    name: str, command: list[str], floor: list[str], rounds: int, cwd: str, code: int = 0
) -> dict[str, float | str]:
    """Both commands in turn, once unmeasured and `rounds` times measured."""
    pairs = []
    for number in range(rounds + 1):
        pair = timed(command, cwd, code), timed(floor, cwd)
        if number:
            pairs.append(pair)
    wall = [ours[0] for ours, _ in pairs]
    ratios = [ours[0] / theirs[0] for ours, theirs in pairs]
    cpu = [ours[1] / theirs[1] for ours, theirs in pairs]
    return {
        "name": name,
        "seconds": statistics.median(wall),
        "floor_seconds": statistics.median(theirs[0] for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "cpu_ratio": statistics.median(cpu),
    }


def quick(rounds: int, cwd: str) -> list[dict[str, float | str]]:
    """The verbs that must not load torch."""
    base = [sys.executable, "-m", "aitrain"]
    timed([*base, "check"], cwd)  # makes the samples, which is no part of what is measured
    return [compare(name, [*base, *words], FLOOR, rounds, cwd, code) for name, (words, code) in QUICK.items()]


def first_step(rounds: int, cwd: str) -> dict[str, float | str]:
    """From command to the end of a run of one step, against the hand-written script."""
    from aitrain.data.samples import sample_file
    from aitrain.ml.sample_models import sample_model

    rows, model = sample_file("tutor"), sample_model("tiny-llama")
    script = Path(cwd) / "by_hand.py"
    script.write_text(HAND_WRITTEN)
    ours = [sys.executable, "-m", "aitrain", "train.max_steps=1", "train.eval_steps=never", "train.save_steps=never",
            "data.max_samples=256", "hardware=cpu", "run.progress=none"]  # fmt: skip
    floor = [sys.executable, str(script), str(model), str(rows), str(Path(cwd) / "by_hand")]
    return compare("command to one step", ours, floor, rounds, cwd)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-step", action="store_true", help="also measure the way to the first optimizer step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cwd:
        os.environ["AITRAIN_CACHE"] = str(Path(cwd) / "cache")
        results = quick(options.rounds, cwd)
        if options.first_step:
            results.append(first_step(max(2, options.rounds // 2), cwd))
    print(f"{'':<22}{'seconds':>9}{'floor':>9}{'ratio':>8}  {'least..most':<14}{'cpu ratio':>9}")
    for r in results:
        spread = f"{r['ratio_min']:.2f}..{r['ratio_max']:.2f}"
        line = f"{r['name']:<22}{r['seconds']:>9.3f}{r['floor_seconds']:>9.3f}{r['ratio']:>8.2f}"
        print(f"{line}  {spread:<14}{r['cpu_ratio']:>9.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
