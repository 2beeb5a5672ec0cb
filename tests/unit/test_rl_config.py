"""The section `rl` and what it asks of data, models and the user's files: refused before anything loads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.cli import main, refusal
from aitrain.compose import Composed, Request
from aitrain.data.samples import sample_tokenizer
from aitrain.errors import ConfigError, DataError, Problem, Refused
from aitrain.rl import Environment
from aitrain.rl.rows import keep_rows, kept_rows, rows_from, rows_of
from aitrain.start import check
from aitrain.validate import examine

Compose = Callable[..., Composed]


def problems(composed: Composed) -> dict[str, Problem]:
    return {problem.key: problem for problem in examine(composed)[1]}


def command(composed: Composed, *words: str) -> str:
    """The last line of the refusal: the corrected command, if there is one."""
    last = refusal(ConfigError(examine(composed)[1]), list(words)).splitlines()[-1]
    return last.removeprefix("try: python -m aitrain ")


MISTAKES: dict[tuple[str, ...], dict[str, str]] = {
    ("trainer=ppo", "rl=custom"): {"rl": "neither an environment nor a reward of yours; set rl.env_type=FILE.py:CLASS"},
    ("rl=math", "trainer=sft"): {"rl": "rl=math has no effect with trainer=sft; it acts with trainer=ppo"},
    ("trainer=sft", "rl.gamma=0.9"): {"rl.gamma": "has no effect with trainer=sft; it acts with trainer=ppo"},
    ("trainer=sft", "rl.gama=0.9"): {"rl.gama": "did you mean 'rl.gamma', which acts with trainer=ppo"},
    ("trainer=dpo", "rl.reward_fn=length", "rl.clip_range=0.1"): {
        "rl.reward_fn": "it acts with trainer=ppo",
        "rl.clip_range": "it acts with trainer=ppo",
    },
    ("trainer=ppo", "rl=none"): {"rl": "learns from rewards, and rl=none gives none"},
    ("trainer=ppo", "rl=none", "rl.gamma=0.9"): {
        "rl": "learns from rewards",
        "rl.gamma": "has no effect with rl=none; choose rl=text_generation or remove it",
    },
    ("trainer=ppo", "rl=matth"): {"rl": "did you mean 'math'?"},
    ("trainer=ppo", "rl.top_p=1.5"): {"rl.top_p": "less than or equal to 1"},
    ("trainer=ppo", "rl.top_p=0"): {"rl.top_p": "greater than 0"},
    ("trainer=ppo", "rl.top_p=-0.1"): {"rl.top_p": "greater than 0"},
    ("trainer=ppo", "rl.gama=0.9"): {"rl.gama": "did you mean 'rl.gamma'?"},
    ("trainer=ppo", "rl.max_new_token=9"): {"rl.max_new_token": "did you mean 'rl.max_new_tokens'?"},
    ("trainer=ppo", "rl.reward_fn=corectness"): {"rl.reward_fn": "no reward 'corectness'; did you mean 'correctness'?"},
    ("trainer=ppo", "rl.env_type=mathh"): {"rl.env_type": "no environment 'mathh'; did you mean 'math'?"},
    ("trainer=ppo", "rl.env_type=no.py:Env", "rl.reward_fn=null"): {"rl.env_type": "no such file: no.py"},
    ("trainer=ppo", "rl=math", "rl.env_config={tolerence: 0.1}"): {"rl.env_config.tolerence": "mean 'tolerance'"},
    ("trainer=ppo", "rl.vllm_mode=server", "rl.vllm_enable_sleep_mode=true"): {
        "rl.vllm_mode": "has no effect with rl.use_vllm=false",
        "rl.vllm_enable_sleep_mode": "has no effect with rl.use_vllm=false",
    },
    ("trainer=grpo", "rl.use_vllm=true", "rl.vllm_mode=server", "rl.vllm_gpu_memory_utilization=0.5"): {
        "rl.vllm_server_url": "asks a server; set it to http://HOST:PORT",
        "rl.vllm_gpu_memory_utilization": "has no effect with rl.vllm_mode=server",
    },
    ("trainer=ppo", "hardware=cpu_x2", "rl.use_vllm=true", "rl.vllm_mode=server", "rl.vllm_server_url=http://h:1"): {
        "rl.vllm_mode": "writes for one process, and there are 2",
    },
    ("trainer=ppo", "rl.use_vllm=true", "rl.vllm_mode=server", "rl.vllm_server_url=http://h:1", "rl.chunk_size=4"): {
        "rl.chunk_size": "has no effect with rl.vllm_mode=server",
    },
    ("trainer=sft", "rl.use_vllm=true"): {"rl.use_vllm": "has no effect with trainer=sft"},
    ("trainer=ppo", "rl.reward_weights=[1, 2]"): {"rl.reward_weights": "2 weights for 1 rewards"},
    ("trainer=ppo", "rl.mini_batch_size=65"): {"rl.mini_batch_size": "65 episodes are more than the 64 of an update"},
    ("trainer=ppo", "data.truncation=right"): {"data.truncation": "would cut the end of a question"},
}  # fmt: skip


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_refused_with_its_cure(words: tuple[str, ...], composed: Compose) -> None:
    found = problems(composed(*words))
    assert set(found) == set(MISTAKES[words])
    for key, said in MISTAKES[words].items():
        assert said in str(found[key])


CORRECTED = {
    ("trainer=sft", "rl.gamma=0.9"): "trainer=ppo rl.gamma=0.9",
    ("rl=math", "trainer=sft"): "rl=none trainer=sft",
    ("trainer=ppo", "rl=none"): "trainer=ppo rl=text_generation",
    ("trainer=ppo", "rl=none", "rl.gamma=0.9"): "trainer=ppo rl=text_generation rl.gamma=0.9",
    ("trainer=ppo", "rl=matth", "rl.gama=0.9"): "trainer=ppo rl=math rl.gamma=0.9",
    ("trainer=ppo", "rl.reward_fn=corectness", "rl.gama=0.9"): "trainer=ppo rl.reward_fn=correctness rl.gamma=0.9",
    ("trainer=ppo", "rl.mini_batch_size=65"): "trainer=ppo rl.mini_batch_size=64",
}


@pytest.mark.parametrize("words", CORRECTED, ids=" ".join)
def test_the_corrected_command_is_right(words: tuple[str, ...], composed: Compose) -> None:
    assert command(composed(*words), *words) == CORRECTED[words]
    assert not problems(composed(*CORRECTED[words].split()))


def test_all_mistakes_are_told_at_once(composed: Compose) -> None:
    words = ("trainer=ppo", "rl.top_p=2", "rl.gamma=-1", "rl.reward_fn=lenght", "rl.chunksize=3", "rl.env_type=cod")
    found = problems(composed(*words))
    assert {"rl.top_p", "rl.gamma", "rl.chunksize"} <= set(found)
    assert len(refusal(ConfigError(found.values()), [*words]).splitlines()) > 4


def test_a_custom_option_takes_a_class_a_function_or_a_model(composed: Compose, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompts, completions, **columns):\n    return [0.0] * len(prompts)\n")
    assert not problems(composed("trainer=ppo", "rl=custom", f"rl.reward_fn={file}:score"))
    assert not problems(composed("trainer=ppo", "rl=custom", "rl.reward_model_path=sample:tiny-llama"))
    file.write_text("class Env:\n    def score(self, episodes):\n        return [0.0] * len(episodes)\n")
    data = "data.path=sample:second-letter"
    assert not problems(composed("trainer=ppo", "rl=custom", f"rl.env_type={file}:Env", data))


# --- columns and reward models, looked at before torch loads -------------------------------------------------------


def refused(*words: str) -> dict[str, Problem]:
    """The problems of `check`; none where nothing is wrong."""
    try:
        check(Request(words))
    except Refused as error:
        return {problem.key: problem for problem in error.problems}
    return {}


def rows(path: Path, *values: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values * 20))
    return path


def test_a_reward_needs_its_column(tmp_path: Path) -> None:
    named = rows(tmp_path / "named.jsonl", {"prompt": "2+2?", "completion": "4"})
    found = refused("trainer=ppo", f"data.path={named}")["rl.reward_fn"]
    assert "needs the column 'answer', which the rows do not have; they have completion" in str(found)
    assert found.fix == "rl.reward_fn={name: correctness, answer: completion}"
    assert not refused("trainer=ppo", f"data.path={named}", found.fix)
    math = refused("trainer=ppo", "rl=math", f"data.path={named}")["rl.env_config.correct"]
    assert math.fix == "rl.env_config.answer=completion"
    assert not refused("trainer=ppo", "rl=math", f"data.path={named}", math.fix)


def test_a_reward_keeps_its_other_options_in_the_correction(tmp_path: Path) -> None:
    named = rows(tmp_path / "named.jsonl", {"prompt": "2+2?", "result": "4", "source": "x"})
    spec = "rl.reward_fn={name: correctness, answer: reslut, tolerance: 0.1, weight: 2}"
    found = refused("trainer=ppo", f"data.path={named}", spec)["rl.reward_fn"]
    assert found.fix == "rl.reward_fn={name: correctness, answer: result, tolerance: 0.1, weight: 2.0}"
    assert not refused("trainer=ppo", f"data.path={named}", found.fix)


def test_no_column_is_guessed_where_none_is_likely(tmp_path: Path) -> None:
    named = rows(tmp_path / "named.jsonl", {"prompt": "2+2?", "source": "x", "topic": "y"})
    found = refused("trainer=ppo", f"data.path={named}")["rl.reward_fn"]
    assert "they have source, topic; write {name: correctness, answer: COLUMN}" in str(found)
    assert not found.fix
    alone = rows(tmp_path / "alone.jsonl", {"prompt": "2+2?"})
    assert "the rows have no further columns" in str(refused("trainer=ppo", f"data.path={alone}")["rl.reward_fn"])
    assert not refused("trainer=ppo", f"data.path={alone}", "rl.reward_fn=length_penalty")


def test_each_source_of_a_mixture_needs_the_column(tmp_path: Path) -> None:
    good = rows(tmp_path / "good.jsonl", {"prompt": "2+2?", "answer": "4"})
    bad = rows(tmp_path / "bad.jsonl", {"prompt": "3+3?", "completion": "6"})
    mixture = f"data.mixture=[{{path: {good}}}, {{path: {bad}}}]"
    found = refused("trainer=ppo", "data.path=null", mixture)["rl.reward_fn"]
    assert "they have completion" in str(found)
    assert str(bad) in str(found)


def test_grade_school_questions_are_taken_as_they_are(tmp_path: Path) -> None:
    worked = rows(tmp_path / "train.jsonl", {"question": "How many legs have 2 cats?", "answer": "2*4=8\n#### 8"})
    assert not refused("trainer=ppo", "rl=math", f"data.path={worked}")
    assert not refused("trainer=ppo", f"data.path={worked}")


def model(folder: Path, config: dict[str, Any], *, new_token: bool = False) -> Path:
    """A folder as a model leaves it, with the tokenizer of the samples or another one."""
    folder.mkdir()
    (folder / ("adapter_config.json" if "task_type" in config else "config.json")).write_text(json.dumps(config))
    tokens = json.loads((sample_tokenizer("tiny-llama") / "tokenizer.json").read_text())
    if new_token:
        tokens["model"]["vocab"]["amber"] = len(tokens["model"]["vocab"]) + 100
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    return folder


SCORER = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
NOT_SCORERS: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({**SCORER, "id2label": {"0": "bad", "1": "good"}}, "gives 2 outputs, and a reward is one"),
    "number": ({"architectures": ["BertForSequenceClassification"], "num_labels": 3}, "gives 3 outputs"),
    "default": ({"architectures": ["BertForSequenceClassification"]}, "gives 2 outputs"),
    "writer": ({"architectures": ["LlamaForCausalLM"]}, "has no head that gives a score: it is LlamaForCausalLM"),
    "nothing": ({}, "has no config.json that can be read"),
    "adapter": ({"task_type": "CAUSAL_LM"}, "is an adapter for CAUSAL_LM, not for a score"),
}


@pytest.mark.parametrize("name", NOT_SCORERS)
def test_a_model_that_gives_no_single_score_is_refused(name: str, tmp_path: Path) -> None:
    config, why = NOT_SCORERS[name]
    folder = model(tmp_path / "m", config)
    words = ("trainer=ppo", "rl.reward_fn=null", f"rl.reward_model_path={folder}")
    assert why in str(refused(*words)["rl.reward_model_path"])


@pytest.mark.parametrize("config", [SCORER, {"task_type": "SEQ_CLS"}], ids=["whole", "adapter"])
def test_a_reward_model_reads_the_tokens_of_the_model(config: dict[str, Any], tmp_path: Path) -> None:
    same, other = model(tmp_path / "same", config), model(tmp_path / "other", config, new_token=True)
    assert not refused("trainer=ppo", "rl.reward_fn=null", f"rl.reward_model_path={same}")
    found = refused("trainer=ppo", "rl.reward_fn=null", f"rl.reward_model_path={other}")["rl.reward_model_path"]
    assert "has another tokenizer than the model" in str(found)
    named = refused("trainer=ppo", f"rl.reward_fn={{name: model, path: {other}}}")["rl.reward_fn"]
    assert "has another tokenizer than the model" in str(named)


def test_a_reward_model_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    model(tmp_path / "scorer", SCORER)
    for wrong, said in (
        (tmp_path / "scorre", f"no such folder: {tmp_path}/scorre; did you mean '{tmp_path}/scorer'?"),
        ("sample:no-such-model", "sample:no-such-model"),
        ("sample:tiny-llama", "without a head that gives a score"),
    ):
        found = refused("trainer=ppo", "rl.reward_fn=null", f"rl.reward_model_path={wrong}")
        assert said in str(found["rl.reward_model_path"])
    words = ("trainer=ppo", "rl.reward_fn=null", "rl.reward_model_path=owner/scorer", "run.allow_downloads=false")
    assert "neither a folder nor in the local cache" in str(refused(*words)["rl.reward_model_path"])


# --- rows that an environment brings -------------------------------------------------------------------------------

SCORES = """
raise SystemExit("check runs nothing of the user's")
class Plain:
    def score(self, episodes):
        return [0.0] * len(episodes)

