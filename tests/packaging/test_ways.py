"""The same run by every way in: command line, recipe, multirun and Python give the same bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import aitrain

WORDS = ["train.max_steps=3", "train.logging_steps=1", "data.max_samples=40", "hardware=cpu", "hardware.threads=1",
         "model.path=sample:tiny-qwen3", "generate.count=0", "run.progress=none"]  # fmt: skip
RECIPE = """\
# python -m aitrain ways.yaml
defaults:
  - config
  - override hardware: cpu
  - _self_
train: {max_steps: 3, logging_steps: 1}
data: {max_samples: 40}
hardware: {threads: 1}
model: {path: "sample:tiny-qwen3"}
generate: {count: 0}
run: {progress: none}
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the run from Python, with every value as a Python value."""
    folder = tmp_path_factory.mktemp("python") / "run"
    pairs = dict(word.split("=", 1) for word in WORDS)
    numbers = {"train.max_steps", "train.logging_steps", "data.max_samples", "hardware.threads", "generate.count"}
    values = {key: int(value) if key in numbers else value for key, value in pairs.items()}
    report = aitrain.train(values={**values, "run.dir": str(folder)})
    assert report.status == "finished"
    return (folder / "model/model.safetensors").read_bytes()


def run(words: list[str], cwd: Path) -> None:
    command = [sys.executable, "-m", "aitrain", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_multirun(expected: bytes, tmp_path: Path, launcher: str) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra 'joblib' is not installed")
    run(["-m", *WORDS, "run.seed=42,43", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"], tmp_path)
    weights = [(tmp_path / f"sweep/{job}/model/model.safetensors").read_bytes() for job in (0, 1)]
    assert weights[0] == expected
    assert weights[1] != expected


def test_a_recipe_on_the_command_line(expected: bytes, tmp_path: Path) -> None:
    (tmp_path / "ways.yaml").write_text(RECIPE)
    run(["ways.yaml", "run.dir=out"], tmp_path)
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == expected


def test_words_from_python(expected: bytes, tmp_path: Path) -> None:
    report = aitrain.train(*WORDS, values={"run.dir": str(tmp_path / "run")})
    assert (report.folder / "model/model.safetensors").read_bytes() == expected
