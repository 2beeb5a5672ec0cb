"""What other tools call our keys: for the advice in 'unknown key', never for accepting them."""

from __future__ import annotations

NAMES = {
    "lr": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "micro_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "train.eval_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "accumulate_steps": "train.gradient_accumulation",
    "lr_scheduler": "train.scheduler",
    "lr_scheduler_type": "train.scheduler",
    "optim": "train.optimizer",
    "max_grad_norm": "train.max_grad_norm",
    "mixed_precision": "train.precision",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "save_total_limit": "train.save_total_limit",
    "eval_strategy": "train.eval_steps",
    "save_strategy": "train.save_steps",
    "max_seq_length": "data.max_length",
    "model_max_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "sequence_len": "data.max_length",
    "data_path": "data.path",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "val_size": "data.valid_fraction",
    "val_set_size": "data.valid_fraction",
    "test_size": "data.valid_fraction",
    "train_on_inputs": "data.train_on",
    "response_only_loss": "data.train_on",
    "text_column": "data.columns.text",
    "prompt_text_column": "data.columns.prompt",
    "rejected_text_column": "data.columns.rejected",
    "field_prompt": "data.columns.prompt",
    "field_chosen": "data.columns.chosen",
    "field_rejected": "data.columns.rejected",
    "kto_tag": "data.columns.label",
    "max_prompt_len": "data.max_prompt_length",
    "chat_template": "data.chat_format",
    "roles_to_train": "data.train_on",
    "interleave_probs": "data.mixture",
    "mix_strategy": "data.mixture_stopping",
    "packing": "train.padding_free",
    "sample_packing": "train.padding_free",
    "pref_beta": "trainer.beta",
    "dpo_beta": "trainer.beta",
    "pref_loss": "trainer.loss_type",
    "simpo_gamma": "trainer.simpo_gamma",
    "base_model": "model.path",
    "model_name_or_path": "model.path",
    "torch_dtype": "model.dtype",
    "output_dir": "run.dir",
    "project_name": "run.name",
    "run_name": "run.name",
    "resume_from_checkpoint": "run.resume",
    "lora_r": "peft.r",
    "lora_rank": "peft.r",
    "lora_alpha": "peft.alpha",
    "lora_dropout": "peft.dropout",
    "lora_target_modules": "peft.target_modules",
    "report_to": "tracking",
    "num_processes": "hardware.processes",
    "nproc_per_node": "hardware.processes",
}
"""The last word of another tool's key, and ours."""


OPTIONS = {
    ("trainer", "default"): "pretrain",
    ("trainer", "generic"): "pretrain",
    ("trainer", "pt"): "pretrain",
    ("trainer", "rm"): "reward",
    ("trainer", "reward_modeling"): "reward",
}
"""Another tool's option of a group, and ours."""


def our_option(group: str, option: str) -> str | None:
    """Our option for another tool's; None if it is not known."""
    return OPTIONS.get((group, option))


def ours(dotted: str) -> str | None:
    """Our key for another tool's, by its last word; None if it is not known."""
    return NAMES.get(dotted.rpartition(".")[2].replace("-", "_"))
