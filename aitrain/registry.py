"""The table of contents: every option of every group, as real classes and functions.

Adding a task, a trainer or a PEFT method is a module, a YAML in `conf/` and one line here; a hardware profile is a
YAML alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aitrain.adapters import lora
from aitrain.config.hardware import Hardware
from aitrain.config.options import Adapter, Choice, Option, Task, Tracker, Trainer
from aitrain.config.rl import Code, Custom, Math, MultiObjective, PreferenceComparison, TextGeneration
from aitrain.config.run import SECTIONS, Run
from aitrain.config.section import OptionSection, Section, Unset
from aitrain.estimators import (
    adaboost,
    catboost,
    decision_tree,
    extra_trees,
    gradient_boosting,
    hist_gradient_boosting,
    knn,
    lasso,
    lightgbm,
    linear_regression,
    logistic_regression,
    naive_bayes,
    random_forest,
    ridge,
    svm,
    xgboost,
)
from aitrain.tasks import (
    extractive_qa,
    llm,
    seq2seq,
    tabular,
    text_classification,
    text_regression,
    token_classification,
)
from aitrain.trackers import mlflow, tensorboard, trackio, wandb
from aitrain.trainers import cpo, dpo, grpo, kto, online_dpo, orpo, ppo, pretrain, reward, rloo, sft, simpo, standard

NONE = Choice(Unset)

TASKS: dict[str, Task] = {
    "llm": Task(llm.LLM),
    "text_classification": text_classification.TASK,
    "text_regression": text_regression.TASK,
    "token_classification": token_classification.TASK,
    "extractive_qa": extractive_qa.TASK,
    "seq2seq": seq2seq.TASK,
    "tabular": tabular.TASK,
}

TRAINERS: dict[str, Trainer] = {
    "sft": Trainer(sft.SFT, ("llm",), ("messages", "prompt_completion", "text"), sft.METRICS, sft.encoder, sft.train),
    "pretrain": Trainer(pretrain.Pretrain, ("llm",), ("text",), sft.METRICS, pretrain.encoder, pretrain.train),
    "dpo": dpo.TRAINER,
    "orpo": orpo.TRAINER,
    "cpo": cpo.TRAINER,
    "simpo": simpo.TRAINER,
    "kto": kto.TRAINER,
    "reward": reward.TRAINER,
    "ppo": ppo.TRAINER,
    "grpo": grpo.TRAINER,
    "rloo": rloo.TRAINER,
    "online_dpo": online_dpo.TRAINER,
    "xgboost": tabular.trainer(xgboost.ESTIMATOR),
    "lightgbm": tabular.trainer(lightgbm.ESTIMATOR),
    "catboost": tabular.trainer(catboost.ESTIMATOR),
    "hist_gradient_boosting": tabular.trainer(hist_gradient_boosting.ESTIMATOR),
    "gradient_boosting": tabular.trainer(gradient_boosting.ESTIMATOR),
    "random_forest": tabular.trainer(random_forest.ESTIMATOR),
    "extra_trees": tabular.trainer(extra_trees.ESTIMATOR),
    "adaboost": tabular.trainer(adaboost.ESTIMATOR),
    "decision_tree": tabular.trainer(decision_tree.ESTIMATOR),
    "logistic_regression": tabular.trainer(logistic_regression.ESTIMATOR),
    "linear_regression": tabular.trainer(linear_regression.ESTIMATOR),
    "ridge": tabular.trainer(ridge.ESTIMATOR),
    "lasso": tabular.trainer(lasso.ESTIMATOR),
    "svm": tabular.trainer(svm.ESTIMATOR),
    "knn": tabular.trainer(knn.ESTIMATOR),
    "naive_bayes": tabular.trainer(naive_bayes.ESTIMATOR),
}

ADAPTERS: dict[str, Adapter] = {
    "lora": Adapter(lora.Lora, lora.apply),
}

TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker(tensorboard.TensorBoard, "tensorboard", "tensorboard", tensorboard.start),
    "wandb": Tracker(wandb.Wandb, "wandb", "wandb", wandb.start),
    "trackio": Tracker(trackio.Trackio, "trackio", "trackio", trackio.start),
    "mlflow": Tracker(mlflow.MLflow, "mlflow", "mlflow", mlflow.start),
}

ENVIRONMENTS: dict[str, Choice] = {
    "text_generation": Choice(TextGeneration),
    "multi_objective": Choice(MultiObjective),
    "preference_comparison": Choice(PreferenceComparison),
    "math": Choice(Math),
    "code": Choice(Code),
    "custom": Choice(Custom),
}

GROUPS: dict[str, Mapping[str, Option]] = {
    "task": TASKS,
    "trainer": {**TRAINERS, standard.NAME: Choice(standard.Standard)},
    "peft": {"none": NONE, **ADAPTERS},
    "rl": {"none": NONE, **ENVIRONMENTS},
    "distill": {"none": NONE},
    "sweep": {"none": NONE},
    "tracking": {"none": NONE, **TRACKERS},
}
"""Groups whose options have a section each. `hardware` is not among them: its profiles are data, all of one class."""


def trainer_for(task: str, trainer: str) -> Trainer | None:
    """How a trainer trains a task; None where it does not."""
    if trainer == standard.NAME:
        return TASKS[task].standard
    found = TRAINERS.get(trainer)
    return found if found and task in found.tasks else None


def trainers_of(task: str) -> dict[str, Trainer]:
    """Every trainer of a task, by name."""
    named = {name: trainer_for(task, name) for name in GROUPS["trainer"]}
    return {name: trainer for name, trainer in named.items() if trainer is not None}


def trainer_of(run: Run) -> Trainer:
    """The trainer of a valid run."""
    found = trainer_for(run.task.name, run.trainer.name)
    assert found is not None, "validation refuses a trainer that does not train the task"
    return found


def section_class(group: str, option: str) -> type[OptionSection] | None:
    """The section of an option, or None if there is no such option."""
    if group == "hardware":
        return Hardware
    found = GROUPS[group].get(option)
    return found.section if found else None


def section_classes(name: str) -> dict[str, type[Section]]:
    """Every class a section of the tree may have, by option ('' for a section of one shape)."""
    if name in SECTIONS:
        return {"": SECTIONS[name]}
    if name == "hardware":
        return {"": Hardware}
    return {option: entry.section for option, entry in GROUPS[name].items()}


def field_types(dotted: str) -> list[Any]:
    """The annotations a key may have, over every option that has it; empty for an unknown key."""
    section, _, rest = dotted.partition(".")
    if section not in SECTIONS and section not in GROUPS and section != "hardware":
        return []
    return [found for cls in section_classes(section).values() if (found := annotation_at(cls, rest)) is not None]


def annotation_at(cls: type[Section], dotted: str) -> Any:
    """The annotation of a key of a section class; None for an unknown key."""
    name, _, rest = dotted.partition(".")
    field = cls.model_fields.get(name)
    if field is None:
        return None
    if not rest:
        return field.annotation
    inner = field.annotation
    return annotation_at(inner, rest) if isinstance(inner, type) and issubclass(inner, Section) else None
