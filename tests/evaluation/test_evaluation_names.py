"""The package offers what it lists, and judges without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aitrain.evaluation as evaluation

JUDGING = """
import sys
from aitrain.evaluation import faults, repair
assert "numpy" not in sys.modules and "sklearn" not in sys.modules
from aitrain.evaluation import *
judge_texts(["a"], [["a"]])
judge_tags([["B-X"]], [["B-X"]])
judge_answers(["a"], [["a"]])
judge_classes([[0.5, 0.5]], [1], ["no", "yes"])
judge_numbers([[1.0]], [[2.0]], ["x"])
assert "torch" not in sys.modules
"""


def test_every_name_has_a_home() -> None:
    assert sorted(evaluation._HOMES) == sorted(evaluation.__all__) == dir(evaluation)
    assert all(callable(getattr(evaluation, name)) for name in evaluation.__all__)
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        _ = evaluation.judge


def test_judging_needs_no_torch_and_mending_tags_nothing_at_all() -> None:
    done = subprocess.run([sys.executable, "-c", JUDGING], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
