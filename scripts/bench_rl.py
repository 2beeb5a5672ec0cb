#!/usr/bin/env python3
"""Episodes a second of PPO and GRPO, with the seconds of their parts, against TRL's own.

    python scripts/bench_rl.py [--rounds 2] [--updates 5] [--trl FOLDER]

    pip install --no-deps --target FOLDER trl==1.12.0        # the last release of TRL that has a PPO; no dependency

Policy, reference and reward model have the same shape on both sides, prompts 24 tokens, answers 48; an update has 32
episodes, four passes and mini-batches of 8. TRL's value function is a model of its own; aitrain is measured with its
head on the policy's trunk, with such a model, and without a reference. GRPO has groups of eight answers, one optimizer
step an update, and no reference; its other side is the installed TRL. Each side is a process with one thread, in turn;
episodes a second of CPU time without the first update. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EPISODES, PROMPT, ANSWER, PASSES, MINI_BATCH, GROUP = 32, 24, 48, 4, 8, 8
PPO = ("trainer=ppo", f"rl.mini_batch_size={MINI_BATCH}", f"rl.num_ppo_epochs={PASSES}")
GRPO = ("trainer=grpo", f"rl.mini_batch_size={EPISODES}", f"trainer.num_generations={GROUP}", "rl.kl_coef=0")
SIDES = {
    "ppo": PPO,
    "ppo, no reference": (*PPO, "rl.kl_coef=0"),
    "ppo, value model": (*PPO, "trainer.value_model={model}"),
    "TRL 1.12's ppo": (),
    "grpo": GRPO,
    "TRL's grpo": (),
}
THEIRS = {"ppo": "TRL 1.12's ppo", "grpo": "TRL's grpo"}
PARTS = ("generation", "scoring", "judging", "update")


def main() -> None:
    """Measure every side in turn, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--trl", type=Path, help="folder with trl 1.12")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options)))
        return
    sides = [side for side in SIDES if side != THEIRS["ppo"] or options.trl]
    with tempfile.TemporaryDirectory(prefix="bench-rl-") as folder:
        options.folder = Path(folder)
        make_assets(options.folder, EPISODES * (options.updates + 1))
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for side in sides:
                results.setdefault(side, []).append(one(side, options))
    show(results, options)