class Cases:
    def build_dataset(self, tokenizer):
        return [{"prompt": "a", "case_idx": 0}]
    def score_episode(self, model, tokenizer, completion, case_idx):
        return 0.0

class Rows(Plain):
    def rows(self, tokenizer):
        return [{"prompt": "a"}]

class Unknown(Cases):
    pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(SCORES)
    return file


@pytest.mark.parametrize("name", ["Cases", "Rows", "Unknown"])
def test_rows_come_from_a_class_that_brings_them(
    name: str, mine: Path, capsys: pytest.CaptureFixture[str], run_of: Callable[..., Any]
) -> None:
    words = ("trainer=ppo", "rl=custom", f"rl.env_type={mine}:{name}")
    assert rows_from(run_of(*words)) == f"{mine}:{name}"
    assert main(["check", *words]) == 0
    said = capsys.readouterr().out
    assert f"data       {mine}:{name}  not looked up" in said
    assert "none of its code is run here" in said
    assert "nothing is wrong with what was looked at" in said
    assert "second-letter" not in said


@pytest.mark.parametrize("name", ["Cases", "Rows"])
@pytest.mark.parametrize("key", ["data.path=x.jsonl", "data.valid_split=test", "data.mixture=[{path: x.jsonl}]"])
def test_rows_from_a_class_and_from_the_data_at_once_are_refused(name: str, key: str, mine: Path) -> None:
    found = refused("trainer=ppo", "rl=custom", f"rl.env_type={mine}:{name}", key)[key.partition("=")[0]]
    assert f"has no effect: {mine}:{name} (rl.env_type) brings its own rows" in str(found)


