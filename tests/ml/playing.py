"""Small runs of trainers that learn from rewards."""

from __future__ import annotations

from typing import Any

PROMPTS = {"data__path": "sample:second-letter", "data__max_samples": 24, "data__valid_fraction": 0.25}
PPO: dict[str, Any] = {
    "trainer": "ppo",
    **PROMPTS,
    "rl__reward_fn": "{name: length, target: 30, unit: characters}",
    "rl__max_new_tokens": 10,
    "rl__mini_batch_size": 4,
    "rl__num_ppo_epochs": 2,
    "train__batch_size": 8,
    "train__gradient_accumulation": 1,
    "train__learning_rate": 1e-3,
    "train__max_steps": 3,
    "train__eval_steps": 3,
    "train__save_steps": "never",
}
"""Eight episodes an update, in two mini-batches of four, twice."""
GROUPS: dict[str, Any] = {
    **{name: value for name, value in PPO.items() if name != "rl__num_ppo_epochs"},
    "trainer__num_generations": 4,
    "trainer__num_iterations": 2,
}
"""Two prompts an update with four answers each, in two mini-batches of four, twice."""
GRPO: dict[str, Any] = {**GROUPS, "trainer": "grpo"}
RLOO: dict[str, Any] = {**GROUPS, "trainer": "rloo"}
ONLINE_DPO: dict[str, Any] = {
    **{name: value for name, value in GROUPS.items() if name != "trainer__num_generations"},
    "trainer": "online_dpo",
}
"""Four prompts an update with two answers each, in two mini-batches of two pairs, twice."""
