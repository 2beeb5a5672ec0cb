#!/usr/bin/env python3
"""Training speed of sft against TRL's default and a hand-written loop, on the same rows, sides in turn.

    python scripts/bench_train.py [--rounds 2] [--steps 30] [--precision fp32|bf16] [--fixed] [--vocabulary 4096]

Each side is a process of its own with one thread; what counts are tokens (padding left out) a second of CPU time after
the first steps, since wall time on a shared machine is noise. Rows are chats of very different length made from the
standard library's docstrings; `--fixed` cuts a text into rows of 512 tokens instead, where no side has anything to pad.
All tokens are trained on every side. A large `--vocabulary` shows the peak memory with and without all logits.
Prints a table and one JSON line: medians over the rounds, ratios in one run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIDES = ("aitrain", "aitrain padded", "trl", "loop padded", "loop end to end")
LENGTH, ROWS_A_STEP, WARM_UP = 512, 8, 3
LEARNING_RATE = 1e-3


def main() -> None:
    """Measure every side in turn, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--fixed", action="store_true", help="rows of 512 tokens each")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        options.folder = Path(folder)
        make_assets(options)
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for side in options.sides:
                results.setdefault(side, []).append(one(side, options))
    show(results, options)


def one(side: str, options: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(options.folder), "--steps", str(options.steps),
               "--precision", options.precision, *(["--fixed"] if options.fixed else [])]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(results: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """The table, and the same as JSON."""
    middle = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for side, runs in results.items()
    }
    ours = middle.get("aitrain")
    print(f"{'':17}tokens/CPU s  aitrain is  first loss  last loss  peak MiB")
    for side, found in middle.items():
        ratio = f"{ours['tokens_per_cpu_second'] / found['tokens_per_cpu_second']:.2f}x" if ours else ""
        print(f"{side:17}{found['tokens_per_cpu_second']:12,.0f}  {ratio:>10}  {found['first_loss']:10.4f}"
              f"  {found['last_loss']:9.4f}  {found['peak_mib']:8,.0f}")  # fmt: skip
    settings = {"precision": options.precision, "fixed": options.fixed, "vocabulary": options.vocabulary,
                "steps": options.steps, "rounds": options.rounds}  # fmt: skip
    print(json.dumps({**settings, "sides": middle}))


# --- rows and model --------------------------------------------------------------------------------------------------


