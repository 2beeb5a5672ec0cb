"""What the tests of trainers on preferences share: small runs, their rows, and TRL's own trainers on the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from runs import events, run
from transformers import AutoModelForCausalLM, AutoTokenizer

from aitrain.data.samples import sample_file
from aitrain.data.tokens import Group, Groups, TokenTable
from aitrain.ml.sample_models import sample_model

PAIRS = {"data__path": "sample:pydoc-pairs", "data__max_samples": 40, "data__max_length": 80}
"""38 pairs of 20 to 80 tokens to train on, 2 to validate on."""
ONE_BATCH = {
    **PAIRS, "data__chat_format": "raw", "data__max_samples": 8, "data__valid_fraction": 0, "train__batch_size": 8,
    "train__weight_decay": 0.1, "train__max_grad_norm": 0.5, "train__learning_rate": 1e-3,
}  # fmt: skip
"""Eight pairs in one batch; every token after the prompt is trained, as TRL's own collators have it."""


def unpaired_file(folder: Path, count: int = 20) -> Path:
    """`count` wanted answers and as many unwanted ones, to different questions."""
    path = folder / "unpaired.jsonl"
    lines = sample_file("pydoc-pairs").read_text(encoding="utf-8").splitlines()[: 2 * count]
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(map(json.loads, lines)):
            kept = row["rejected" if number % 2 else "chosen"]
            file.write(json.dumps({"prompt": row["prompt"], "completion": kept, "label": not number % 2}) + "\n")
    return path


WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "iris", "jade", "knoll", "lotus",
         "maple", "north", "ocean", "pearl")  # fmt: skip


def loud_file(folder: Path, *, pairs: bool = True, count: int = 80) -> Path:
    """Answers in capitals are preferred to the same words in small letters."""
    path = folder / "loud.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            said = " ".join(WORDS[(number * step + step) % 16] for step in (1, 3, 5))
            loud = bool(number % 2)
            row: dict[str, Any] = {
                "prompt": f"Say {number}.",
                "completion": said.upper() if loud else said,
                "label": loud,
            }
            if pairs:
                row = {"prompt": f"Say {number}.", "chosen": said.upper(), "rejected": said}
            file.write(json.dumps(row) + "\n")
    return path


def changes_for(trainer: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Overrides of a small run of a trainer."""
    unpaired = {"data__path": unpaired_file(folder), "data__valid_fraction": 0.15} if trainer == "kto" else {}
    rows = {**PAIRS, **unpaired}
    return {"trainer": trainer, "train__learning_rate": 1e-3, **silent(trainer), **rows, **changes}


def silent(trainer: str) -> dict[str, Any]:
    """A model that scores answers no prompts, and refuses keys about that."""
    return {"generate__count": None} if trainer == "reward" else {}


def trained_rows(folder: Path) -> Groups:
    """The training rows of a run, in the order of the file."""
    plan = json.loads((folder / "plan.json").read_text())
    return Groups(TokenTable(Path(plan["tokens"]["train"])))


def parts(group: Group) -> tuple[list[int], list[list[int]]]:
    """Ids of the prompt and of each answer."""
    start = int(group.rows[0].trained.argmax())
    return group.rows[0].ids[:start].tolist(), [row.ids[start:].tolist() for row in group.rows]


class Given(Dataset):
    """A dataset whose rows TRL leaves as they are."""

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Any:
        made = Dataset.from_list(rows)
        made.__class__ = cls
        return made

    def map(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def filter(self, *args: Any, **kwargs: Any) -> Any:
        return self


def model_and_tokenizer(name: str = "tiny-qwen3", cls: Any = AutoModelForCausalLM) -> tuple[Any, Any]:
    """A sample model in float32, and its tokenizer."""
    folder = sample_model(name)
    return cls.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def plain_settings(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    """Settings of TRL's own trainer that say what ONE_BATCH says."""
    return {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 1e-3,
        "weight_decay": 0.1, "max_grad_norm": 0.5, "warmup_steps": 1, "lr_scheduler_type": "linear",
        "use_cpu": True, "bf16": False, "activation_checkpointing": False, "save_strategy": "no", "report_to": "none",
        "logging_steps": 1, "disable_tqdm": True, "remove_unused_columns": False, "seed": 42, **more,
    }  # fmt: skip


def assert_trained_alike(folder: Path, trainer: Any, *, measures: tuple[str, ...], steps: int = 3) -> None:
    """TRL's own trainer, run for so many steps, logs the numbers of our run and ends with its weights."""
    from runs import distance, weights

    torch.set_num_threads(1)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    ours = events(folder, "train")
    assert len(logged) == len(ours) == steps
    for theirs, mine in zip(logged, ours, strict=True):
        if theirs.get("rewards/margins") == theirs.get("rewards/accuracies") == 0.0:
            theirs["rewards/accuracies"] = 0.5  # all ties, which TRL counts as wrong
        assert abs(theirs["loss"] - mine["loss"]) <= 1e-5 * max(1, abs(mine["loss"]))
        assert abs(theirs["grad_norm"] - mine["grad_norm"]) <= 1e-4 * mine["grad_norm"]
        for name in measures:
            assert abs(theirs[name] - mine[name]) <= 1e-5 * max(1, abs(mine[name])), name
    assert mine["loss"] != ours[0]["loss"]
    saved = {name: value for name, value in trainer.model.state_dict().items() if name in weights(folder / "model")}
    assert distance(saved, weights(folder / "model")) <= 1e-4


def run_one_batch(folder: Path, trainer: str, steps: int = 3, **changes: Any) -> Groups:
    """Train `steps` steps on eight examples; the examples."""
    run(folder, trainer=trainer, **{**ONE_BATCH, "train__max_steps": steps, **silent(trainer), **changes})
    return trained_rows(folder)
