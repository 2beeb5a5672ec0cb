"""Rewards: each built-in, how they are named and combined, and what a faulty one leads to."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import math
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrain.errors import ConfigError
from aitrain.rl import REWARDS, Episode, RewardError, Rewards, Terms, load_reward, reward_files, reward_problems
from aitrain.rl.rewards.correctness import is_correct, last_number, same

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "reward"


def of(spec: Any, *texts: str, **columns: Any) -> list[float]:
    """What a reward gives to answers."""
    found = load_reward(spec)(["q"] * len(texts), list(texts), **columns)
    assert isinstance(found, list)
    return found


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# ---- built-ins ----


@pytest.mark.parametrize(
    ("spec", "text", "value"),
    [
        ("default", "", 0.0),
        ("default", "word " * 50, 0.5),
        ("default", "word " * 300, 1.0),
        ("length", "word " * 25, 0.25),
        ({"name": "length", "target": 10}, "w " * 10, 1.0),
        ({"name": "length", "target": 10}, "w " * 5, 0.5),
        ({"name": "length", "target": 10}, "w " * 15, 0.5),
        ({"name": "length", "target": 10}, "w " * 40, 0.0),
        ({"name": "length", "target": 4, "unit": "characters"}, "four", 1.0),
        ({"name": "length", "cap": 3.0}, "w " * 200, 2.0),
        ("length_penalty", "w " * 100, 0.0),
        ("length_penalty", "w " * 150, -0.5),
        ("length_penalty", "w " * 900, -1.0),
        ({"name": "length_penalty", "limit": 10}, "w " * 12, -0.2),
        ({"name": "regex", "pattern": r"^\d+$"}, "12", 1.0),
        ({"name": "regex", "pattern": "a.b"}, "xa\nbx", 1.0),
        ({"name": "regex", "pattern": "a.b", "whole": True}, "xa\nbx", 0.0),
        ({"name": "regex", "pattern": "YES", "ignore_case": True}, "yes", 1.0),
        ("format", "<think>a</think>\n<answer>b</answer>", 1.0),
        ("format", "<answer>b</answer><think>a</think>", 0.0),
        ("format", "<think>a</think> and <answer>b</answer>", 0.0),
        ("format", "<think>a</think><answer>b</answer> bye", 0.0),
        ("format", "<think> </think><answer>b</answer>", 0.0),
        ("format", "<think>a</think><answer>b", 0.0),
        ({"name": "format", "tags": ["a"]}, "<a>x</a><a>y</a>", 0.0),
        ({"name": "keyword", "keywords": ["cat", "dog"]}, "A Cat.", 0.5),
        ({"name": "keyword", "keywords": ["cat"]}, "concatenate", 0.0),
        ({"name": "keyword", "keywords": ["cat"], "whole_words": False}, "concatenate", 1.0),
        ({"name": "keyword", "keywords": ["a", "b"], "count": "number"}, "a b", 2.0),
        ({"name": "keyword", "keywords": ["a", "b"], "count": "any"}, "b", 1.0),
        ({"name": "keyword", "keywords": ["a", "b"], "count": "all"}, "b", 0.0),
        ({"name": "keyword", "keywords": ["C++"]}, "I like C++.", 1.0),
        ("repetition", "one two three four", 0.0),
        ("repetition", "", 0.0),
        ("repetition", "a " * 102, -0.99),
        ({"name": "repetition", "ngram": 1}, "a b a b", -0.5),
        ("json", '{"a": 1}', 1.0),
        ("json", 'Here:\n```json\n{"a": 1}\n```\nDone.', 1.0),
        ("json", '{"a": NaN}', 0.0),
        ("json", "{'a': 1}", 0.0),
        ("json", "[" * 100_000, 0.0),
        ({"name": "json", "required": ["a.b"]}, '{"a": {"b": null}}', 1.0),
        ({"name": "json", "required": ["a.c"]}, '{"a": {"b": null}}', 0.0),
        ({"name": "json", "fenced": False}, "```json\n1\n```", 0.0),
        ({"name": "script", "script": "latin"}, "abc где", 0.5),
        ({"name": "script", "script": "japanese"}, "これは漢字です。", 1.0),
        ({"name": "script", "script": "greek"}, "123", 0.0),
        ("python", "x = 1", 1.0),
        ("python", "Look:\n```python\ndef f():\n    return 1\n```", 1.0),
        ("python", "def f(:", 0.0),
        ("python", "", 0.0),
        ("python", "Yes", 0.0),
        ("python", "print(1)", 1.0),
    ],
)
def test_built_ins_that_need_no_column(spec: Any, text: str, value: float) -> None:
    assert of(spec, text) == pytest.approx([value])
    conversation = load_reward(spec)([[{"role": "user", "content": "q"}]], [chat(text)], trainer_state=[None])
    assert conversation == pytest.approx([value])


def test_exact_match() -> None:
    assert of("exact_match", " yes\n", "Yes", "no", answer=["yes", "yes", ["no", "nope"]]) == [1.0, 0.0, 1.0]
    assert of({"name": "exact_match", "answer": "gold", "ignore_case": True}, "Yes", gold=["yes"]) == [1.0]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16 - 3 - 4 = 9", 9), ("5-3", 3), ("(2)-1", 1), ("it is -7", -7), ("−7", -7), ("= -$5", -5), ("-5 or +6", 6),
        ("1,234,567.5", 1234567.5), ("12 345", 345), ("1,23", 23), ("$1,000", 1000), ("72.", 72), (".5", 0.5),
        ("1e3", 1000), ("2.5E-2 m", 0.025), ("3/4", 0.75), ("1 1/2 cups", 1.5), ("-1/4", -0.25), ("½", 0.5),
        ("2½", 2.5), (r"\frac{3}{8}", 0.375), (r"-\dfrac{1}{2}", -0.5), ("3 million people", 3_000_000),
        ("**42**", 42), (r"1{,}000", 1000), ("1/0 or 5", 5), ("no number", None), ("", None), ("½ of 8", 8),
    ],
)  # fmt: skip
def test_last_number(text: str, number: float | None) -> None:
    found = last_number(text)
    assert (None if found is None else float(found.value)) == number, text
    assert found is None or not found.percent


@pytest.mark.parametrize(
    ("given", "wanted", "right"),
    [
        ("so 72", "#### 72", True),
        ("#### 72\nNo wait: 80", "72", True),
        ("80 then #### 72", 72, True),
        (r"thus \boxed{\frac{1}{2}} of 3", "0.5", True),
        ("72 clips", "72 km", True),
        ("$1,200.00", "1200", True),
        ("1200 dollars", "$1,200", True),
        ("0.333333333", "1/3", True),
        ("0.33", "1/3", False),
        ("40%", "0.4", True),
        ("40 percent", "40", True),
        ("0.4", "40%", True),
        ("40%", "0.4%", False),
        ("71", "72", False),
        ("no idea", "72", False),
        ("", "72", False),
        ("x = 5", "x=5", True),
        ("0.30000000000000004", 0.3, True),
        ("The answer is Paris.", "Paris", True),
        ("Answer: paris", "Paris", True),
        ("First thoughts.\nParis", "Paris", True),
        ("I know Paris well, but London", "Paris", False),
        (r"\boxed{\text{Tuesday}}", "Tuesday", True),
        ("#### Monday\nTuesday", "Tuesday", False),
        ("It holds 747 seats", "Boeing 747", False),
        ("Boeing 747", "Boeing 747", True),
        ("(B)", "B", True),
    ],
)
def test_correctness(given: str, wanted: Any, right: bool) -> None:
    assert is_correct(given, wanted) is right
    assert of("correctness", given, answer=[wanted]) == [float(right)]


def test_the_tolerance_of_correctness() -> None:
    assert of({"name": "correctness", "tolerance": 0.05}, "103", "110", answer=["100", "100"]) == [1.0, 0.0]
    zero = last_number("0")
    assert zero is not None
    assert same(zero, zero, 0.0)


@pytest.mark.parametrize("text", ["9" * 200_000, "-" * 50_000, "1," * 50_000, "1 " * 50_000, "\\boxed{" * 9_000])
def test_correctness_is_quick_on_strange_answers(text: str) -> None:
    began = time.monotonic()
    is_correct(text, "72")
    is_correct(text, "a text")
    assert time.monotonic() - began < 2


@functools.cache
def gsm8k() -> list[dict[str, str]]:
    files = [REAL / "gsm8k" / f"{split}.jsonl" for split in ("train", "test")]
    if not all(path.is_file() for path in files):
        pytest.skip("the shared data are not on this machine")
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def test_correctness_on_grade_school_maths() -> None:
    rows = gsm8k()
    answers = [row["answer"] for row in rows]
    final = [answer.rpartition("####")[2].strip().replace(",", "") for answer in answers]
    assert of("correctness", *answers, answer=answers) == [1.0] * len(rows)
    assert of("correctness", *[f"That makes ${value}.00 in all." for value in final], answer=answers) == [1.0] * len(
        rows
    )
    shuffled, theirs = [*answers[1:], answers[0]], [*final[1:], final[0]]
    expected = [float(a == b) for a, b in zip(theirs, final, strict=True)]
    assert of("correctness", *shuffled, answer=answers) == expected
    assert sum(expected) < 20


# ---- naming them ----


def test_every_built_in_says_what_it_is_for_and_can_be_made() -> None:
    needed: dict[str, dict[str, Any]] = {
        "regex": {"pattern": "a"},
        "keyword": {"keywords": ["a"]},
        "script": {"script": "latin"},
        "judge": {"url": "http://localhost:1/v1", "model": "m"},
        "preference": {"reward": "length"},
        "custom": {"function": "json:loads"},
        "model": {"path": "folder"},
    }
    for name, reward in REWARDS.items():
        assert reward.__doc__
        reward(**needed.get(name, {}))
        docs = Path(__file__).parents[2] / "docs" / "rewards.md"
        table = docs.read_text(encoding="utf-8")
        assert f"| `{name}` |" in table, "docs/rewards.md lists every reward"
        for option in reward.model_fields:
            assert f"`{option}`" in table, f"docs/rewards.md names {name}'s option {option}"


USER = """
def score(completions, answer, **columns):
    return [float(c == a) for c, a in zip(completions, answer)]

