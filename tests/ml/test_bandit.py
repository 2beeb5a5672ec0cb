"""PPO on a bandit: one prompt, one token, a reward for its first letter. What is best is known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import run

from aitrain.data.encoding import load_tokenizer
from aitrain.ml.loading import load_causal_lm, model_location

ARMS = {"a": 1.0, "t": 0.5, "s": 0.25}
REWARD = """
ARMS = {"a": 1.0, "t": 0.5, "s": 0.25}


def arm(prompts, completions, **columns):
    return [ARMS.get(text[0]["content"].strip()[:1].lower(), 0.0) for text in completions]
"""


def played(folder: Path, **changes: object) -> None:
    """A run on the bandit."""
    folder.mkdir()
    (folder / "arms.py").write_text(REWARD)
    (folder / "pulls.jsonl").write_text(json.dumps({"prompt": "Pull."}) + "\n")
    run(
        folder / "run",
        trainer="ppo",
        data__path=folder / "pulls.jsonl",
        model__path="sample:tiny-llama",
        rl__reward_fn=f"{folder / 'arms.py'}:arm",
        rl__max_new_tokens=1,
        rl__mini_batch_size=64,
        rl__num_ppo_epochs=2,
        train__batch_size=64,
        train__gradient_accumulation=1,
        train__eval_steps="never",
        train__save_steps="never",
        **changes,
    )


def shares(model: str, ids: list[int]) -> torch.Tensor:
    """How likely each next token is, (vocabulary,)."""
    loaded = load_causal_lm(
        model_location(model), revision=None, dtype="float32", trust_remote_code=False, allow_downloads=False
    )
    with torch.no_grad():
        found: torch.Tensor = loaded.eval()(input_ids=torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    return found


def arms_of(tokenizer: object, size: int) -> torch.Tensor:
    """The reward of each token, (vocabulary,)."""
    texts = [tokenizer.decode([number], skip_special_tokens=True) for number in range(size)]  # type: ignore[attr-defined]
    return torch.tensor([ARMS.get(text.strip()[:1].lower(), 0.0) for text in texts], dtype=torch.float64)


@pytest.fixture(scope="module")
def start() -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The prompt, how likely each token is after it, and what each is worth."""
    location = model_location("sample:tiny-llama")
    tokenizer = load_tokenizer(location, None, trust_remote_code=False, allow_downloads=False)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Pull."}], add_generation_prompt=True)["input_ids"]
    before = shares("sample:tiny-llama", ids)
    return ids, before, arms_of(tokenizer, len(before))


def test_the_best_arm_is_found(start: tuple[list[int], torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    ids, before, rewards = start
    assert (before * rewards).sum() < 0.2
    played(tmp_path / "b", rl__kl_coef=0, train__max_steps=25, train__learning_rate=3e-3)
    after = shares(str(tmp_path / "b" / "run" / "model"), ids)
    assert (after * rewards).sum() > 0.98


def test_with_a_penalty_arms_are_pulled_as_often_as_is_best(
    start: tuple[list[int], torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    """The best policy is the starting one times exp(reward / coefficient), made to sum to 1 (Korbak et al. 2022,
    https://arxiv.org/abs/2205.11275, section 3)."""
    ids, before, rewards = start
    best = before * (rewards / 0.25).exp()
    best /= best.sum()
    played(tmp_path / "b", rl__kl_coef=0.25, train__max_steps=50, train__learning_rate=3e-3)
    after = shares(str(tmp_path / "b" / "run" / "model"), ids)
    for reward in (0.0, *ARMS.values()):
        arm = rewards == reward
        assert float(after[arm].sum()) == pytest.approx(float(best[arm].sum()), abs=0.1), reward
    assert [float((policy * rewards).sum()) for policy in (before, best)] == pytest.approx([0.13, 0.83], abs=0.01)
