"""Rewards by name. A new one is a class in a file of its own and a line here."""

from __future__ import annotations

from aitrain.rl.rewards.built_in import BuiltIn, ModelReward, Reward, Terms
from aitrain.rl.rewards.code import Code
from aitrain.rl.rewards.correctness import Correctness
from aitrain.rl.rewards.custom import Custom, Model
from aitrain.rl.rewards.exact_match import ExactMatch
from aitrain.rl.rewards.json_valid import JsonValid
from aitrain.rl.rewards.judge import Judge
from aitrain.rl.rewards.keyword import Keyword
from aitrain.rl.rewards.language import PythonSyntax, Script
from aitrain.rl.rewards.length import Default, Length, LengthPenalty
from aitrain.rl.rewards.pattern import Format, Regex
from aitrain.rl.rewards.preference import Preference
from aitrain.rl.rewards.repetition import Repetition

REWARDS: dict[str, type[BuiltIn]] = {
    "default": Default,
    "length": Length,
    "length_penalty": LengthPenalty,
    "regex": Regex,
    "format": Format,
    "keyword": Keyword,
    "exact_match": ExactMatch,
    "correctness": Correctness,
    "code": Code,
    "repetition": Repetition,
    "json": JsonValid,
    "script": Script,
    "python": PythonSyntax,
    "judge": Judge,
    "preference": Preference,
    "model": Model,
    "custom": Custom,
}

__all__ = ["REWARDS", "BuiltIn", "ModelReward", "Reward", "Terms"]