async def later(prompts, completions, **columns):
    return [1.0 for _ in completions]

class NotAFunction: ...
LIMIT = 3
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(USER)
    return path


def test_a_users_function_from_a_file(user_file: Path) -> None:
    reward = load_reward(f"{user_file}:score")
    assert reward(prompts=["q"], completions=["a"], answer=["a"]) == [1.0]
    assert load_reward({"name": "custom", "function": f"{user_file}:score"}) is reward
    files = reward_files([f"{user_file}:score", "length"])
    assert list(files) == [str(user_file)]
    assert len(files[str(user_file)]) == 64
    user_file.write_text(USER.replace("float(c == a)", "0.25"))
    assert load_reward(f"{user_file}:score")(completions=["a"], answer=["a"]) == [0.25]


def test_a_users_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "aitrain_neighbour_of_a_test.py").write_text("VALUE = 0.5\n")
    (tmp_path / "r.py").write_text(
        "from aitrain_neighbour_of_a_test import VALUE\ndef f(completions): return [VALUE for _ in completions]\n"
    )
    assert load_reward(f"{tmp_path}/r.py:f")(completions=["a"]) == [0.5]
    assert str(tmp_path) not in sys.path
    sys.modules.pop("aitrain_neighbour_of_a_test")


def test_checks_do_not_run_the_users_file(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\ndef score(completions): return []\n")
    assert reward_problems(f"{path}:score") == []
    assert [str(p) for p in reward_problems(f"{path}:scor")] == [
        f"rl.reward_fn: {path} has no 'scor'; did you mean 'score'?"
    ]
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("spec", "key", "says"),
    [
        ("lenght", "", "no reward 'lenght'; did you mean 'length'?"),
        ("wibble", "", "no reward 'wibble'; there is code, correctness,"),
        ("missing.py:score", "", "no such file: missing.py"),
        ("nosuchpackage.rewards:score", "", "there is no installed package 'nosuchpackage'"),
        ("keyword", "", "the reward 'keyword' needs options; write {name: keyword, keywords: VALUE}"),
        ("custom", "", "the reward 'custom' needs options; write {name: custom, function: VALUE}"),
        ({"name": "custom", "function": "just words"}, "", "'just words' names no function"),
        ({"name": "length", "tarjet": 3}, ".tarjet", "unknown option; did you mean 'target'?"),
        ({"name": "length", "target": 0}, ".target", "input should be greater than 0, not 0"),
        ({"name": "length", "target": "40"}, ".target", "input should be a valid integer, not '40'"),
        ({"name": "length", "weight": "big"}, ".weight", "should be a finite number, not 'big'"),
        ({"name": "regex", "pattern": "("}, ".pattern", "'(' is no regular expression"),
        ({"name": "format", "tags": ["<a>"]}, ".tags", "should be different names of tags without brackets"),
        ({"name": "script", "script": "latn"}, ".script", "no script 'latn'; did you mean 'latin'?"),
        ({"name": "preference"}, "", "needs either reward (what scores both answers) or compare"),
        ({"name": "preference", "reward": "lenght"}, ".reward", "no reward 'lenght'; did you mean 'length'?"),
        ({"name": "judge", "url": "x", "model": "m"}, ".url", "'x' is no address of a server"),
        (
            {"name": "judge", "url": "http://h", "model": "m", "token_env": "AITRAIN_NO_SUCH"},
            ".token_env",
            "the environment variable AITRAIN_NO_SUCH is not set",
        ),
        ({"name": "judge", "url": "http://a:b@h/", "model": "m"}, ".url", "holds a password"),
        ({"name": "judge", "url": "http://h", "model": "m", "ask": "hm"}, ".ask", "does not show the answer"),
        (["length", "length"], "[1]", "another reward is named 'length' too; add 'as: NAME'"),
        ([], "", "holds no reward"),
        (3, "", "should name a reward, not 3"),
        ({"a": {"type": "foo"}}, ".a", "no reward 'foo'"),
        ({"target": 3}, ".target", "should name a reward, not 3"),
    ],
)
def test_what_is_wrong_with_a_spec(spec: Any, key: str, says: str) -> None:
    problems = reward_problems(spec)
    assert [problem.key for problem in problems] == [f"rl.reward_fn{key}"]
    assert str(problems[0]).removeprefix(f"rl.reward_fn{key}: ").startswith(says), problems[0]
    with pytest.raises(ConfigError):
        Rewards(spec)


