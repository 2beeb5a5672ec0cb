"""The tiny models of `sample:NAME`: config from `aitrain.data.samples`, weights drawn here from a fixed seed."""

from __future__ import annotations

import shutil
from pathlib import Path

from aitrain.data.samples import known_model, made_aside, sample_tokenizer, samples_dir

SEED = 0


def sample_model(name: str) -> Path:
    """A folder with config, weights and tokenizer, made at first use. Raises ConfigError when there is no such sample."""
    known_model(name)
    folder = samples_dir() / "models" / name
    if not folder.exists():
        with made_aside(folder) as aside:
            shutil.copytree(sample_tokenizer(name), aside, dirs_exist_ok=True)
            _write_untrained(name, aside)
    return folder


def _write_untrained(name: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(known_model(name).config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    model.save_pretrained(folder)
