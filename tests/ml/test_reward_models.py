"""A trained reward model as the reward of a run: what it says of an answer is what the model says of the whole text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from playing import PPO
from preferring import PAIRS, trained_rows
from runs import run
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from aitrain.data.samples import sample_file
from aitrain.errors import ConfigError, Refused
from aitrain.ml.reward_models import RewardModel, load_trained_scorer
from aitrain.rundir.events import read_events

QUESTIONS = ("Say a word.", "What is the second letter of TFI?", "Add 12 and 30, and say how you did it, in two lines.")
ANSWERS = ("amber", "F", "It is 42: ten and thirty are forty, and two more.", "", "no", "N" * 40, "7", "one two")


@pytest.fixture(scope="module", params=["none", "lora"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model after two steps: all of it, or an adapter with its head."""
    folder = tmp_path_factory.mktemp("reward") / "r"
    changes: dict[str, Any] = {**PAIRS, "train__max_steps": 2, "train__learning_rate": 1e-2, "generate__count": None}
    run(folder, trainer="reward", peft=request.param, train__save_steps="never", **changes)
    return folder / "model"


def loaded(folder: Path, batch_size: int) -> RewardModel:
    model = load_trained_scorer(
        str(folder), revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False
    )
    return RewardModel(model.eval(), AutoTokenizer.from_pretrained(folder), batch_size)


def conversations() -> tuple[list[Any], list[Any]]:
    prompts: list[Any] = [[{"role": "user", "content": QUESTIONS[n % 3]}] for n in range(len(ANSWERS))]
    return prompts, [[{"role": "assistant", "content": answer}] for answer in ANSWERS]


@torch.no_grad()
def test_its_score_is_that_of_the_rendered_text(trained: Path) -> None:
    reward = loaded(trained, 8)
    prompts, completions = conversations()
    texts = [
        reward.tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    plain = AutoModelForSequenceClassification.from_pretrained(trained, num_labels=1, dtype=torch.float32).eval()
    if (trained / "adapter_config.json").exists():  # transformers draws the head anew; it is in the adapter's file
        plain = reward.model
    expected = []
    for text in texts:
        ids = reward.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        expected.append(plain(input_ids=ids).logits[0, 0].item())
    scores = reward(prompts, completions, answer=["x"] * 8)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores)) == len(ANSWERS)


def test_it_reads_an_answer_as_its_training_did(trained: Path) -> None:
    """The rows of token ids are those that trainer=reward made of the same pairs."""
    reward = loaded(trained, 8)
    lines = sample_file("pydoc-pairs").read_text(encoding="utf-8").splitlines()
    compared = 0
    groups = trained_rows(trained.parent)
    for number in range(len(groups)):
        row, group = json.loads(lines[number]), groups[number]
        for answer, tokens in zip((row["chosen"], row["rejected"]), group.rows, strict=True):
            prompt, completion = (
                {"role": r, "content": c} for r, c in (("user", row["prompt"]), ("assistant", answer))
            )
            if len(tokens.ids) < 80:  # a longer one was cut
                assert reward._ids([prompt], [completion]) == tokens.ids.tolist()
                compared += 1
    assert compared > 40


def test_a_score_does_not_depend_on_the_batch(trained: Path) -> None:
    prompts, completions = conversations()
    alone, together = (loaded(trained, size)(prompts, completions) for size in (1, 8))
    assert alone == pytest.approx(together, abs=1e-5)
    texts = loaded(trained, 3)(["Say: ", "What?"], ["amber", "F"])
    assert texts == pytest.approx(loaded(trained, 1)(["Say: ", "What?"], ["amber", "F"]), abs=1e-5)


def test_an_adapter_brings_its_trained_head(trained: Path) -> None:
    """Two loads say the same: nothing was drawn at random."""
    prompts, completions = conversations()
    assert loaded(trained, 8)(prompts, completions) == loaded(trained, 8)(prompts, completions)


def test_ppo_learns_from_it(trained: Path, tmp_path: Path) -> None:
    words = {**PPO, "rl__reward_fn": "null", "rl__reward_model_path": trained, "train__max_steps": 1}
    run(tmp_path / "r", **{**words, "train__eval_steps": "never"})
    event = next(event for event in read_events(tmp_path / "r") if event["event"] == "train")
    assert event["reward_std"] > 0


def test_what_is_no_reward_model_is_refused_before_anything_is_written(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in trained.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tokens = json.loads((other / "tokenizer.json").read_text())
    tokens["added_tokens"].append({**tokens["added_tokens"][0], "id": 5000, "content": "<|new|>"})
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(Refused, match=r"rl\.reward_model_path: .* has another tokenizer than the model"):
        run(tmp_path / "r", **{**PPO, "rl__reward_fn": "null", "rl__reward_model_path": other})
    assert not (tmp_path / "r").exists()


def test_a_language_model_has_no_score() -> None:
    with pytest.raises(ConfigError, match="has no head that gives a score"):
        load_trained_scorer(
            "sample:tiny-qwen3", revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False
        )
