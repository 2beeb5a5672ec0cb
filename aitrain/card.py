"""The model card: what was trained on what, with which result, in the Hub's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aitrain.config.run import Run
from aitrain.registry import trainer_of
from aitrain.rl.rows import rows_from


def model_card(run: Run, outcome: Mapping[str, Any]) -> str:
    """Markdown with the Hub's YAML head. Holds measured numbers only."""
    adapter = run.peft.name != "none"
    head = [
        "---",
        "library_name: " + ("peft" if adapter else "transformers"),
        f"pipeline_tag: {trainer_of(run).pipeline}",
    ]
    if not run.model.path.startswith(("sample:", "/", ".", "~")):
        head.append(f"base_model: {run.model.path}")
    head += ["tags:", "- aitrain", f"- {run.trainer.name}", "---"]
    body = [
        f"# {run.run.name}",
        "",
        f"Trained with `task={run.task.name} trainer={run.trainer.name}` from `{run.model.path}` "
        f"on `{rows_from(run) or run.data.described}`, {outcome['steps']} steps, seed {run.run.seed}.",
        "",
    ]
    before, after = outcome["before"], outcome["after"]
    if after:
        body += ["| validation | before | after |", "|---|---|---|"]
        body += [
            f"| {name.replace('_', ' ')} | {before[name]:.4f} | {after[name]:.4f} |"
            if before and name in before
            else f"| {name.replace('_', ' ')} | | {after[name]:.4f} |"
            for name in after
            if name != "tokens"
        ]
    return "\n".join([*head, *body]) + "\n"
