"""A built wheel, unpacked elsewhere and started from another folder, does what the checkout does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ["train.max_steps=3", "train.logging_steps=1", "data.max_samples=40", "hardware=cpu", "hardware.threads=1",
       "model.path=sample:tiny-qwen3", "generate.count=0", "run.progress=none", "run.dir=out"]  # fmt: skip
EXTRAS = ("wandb", "tensorboard", "trackio", "mlflow", "joblib", "psutil", "pytest", "trl", "deepspeed", "torchvision")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    site = folder / "site"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def run(words: list[str], cwd: Path, path: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path) if path else ""}
    command = [sys.executable, "-m", "aitrain", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def curve(folder: Path) -> list[tuple[str, float]]:
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(event["event"], event["loss"]) for event in events if "loss" in event]


def test_the_wheel_holds_conf_and_recipes(unpacked: Path) -> None:
    assert (unpacked / "aitrain/conf/config.yaml").is_file()
    assert (unpacked / "aitrain/recipes/llm_sft.yaml").is_file()
    assert not (unpacked / "conf").exists()


def test_the_wheel_is_what_is_imported(unpacked: Path, tmp_path: Path) -> None:
    code = "import aitrain, sys; print(aitrain.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(unpacked) in done.stdout


def test_the_wheel_finds_its_recipes_from_any_folder(unpacked: Path, tmp_path: Path) -> None:
    done = run(["show", "recipes/llm_sft.yaml"], tmp_path, unpacked)
    assert done.returncode == 0, done.stderr
    assert "name: llm-sft " in done.stdout


def test_the_wheel_trains_bit_for_bit_as_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "wheel").mkdir()
    (tmp_path / "checkout").mkdir()
    installed, checkout = run(RUN, tmp_path / "wheel", unpacked), run(RUN, tmp_path / "checkout", ROOT)
    assert installed.returncode == 0, installed.stderr
    assert checkout.returncode == 0, checkout.stderr
    assert curve(tmp_path / "wheel/out") == curve(tmp_path / "checkout/out")
    weights = [tmp_path / side / "out/model/model.safetensors" for side in ("wheel", "checkout")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_core_alone_trains(tmp_path: Path) -> None:
    """Every package of an extra is made impossible to import; the LLM path must not miss any of them."""
    blocker = tmp_path / "site"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(f"import sys\nfor name in {EXTRAS!r}:\n    sys.modules[name] = None\n")
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{blocker}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "aitrain", *RUN]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(curve(work / "out")) >= 3
    refused = subprocess.run(
        [sys.executable, "-m", "aitrain", "tracking=tensorboard"],
        cwd=work, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "pip install 'aitrain[tensorboard]'" in refused.stderr
    assert "Traceback" not in refused.stderr
