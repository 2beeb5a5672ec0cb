"""Rewards by the language of an answer: a script's letters, or Python."""

from __future__ import annotations

import ast
import functools
import unicodedata
import warnings

from pydantic import field_validator

from aitrain.errors import did_you_mean
from aitrain.rl.rewards.blocks import last_block
from aitrain.rl.rewards.built_in import BuiltIn

SCRIPTS = {
    "latin": ("LATIN",),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "armenian": ("ARMENIAN",),
    "georgian": ("GEORGIAN",),
    "ethiopic": ("ETHIOPIC",),
    "devanagari": ("DEVANAGARI",),
    "bengali": ("BENGALI",),
    "gujarati": ("GUJARATI",),
    "gurmukhi": ("GURMUKHI",),
    "tamil": ("TAMIL",),
    "telugu": ("TELUGU",),
    "kannada": ("KANNADA",),
    "malayalam": ("MALAYALAM",),
    "sinhala": ("SINHALA",),
    "thai": ("THAI",),
    "lao": ("LAO",),
    "khmer": ("KHMER",),
    "myanmar": ("MYANMAR",),
    "tibetan": ("TIBETAN",),
    "han": ("CJK",),
    "japanese": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "korean": ("HANGUL", "CJK"),
}
"""Scripts, by the first word of their letters' names in Unicode."""


class Script(BuiltIn):
    """The share of letters that belong to a script; 0 for an answer without letters."""

    script: str
    """`latin`, `cyrillic`, `han`, `japanese`, …: a script, not a language."""

    @field_validator("script")
    @classmethod
    def _known(cls, script: str) -> str:
        if script not in SCRIPTS:
            near = did_you_mean(script, SCRIPTS)
            raise ValueError(f"no script '{script}'; {near if 'mean' in near else 'there is ' + ', '.join(SCRIPTS)}")
        return script

    def score(self, text: str) -> float:
        letters = [letter for letter in text if letter.isalpha()]
        return sum(_first_word(letter) in SCRIPTS[self.script] for letter in letters) / len(letters) if letters else 0.0


@functools.lru_cache(maxsize=4096)
def _first_word(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


class PythonSyntax(BuiltIn):
    """1 where the last fenced block, or the answer as a whole, is Python that can be read, else 0. Nothing is run."""

    def score(self, text: str) -> float:
        return float(is_python(last_block(text, "python", "py") or text))


def is_python(source: str) -> bool:
    """Whether a text can be read as Python and does something: a single word can be read, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in what a model wrote
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await) for node in tree.body)