def test_all_problems_are_told_at_once() -> None:
    specs = ["lenght", {"name": "keyword"}, "code", "correctness"]
    found = reward_problems(specs, weights={"correctnes": 1.0, "correctness": math.nan}, columns=["anser"])
    assert [problem.key for problem in found] == [
        "rl.reward_fn[0]",
        "rl.reward_fn[1].keywords",
        "rl.allow_code_execution",
        "rl.reward_fn[2]",
        "rl.reward_fn[3]",
        "rl.reward_weights.correctness",
    ]
    assert "needs the column 'answer', which the rows do not have; did you mean 'anser'?" in str(found[4])


def test_weights() -> None:
    specs = ["length", {"name": "json", "weight": 0.5}, {"name": "length", "target": 3, "as": "short"}]
    assert Rewards(specs).weights == {"length": 1.0, "json": 0.5, "short": 1.0}
    assert Rewards(specs, {"short": -2}).weights == {"length": 1.0, "json": 0.5, "short": -2.0}
    assert Rewards(["length", "json"], [2, 3.5]).weights == {"length": 2.0, "json": 3.5}
    assert Rewards({"a": "length", "b": {"type": "json"}}, {"b": 2}).weights == {"a": 1.0, "b": 2.0}
    wrong = reward_problems(specs, weights={"shrot": 1, "json": 1})
    assert [str(problem) for problem in wrong] == [
        "rl.reward_weights.shrot: no reward has this name; did you mean 'short'?",
        "rl.reward_weights.json: the reward has a weight of its own too; remove one of them",
    ]
    assert "holds 1 weights for 2 rewards" in str(reward_problems(["length", "json"], weights=[1])[0])


