"""`--help`: verbs, groups with their options, and where to read on. Static, so that it takes no time."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

from aitrain.compose import OPTION_GROUPS, group_options

USAGE = """\
aitrain: one command from a composed config to a finished, evaluated, reproducible model

usage: python -m aitrain [VERB] [RECIPE.yaml] [GROUP=OPTION ...] [KEY=VALUE ...]

  python -m aitrain                                     train a tiny model on sample data
  python -m aitrain data.path=my.jsonl model.path=DIR   train a model of yours on a file of yours
  python -m aitrain check data.path=my.jsonl            find every problem first; starts nothing
  python -m aitrain recipes/llm_sft.yaml train.epochs=1
  python -m aitrain -m train.learning_rate=1e-4,1e-3    one run for each value (Hydra multirun)
"""
FLAGS = """\
flags
  -m, --multirun          one run for each combination of values separated by commas, or range(a,b)
  --cfg job               print the composed config and stop
  --config-dir DIR        a folder of your own options and recipes
  --config-name NAME      a recipe in that folder
  -sc install=SHELL       shell completion (bash, zsh, fish)
  --version               print the version

keys: python -m aitrain show params     options: python -m aitrain show options"""


def help_text(verbs: Mapping[str, str]) -> str:
    """The whole help."""
    width = max(len(name) for name in [*verbs, *OPTION_GROUPS])
    lines = [USAGE, "verbs"]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in verbs.items()]
    lines += ["", "groups (GROUP=OPTION)"]
    for group in OPTION_GROUPS:
        named = wrap(", ".join(group_options(group)), 112 - width)
        lines += [f"  {'' if number else group:<{width}}  {line}" for number, line in enumerate(named)]
    return "\n".join([*lines, "", FLAGS])
