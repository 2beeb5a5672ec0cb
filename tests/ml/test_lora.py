"""Low-rank adapters: they alone are trained and saved, and plain peft reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from runs import assert_same_run, distance, events, report, run, run_stopped_at, weights
from safetensors.torch import load_file
from test_fitting import worsen_after
from transformers import AutoModelForCausalLM

from aitrain.ml.causal import CausalTrainer
from aitrain.ml.sample_models import sample_model

LORA = {"peft": "lora", "peft.r": 4, "peft.alpha": 8, "train__max_steps": 4, "train__learning_rate": 1e-2}


def train_and_keep(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """A LoRA run; returns the tensors of the whole model in memory, as they were at its end."""
    kept: dict[str, torch.Tensor] = {}
    original = CausalTrainer.train

    def train(self: CausalTrainer, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        kept.update({name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()})
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalTrainer, "train", train)
        run(folder, **{**LORA, **changes})
    return kept


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("lora") / "r"
    return folder, train_and_keep(folder)


def test_only_the_adapter_is_trained_and_the_base_is_bit_equal(trained: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, end = trained
    base = load_file(sample_model("tiny-qwen3") / "model.safetensors")
    found = {name.removeprefix("base_model.model.").replace(".base_layer", ""): t for name, t in end.items()}
    assert distance({name: found[name] for name in base}, base) == 0.0
    adapter = weights(folder / "model")
    assert adapter.keys() == {name.replace(".default", "") for name in end if "lora_" in name}
    assert all(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name), "B began as zero"
    # q, k, v, o, gate, up, down of two layers with ranks of 4.
    sizes = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    trainable = 2 * sum(4 * (i + o) for i, o in sizes)
    assert sum(tensor.numel() for tensor in adapter.values()) == trainable
    whole = sum(tensor.numel() for tensor in base.values())
    assert report(folder)["parameters"] == {"total": whole + trainable, "trainable": trainable}
    assert not (folder / "model" / "model.safetensors").exists()


def test_plain_peft_reads_the_adapter_and_gives_the_same_logits(trained: tuple[Path, dict[str, torch.Tensor]]) -> None:
    folder, end = trained
    ids = torch.arange(20, 60)[None]
    base = AutoModelForCausalLM.from_pretrained(sample_model("tiny-qwen3")).eval()
    with torch.no_grad():
        before = base(ids).logits
        theirs = PeftModel.from_pretrained(base, folder / "model").eval()(ids).logits
    # The same by hand: W + alpha / r B A.
    merged = AutoModelForCausalLM.from_pretrained(sample_model("tiny-qwen3")).eval()
    for name, module in merged.named_modules():
        key = f"base_model.model.{name}"
        if f"{key}.lora_A.default.weight" in end:
            module.weight.data += 8 / 4 * end[f"{key}.lora_B.default.weight"] @ end[f"{key}.lora_A.default.weight"]
    with torch.no_grad():
        ours = merged(ids).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert (theirs - before).abs().max() > 0.01


def test_target_modules(tmp_path: Path) -> None:
    run(tmp_path / "r", **LORA, **{"peft.target_modules": "[q_proj,v_proj]"})
    assert {name.split(".")[-3] for name in weights(tmp_path / "r" / "model")} == {"q_proj", "v_proj"}
    run(tmp_path / "x", **LORA, **{"peft.target_modules": "'.*layers.1.*up_proj'"})
    names = {name.rpartition(".lora")[0] for name in weights(tmp_path / "x" / "model")}
    assert names == {"base_model.model.model.layers.1.mlp.up_proj"}


def test_modules_to_save_are_trained_whole(tmp_path: Path) -> None:
    run(tmp_path / "r", **LORA, **{"peft.modules_to_save": "[model.norm]"})
    base = load_file(sample_model("tiny-qwen3") / "model.safetensors")
    saved = {name: t for name, t in weights(tmp_path / "r" / "model").items() if "lora_" not in name}
    assert list(saved) == ["base_model.model.model.norm.weight"]
    assert not torch.equal(saved["base_model.model.model.norm.weight"], base["model.norm.weight"])


def test_dora_adds_magnitudes_and_rslora_changes_the_scale(
    trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    plain = events(trained[0], "train")
    run(tmp_path / "d", **LORA, **{"peft.use_dora": True})
    assert any("magnitude" in name for name in weights(tmp_path / "d" / "model"))
    run(tmp_path / "s", **LORA, **{"peft.use_rslora": True})
    for folder in (tmp_path / "d", tmp_path / "s"):
        # B begins as zero: the first loss is the base model's, whatever the scale. Then they part.
        assert events(folder, "train")[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6)
        assert events(folder, "train")[-1]["loss"] != plain[-1]["loss"]
    # alpha / sqrt(4) is twice alpha / 4, and so are the first gradients.
    ratio = events(tmp_path / "s", "train")[0]["grad_norm"] / plain[0]["grad_norm"]
    assert ratio == pytest.approx(2, rel=1e-4)


def test_dropout_has_an_effect_and_evaluation_has_none(
    trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    changes = {**LORA, "peft.dropout": 0.5}
    run(tmp_path / "r", **changes)
    assert events(tmp_path / "r", "train")[-1]["loss"] != events(trained[0], "train")[-1]["loss"]
    assert events(tmp_path / "r", "eval")[0] == events(trained[0], "eval")[0]


@pytest.mark.parametrize(
    "extra", [{}, {"peft.use_dora": True, "peft.modules_to_save": "[model.norm]", "peft.dropout": 0.2}]
)
def test_a_stopped_run_continues_bit_equal(tmp_path: Path, extra: dict[str, Any]) -> None:
    changes = {**LORA, **extra, "train__max_steps": 6}
    run(tmp_path / "whole", **changes)
    run_stopped_at(3, tmp_path / "r", **changes)
    run(tmp_path / "r", run__resume="auto", **changes)
    assert_same_run(tmp_path / "r", tmp_path / "whole")


def test_gradient_checkpointing_trains_the_adapter_alike(
    trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    run(tmp_path / "g", **LORA, train__gradient_checkpointing=True)
    assert distance(weights(tmp_path / "g" / "model"), weights(trained[0] / "model")) < 1e-5


def test_load_best_brings_the_best_adapter_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worsen_after(monkeypatch, 2)
    made = run(tmp_path / "r", **LORA, train__eval_steps=1, train__load_best=True)
    best = made.values["best"]
    assert best["step"] == 2
    assert distance(weights(made.folder / "model"), weights(made.folder / best["checkpoint"])) == 0.0