def test_a_reward_model_comes_from_whoever_loads_models(tmp_path: Path) -> None:
    asked = []

    def load_model(path: str) -> Callable[..., list[float]]:
        asked.append(path)
        return lambda prompts, completions, **columns: [2.0] * len(prompts)

    terms = Terms(load_model=load_model)
    for spec in (str(tmp_path), {"name": "model", "path": "org/name"}, "org/name", "sample:reward"):
        assert Rewards(spec, terms=terms).scores(["q"], ["a"], {}) == {"model": [2.0]}
    assert asked == [str(tmp_path), "org/name", "org/name", "sample:reward"]
    with pytest.raises(ConfigError, match="nothing here can load the reward model"):
        load_reward("org/name")


# ---- calling them ----


def episodes(*texts: str, conversation: bool = False, **columns: list[Any]) -> list[Episode]:
    return [
        Episode(
            [{"role": "user", "content": f"question {i}"}] if conversation else f"question {i}",
            {name: values[i] for name, values in columns.items()},
            chat(text),
        )
        for i, text in enumerate(texts)
    ]


def test_rewards_of_episodes() -> None:
    rewards = Rewards(["correctness", {"name": "length", "target": 1}])
    assert rewards(episodes("4", "5 or", answer=[4, 4])) == [
        {"correctness": 1.0, "length": 1.0},
        {"correctness": 0.0, "length": 0.0},
    ]
    assert rewards(episodes("4", conversation=True, answer=[4])) == [{"correctness": 1.0, "length": 1.0}]
    assert rewards([]) == []


