"""The benchmarks measure what they say: a command that gives another exit code is no measurement."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = util.spec_from_file_location("bench_cli", SCRIPTS / "bench_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("code", "expected"), [(0, 2), (2, 0), (1, 2)])
def test_another_exit_code_is_no_measurement(bench: ModuleType, tmp_path: Path, code: int, expected: int) -> None:
    command = [sys.executable, "-S", "-c", f"import sys; sys.stderr.write('why'); sys.exit({code})"]
    assert bench.timed(command, str(tmp_path), code)[0] > 0
    with pytest.raises(RuntimeError, match=rf"(?s)exit code {code} instead of {expected}: .*why"):
        bench.timed(command, str(tmp_path), expected)


def test_a_misspelt_key_is_expected_to_be_refused(bench: ModuleType) -> None:
    assert {name: code for name, (_, code) in bench.QUICK.items()} == {
        "--help": 0, "show": 0, "check": 0, "misspelt key": 2,
    }  # fmt: skip
