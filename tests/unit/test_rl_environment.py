"""Environments: the built-in ones, tools, and classes of the user's in both forms."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aitrain.errors import ConfigError, DataError
from aitrain.rl import (
    ENVIRONMENTS,
    Asked,
    Environment,
    Episode,
    RewardError,
    Step,
    adopted,
    check,
    files,
    load_environment,
    play,
    total,
)
from aitrain.rl.tools import calls_in, schemas


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def fails() -> None:
    """Fails."""
    raise RuntimeError("out of order")


async def later(a: int) -> dict[str, int]:
    """Comes later.

    Args:
        a: A number.
    """
    return {"a": a}


def tagged(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Summing(Environment):
    """Sums with a tool."""

    max_turns = 3
    tools = (add, fails, later)

    def score(self, episodes: Sequence[Episode]) -> list[dict[str, float]]:
        return [{"right": float(e.completion == str(e.columns["answer"]))} for e in episodes]


# ---- episodes and turns ----


def test_an_episode_keeps_the_row() -> None:
    episode = Environment().reset({"prompt": "q", "answer": 3, "level": "easy"})
    assert (episode.prompt, dict(episode.columns), episode.turns) == ("q", {"answer": 3, "level": "easy"}, [])
    assert episode.completion == ""
    episode.turns += [
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
        {"role": "tool", "content": "?"},
    ]
    assert (episode.completion, episode.answers) == ("two", 2)
    assert Environment().step(episode) == Step(done=True)


def test_total() -> None:
    assert total({"a": 2.0, "b": 3.0}, {"a": 0.5, "b": -1}) == -2.0
    assert total({"a": 2.0}, {}) == 2.0


def test_a_tool_is_called_and_answers() -> None:
    answers = {0: [tagged("add", a=2, b=3), "5"], 1: ["7"], 2: [tagged("add", a=1, b=1), tagged("add", a=2, b=2), "4"]}
    rows = [{"prompt": [{"role": "user", "content": str(i)}], "answer": a, "case": i} for i, a in enumerate((5, 8, 4))]
    sizes = []

    def answer(going: list[Episode]) -> list[tuple[str, bool]]:
        sizes.append(len(going))
        return [(answers[episode.columns["case"]].pop(0), True) for episode in going]

    environment = Summing()
    episodes = play(environment, rows, answer)
    assert sizes == [3, 2, 1]
    assert episodes[0].turns[1] == {"role": "tool", "name": "add", "content": "5"}
    assert environment.score(episodes) == [{"right": 1.0}, {"right": 0.0}, {"right": 1.0}]
    assert [(e.tool_calls, e.tool_errors) for e in episodes] == [(1, 0), (0, 0), (2, 0)]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"name": "add", "arguments": {"a": 1, "b": 2}}', "3"),
        ('```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```', "3"),
        ('{"name": "add", "parameters": {"a": 1, "b": 2}}', "3"),
        ('[{"name": "add", "arguments": {"a": 1, "b": 2}}]', "3"),
        ('{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}}', "3"),
        ("I shall add.\n" + tagged("add", a=1, b=2), "3"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}', "3"),
        (tagged("later", a=1), '{"a": 1}'),
        (tagged("fails"), "error: RuntimeError: out of order"),
        (tagged("ad", a=1), "error: there is no tool 'ad'; did you mean 'add'?"),
        (tagged("add", a=1), "error: add cannot be called with these arguments: missing a required argument: 'b'"),
        (tagged("add", a=1, b="x"), "error: TypeError: unsupported operand"),
        ("<tool_call>{oh}</tool_call>", "error: the call is no JSON"),
        ("<tool_call>[1]</tool_call>", 'error: a call is an object with "name" and "arguments"'),
        ('<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>', "error: the arguments should be an object"),
    ],
)
def test_ways_to_call_a_tool(text: str, content: str) -> None:
    environment = Summing()
    episode = Episode([], {}, [{"role": "assistant", "content": text}])
    step = environment.step(episode)
    assert not step.done
    (message,) = step.messages
    assert message["role"] == "tool"
    assert message["content"].startswith(content)
    assert (episode.tool_calls, episode.tool_errors) == (1, int(content.startswith("error")))


@pytest.mark.parametrize(
    "text", ["", "5", '{"name": "Ann", "age": 3}', '{"answer": 5}', "[]", "[1, 2]", '{"name": "add"}', "null", '"add"']
)
def test_an_answer_that_is_json_is_no_call(text: str) -> None:
    assert calls_in({"role": "assistant", "content": text}) == []
    assert Summing().step(Episode([], {}, [{"role": "assistant", "content": text}])).done


def test_structured_and_several_calls() -> None:
    turn = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
    assert [(call.name, dict(call.arguments)) for call in calls_in(turn)] == [("add", {"a": 1})]
    both = Episode([], {}, [{"role": "assistant", "content": tagged("add", a=1, b=1) + tagged("fails")}])
    messages = Summing().step(both).messages
    assert [message["content"] for message in messages] == ["2", "error: RuntimeError: out of order"]
    assert (both.tool_calls, both.tool_errors) == (2, 1)


def test_turns_are_bounded() -> None:
    calls = []

    def answer(going: list[Episode]) -> list[tuple[str, bool]]:
        calls.append(len(going))
        return [(tagged("add", a=1, b=1), False) for _ in going]

    (episode,) = play(Summing(), [{"prompt": [], "answer": 2}], answer)
    assert len(calls) == 3
    assert [turn["role"] for turn in episode.turns] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert episode.tool_calls == 2
    assert not episode.ended


# ---- the built-in ones ----


def answered(text: str, prompt: Any = "q", **columns: Any) -> Episode:
    return Episode(prompt, columns, [{"role": "assistant", "content": text}])


def test_text_generation() -> None:
    environment = load_environment("text_generation")
    assert environment.score([answered("word " * 10)]) == [{"default": 0.1}]
    asked = Asked(["correctness", {"name": "length", "target": 1}], {"length": 0.5})
    environment = load_environment("text_generation", {}, asked)
    (found,) = environment.score([answered("4", answer=4)])
    assert found == {"correctness": 1.0, "length": 1.0}
    assert total(found, environment.weights) == 1.5


def test_multi_objective() -> None:
    config = {
        "reward_components": {
            "brief": {"type": "length", "target": 2},
            "kind": {"type": "keyword", "keywords": ["please"]},
        }
    }
    environment = load_environment("multi_objective", config, Asked(weights={"kind": 3}))
    assert environment.score([answered("please wait"), answered("wait")]) == [
        {"brief": 1.0, "kind": 1.0},
        {"brief": 0.5, "kind": 0.0},
    ]
    assert environment.weights == {"brief": 1.0, "kind": 3.0}
    assert load_environment("multi_objective", {}, Asked(["length", "json"])).weights == {"length": 1.0, "json": 1.0}


def test_preference_comparison(tmp_path: Path) -> None:
    environment = load_environment("preference_comparison", {}, Asked("length"))
    assert environment.score([answered("a b", reference="a b")]) == [{"preference": 0.5}]
    (tmp_path / "c.py").write_text("def better(completions, references): return [0.75 for _ in references]\n")
    environment = load_environment("preference_comparison", {"compare": f"{tmp_path}/c.py:better"})
    assert environment.score([answered("a", reference="b")]) == [{"preference": 0.75}]


def test_math() -> None:
    environment = load_environment("math", {"answer": "gold"})
    texts = ["So it is 5.\n#### 5", "5", "The answer is 6", r"\boxed{5}", "hm"]
    found = environment.score([answered(text, gold="#### 5") for text in texts])
    assert [each["correct"] for each in found] == [1, 1, 0, 1, 0]
    assert [each["format"] for each in found] == [1, 0, 1, 1, 0]
    assert total(found[0], environment.weights) == pytest.approx(1.1)
    weighted = load_environment("math", {}, Asked(weights={"format": 0.0}))
    assert weighted.weights == {"correct": 1.0, "format": 0.0}


def test_a_built_in_with_tools_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("def add(a: int, b: int) -> int:\n    '''Adds.'''\n    return a + b\n")
    config = {"tools": [f"{tmp_path}/t.py:add"], "max_turns": 2}
    environment = load_environment("math", config)
    said = iter([tagged("add", a=2, b=3), "#### 5"])
    (episode,) = play(environment, [{"prompt": [], "answer": "5"}], lambda going: [(next(said), True)])
    assert environment.score([episode]) == [{"correct": 1.0, "format": 1.0}]
    assert list(files("math", config)) == [f"{tmp_path}/t.py"]


# ---- what is wrong ----


@pytest.mark.parametrize(
    ("name", "config", "asked", "says"),
    [
        ("maths", {}, Asked(), "rl.env_type: no environment 'maths'; did you mean 'math'?"),
        ("custom", {}, Asked(), "rl.env_type: no environment 'custom'; there is text_generation, multi_objective"),
        ("math", {"tolernce": 1}, Asked(), "rl.env_config.tolernce: unknown option; did you mean 'tolerance'?"),
        ("math", {"temperature": 1}, Asked(), "rl.env_config.temperature: is no option of an environment; set rl.temp"),
        ("math", {"max_turns": 0}, Asked(), "rl.env_config.max_turns: input should be greater than or equal to 1"),
        ("math", {"format": "("}, Asked(), "rl.env_config.format.pattern: '(' is no regular expression"),
        ("math", {}, Asked("length"), "rl.reward_fn: has no effect, math scores by itself"),
        ("math", {"tools": ["x"], "max_turns": 2}, Asked(), "rl.env_config.tools: 'x' names no function"),
        ("math", {"tools": ["json:loads"]}, Asked(), "rl.env_config.max_turns: the model would never see"),
        ("math", {}, Asked(weights={"corect": 1}), "rl.reward_weights.corect: no reward has this name; did you mean"),
        ("text_generation", {}, Asked("lenght"), "rl.reward_fn: no reward 'lenght'; did you mean 'length'?"),
        ("multi_objective", {}, Asked(), "rl.env_config.reward_components: holds no component"),
        (
            "multi_objective",
            {"reward_components": {"a": {"type": "nonsense"}}},
            Asked(),
            "rl.env_config.reward_components.a: no reward 'nonsense'",
        ),
        (
            "multi_objective",
            {"reward_components": {"a": "json"}},
            Asked("length"),
            "rl.reward_fn: has no effect beside",
        ),
        ("preference_comparison", {}, Asked(), "rl.env_config.preference_model: nothing compares the answers"),
        ("code", {}, Asked(), "rl.allow_code_execution: is off, and the code reward runs programs"),
        ("missing.py:Env", {}, Asked(), "rl.env_type: no such file: missing.py"),
    ],
)
def test_what_is_wrong_with_an_environment(name: str, config: dict[str, Any], asked: Asked, says: str) -> None:
    problems = check(name, config, asked)
    assert str(problems[0]).startswith(says), problems
    with pytest.raises(ConfigError):
        load_environment(name, config, asked)


def test_columns_are_checked_where_they_are_known() -> None:
    for name, asked in {"math": Asked(), "text_generation": Asked("exact_match")}.items():
        assert check(name, {}, asked, columns=["answer"]) == []
        (problem,) = check(name, {}, asked, columns=["answr"])
        assert "needs the column 'answer', which the rows do not have; did you mean 'answr'?" in str(problem)


def test_the_docs_name_every_environment_and_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    for name, environment in ENVIRONMENTS.items():
        assert f"| `{name}` |" in text
        for option in environment.options_class.model_fields:
            assert f"`{option}`" in text, (name, option)


# ---- classes of the user's ----

CASES = '''
class Cases:
    """Twenty sums, with prompts of its own."""

    def __init__(self, count, bonus=0.0):
        self.count, self.bonus = count, bonus

    def build_dataset(self, tokenizer):
        return [{"prompt": f"{i} + {i} =", "case_idx": i} for i in range(self.count)]

    def score_episode(self, model, tokenizer, completion, case_idx):
        return float(completion.strip() == str(2 * case_idx)) + self.bonus

    def get_tools(self):
        return []
'''


@pytest.fixture
def cases(tmp_path: Path) -> str:
    (tmp_path / "cases.py").write_text(CASES)
    return f"{tmp_path}/cases.py:Cases"


def test_an_environment_with_prompts_of_its_own(cases: str) -> None:
    environment = load_environment(cases, {"count": 20, "bonus": 0.5})
    environment.bind("model", "tokenizer")
    rows = list(environment.rows("tokenizer") or ())
    assert len(rows) == 20
    episodes = play(environment, rows, lambda going: [(str(2 * e.columns["case_idx"]), True) for e in going])
    random.Random(0).shuffle(episodes)
    assert environment.score(episodes) == [{"reward": 1.5}] * 20, "an answer is scored for its own prompt"
    assert environment.score(episodes[3:5] + episodes[:1]) == [{"reward": 1.5}] * 3
    assert list(files(cases)) == [cases.rpartition(":")[0]]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "rl.env_config.count: is needed by Cases; add count: VALUE"),
        ({"count": 1, "bonos": 1}, "rl.env_config.bonos: unknown option of Cases; did you mean 'bonus'?"),
    ],
)
def test_options_of_a_users_class(cases: str, config: dict[str, Any], says: str) -> None:
    assert [str(problem) for problem in check(cases, config)] == [says]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            "def build_dataset(self, tokenizer): ...",
            "E has no score_episode; it needs score(episodes), or build_dataset",
        ),
        ("pass", "E has no score; it needs score(episodes), or"),
    ],
)
def test_methods_that_are_missing(tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "e.py").write_text(f"class E:\n    {body}\n")
    (problem,) = check(f"{tmp_path}/e.py:E")
    assert problem.key == "rl.env_type"
    assert says in str(problem)
    (tmp_path / "f.py").write_text(f"class E:\n    {body}\ndef make(): return E()\n")
    assert check(f"{tmp_path}/f.py:make") == []
    with pytest.raises(ConfigError, match="E has no score"):
        load_environment(f"{tmp_path}/f.py:make")


def test_a_users_class_that_only_offers_the_methods(tmp_path: Path) -> None:
    (tmp_path / "e.py").write_text(
        "from aitrain.rl import Step\n"
        "class E:\n"
        "    max_turns = 2\n"
        "    weights = {'a': 2.0}\n"
        "    def step(self, episode):\n"
        "        episode.state['seen'] = episode.completion\n"
        "        return Step([{'role': 'user', 'content': 'again'}], done=False)\n"
        "    def score(self, episodes):\n"
        "        return [{'a': float(len(e.turns)), 'b': 1} for e in episodes]\n"
    )
    environment = load_environment(f"{tmp_path}/e.py:E", {}, Asked(weights={"b": 0.5}))
    episodes = play(environment, [{"prompt": "q"}] * 2, lambda going: [("x", True)] * len(going))
    assert environment.score(episodes) == [{"a": 3.0, "b": 1.0}] * 2
    assert environment.weights == {"a": 2.0, "b": 0.5}
    assert episodes[0].state == {"seen": "x"}


def test_a_class_with_another_base_is_judged_by_its_object(tmp_path: Path) -> None:
    (tmp_path / "e.py").write_text(
        "class A:\n    def score(self, episodes): return [1.0] * len(episodes)\nclass E(A): ...\n"
    )
    assert check(f"{tmp_path}/e.py:E") == []
    assert load_environment(f"{tmp_path}/e.py:E").score([answered("a")]) == [{"reward": 1.0}]


@pytest.mark.parametrize("value", [None, float("nan"), "high", {"a": None}])
def test_a_score_that_is_no_number_is_told(value: Any) -> None:
    own = adopted(SimpleNamespace(score=lambda episodes: [value] * len(episodes)))
    with pytest.raises(RewardError, match="where a finite number belongs") as caught:
        own.score([answered("a", prompt="the prompt")])
    assert caught.value.prompt == "the prompt"
    by_case = adopted(
        SimpleNamespace(
            build_dataset=lambda tokenizer: [], score_episode=lambda *_: value if value != {"a": None} else None
        )
    )
    with pytest.raises(RewardError, match="score_episode"):
        by_case.score([answered("a", case_idx=0)])


def test_scores_of_the_wrong_number_are_told() -> None:
    own = adopted(SimpleNamespace(score=lambda episodes: [1.0]))
    with pytest.raises(RewardError, match="returned 1 scores for 2 episodes"):
        own.score([answered("a"), answered("b")])


def test_prompts_that_an_environment_brings() -> None:
    def rows(data: Any) -> Any:
        return adopted(SimpleNamespace(build_dataset=lambda tokenizer: data, score_episode=lambda *_: 0.0)).rows(None)

    assert rows({"prompt": ["a", "b"], "case_idx": [7, 8]}) == [
        {"prompt": "a", "case_idx": 7},
        {"prompt": "b", "case_idx": 8},
    ]
    assert rows([{"prompt": "a"}, {"prompt": "b"}])[1] == {"prompt": "b", "case_idx": 1}
    with pytest.raises(DataError, match="returned no rows"):
        rows([])
    with pytest.raises(DataError, match="row 1 has no prompt; it has text"):
        rows([{"prompt": "a"}, {"text": "b"}])


def test_a_factory_and_its_tools_become_schemas() -> None:
    pytest.importorskip("transformers")
    environment = adopted(SimpleNamespace(score=lambda e: [], get_tools=lambda: [add, later]))
    described = schemas(environment.tools)
    assert [each["function"]["name"] for each in described] == ["add", "later"]
    assert described[0]["function"]["parameters"]["required"] == ["a", "b"]
