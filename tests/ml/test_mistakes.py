"""Mistakes that only a loaded model shows: refused with their key, without a traceback, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import report, run, words
from safetensors.torch import load_file, save_file

from aitrain.cli import main
from aitrain.ml.sample_models import sample_model

SHORT = {"train__max_steps": 2}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    assert main(words(folder, **{**SHORT, **changes})) == 2
    said = capsys.readouterr().err
    assert said.startswith("refused, nothing was started")
    assert "Traceback" not in said
    assert not folder.exists()
    return said


def test_layers_that_the_model_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path / "r", capsys, peft="lora", peft__target_modules="[q_proj,v_porj,nope]")
    assert "peft.target_modules: the model has no layer 'v_porj'; did you mean 'v_proj'? There is " in said
    assert "no layer 'nope'; there is down_proj, gate_proj" in said
    assert "'q_proj'" not in said
    said = refused(tmp_path / "r", capsys, peft="lora", peft__modules_to_save="[model.nrom]")
    assert "peft.modules_to_save: the model has no layer 'model.nrom'" in said


@pytest.mark.parametrize("value", ["nope", "[input_layernorm]"])
def test_layers_that_peft_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    said = refused(tmp_path / "r", capsys, peft="lora", peft__target_modules=value)
    assert "  peft.target_modules: " in said
    assert "there is down_proj, gate_proj" in said


def model(folder: Path, **config: Any) -> Path:
    """A copy of a sample model with another config."""
    shutil.copytree(sample_model("tiny-qwen3"), folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


def test_models_that_do_not_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "kind": {"model_type": "vit", "architectures": ["ViTModel"]},
        "size": {"intermediate_size": 96},
        "unknown": {"model_type": "never-heard-of"},
    }
    for name, config in wrong.items():
        said = refused(tmp_path / "r", capsys, model__path=model(tmp_path / name, **config))
        assert f"  model.path: {tmp_path / name} " in said, name


def test_a_model_without_some_of_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused(tmp_path / "r", capsys, model__path=folder)
    assert "lacks 1 of the model's tensors, such as model.layers.1.mlp.up_proj.weight" in said


# --- checkpoints of other runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "r"
    run(folder, **SHORT, train__eval_steps=1, train__save_steps=1, train__save_total_limit="null")
    return folder


def test_a_checkpoint_of_another_kind_of_run(tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = other / "checkpoints" / "step-000001"
    for changes, what in (
        ({"peft": "lora"}, "peft=none, not lora"),
        ({"model__path": "sample:tiny-llama"}, "model.path=sample:tiny-qwen3, not sample:tiny-llama"),
        ({"train__optimizer": "sgd"}, "train.optimizer=adamw, not sgd"),
    ):
        said = refused(tmp_path / "r", capsys, run__resume=start, **changes)
        assert f"run.resume: {start} is of a run with {what}; set the same" in said
        assert "(1 problem)" in said


def test_the_best_of_another_folder_is_not_taken_over(tmp_path: Path, other: Path) -> None:
    state = "aitrain_state.json"
    copied = tmp_path / "from" / "checkpoints" / "step-000001"
    shutil.copytree(other / "checkpoints" / "step-000001", copied)
    books = json.loads((copied / state).read_text())
    assert books["best"]["step"] == 1
    text = json.dumps({**books, "best": {**books["best"], "measures": {"loss": 0.0}}, "evaluations_without_gain": 7})
    _rewrite(copied, state, text)
    made = run(tmp_path / "r", run__resume=copied, train__eval_steps=1, train__load_best=True, train__max_steps=3,
               train__early_stopping_patience=5)  # fmt: skip
    best = report(tmp_path / "r")["best"]
    assert best["step"] in (2, 3)
    assert (made.folder / best["checkpoint"]).is_dir()
    assert made.values["metrics"]["after"]["loss"] == best["loss"] > 0
    assert made.values["metrics"]["before"] == books["before"]


def _rewrite(checkpoint: Path, name: str, text: str) -> None:
    """Change a file of a checkpoint and its manifest."""
    import hashlib

    (checkpoint / name).write_text(text)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
