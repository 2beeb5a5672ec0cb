"""The model card: what was trained on what, with which result, in the Hub's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aitrain.config.run import Run
from aitrain.registry import trainer_of
from aitrain.report import simple_rivals
from aitrain.rl.rows import rows_from


def model_card(run: Run, outcome: Mapping[str, Any]) -> str:
    """Markdown with the Hub's YAML head. Holds measured numbers only."""
    trainer = trainer_of(run)
    library = "sklearn" if trainer.encoder is None else "peft" if run.peft.name != "none" else "transformers"
    head = ["---", f"library_name: {library}", f"pipeline_tag: {_pipeline(trainer.pipeline, outcome)}"]
    if trainer.encoder and not run.model.path.startswith(("sample:", "/", ".", "~")):
        head.append(f"base_model: {run.model.path}")
    head += ["tags:", "- aitrain", f"- {run.task.name}", f"- {run.trainer.name}", "---"]
    start = f" from `{run.model.path}`" if trainer.encoder else ""
    effort = f"{outcome['steps']} {'steps' if trainer.encoder else 'fits tried'}"
    body = [
        f"# {run.run.name}",
        "",
        f"Trained with `task={run.task.name} trainer={run.trainer.name}`{start} "
        f"on `{rows_from(run) or run.data.described}`, {effort}, seed {run.run.seed}.",
        "",
    ]
    if outcome["after"]:
        body += _measures(outcome)
    if trainer.predictor is not None:
        body += ["", "Predictions for a file of rows: `aitrain predict RUN FILE`."]
    return "\n".join([*head, *body]) + "\n"


def _pipeline(pipeline: str, outcome: Mapping[str, Any]) -> str:
    """What the model does, in the Hub's words."""
    of_numbers = (outcome.get("details") or {}).get("kind") == "regression"
    return "tabular-regression" if of_numbers and pipeline == "tabular-classification" else pipeline


def _measures(outcome: Mapping[str, Any]) -> list[str]:
    """The validation as a table: before, where there was something, after, and what a simple answer is worth."""
    before, after = outcome["before"], outcome["after"]
    rivals = simple_rivals(outcome["baselines"], after)
    heads = ["validation", *(["before"] if before else []), "after", *(["simple"] if rivals else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in after:
        if name == "tokens":
            continue
        first = [f"{before[name]:.4f}" if name in before else ""] if before else []
        simple = [f"{rivals[name][1]:.4f} ({rivals[name][0]})" if name in rivals else ""] if rivals else []
        lines.append(f"| {' | '.join([name.replace('_', ' '), *first, f'{after[name]:.4f}', *simple])} |")
    return lines
