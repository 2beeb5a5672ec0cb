"""Programs of a model: what passes, and what holds the others back."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aitrain.errors import ConfigError
from aitrain.rl import Episode, Rewards, Terms, load_reward, reward_problems
from aitrain.rl.rewards.code import Code, solution
from aitrain.rl.sandbox import Limits, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs process groups and resource limits")
HUMAN_EVAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "reward" / "human_eval" / "test.jsonl"
ISOLATED = run("pass").isolated
on_linux = pytest.mark.skipif(not ISOLATED, reason="namespaces are not allowed on this machine")
WAYS = [True, False] if ISOLATED else [False]


def marked_processes(mark: str) -> list[int]:
    """Processes whose command line or program holds a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("namespaces", WAYS)
def test_a_program_passes_when_it_comes_to_its_end(namespaces: bool) -> None:
    outcome = run("print('a' * 100_000)\nassert 1 + 1 == 2", namespaces=namespaces)
    assert (outcome.reason, outcome.isolated) == ("passed", namespaces)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("assert 1 + 1 == 3, 'no'", "AssertionError: no"),
        ("import sys; sys.exit(0)", ""),
        ("import os; os._exit(0)", ""),
        ("import os; os.write(3, b'guess'); os._exit(0)", ""),
        ("def f(:", "SyntaxError"),
        ("x = bytearray(2 << 30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(20 << 20))", "File too large"),
        ("files = [open('f', 'w') for _ in range(100)]", "Too many open files"),
        ("import ctypes; ctypes.string_at(0)", ""),
    ],
)
def test_a_program_fails(source: str, says: str) -> None:
    outcome = run(source)
    assert outcome.reason == "failed"
    assert says in outcome.error


@pytest.mark.parametrize("namespaces", WAYS)
def test_a_program_is_stopped_in_time_with_all_that_it_started(namespaces: bool) -> None:
    mark = f"aitrain-test-{os.getpid()}-{namespaces}"
    source = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {mark!r}], start_new_session=True)\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"
        "while True: pass"
    )
    began = time.monotonic()
    assert run(source, Limits(seconds=1), namespaces=namespaces).reason == "time"
    assert time.monotonic() - began < 4
    assert marked_processes(mark) == []


def test_processes_that_outlive_their_program_are_ended() -> None:
    mark = f"aitrain-test-{os.getpid()}-left"
    source = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {mark!r}], start_new_session=True)"
    )
    for namespaces in WAYS:
        assert run(source, namespaces=namespaces).passed
        assert marked_processes(mark) == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are counted by Linux' lists of children")
def test_a_program_that_forks_without_end_is_stopped() -> None:
    outcome = run(
        "import os, time\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(30)\ntime.sleep(30)", Limits(20)
    )
    assert outcome.reason == "processes"


