"""Rewards and environments of the user's in whole runs: what is recorded of them, faults, rows, tools and turns."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from playing import PPO
from runs import report, run
from transformers import AutoTokenizer

from aitrain.data.rendering import ChatTemplate
from aitrain.errors import Refused, TrainingFailed
from aitrain.ml import rollouts
from aitrain.ml.rollouts import Player
from aitrain.ml.sampling import Answer
from aitrain.report import Report, summary
from aitrain.rl.tools import schemas
from aitrain.rundir.events import read_events

FAULTY = """
def score(prompts, completions, **columns):
    return [float("nan") if len(text) % 2 else 1.0 for text in map(answer, completions)]


def answer(completion):
    return completion[-1]["content"]
"""


def training(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["event"] == "train"]


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(FAULTY)
    return file


def test_the_lock_has_the_users_files(faulty: Path, tmp_path: Path) -> None:
    words = {**PPO, "rl__reward_fn": f"{faulty}:score", "rl__on_reward_error": "penalty", "train__max_steps": 1}
    run(tmp_path / "r", **{**words, "train__eval_steps": "never"})
    lock = json.loads((tmp_path / "r" / "lock.json").read_text())
    assert lock["code"] == {str(faulty): hashlib.sha256(faulty.read_bytes()).hexdigest()}


@pytest.mark.parametrize("processes", [1, 2])
def test_rewards_that_fail_are_counted_on_all_ranks(processes: int, faulty: Path, tmp_path: Path) -> None:
    """Each fault costs the penalty of -3 instead of 1, so the mean reward says how many there were."""
    words = {
        **PPO, "rl__reward_fn": f"{faulty}:score", "rl__on_reward_error": "penalty", "rl__reward_error_penalty": -3.0,
        "train__eval_steps": "never", "train__batch_size": 8 // processes,
    }  # fmt: skip
    run(tmp_path / "r", **words, **({"hardware": "cpu_x2"} if processes == 2 else {}))
    events = training(tmp_path / "r")
    assert [event["reward_faults"] for event in events] == [round(8 * (1 - event["reward"]) / 4) for event in events]
    total = sum(event["reward_faults"] for event in events)
    assert 0 < total < 24
    assert report(tmp_path / "r")["reward_faults"] == total
    assert f"{total} rewards failed" in summary(Report(tmp_path / "r", report(tmp_path / "r")))


def test_faults_of_several_updates_are_added_up(faulty: Path, tmp_path: Path) -> None:
    words = {**PPO, "rl__reward_fn": f"{faulty}:score", "rl__on_reward_error": "penalty", "train__eval_steps": "never"}
    run(tmp_path / "each", **words)
    run(tmp_path / "window", **words, train__logging_steps=3)
    each, window = training(tmp_path / "each"), training(tmp_path / "window")
    assert [event["reward_faults"] for event in window] == [sum(event["reward_faults"] for event in each)]
    notes = [event["text"] for event in read_events(tmp_path / "each") if event["event"] == "note"]
    assert sum("reward 'score' failed: returned nan" in text for text in notes) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_faults_of_an_evaluation_are_told_too(processes: int, tmp_path: Path) -> None:
    """The first fault falls into the evaluation before the first step, on a rank that is not the first of two."""
    of_second = FAULTY.replace("if len(text) % 2", "if os.environ['RANK'] == '1'")
    reward = tmp_path / "reward.py"
    reward.write_text("import os\n" + (of_second if processes == 2 else FAULTY))
    words = {**PPO, "rl__reward_fn": f"{reward}:score", "rl__on_reward_error": "penalty", "train__max_steps": 1}
    words |= {"train__eval_steps": 1, "train__batch_size": 8 // processes}
    run(tmp_path / "r", **words, **({"hardware": "cpu_x2"} if processes == 2 else {}))
    events = list(read_events(tmp_path / "r"))
    assert all(event["reward_faults"] > 0 for event in events if event["event"] in ("train", "eval"))
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert sum("reward 'score' failed: returned nan" in text for text in notes) == 1


def test_a_reward_that_fails_ends_the_run_by_default(faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="score"):
        run(tmp_path / "r", **{**PPO, "rl__reward_fn": f"{faulty}:score"})
    assert "reward_faults" not in report(tmp_path / "r")


# --- rows that a class brings --------------------------------------------------------------------------------------

CASES = """
import random

