"""The tiny models of `sample:NAME`: config from `aitrain.data.samples`, weights drawn here from a fixed seed."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aitrain.data.samples import (
    known_model,
    made_aside,
    one_at_a_time,
    sample_tokenizer,
    samples_dir,
    tokenizer,
    tutor_rows,
)

if TYPE_CHECKING:
    import torch

SEED = 0
# Other questions than those of sample:tutor, whose held-out rows thus stay fit to judge by (but for short words).
LESSON_SEED = 1
EPOCHS = 1
BATCH_SIZE = 16
LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
"""What teaches a model of this size fastest, found by trial on two cores."""
UNLABELLED = -100


def sample_model(name: str) -> Path:
    """A folder with config, weights and tokenizer, made at first use.

    The untrained ones are the same bytes each time. `taught-llama` is trained, so that its last digits depend on the
    machine. Raises ConfigError when there is no such sample.
    """
    known_model(name)
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = samples_dir() / f"models-{code}" / name
    if not folder.exists():
        with one_at_a_time(folder):
            if not folder.exists():
                _make(name, folder)
    return folder


def _make(name: str, folder: Path) -> None:
    with made_aside(folder) as aside:
        shutil.copytree(sample_tokenizer(name), aside, dirs_exist_ok=True)
        sample = known_model(name)
        model = _untrained(dict(sample.config), sample.kind)
        if name == "taught-llama":
            with _one_thread():
                _teach(model, aside)
        _save(model, aside)


def _untrained(config: dict[str, Any], kind: str = "decoder") -> Any:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    cls = {"decoder": AutoModelForCausalLM, "encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return cls.from_config(AutoConfig.for_model(config.pop("model_type"), **config))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order however many cores there are; so small a model gains little from a second one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _save(model: Any, folder: Path) -> None:
    """What `save_pretrained` writes, without its progress bar."""
    from safetensors.torch import save_file

    model.config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    # The output head is the embedding, which from_pretrained ties again; so are those of an encoder-decoder's halves.
    first: dict[int, str] = {}
    for key, weight in model.state_dict().items():
        first.setdefault(weight.data_ptr(), key)
    weights = {key: weight for key, weight in model.state_dict().items() if key in first.values()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _teach(model: Any, folder: Path) -> None:
    """Train `model` on answers to questions like those of `sample:tutor`."""
    import torch
    from torch.nn.functional import cross_entropy

    print("sample:taught-llama: teaching it, once, in a minute or two", file=sys.stderr, flush=True)
    lessons = _lessons(folder)
    order = [lesson for _ in range(EPOCHS) for lesson in lessons]
    steps = len(order) // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 1 - step / steps)
    )
    model.train()
    remaining = iter(order)
    for _ in range(steps):
        inputs, labels = _padded(list(islice(remaining, BATCH_SIZE)))
        hidden = model.model(input_ids=inputs, attention_mask=(inputs != tokenizer.PAD_ID).long()).last_hidden_state
        labelled = labels[:, 1:] != UNLABELLED
        loss = cross_entropy(model.lm_head(hidden[:, :-1][labelled]), labels[:, 1:][labelled])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def _lessons(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Token ids of questions, in the chat template, with those of their answers."""
    from transformers import AutoTokenizer

    learner = AutoTokenizer.from_pretrained(folder)
    rows = list(tutor_rows(LESSON_SEED))
    chats = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    questions = learner.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    answers = [row["completion"] + tokenizer.END for row in rows]
    lessons = list(zip(learner(questions).input_ids, learner(answers).input_ids, strict=True))
    random.Random(SEED).shuffle(lessons)
    return lessons


def _padded(batch: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels, one row each; only answers are labelled."""
    import torch

    longest = max(len(question) + len(answer) for question, answer in batch)
    inputs = torch.full((len(batch), longest), tokenizer.PAD_ID)
    labels = torch.full((len(batch), longest), UNLABELLED)
    for row, (question, answer) in enumerate(batch):
        end = len(question) + len(answer)
        inputs[row, :end] = torch.tensor(question + answer)
        labels[row, len(question) : end] = torch.tensor(answer)
    return inputs, labels