def make_assets(options: argparse.Namespace) -> None:
    """`rows.jsonl` with one text a row, and `model/`, a Llama of about 5 M weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from aitrain.data.samples import sample_file, sample_tokenizer

    tokenizer = _tokenizer(sample_tokenizer("tiny-llama"))
    with sample_file("pydoc").open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    draw = random.Random(0)
    wanted = (options.steps + 1) * ROWS_A_STEP
    texts = list(itertools.islice(_fixed(tokenizer, pairs) if options.fixed else _chats(draw, pairs), wanted))
    with (options.folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    config = LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=1024, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(options.folder / "model")
    tokenizer.save_pretrained(options.folder / "model")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _chats(draw: random.Random, pairs: list[dict[str, str]]) -> Iterator[str]:
    """Conversations whose lengths follow a log-normal law, as those of chat data do."""
    while True:
        size, text = draw.lognormvariate(6.2, 0.9), ""
        while len(text) < size:
            pair = draw.choice(pairs)
            text += f"User: {pair['prompt']}\nAssistant: {pair['completion']}\n"
        yield text[: int(size) + 40]


def _fixed(tokenizer: Any, pairs: list[dict[str, str]]) -> Iterator[str]:
    """Texts of at least 512 tokens, which every side cuts there."""
    text = ""
    for pair in itertools.cycle(pairs):
        text += f"{pair['prompt']}\n{pair['completion']}\n"
        if len(text) > 8 * LENGTH:
            yield text
            text = ""


# --- sides -----------------------------------------------------------------------------------------------------------


class Readings:
    """CPU time, tokens and loss at the end of each step."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []

    def step(self, tokens: int, loss: float) -> None:
        """Note the end of a step that took so many tokens."""
        self.cpu.append(time.process_time())
        self.tokens.append(tokens)
        self.losses.append(loss)

    def result(self) -> dict[str, float]:
        """What one side came to."""
        seconds = self.cpu[-1] - self.cpu[WARM_UP - 1]
        return {
            "tokens_per_cpu_second": sum(self.tokens[WARM_UP:]) / seconds,
            "first_loss": self.losses[0],
            "last_loss": statistics.mean(self.losses[-5:]),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Be one side."""
    import torch

    torch.set_num_threads(1)
    sides: dict[str, Callable[[argparse.Namespace, Readings], None]] = {
        "aitrain": lambda o, r: aitrain_side(o, r, "auto"),
        "aitrain padded": lambda o, r: aitrain_side(o, r, "false"),
        "trl": trl_side,
        "loop padded": lambda o, r: loop_side(o, r, end_to_end=False),
        "loop end to end": lambda o, r: loop_side(o, r, end_to_end=True),
    }
    readings = Readings()
    sides[options.side](options, readings)
    return readings.result()


def aitrain_side(options: argparse.Namespace, readings: Readings, padding_free: str) -> None:
    """`python -m aitrain` as it stands, but for evaluation and saving, which the other sides do not do either."""
    import aitrain
    from aitrain.ml.run_loop import RunLoop

    original = RunLoop._maybe_log_save_evaluate

    def noting(self: Any, *args: Any, **more: Any) -> None:
        tokens, loss = self.books._step_tokens, self.books.step_loss
        original(self, *args, **more)
        readings.step(tokens, float(loss))

    RunLoop._maybe_log_save_evaluate = noting  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        aitrain.train(
            f"data.path={options.folder / 'rows.jsonl'}", f"model.path={options.folder / 'model'}", "hardware=cpu",
            "hardware.threads=1", f"data.max_length={LENGTH}", f"train.batch_size={ROWS_A_STEP}", "data.train_on=all",
            f"train.max_steps={options.steps}", f"train.learning_rate={LEARNING_RATE}", "train.scheduler=constant",
            "train.warmup_ratio=0", f"train.precision={options.precision}", "train.eval_steps=never",
            "data.valid_fraction=0", "train.save_steps=never", "generate.count=0", f"train.padding_free={padding_free}",
            "run.progress=none", f"run.dir={folder}/run",
        )  # fmt: skip


def trl_side(options: argparse.Namespace, readings: Readings) -> None:
    """TRL's SFTTrainer with its own defaults, but for what the sides share."""
    import datasets
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    rows = [json.loads(line) for line in (options.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    counted: list[int] = []

    class Counting(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                readings.step(sum(counted), logs["loss"])
                counted.clear()

    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(
            output_dir=folder, max_steps=options.steps, per_device_train_batch_size=ROWS_A_STEP, max_length=LENGTH,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", warmup_steps=0, bf16=options.precision == "bf16",
            gradient_checkpointing=False, save_strategy="no", logging_steps=1, report_to="none", disable_tqdm=True,
            use_cpu=True,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(options.folder / "model")
        trainer = SFTTrainer(
            model=model, args=args, train_dataset=datasets.Dataset.from_list(rows),
            processing_class=_tokenizer(options.folder / "model"), callbacks=[Counting()],
        )  # fmt: skip
        collate = trainer.data_collator

        def counting(examples: list[Any]) -> Any:
            batch = collate(examples)
            counted.append(int(batch["attention_mask"].sum()))
            return batch

        trainer.data_collator = counting
        sys.stdout = sys.stderr
        trainer.train()
        sys.stdout = sys.__stdout__


def loop_side(options: argparse.Namespace, readings: Readings, *, end_to_end: bool) -> None:
    """A loop written by hand, padded or with attention row by row."""
    import torch
    from torch.nn import functional as F
    from transformers import AttentionInterface, AutoModelForCausalLM

    spans: list[tuple[int, int]] = []

    def row_by_row(module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: Any = None, **more: Any) -> Any:
        parts = [
            F.scaled_dot_product_attention(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], is_causal=True, scale=scaling)
            for a, b in spans
        ]
        return torch.cat(parts, 2).transpose(1, 2), None

    AttentionInterface.register("by_hand", row_by_row)
    tokenizer = _tokenizer(options.folder / "model")
    attention = "by_hand" if end_to_end else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(options.folder / "model", attn_implementation=attention).train()
    model.config.use_cache = False
    texts = [json.loads(line)["text"] for line in (options.folder / "rows.jsonl").open(encoding="utf-8")]
    rows = [[*ids, tokenizer.eos_token_id][:LENGTH] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    random.Random(0).shuffle(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    for step in range(options.steps):
        batch = rows[step * ROWS_A_STEP :][:ROWS_A_STEP]
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            if end_to_end:
                ends = list(itertools.accumulate(map(len, batch)))
                spans[:] = zip([0, *ends], ends, strict=False)
                ids = torch.tensor([list(itertools.chain(*batch))])
                labels = torch.tensor([[label for row in batch for label in [-100, *row[1:]]]])
                places = torch.tensor([[place for row in batch for place in range(len(row))]])
                logits = model(input_ids=ids, position_ids=places).logits
            else:
                longest = max(map(len, batch))
                ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in batch])
                labels = torch.tensor([row + [-100] * (longest - len(row)) for row in batch])
                mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        readings.step(sum(map(len, batch)), loss.item())


if __name__ == "__main__":
    main()