def test_a_class_whose_source_does_not_tell_takes_the_rows_that_are_named(mine: Path, run_of: Any) -> None:
    words = ("trainer=ppo", "rl=custom", f"rl.env_type={mine}:Unknown", "data.path=sample:second-letter")
    assert rows_from(run_of(*words)) is None


def test_an_environment_without_prompts_is_refused(mine: Path) -> None:
    words = ("trainer=ppo", "rl=custom", f"rl.env_type={mine}:Plain")
    assert "brings no prompts, and data.path names none" in str(refused(*words)["rl.env_type"])
    assert not refused(*words, "data.path=sample:second-letter")


class Brings(Environment):
    def __init__(self, rows: Any) -> None:
        self.given = rows

    def rows(self, tokenizer: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "brings no rows"),
        (None, "brings no rows"),
        ([{"prompt": "a"}, {"question": "b"}], "row 1 of mine.py:Env has no prompt; it has question"),
        ([{"prompt": "a", "x": {1, 2}}], "row 0 of mine.py:Env holds what JSON has no word for"),
        (KeyError("gone"), "cannot make its rows: KeyError: 'gone'"),
    ],
)
def test_rows_that_are_none_are_refused(given: Any, why: str) -> None:
    with pytest.raises(DataError, match=re.escape(why)):
        rows_of(Brings(given), None, "mine.py:Env")


def test_rows_are_kept_by_their_content(tmp_path: Path) -> None:
    text, digest = rows_of(Brings([{"prompt": "a", "case_idx": 0}, {"prompt": "é"}]), None, "mine.py:Env")
    file = keep_rows(text, digest, tmp_path)
    assert file == kept_rows(digest, tmp_path)
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][1] == {"prompt": "é"}
    assert keep_rows(text, digest, tmp_path) == file
    assert not kept_rows("0" * 64, tmp_path).exists()


def test_vllm_is_refused_where_it_cannot_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is not installed here, and there is no GPU."""
    words = ["trainer=ppo", "rl.use_vllm=true", "hardware=cpu", f"run.dir={tmp_path / 'r'}"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "rl.use_vllm: needs the package 'vllm'; pip install 'aitrain[vllm]'" in err
    assert "vLLM writes on a GPU, and this run is on a CPU" in err
    assert not (tmp_path / "r").exists()


def test_a_misspelt_trainer_brings_no_problems_of_another(composed: Compose) -> None:
    found = problems(composed("trainer=grop", "rl.max_new_tokens=16", "trainer.num_generations=4"))
    assert {key: problem.fix for key, problem in found.items()} == {"trainer": "trainer=grpo"}