def test_its_environment_is_empty_and_its_folder_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AITRAIN_TEST_TOKEN", "s3cret")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = (
        "import os, sys\n"
        "open('kept', 'w').write('x')\n"
        "assert 'AITRAIN_TEST_TOKEN' not in os.environ and 'PATH' not in os.environ\n"
        "assert sys.flags.isolated and os.listdir() and os.getcwd() not in sys.path"
    )
    outcome = run(source)
    assert outcome.passed, outcome.error
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_with_namespaces_it_reaches_neither_network_nor_files_nor_processes(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    source = (
        "import os, socket\n"
        "def refused(call):\n"
        "    try: call()\n"
        "    except OSError: return True\n"
        "assert refused(lambda: socket.create_connection(('127.0.0.1', 9), 1))\n"
        "assert [name for _, name in socket.if_nameindex()] == ['lo']\n"
        f"assert refused(lambda: open({str(tmp_path / 'canary')!r}, 'w'))\n"
        f"assert refused(lambda: os.kill({os.getpid()}, 0)) or os.getpid() == 1\n"
        f"assert refused(lambda: open('/proc/{os.getpid()}/environ').read())\n"
        "assert os.getuid() != 0"
    )
    outcome = run(source)
    assert outcome.passed, outcome.error
    assert not (tmp_path / "canary").exists()


# ---- the reward ----


def code(**options: Any) -> Code:
    return Code(allow_code_execution=True, **options)


def test_it_is_off_until_the_user_agrees() -> None:
    problems = reward_problems("code")
    assert [problem.key for problem in problems] == ["rl.allow_code_execution"]
    assert problems[0].fix == "", "nobody agrees to that by copying a line"
    with pytest.raises(ConfigError, match="allow_code_execution"):
        Rewards("code")
    with pytest.raises(PermissionError):
        Code()(["q"], ["x = 1"], test=["assert x"])
    terms = Terms(allow_code_execution=True)
    assert reward_problems("code", terms=terms) == []
    assert load_reward("code", terms)(["q"], ["x = 1"], test=["assert x"]) == [1.0]


def test_tests_as_statements_and_a_preamble() -> None:
    reward = code(tests="test_list", preamble="setup")
    answers = ["Sure:\n```python\ndef f(x):\n    return x + ONE\n```", "def f(x): return x"]
    tests = [["assert f(1) == 2", "assert f(2) == 3"]] * 2
    assert reward(["q"] * 2, answers, test_list=tests, setup=["ONE = 1"] * 2) == [1.0, 0.0]
    terms = Terms(allow_code_execution=True)
    found = Rewards({"name": "code", "tests": "t"}, on_error="penalty", terms=terms)
    assert found.on_error == "raise", "the terms say it"
    with pytest.raises(ValueError, match="a row has no tests"):
        reward(["q"], ["x = 1"], test_list=[[]], setup=[""])


def test_an_answer_continues_its_prompt_or_stands_alone() -> None:
    prompt = "import math\n\n\ndef area(r):\n    '''Area of a circle.'''\n"
    body = "    return math.pi * r ** 2\n"
    assert solution(body, prompt, "area") == prompt + body
    assert solution(f"```python\n{prompt}{body}```", prompt, "area").count("def area") == 2
    assert solution(body, [{"role": "user", "content": "q"}], "area") == body
    assert solution("x = 1", "Write a program.", None) == "x = 1"


def test_human_eval() -> None:
    if not HUMAN_EVAL.is_file():
        pytest.skip("the shared data are not on this machine")
    rows = [json.loads(line) for line in HUMAN_EVAL.read_text(encoding="utf-8").splitlines()][::12]
    prompts = [row["prompt"] for row in rows]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    reward = code()
    assert reward(prompts, [row["canonical_solution"] for row in rows], **columns) == [1.0] * len(rows)
    assert reward(prompts, ["    return None\n"] * len(rows), **columns) == [0.0] * len(rows)
    fenced = [f"Here it is.\n```python\n{row['prompt']}{row['canonical_solution']}```" for row in rows[:4]]
    chats = [[{"role": "user", "content": "Write it."}]] * 4
    first = {name: values[:4] for name, values in columns.items()}
    turns = [[{"role": "assistant", "content": text}] for text in fenced]
    assert reward(chats, turns, **first) == [1.0] * 4


def test_a_machine_that_cannot_run_programs_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aitrain.rl.sandbox.KEEPER", Path("/nowhere/keeper.py"))
    with pytest.raises(OSError, match="cannot be run on this machine"):
        code()(["q"], ["x = 1"], test=["assert x"])


def test_the_environment_shows_what_failed() -> None:
    from aitrain.rl import Asked, load_environment, play

    asked = Asked(terms=Terms(allow_code_execution=True))
    environment = load_environment("code", {"max_turns": 3}, asked)
    row = {"prompt": [{"role": "user", "content": "Define x as 3."}], "test": "assert x == 3, x"}
    answers = iter(["x = 2", "x = 3"])
    (episode,) = play(environment, [row], lambda going: [(next(answers), True)])
    assert [turn["role"] for turn in episode.turns] == ["assistant", "user", "assistant"]
    assert "AssertionError: 2" in episode.turns[1]["content"]
    assert environment.score([episode]) == [{"passes": 1.0, "syntax": 1.0}]
    assert environment.weights == {"passes": 1.0, "syntax": 0.1}
    assert environment.score([Episode("q", {"test": "assert x"}, [])])[0]["passes"] == 0.0
