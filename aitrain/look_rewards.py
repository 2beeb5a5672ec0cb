"""What can be known of rewards before torch loads: the columns that they need, and the models that score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from aitrain.config.rl import RL
from aitrain.config.run import Run
from aitrain.data.mixture import FoundSource
from aitrain.data.samples import known_model
from aitrain.errors import ConfigError, Problem
from aitrain.model_folders import local_folder, missing_folder, not_a_scorer, not_downloaded, vocabulary

LOOKED_AT = 20
"""Rows whose columns are what rewards can read."""
MADE_BY = "name a model that trainer=reward made"


def learns_from_rewards(run: Run) -> bool:
    """Whether the trainer plays episodes of an environment."""
    return isinstance(run.rl, RL) and any(name.startswith("rl.") for name in run.trainer.reads)


def reward_faults(run: Run, sources: Sequence[FoundSource]) -> Iterator[Problem]:
    """Columns that no row has, and reward models that cannot be used."""
    if not isinstance(run.rl, RL) or not learns_from_rewards(run):
        return
    from aitrain.rl.chosen import reward_models

    for source in sources:
        yield from _lacking(run.rl, source, len(sources) > 1)
    for key, path in reward_models(run.rl):
        yield from _unfit(key, path, run)


def _lacking(section: RL, source: FoundSource, is_mixture: bool) -> Iterator[Problem]:
    """Rewards that read a column which the rows of a source do not have."""
    from aitrain.rl.chosen import environment_problems

    if source.choice is None:
        return
    rows = source.train.head(LOOKED_AT, "skip")
    columns = {name for row in rows for name in row.values} - {"prompt"}
    for problem in environment_problems(section, columns):
        yield replace(problem, where=f"rows of {source.chosen.name}", fix="") if is_mixture else problem


def _unfit(key: str, path: str, run: Run) -> Iterator[Problem]:
    """Why a model cannot score the answers of the run's model."""
    if path.startswith("sample:"):
        try:
            known_model(path.removeprefix("sample:"))
        except ConfigError as error:
            yield from (replace(problem, key=key, fix="") for problem in error.problems)
            return
        yield Problem(key, f"{path} is a language model without a head that gives a score", MADE_BY)
        return
    folder = local_folder(path)
    if folder is None:
        if problem := missing_folder(key, path):
            yield problem
        elif not run.run.allow_downloads:
            yield from not_downloaded(key, path).problems
        return
    if why := not_a_scorer(folder):
        yield Problem(key, f"{path} {why}", MADE_BY)
        return
    try:
        ours = local_folder(run.model.path, run.model.revision)
    except ConfigError:  # no such sample, which is told elsewhere
        return
    if ours is not None and (why := other_tokens(vocabulary(folder), vocabulary(ours))):
        yield Problem(key, f"{path} {why}", f"train one from {run.model.path}, or name one with its tokenizer")


def other_tokens(theirs: dict[str, int], ours: dict[str, int]) -> str:
    """How the tokenizer of a reward model differs from that of the run's model; '' where it does not or is unknown."""
    if not theirs or not ours or theirs == ours:
        return ""
    strange = next((token for token in ours if theirs.get(token) != ours[token]), None)
    example = f", and not '{strange}' as {ours[strange]}" if strange is not None else ""
    return f"has another tokenizer than the model: it knows {len(theirs):,} tokens, the model {len(ours):,}{example}"
