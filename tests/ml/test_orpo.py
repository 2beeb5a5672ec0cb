"""`trainer=orpo`, `cpo` and `simpo`: TRL's own numbers, whose collators stand apart from ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from preferring import assert_trained_alike, model_and_tokenizer, parts, plain_settings, run_one_batch

from aitrain.ml.cpo_trainer import CPOConfig, CPOTrainer
from aitrain.ml.orpo_trainer import ORPOConfig, ORPOTrainer

MEASURES = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
            "logps/rejected", "nll_loss")  # fmt: skip


class Given(list[dict[str, Any]]):
    """Rows that TRL leaves as they are."""

    def map(self, *args: Any, **kwargs: Any) -> Any:
        return self


def pair_rows(groups: Any) -> Given:
    """What TRL's `tokenize_row` makes of a pair."""
    rows = Given()
    for number in range(8):
        prompt, answers = parts(groups[number])
        row: dict[str, Any] = {}
        for name, answer in zip(("chosen", "rejected"), answers, strict=True):
            row[f"{name}_input_ids"] = prompt + answer
            row[f"{name}_attention_mask"] = [1] * len(prompt + answer)
            row[f"{name}_labels"] = [-100] * len(prompt) + answer
        rows.append(row)
    return rows


def plain(cls: Any, config: Any, folder: Path, groups: Any, **settings: Any) -> Any:
    class Plain(cls):  # type: ignore[misc]
        def _send_telemetry(self) -> None:
            pass

    model, tokenizer = model_and_tokenizer()
    args = config(**plain_settings(folder, 3, **settings))
    return Plain(model=model, args=args, train_dataset=pair_rows(groups), processing_class=tokenizer)


def test_orpo_equals_trls_own_trainer(tmp_path: Path) -> None:
    groups = run_one_batch(tmp_path / "ours", "orpo", trainer__beta=0.3)
    theirs = plain(ORPOTrainer, ORPOConfig, tmp_path / "theirs", groups, beta=0.3)
    assert_trained_alike(tmp_path / "ours", theirs, measures=(*MEASURES, "log_odds_ratio", "log_odds_chosen"))


@pytest.mark.parametrize(("trainer", "settings"), [
    ("cpo", {"beta": 0.2, "cpo_alpha": 0.7}),
    ("cpo", {"loss_type": "hinge", "beta": 0.1}),
    ("cpo", {"loss_type": "ipo", "beta": 0.1}),
    ("cpo", {"label_smoothing": 0.1}),
    ("cpo", {"cpo_alpha": 0.0}),
    ("simpo", {"beta": 2.0, "simpo_gamma": 0.6}),
    ("simpo", {"beta": 2.0, "alpha": 0.1, "cpo_alpha": 0.2}),
])  # fmt: skip
def test_cpo_and_simpo_equal_trls_own_trainer(tmp_path: Path, trainer: str, settings: dict[str, Any]) -> None:
    typed = {f"trainer__{name}": value for name, value in settings.items()}
    groups = run_one_batch(tmp_path / "ours", trainer, **typed)
    more = {"loss_type": "simpo", "cpo_alpha": 0.0} if trainer == "simpo" else {}
    theirs = plain(CPOTrainer, CPOConfig, tmp_path / "theirs", groups, **{**more, **settings})
    learns = settings.get("cpo_alpha", 1.0 if trainer == "cpo" else 0.0) > 0
    assert_trained_alike(tmp_path / "ours", theirs, measures=MEASURES if learns else MEASURES[:-1])
