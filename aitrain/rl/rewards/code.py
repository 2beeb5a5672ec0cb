"""Reward for programs that pass their tests. Runs what a model wrote: see `aitrain.rl.sandbox` for what that means."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aitrain.errors import Problem
from aitrain.rl.episode import Text, answer_of
from aitrain.rl.rewards.blocks import last_block
from aitrain.rl.rewards.built_in import BuiltIn, Reward, Terms, column
from aitrain.rl.rewards.language import is_python
from aitrain.rl.sandbox import Limits, Outcome, run, supported
from aitrain.rl.settings import option

SPOKEN = "runs programs that the model wrote"


class Code(BuiltIn):
    """1 where the answer's program passes the row's tests, else 0."""

    tests: str = "test"
    """The column of tests: a text of Python, or a list of statements."""
    entry_point: str = "entry_point"
    """The column with the name of the function under test, where there is one: HumanEval's tests define `check` and
    are called with it. Rows without that column need none."""
    preamble: str | None = None
    """The column of code that the answer continues or stands on. null: the prompt, where it is Python."""
    seconds: float = option(10.0, gt=0, le=600)
    """Time for each program."""
    memory_mb: int = option(1024, ge=64)
    """Address space of each of its processes."""
    processes: int = option(16, ge=1)
    """Processes it may have at once."""
    workers: int = option(0, ge=0)
    """Programs run side by side. 0: one a core, 8 at most."""
    allow_code_execution: bool = False
    """The user agrees to it."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.tests,) if self.preamble is None else (self.tests, self.preamble)

    def problems(self, key: str, terms: Terms) -> Iterator[Problem]:
        if not (self.allow_code_execution or terms.allow_code_execution):
            allowed = "rl.allow_code_execution"
            advice = f"set {allowed}=true if you accept that; docs/rewards.md says what holds them back"
            yield Problem(allowed, f"is off, and the code reward {SPOKEN}", advice)
        if not supported():
            yield Problem(key, f"the code reward needs process groups and resource limits, not {os.name}")

    def load(self, terms: Terms) -> Reward:
        return self.model_copy(update={"allow_code_execution": True}) if terms.allow_code_execution else self

    def __call__(self, prompts: list[Text], completions: list[Text], **columns: Any) -> list[float]:
        return [float(outcome.passed) for outcome in self.outcomes(prompts, completions, **columns)]

    def outcomes(self, prompts: list[Text], completions: list[Text], **columns: Any) -> list[Outcome]:
        """How each program ended."""
        if not self.allow_code_execution:
            raise PermissionError(f"{SPOKEN}; it does so with allow_code_execution=True alone")
        tests = column(columns, self.tests)
        names = columns.get(self.entry_point) or [None] * len(tests)
        starts = column(columns, self.preamble) if self.preamble is not None else prompts
        rows = zip(completions, starts, tests, names, strict=True)
        programs = [program(answer_of(given), start, test, name) for given, start, test, name in rows]
        limits = Limits(seconds=self.seconds, memory_mb=self.memory_mb, processes=self.processes)
        with ThreadPoolExecutor(self.workers or min(8, os.cpu_count() or 1)) as pool:
            found = list(pool.map(lambda source: run(source, limits), programs))
        broken = next((outcome.error for outcome in found if outcome.reason == "broken"), None)
        if broken is not None:
            raise OSError(f"programs cannot be run on this machine: {broken or 'the keeper of the program died'}")
        return found


def program(answer: str, start: Any, tests: Any, entry_point: str | None) -> str:
    """The answer's code with what comes before it and its tests after it."""
    return "\n\n".join([solution(answer, start, entry_point), *_tests(tests, entry_point)])


def solution(answer: str, start: Any, entry_point: str | None) -> str:
    """The code of an answer. One that defines its function stands on its own, another continues the text before it."""
    block = last_block(answer, "python", "py", "python3")
    code = answer if block is None else block
    start = start if isinstance(start, str) and is_python(start) else ""
    if not start or (is_python(code) and (entry_point is None or entry_point in _functions(code))):
        return f"{start}\n\n{code}" if start else code
    return start + code


def _functions(code: str) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def _tests(tests: Any, entry_point: str | None) -> list[str]:
    lines = [tests] if isinstance(tests, str) else [str(test) for test in tests or ()]
    if not any(line.strip() for line in lines):
        raise ValueError("a row has no tests")
    text = "\n".join(lines)
    if entry_point and "def check(" in text and f"check({entry_point})" not in text:
        lines.append(f"check({entry_point})")
    return lines
