"""What needs no torch does not load it: one process, every light verb, and a look at what was imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import contextlib, io, json, os, sys
from aitrain import cli

HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft", "trl", "wandb", "mlflow", "trackio", "tensorboard")
results = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.main(words)
    heavy = [module for module in HEAVY if module in sys.modules]
    results.append({"words": words, "code": code, "out": out.getvalue(), "heavy": heavy})
print(json.dumps(results))
"""
CALLS: list[tuple[list[str], int]] = [
    (["--help"], 0),
    (["--version"], 0),
    (["show"], 0),
    (["show", "params", "--all"], 0),
    (["show", "options"], 0),
    (["show", "schema"], 0),
    (["report", "diff", "empty", "empty"], 2),
    (["report", "empty"], 2),
    (["nonsense"], 2),
    (["train.epoch=3"], 2),
    (["data.path=missing.jsonl"], 2),
    (["check", "data.path=rows.jsonl"], 0),
    (["check", "data.path=faulty.jsonl"], 2),
    (["data.path=faulty.jsonl"], 2),
    (["check", "data.path=faulty.jsonl", "data.chat_format=mistral"], 2),
    (["check", "peft=lora", "trainer=pretrain", "data.path=texts.txt", "data.block_size=8"], 0),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("light")
    (folder / "empty").mkdir()
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    (folder / "faulty.jsonl").write_text('{"prompt": "a", "completion": ""}\n' * 20)
    (folder / "texts.txt").write_text("one line of text\n" * 50)
    words = json.dumps([call for call, _ in CALLS])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "faulty.jsonl", "rows.jsonl", "texts.txt"], (
        "a light verb wrote something"
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[" ".join(words) for words, _ in CALLS])
def test_a_light_verb_loads_nothing_heavy(results: list[dict[str, Any]], number: int) -> None:
    found = results[number]
    assert found["code"] == CALLS[number][1], found["out"]
    assert "Traceback" not in found["out"]
    assert found["heavy"] == []


def test_importing_the_package_loads_almost_nothing() -> None:
    script = (
        "import sys, aitrain; print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'hydra', 'pydantic'}))"
    )
    path = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", script], cwd=path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
