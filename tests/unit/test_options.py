"""Every option and every recipe that ships, found by itself: it composes, is valid, and says what it is."""

from __future__ import annotations

import ast
import fnmatch
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrain.compose import OPTION_GROUPS, group_options, shipped
from aitrain.config.run import SECTIONS, leaves
from aitrain.parameters import all_keys, field_docstrings, keys_of, parameters
from aitrain.registry import GROUPS, TASKS, section_class, section_classes, trainer_for
from aitrain.validate import ALWAYS_READ, examine

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [(group, option) for group in OPTION_GROUPS for option in group_options(group)]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


NEEDS = {
    ("rl", "code"): ("rl.allow_code_execution=true",),
    ("rl", "custom"): ("rl.reward_fn=exact_match",),
    ("rl", "preference_comparison"): ("rl.reward_model_path=sample:tiny-llama",),
}
"""What an option asks of its user."""


def own_keys(group: str, option: str) -> tuple[list[str], list[str], list[str]]:
    """Keys an option's file sets in its section, keys it sets elsewhere, and those its header announces."""
    text = group_options(group)[option].read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    is_global = "# @package _global_" in text
    tree = values if is_global else {group: values}
    keys = [key for key, _ in leaves({k: v for k, v in tree.items() if k != "defaults"})]
    announced = [key for line in re.findall(r"^# writes: (.*)$", text, re.MULTILINE) for key in re.split(r",\s*", line)]
    inside = [key for key in keys if key.startswith(f"{group}.")]
    return inside, [key for key in keys if key not in inside], announced


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_and_is_valid(composed: Callable[..., Any], group: str, option: str) -> None:
    words = [f"{group}={option}", *NEEDS.get((group, option), ())]
    if group == "trainer":
        words.insert(0, f"task={next(task for task in TASKS if trainer_for(task, option))}")
    if group == "rl" and option != "none":
        words.append("trainer=ppo")
    problems = examine(composed(*words))[1]
    if problems:  # what this machine lacks, such as a login, comes with a word that does without
        assert all(problem.fix for problem in problems), problems
        problems = examine(composed(*words, *(problem.fix for problem in problems)))[1]
    assert problems == []


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_options_yaml_and_its_section_have_the_same_keys(group: str, option: str) -> None:
    cls = section_class(group, option)
    assert cls is not None
    inside, outside, announced = own_keys(group, option)
    assert sorted(inside) == sorted(keys_of(cls, f"{group}."))
    assert sorted(outside) == sorted(announced), "an option writes outside its section only what '# writes:' says"
    assert set(outside) <= set(all_keys())


def test_every_registered_option_has_a_file_and_the_other_way_round() -> None:
    for group, options in GROUPS.items():
        assert set(group_options(group)) == set(options)
        assert {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} == set(options)
    assert {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} == set(OPTION_GROUPS)


def test_config_yaml_holds_exactly_the_shared_sections() -> None:
    tree = yaml.safe_load((ROOT / "conf/config.yaml").read_text(encoding="utf-8"))
    found = sorted(key for key, _ in leaves(tree) if key != "defaults")
    assert found == sorted(key for name, cls in SECTIONS.items() for key in keys_of(cls, f"{name}."))


def test_no_two_options_that_can_be_chosen_together_write_the_same_key() -> None:
    writers: dict[str, list[tuple[str, str]]] = {}
    for group, option in OPTIONS:
        for key in own_keys(group, option)[1]:
            writers.setdefault(key, []).append((group, option))
    clashes = [
        (key, one, other)
        for key, options in writers.items()
        for one, other in combinations(options, 2)
        if one[0] != other[0] and not apart(dict([one, other]))
    ]
    assert clashes == []


def apart(chosen: dict[str, str]) -> bool:
    """Whether a task and a trainer do not go together."""
    return "task" in chosen and "trainer" in chosen and trainer_for(chosen["task"], chosen["trainer"]) is None


def every_class() -> Iterator[tuple[str, str, Any]]:
    for section in [*SECTIONS, *OPTION_GROUPS]:
        for option, cls in section_classes(section).items():
            yield section, option, cls


def test_every_field_has_a_meaning_and_a_visibility() -> None:
    found = parameters()
    assert len(found) > 60
    assert [p.key for p in found if len(p.meaning) < 8 or not p.meaning.endswith((".", "`"))] == []
    assert [p.key for p in found if p.visibility not in ("basic", "advanced", "internal")] == []
    for section, option, cls in every_class():
        missing = set(cls.model_fields) - set(field_docstrings(cls))
        assert not missing, f"{section} {option}: {missing}"
        assert (cls.__doc__ or "").strip(), cls


def test_every_key_of_a_shared_section_is_read_by_something() -> None:
    patterns = [*ALWAYS_READ, *(p for _, _, cls in every_class() for p in cls.reads)]
    keys = [key for name, cls in SECTIONS.items() for key in keys_of(cls, f"{name}.")]
    unread = [key for key in keys if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)]
    assert unread == [], "no option says in `reads` that these keys change anything"


def test_every_pattern_of_reads_fits_a_key() -> None:
    keys = all_keys()
    stale = [(cls, p) for _, _, cls in every_class() for p in cls.reads if not fnmatch.filter(keys, p)]
    assert stale == []


# --- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_composes_is_short_and_begins_with_its_command(composed: Callable[..., Any], path: Path) -> None:
    problems = examine(composed(recipe=path))[1]
    assert problems == []
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# python -m aitrain recipes/{path.name}")
    assert len(lines) <= 20


# --- scatter -------------------------------------------------------------------------------------------------------

SCATTER = {"lora": 5, "sft": 5, "llm": 6, "pretrain": 6, "cpo": 4, "orpo": 4, "online_dpo": 4, "reward": 30,
           "none": 99, "ppo": 9, "text_generation": 12, "multi_objective": 10, "preference_comparison": 5, "code": 40,
           "math": 40, "custom": 20, "standard": 99, "tabular": 99, "extractive_qa": 4, "seq2seq": 5,
           "token_classification": 4, "text_classification": 4, "text_regression": 5}  # fmt: skip
"""Options named in more files than the 3 of the house plan (module, YAML, registry), and how many today. Some are
ordinary words too (a reward, code, math, custom); the others of `rl` name their environment as well."""


def words_of(path: Path) -> set[str]:
    """Names and words in texts of a source file; comments and docstrings do not count."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return {str(v) for _, v in leaves(yaml.safe_load(text))} | set(re.findall(r"override /?(\w+: \w+)", text))
    found: set[str] = set()
    docs = {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            found.add(token.string)
        elif token.type == tokenize.STRING and token.start not in docs:
            found |= set(re.findall(r"\w+", token.string))
    return found


def test_an_options_name_appears_in_few_files() -> None:
    files = [*sorted((ROOT / "aitrain").rglob("*.py")), *sorted((ROOT / "conf").rglob("*.yaml"))]
    words = {path.relative_to(ROOT).as_posix(): words_of(path) for path in files}
    crowded = {}
    for option in {option for group, options in GROUPS.items() for option in options}:
        where = [name for name, found in words.items() if option in found]
        if len(where) > SCATTER.get(option, 3):
            crowded[option] = where
    assert crowded == {}


def test_shipped_folders_are_found() -> None:
    assert shipped("conf") == ROOT / "conf"
    assert shipped("recipes") == ROOT / "recipes"
