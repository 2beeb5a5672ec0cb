"""Answers from vLLM. It is not installed where this runs: a stand-in takes the place of TRL's `VLLMGeneration`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import training
from playing import PPO
from runs import run

from aitrain import machine
from aitrain.errors import ConfigError
from aitrain.ml import vllm_writing
from aitrain.ml.ppo_trainer import PPOFit

SHORT, STOPPED, LONG = "short", "stopped", "long"


class Engine:
    """Writes one of three kinds of answers in turn: ended by a token, by a stop string, or by nothing."""

    made: dict[str, Any]
    synced: list[float]
    written: list[list[int]]

    def __init__(self, **settings: Any) -> None:
        Engine.made, Engine.synced, Engine.written = settings, [], []
        self.tokenizer = settings["processing_class"]
        self.weight = next(settings["model"].parameters())

    def sync_weights(self) -> None:
        Engine.synced.append(self.weight.detach().double().abs().sum().item())

    def generate(self, prompts: list[list[int]], images: None, count: int) -> tuple[Any, ...]:
        said = self.tokenizer("a list of words", add_special_tokens=False).input_ids
        kinds = [[*said[:2], Engine.made["generation_kwargs"]["stop_token_ids"][0]], [*said[:1]], said]
        kinds[1] += self.tokenizer("STOP", add_special_tokens=False).input_ids
        found = [kinds[number % 3] for number in range(len(prompts))]
        Engine.written += found
        return prompts, found, None, None


def test_answers_are_learnt_from_as_vllm_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_writing, "VLLMGeneration", Engine)
    monkeypatch.setattr(machine, "_vllm", lambda run, on_cpu: iter(()))
    judged: list[Any] = []
    original = PPOFit.judge
    monkeypatch.setattr(PPOFit, "judge", lambda self, rollouts: judged.extend(rollouts) or original(self, rollouts))
    words = {**PPO, "rl__use_vllm": True, "rl__stop_strings": "[STOP]", "rl__top_k": 7, "rl__chunk_size": 5}
    run(tmp_path / "r", **{**words, "train__batch_size": 9, "train__max_steps": 2, "train__eval_steps": 2})
    assert Engine.made["mode"] == "colocate"
    assert (Engine.made["top_k"], Engine.made["max_num_seqs"], Engine.made["max_completion_length"]) == (7, 5, 10)
    assert Engine.made["generation_kwargs"]["stop"] == ["STOP"]
    before, first, second, after = Engine.synced  # of an evaluation, two updates, an evaluation
    assert before == first != second != after
    written = [rollout.row.ids[np.flatnonzero(rollout.row.trained)].tolist() for rollout in judged]
    assert len(written) == 18
    assert all(ids in Engine.written for ids in written)
    assert [rollout.episode.ended for rollout in judged] == [True, True, False] * 6
    assert "STOP" not in judged[1].episode.turns[-1]["content"]
    assert [event["ended"] for event in training(tmp_path / "r")] == pytest.approx([2 / 3] * 2)


def test_a_server_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(**settings: Any) -> None:
        assert settings["server_base_url"] == "http://h:1"
        raise ConnectionError

    monkeypatch.setattr(vllm_writing, "VLLMGeneration", absent)
    monkeypatch.setattr(machine, "_vllm", lambda run, on_cpu: iter(()))
    words = {**PPO, "rl__use_vllm": True, "rl__vllm_mode": "server", "rl__vllm_server_url": "http://h:1"}
    with pytest.raises(ConfigError, match="no server answers at http://h:1"):
        run(tmp_path / "r", **words)