def test_what_a_function_is_given() -> None:
    seen: dict[str, Any] = {}

    def swallows(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        seen["all"] = (prompts, completions, columns)
        return [0.0] * len(prompts)

    def names(completions: Any, level: Any, unknown: Any = 3) -> list[bool]:
        seen["some"] = (completions, level, unknown)
        return [True] * len(completions)

    found = Rewards([swallows, names])(episodes("a", "b", level=[1, 2], prompts=["x", "y"]))
    assert found == [{"swallows": 0.0, "names": 1.0}] * 2
    assert seen["all"] == (["question 0", "question 1"], ["a", "b"], {"level": [1, 2]})
    assert seen["some"] == (["a", "b"], [1, 2], 3)
    Rewards(swallows)(episodes("a", conversation=True))
    assert seen["all"][:2] == ([[{"role": "user", "content": "question 0"}]], [chat("a")])


def test_async_rewards_are_awaited_together_and_beside_the_others() -> None:
    """Each of the three ends only once all have begun."""
    begun = {name: threading.Event() for name in ("one", "two", "blocking")}

    async def all_begun(name: str, value: float, count: int) -> list[float]:
        begun[name].set()
        deadline = time.monotonic() + 20
        while not all(event.is_set() for event in begun.values()):
            assert time.monotonic() < deadline, "the others did not begin"
            await asyncio.sleep(0.001)
        return [value] * count

    async def one(completions: list[str], **_: Any) -> list[float]:
        return await all_begun("one", 1.0, len(completions))

    async def two(completions: list[str], **_: Any) -> list[float]:
        return await all_begun("two", 2.0, len(completions))

    def blocking(completions: list[str], **_: Any) -> list[float]:
        begun["blocking"].set()
        assert all(event.wait(20) for event in begun.values()), "the others did not begin"
        return [3.0] * len(completions)

    rewards = Rewards([one, two, blocking])
    expected = [{"one": 1.0, "two": 2.0, "blocking": 3.0}]
    assert rewards(episodes("a")) == expected

    async def notebook() -> list[dict[str, float]]:
        return rewards(episodes("a"))

    for event in begun.values():
        event.clear()
    assert asyncio.run(notebook()) == expected


def test_a_users_async_function(user_file: Path) -> None:
    assert Rewards(f"{user_file}:later")(episodes("a", "b")) == [{"later": 1.0}, {"later": 1.0}]


class Tensor(list[Any]):
    """What numpy and torch have in common here."""

    def tolist(self) -> list[Any]:
        return list(self)


BAD: dict[str, tuple[Any, str]] = {
    "nothing": (lambda n: None, "returned None, not a list of 3 numbers"),
    "a number": (lambda n: 1.0, "returned 1.0, not a list of 3 numbers"),
    "a text": (lambda n: "abc", "returned 'abc', not a list of 3 numbers"),
    "too few": (lambda n: [1.0] * (n - 1), "returned 2 values for 3 answers"),
    "none inside": (lambda n: [1.0] + [None] * (n - 1), "returned None where a finite number belongs"),
    "nan": (lambda n: [1.0] + [math.nan] * (n - 1), "returned nan where a finite number belongs"),
    "inf": (lambda n: Tensor([1.0] + [math.inf] * (n - 1)), "returned inf where a finite number belongs"),
    "words": (lambda n: ["1"] * n, "returned '1' where a finite number belongs"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_faulty_reward_is_named_with_its_prompt(kind: str, is_async: bool) -> None:
    make, says = BAD[kind]

    def plain(prompts: Any, **_: Any) -> Any:
        return make(len(prompts))

    async def awaited(prompts: Any, **_: Any) -> Any:
        return make(len(prompts))

    reward = awaited if is_async else plain
    with pytest.raises(RewardError) as caught:
        Rewards({"good": "length", "bad": reward})(episodes("a", "b", "c"))
    assert says in str(caught.value)
    assert f"'bad' ({reward.__name__})" in str(caught.value)
    whole = "not a list" in says or "values for" in says or kind == "words"
    assert caught.value.prompt == f"question {0 if whole else 1}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    kind_of = Rewards({"good": "length", "bad": reward}, on_error="penalty", penalty=-3.0)
    found = kind_of(episodes("a", "b", "c"))
    assert [each["bad"] for each in found] == ([-3.0] * 3 if whole else [1.0, -3.0, -3.0])
    assert kind_of.faults == {"bad": 3 if whole else 2}
    assert says in kind_of.first_faults["bad"]


def test_a_reward_that_raises_for_one_row_spoils_no_other() -> None:
    def picky(prompts: list[str], completions: list[str]) -> list[float]:
        if "bad" in completions:
            raise ValueError("cannot read this")
        return [float(len(completions))] * len(prompts)  # what it says of a whole batch

    with pytest.raises(
        RewardError, match=r"picky.*ValueError: cannot read this \(.*test_rl_rewards.py:\d+\)"
    ) as caught:
        Rewards(picky)(episodes("a", "b", "bad", "c"))
    assert caught.value.prompt == "question 2"
    rewards = Rewards(picky, on_error="penalty")
    assert [each["picky"] for each in rewards(episodes("a", "b", "bad", "c"))] == [3.0, 3.0, -1.0, 3.0]
    assert rewards.faults == {"picky": 1}


def test_a_column_that_is_missing_is_said_so() -> None:
    with pytest.raises(RewardError, match="needs the column 'answer'; the rows have level, solution"):
        Rewards("correctness")(episodes("a", level=[1], solution=["b"]))

    def mine(completions: Any, gold: Any) -> list[float]:
        return [0.0]

    with pytest.raises(RewardError, match="asks for 'gold', which is no column of the rows; they have level"):
        Rewards(mine)(episodes("a", level=[1]))


def test_a_long_prompt_is_shortened() -> None:
    with pytest.raises(RewardError) as caught:
        Rewards(lambda prompts: None)([Episode("word " * 1000, {}, chat("a"))])
    assert len(caught.value.prompt) == 80


# ---- preference ----


def test_preference_by_a_reward_and_by_a_function(tmp_path: Path) -> None:
    spec = {"name": "preference", "reward": {"name": "length", "per": 1, "cap": 10.0}, "reference": "theirs"}
    found = of(spec, "a b", "a", "a b c", theirs=["a b", "a b", "a"])
    assert found == pytest.approx([0.5, 1 / (1 + math.e), 1 / (1 + math.exp(-2))])
    conversation = load_reward(spec)([[{"role": "user", "content": "q"}]], [chat("a b")], theirs=["a b"])
    assert conversation == [0.5]
    (tmp_path / "c.py").write_text(
        "def better(prompts, completions, references, **columns):\n"
        "    return [float(len(c) > len(r)) for c, r in zip(completions, references)]\n"
    )
    assert of({"name": "preference", "compare": f"{tmp_path}/c.py:better"}, "aa", "a", reference=["a", "aa"]) == [
        1.0,
        0.0,
    ]
    (tmp_path / "d.py").write_text("def better(completions, references): return [2.0]\n")
    with pytest.raises(RewardError, match="returned nan"):
        Rewards({"name": "preference", "compare": f"{tmp_path}/d.py:better"})(episodes("a", reference=["b"]))


# ---- judge ----


class Stub(http.server.BaseHTTPRequestHandler):
    """A chat server that marks by what the answer says."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        text = body["messages"][0]["content"]
        server.seen.append({"path": self.path, "token": self.headers.get("Authorization"), **body})
        answer = text.partition("<answer>\n")[2].partition("\n</answer>")[0]
        if answer == "busy" and len(server.seen) < 2:
            self.send_error(503)
        elif answer == "forbidden":
            self.send_error(403, "no")
        elif answer == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "/other")
            self.end_headers()
        else:
            if server.together:
                server.together.wait(20)
            said = {"good": "8", "thinks": "<think>3 or 4</think>\n10/10", "odd": "very good", "much": "11"}
            reply = json.dumps({"choices": [{"message": {"content": said.get(answer, "2.5")}}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        return


class StubServer(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # with the default of 5, one of eight calls at once may have to knock again a second later


@pytest.fixture
def server() -> Iterator[Any]:
    stub: Any = StubServer(("127.0.0.1", 0), Stub)
    stub.seen, stub.together = [], None
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    stub.shutdown()
    stub.server_close()
    thread.join()


def judge(server: Any, **options: Any) -> dict[str, Any]:
    return {"name": "judge", "url": f"http://127.0.0.1:{server.server_address[1]}/v1", "model": "m", **options}


def test_a_judge_gives_marks(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AITRAIN_TEST_TOKEN", "s3cret")
    server.together = threading.Barrier(8)  # no reply before eight have asked
    rewards = Rewards(judge(server, token_env="AITRAIN_TEST_TOKEN"))
    found = rewards(episodes("good", "thinks", "{prompt}", "a", "b", "c", "d", "e", conversation=True))
    assert [each["judge"] for each in found] == [0.8, 1.0, *[0.25] * 6]
    assert {call["path"] for call in server.seen} == {"/v1/chat/completions"}
    assert {call["token"] for call in server.seen} == {"Bearer s3cret"}
    asked = [call["messages"][0]["content"] for call in server.seen]
    assert any("<question>\nuser: question 2\n</question>\n<answer>\n{prompt}\n</answer>" in text for text in asked)


def test_a_judge_tries_again_and_says_what_failed(server: Any) -> None:
    assert Rewards(judge(server))(episodes("busy")) == [{"judge": 0.25}]
    for text, says in {
        "odd": "the judge's reply has no mark from 0 to 10: 'very good'",
        "much": "no mark from 0 to 10",
        "forbidden": "answered 403",
        "elsewhere": "answered 302",
    }.items():
        with pytest.raises(RewardError, match=says) as caught:
            Rewards(judge(server))(episodes("good", text))
        assert caught.value.prompt == "question 1"
    rewards = Rewards(judge(server), on_error="penalty", penalty=0.0)
    assert [each["judge"] for each in rewards(episodes("good", "odd"))] == [0.8, 0.0]
    assert rewards.faults == {"judge": 1}
    assert not any(call["path"] == "/other" for call in server.seen)


def test_a_judge_that_is_not_there() -> None:
    with pytest.raises(RewardError, match="refused"):
        Rewards({"name": "judge", "url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0})(episodes("a"))


def test_a_judge_may_read_columns(server: Any) -> None:
    spec = judge(server, ask="Right is {gold}. <answer>\n{completion}\n</answer>")
    assert [p.key for p in reward_problems(spec, columns=["answer"])] == ["rl.reward_fn"]
    assert Rewards(spec)(episodes("good", gold=["4"])) == [{"judge": 0.8}]
    assert server.seen[0]["messages"][0]["content"].startswith("Right is 4. <answer>")


def test_nothing_here_loads_torch() -> None:
    script = (
        "import sys, aitrain.rl\n"
        "from aitrain.rl import *\n"
        "Rewards(['length', 'correctness']); load_environment('math'); check('code')\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