class Cases:
    def __init__(self, seed=0):
        self.seed = seed

    def build_dataset(self, tokenizer):
        draw = random.Random(self.seed)
        self.letters = [draw.choice("abcdefgh") for _ in range(24)]
        turns = [[{"role": "user", "content": f"Say {letter}."}] for letter in self.letters]
        return [{"prompt": turn, "case_idx": number} for number, turn in enumerate(turns)]

    def score_episode(self, model, tokenizer, completion, case_idx):
        assert type(model).__name__ and tokenizer is not None
        return float(self.letters[case_idx] in completion)
"""


@pytest.mark.parametrize("hardware", ["cpu", "cpu_x2"])
def test_a_run_takes_the_rows_of_a_class(hardware: str, tmp_path: Path) -> None:
    """What the class keeps by case while it makes its rows is there when answers are scored, in each process."""
    file = tmp_path / "cases.py"
    file.write_text(CASES)
    words = {name: value for name, value in PPO.items() if not name.startswith(("data__", "rl__reward"))}
    words |= {"rl": "custom", "rl__env_type": f"{file}:Cases", "data__valid_fraction": 0.25, "train__max_steps": 2}
    run(tmp_path / "r", **words, hardware=hardware, data__max_samples=None)
    facts = report(tmp_path / "r")["data"]
    assert (facts["rows_from"], facts["rows_read"], facts["train_rows"]) == (f"{file}:Cases", 24, 18)
    assert f"data     {file}:Cases: 18 rows to train on" in (tmp_path / "r" / "log.txt").read_text()
    autos = json.loads((tmp_path / "r" / "plan.json").read_text())["autos"]
    assert {"key": "data.path", "value": f"{file}:Cases", "reason": "the class brings its own rows"} in autos
    assert f"{file}:Cases" in (tmp_path / "r" / "model" / "README.md").read_text()
    assert [event["step"] for event in training(tmp_path / "r")] == [1, 2]


def test_rows_that_are_others_each_time_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "cases.py"
    file.write_text(CASES.replace("random.Random(self.seed)", "random.Random()"))
    words = {name: value for name, value in PPO.items() if not name.startswith(("data__", "rl__reward"))}
    with pytest.raises(Refused, match="brings other rows each time"):
        run(tmp_path / "r", **words, rl="custom", rl__env_type=f"{file}:Cases", data__max_samples=None)
    assert not (tmp_path / "r").exists()


# --- tools and turns -----------------------------------------------------------------------------------------------

TOOLS = '''
def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def bare(a, b):
    return a + b


def right(prompts, completions, **columns):
    return [float(turns[-1]["content"] == "It is 42.") for turns in completions]
'''
CALL = '<tool_call>{"name": "add", "arguments": {"a": 12, "b": 30}}</tool_call>'
ASKED = [{"role": "user", "content": "What is 12 and 30?"}]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    file = tmp_path / "tools.py"
    file.write_text(TOOLS)
    return file


def scripted(model: Any, tokenizer: Any, prompts: Any, seeds: Any, settings: Any, **more: Any) -> list[Answer]:
    """Calls the tool in the first turn, and says what it answered in the second."""
    found = []
    for prompt, (_, _, turn) in zip(prompts, seeds, strict=True):
        text = CALL
        if turn:
            text = "It is 42." if "tool\n42" in tokenizer.decode(prompt) else "I do not know."
        ids = tokenizer(text, add_special_tokens=False).input_ids
        found.append(Answer([*ids, tokenizer.convert_tokens_to_ids("<|im_end|>")], True))
    return found


def with_tools(file: Path, name: str = "add") -> dict[str, Any]:
    rows = file.parent / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": ASKED, "number": n}) + "\n" for n in range(24)))
    environment = f"{{max_turns: 3, tools: ['{file}:{name}']}}"
    words = {**PPO, "data__path": rows, "rl__env_config": environment, "rl__reward_fn": f"{file}:right"}
    return {**words, "train__max_steps": 1, "train__eval_steps": "never"}


def test_a_model_calls_a_tool_and_reads_its_answer(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt tells of the tool; the ids are those of the conversation's text; only the model's turns are marked."""
    kept: list[Any] = []
    original = Player._score
    monkeypatch.setattr(rollouts, "sample", scripted)

    def score(self: Player, found: Any) -> None:
        kept.extend(found)
        original(self, found)

    monkeypatch.setattr(Player, "_score", score)
    run(tmp_path / "r", **with_tools(tools))
    assert training(tmp_path / "r")[0]["reward"] == 1.0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "r" / "model")
    (schema,) = schemas([add])
    for rollout in kept:
        turns = rollout.episode.turns
        assert [turn["role"] for turn in turns] == ["assistant", "tool", "assistant"]
        assert (turns[0]["content"], turns[1]["content"], turns[2]["content"]) == (CALL, "42", "It is 42.")
        assert rollout.episode.columns["number"] in range(24)
        text = ChatTemplate(tokenizer).whole([*ASKED, *turns], [schema])
        assert json.dumps(schema["function"]["name"]) in text
        whole = tokenizer(text.rstrip("\n"), add_special_tokens=False).input_ids
        assert rollout.ids == whole
        said = tokenizer.decode([token for token, mark in zip(rollout.ids, rollout.written, strict=True) if mark])
        assert said == f"{CALL}<|im_end|>It is 42.<|im_end|>"
        assert len(rollout.written) == len(rollout.ids)


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def test_a_tool_that_cannot_be_described_is_refused(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"rl\.env_config\.tools: the tool 'bare' cannot be described"):
        run(tmp_path / "r", **with_tools(tools, "bare"))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("chat_format", ["vicuna", "raw"])
