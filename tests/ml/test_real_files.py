"""Files as they come, trained on for a few steps with nothing named but the path: columns are found by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import report, run

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SMALL = {"data__max_samples": 24, "train__max_steps": 3, "train__batch_size": 4, "train__save_steps": "never",
         "model__path": "sample:tiny-qwen3", "train__learning_rate": 1e-3, "data__truncation": "left"}  # fmt: skip
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "sft/dolly_open_qa/train.jsonl": ({"trainer": "sft"}, "prompt=instruction, completion=response"),
    "sft_chat/sgd_plain/train.jsonl": ({"trainer": "sft", "data__chat_format": "llama"}, "messages=messages"),
    "sft_chat/sgd_tools/train.jsonl": ({"trainer": "sft"}, "messages=messages"),
    "reward/gsm8k/train.jsonl": ({"trainer": "sft"}, "prompt=question, completion=answer"),
    "pretrain/tinyshakespeare/docs.jsonl": ({"trainer": "pretrain", "data__truncation": None}, "text=text"),
    "pretrain/tinyshakespeare/input.txt": (
        {"trainer": "pretrain", "data__truncation": None, "data__max_samples": 4000}, "text=text"
    ),
    "preference/hh_rlhf/train.jsonl dpo": ({"trainer": "dpo"}, "chosen=chosen, rejected=rejected"),
    "preference/hh_rlhf/train.jsonl orpo": ({"trainer": "orpo"}, "chosen=chosen, rejected=rejected"),
    "preference/hh_rlhf/train.jsonl simpo": ({"trainer": "simpo"}, "chosen=chosen, rejected=rejected"),
    "preference/hh_rlhf/train.jsonl kto": ({"trainer": "kto"}, "chosen=chosen, rejected=rejected"),
    "preference/hh_rlhf/train.jsonl reward": (
        {"trainer": "reward", "generate__count": None}, "chosen=chosen, rejected=rejected"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_trained_on(tmp_path: Path, name: str) -> None:
    path = SHARED / name.split()[0]
    if not path.is_file():
        pytest.skip("the shared data are not on this machine")
    changes, columns = FILES[name]
    run(tmp_path / "r", data__path=path, **{**SMALL, **changes})
    found = report(tmp_path / "r")
    assert (found["status"], found["steps"], found["data"]["columns"]) == ("finished", 3, columns)
    assert found["data"]["bad_rows"] == 0
    before, after = (found["metrics"][when]["loss"] for when in ("before", "after"))
    if "kto" in name:  # two validation rows and three steps say nothing about its loss, whose drift is a batch's own
        assert after != before
    else:
        assert after < before