def one(side: str, options: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(options.folder)]
    command += ["--updates", str(options.updates)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if side == THEIRS["ppo"]:
        env |= {"PYTHONPATH": str(options.trl), "TRL_EXPERIMENTAL_SILENCE": "1"}
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
    print(f"{'':23}episodes/CPU s  of TRL's  peak MiB  " + "  ".join(f"{part:>10}" for part in PARTS))
    for side, found in middle.items():
        theirs = middle.get(THEIRS["ppo" if "ppo" in side else "grpo"])
        ratio = f"{found['episodes_per_cpu_second'] / theirs['episodes_per_cpu_second']:.2f}x" if theirs else ""
        parts = "  ".join(f"{found[part]:9.2f}s" if part in found else f"{'':>10}" for part in PARTS)
        print(f"{side:23}{found['episodes_per_cpu_second']:14.2f}{ratio:>10}{found['peak_mib']:10.0f}  {parts}")
    print(json.dumps({"updates": options.updates, "rounds": options.rounds, "sides": middle}))


def make_assets(folder: Path, prompts: int) -> None:
    """`prompts.jsonl`, `model/` (a Llama of about 5 M weights) and `scorer/` (the same with a score for its head)."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from aitrain.data.samples import sample_file, sample_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer("tiny-llama"))
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=1024, bos_token_id=None, num_labels=1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    for name, cls in (("model", LlamaForCausalLM), ("scorer", LlamaForSequenceClassification)):
        cls(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    written = 0
    with sample_file("pydoc").open(encoding="utf-8") as lines, (folder / "prompts.jsonl").open("w") as out:
        for line in lines:
            row = json.loads(line)
            ids = tokenizer(row["prompt"] + " " + row["completion"], add_special_tokens=False).input_ids[:PROMPT]
            text = tokenizer.decode(ids)
            if len(ids) == PROMPT and tokenizer(text, add_special_tokens=False).input_ids == ids and written < prompts:
                out.write(json.dumps({"prompt": text}) + "\n")
                written += 1


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Be one side."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    sides = {THEIRS["ppo"]: trl_ppo, THEIRS["grpo"]: trl_grpo}
    return sides.get(options.side, aitrain_side)(options)


def result(cpu: list[float]) -> dict[str, float]:
    """From the CPU time at the start and after each update."""
    seconds, updates = cpu[-1] - cpu[1], len(cpu) - 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"episodes_per_cpu_second": EPISODES * updates / seconds, "peak_mib": peak}


def aitrain_side(options: argparse.Namespace) -> dict[str, float]:
    """The trainer as it stands, but for evaluation and saving, which the other side does not do either."""
    import aitrain
    from aitrain.ml.episodes import EpisodeLoop
    from aitrain.rundir.events import read_events

    cpu = [time.process_time()]
    original = EpisodeLoop._maybe_log_save_evaluate

    def noting(self: Any, *args: Any, **more: Any) -> None:
        original(self, *args, **more)
        cpu.append(time.process_time())

    EpisodeLoop._maybe_log_save_evaluate = noting  # type: ignore[method-assign]
    particular = [word.format(model=options.folder / "model") for word in SIDES[options.side]]
    with tempfile.TemporaryDirectory() as folder:
        aitrain.train(
            f"data.path={options.folder / 'prompts.jsonl'}", f"model.path={options.folder / 'model'}",
            "hardware=cpu", "hardware.threads=1", "data.chat_format=raw", f"train.batch_size={MINI_BATCH}",
            f"train.gradient_accumulation={EPISODES // MINI_BATCH}", f"rl.max_new_tokens={ANSWER}", "rl.reward_fn=null",
            f"rl.reward_model_path={options.folder / 'scorer'}", f"train.max_steps={options.updates}",
            "train.learning_rate=1e-5", "train.eval_steps=never", "data.valid_fraction=0", "train.save_steps=never",
            "generate.count=0", "run.progress=none", f"run.dir={folder}/run", *particular,
        )  # fmt: skip
        events = [event for event in read_events(Path(folder) / "run") if event["event"] == "train"][1:]
    return {
        **result(cpu),
        **{part: statistics.mean(event[f"seconds/{part}"] for event in events) for part in PARTS},
        "answer_tokens": statistics.mean(event["length"] for event in events),
    }


def trl_ppo(options: argparse.Namespace) -> dict[str, float]:
    """TRL 1.12's PPOTrainer on the same prompts, models, passes and mini-batches."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    cpu = [time.process_time()]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            cpu.append(time.process_time())

    model, scorer = str(options.folder / "model"), str(options.folder / "scorer")
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    rows = [json.loads(line)["prompt"] for line in (options.folder / "prompts.jsonl").open()]
    data = Dataset.from_dict({"input_ids": [tokenizer(text, add_special_tokens=False).input_ids for text in rows]})
    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder, per_device_train_batch_size=MINI_BATCH, num_mini_batches=EPISODES // MINI_BATCH,
            gradient_accumulation_steps=EPISODES // MINI_BATCH, num_ppo_epochs=PASSES, response_length=ANSWER,
            total_episodes=EPISODES * options.updates, temperature=1.0, learning_rate=1e-5, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to=[], save_strategy="no", num_sample_generations=0,
            local_rollout_forward_batch_size=EPISODES,
        )  # fmt: skip
        PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(model),
            ref_model=AutoModelForCausalLM.from_pretrained(model),
            reward_model=AutoModelForSequenceClassification.from_pretrained(scorer),
            value_model=AutoModelForSequenceClassification.from_pretrained(scorer),
            train_dataset=data,
            eval_dataset=data.select(range(2)),
            callbacks=[Clock()],
        ).train()
    return result(cpu)


def trl_grpo(options: argparse.Namespace) -> dict[str, float]:
    """The installed TRL's GRPOTrainer on the same prompts, models and groups."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    cpu = [time.process_time()]

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            cpu.append(time.process_time())

    model, scorer = str(options.folder / "model"), str(options.folder / "scorer")
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    rows = [json.loads(line) for line in (options.folder / "prompts.jsonl").open()]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=MINI_BATCH, gradient_checkpointing=False,
            gradient_accumulation_steps=EPISODES // MINI_BATCH, num_generations=GROUP, max_completion_length=ANSWER,
            max_steps=options.updates, temperature=1.0, learning_rate=1e-5, use_cpu=True, bf16=False, report_to=[],
            save_strategy="no", logging_steps=1,
        )  # fmt: skip
        GRPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=AutoModelForSequenceClassification.from_pretrained(scorer),
            reward_processing_classes=AutoTokenizer.from_pretrained(scorer),
            train_dataset=Dataset.from_list(rows),
            callbacks=[Clock()],
        ).train()
    return result(cpu)


if __name__ == "__main__":
    main()