def test_a_format_that_ignores_tools_is_refused(chat_format: str, tools: Path, tmp_path: Path) -> None:
    words = with_tools(tools)
    words["data__path"].write_text('{"prompt": "What is 12 and 30?"}\n' * 24)
    with pytest.raises(Refused, match=r"data\.chat_format: this format does not tell the model of its tools \(add\)"):
        run(tmp_path / "r", **words, data__chat_format=chat_format)
    assert not (tmp_path / "r").exists()


def test_a_class_of_the_users_may_have_tools(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.write_text(
        TOOLS + "\n\nclass Env:\n    max_turns = 2\n    tools = [add]\n"
        "    def score(self, episodes):\n        return [float(e.completion == 'It is 42.') for e in episodes]\n"
    )
    monkeypatch.setattr(rollouts, "sample", scripted)
    words = with_tools(tools) | {"rl": "custom", "rl__env_type": f"{tools}:Env"}
    run(
        tmp_path / "r",
        **{name: value for name, value in words.items() if name not in ("rl__env_config", "rl__reward_fn")},
    )
    assert training(tmp_path / "r")[0]["reward"] == 1.0


# --- prompts that are too long, answers in the report --------------------------------------------------------------


@pytest.mark.parametrize(
    ("truncation", "why"),
    [
        ("error", "24 of 24 rows are longer than 5 tokens, the longest has"),
        ("drop", "all 24 rows are longer than 5 tokens and left out; the shortest has"),
    ],
)
def test_prompts_that_are_too_long_are_refused_by_their_own_key(truncation: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        run(tmp_path / "r", **PPO, data__max_prompt_length=5, data__truncation=truncation)
    (problem,) = refused.value.problems
    assert (problem.key, problem.what[: len(why)]) == ("data.max_prompt_length", why)
    assert "raise data.max_prompt_length, or set data.truncation=left" in problem.advice
    assert problem.fix.startswith("data.max_prompt_length=") == (truncation == "error")


def test_what_became_of_long_prompts_is_said_with_their_key(tmp_path: Path) -> None:
    run(tmp_path / "r", **{**PPO, "train__max_steps": 1}, data__max_prompt_length=12, data__truncation="left")
    assert "24 of 24 cut to data.max_prompt_length=12 tokens" in (tmp_path / "r" / "log.txt").read_text()


def test_answers_in_the_report_have_their_rewards(tmp_path: Path) -> None:
    rewards = "[{name: length, target: 30, unit: characters}, repetition]"
    several = {**PPO, "rl": "multi_objective", "rl__reward_fn": rewards, "rl__reward_weights": "[2.0, 0.5]"}
    run(tmp_path / "r", **{**several, "train__max_steps": 1, "train__eval_steps": 1}, generate__count=3)
    rounds = [event["samples"] for event in read_events(tmp_path / "r") if event["event"] == "generate"]
    assert [len(samples) for samples in rounds] == [3, 3]
    for sample in rounds[-1]:
        assert set(sample["rewards"]) == {"length", "repetition"}
        parts = 2.0 * sample["rewards"]["length"] + 0.5 * sample["rewards"]["repetition"]
        assert sample["reward"] == pytest.approx(parts)
    assert "(reward " in summary(Report(tmp_path / "r", report(tmp_path / "r")))
    assert "<small>reward " in (tmp_path / "r" / "report.html").read_text()
