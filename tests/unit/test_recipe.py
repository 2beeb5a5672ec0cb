"""Recipes: what is read from the file, and each way to write one wrongly, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aitrain.compose import Request, compose
from aitrain.errors import ConfigError
from aitrain.recipe import read_yaml
from aitrain.validate import examine

OK = "defaults: [config, _self_]\n"


def refused(folder: Path, text: str | bytes, name: str = "r.yaml") -> list[str]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        found = compose(Request(recipe=path))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in examine(found)[1]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_lines_defaults_and_package_are_read(here: Path) -> None:
    path = here / "x.yaml"
    path.write_text(
        "# a comment\n# @package _global_\ndefaults:\n  - config\n  - override /peft: lora\n  - optional rl: none\n"
        "  - _self_\na:\n  b: 1\n  c: {d: 2, e: [1, 2]}\nf: null\ng: {}\n"
    )
    found = read_yaml(path, "x.yaml")
    assert found.problems == []
    assert found.package == "_global_"
    assert found.defaults == [("config", None, 4), ("peft", "lora", 5), ("rl", "none", 6), ("_self_", None, 7)]
    assert found.added == [("rl", 6)]
    assert found.lines == {"a.b": 9, "a.c.d": 10, "a.c.e": 10, "f": 11}
    assert found.where("a.b") == "x.yaml:9"
    assert found.entries == {"a.c.e[0]": 10, "a.c.e[1]": 10}


WRONG: dict[str, tuple[str | bytes, str]] = {
    "no defaults": ("train: {epochs: 1}\n", "a recipe begins with a defaults list"),
    "empty": ("", "a recipe begins with a defaults list"),
    "defaults is a text": ("defaults: config\n", "defaults: should be a list; write [config, …, _self_]  (r.yaml:1)"),
    "no _self_": ("defaults: [config]\n", "should have _self_ after what it builds on"),
    "_self_ first": ("defaults:\n - _self_\n - config\n", "should have _self_ after what it builds on"),
    "two bases": ("defaults: [config, other, _self_]\n", "builds on config, other; name one"),
    "no base": ("defaults: [_self_]\n", "builds on nothing; name one"),
    "without override": ("defaults:\n - config\n - peft: lora\n - _self_\n", "write 'override peft: …'  (r.yaml:3)"),
    "unknown group": ("defaults:\n - config\n - override pef: lora\n - _self_\n", "did you mean 'peft'?  (r.yaml:3)"),
    "unknown option": ("defaults:\n - config\n - override peft: lor\n - _self_\n", "did you mean 'lora'?  (r.yaml:3)"),
    "package": ("# @package x\n" + OK, "a recipe has no package 'x'; remove that line"),
    "itself": ("defaults: [r, _self_]\n", "builds on itself through 'r'"),
    "missing base": ("defaults: [gone, _self_]\n", "no config 'gone'"),
    "name": (OK + "trainer:\n  name: sft\n", "put 'override trainer: …' into defaults  (r.yaml:3)"),
    "null section": (OK + "train:\n", "should be a section with keys; set one of its keys: train.KEY  (r.yaml:2)"),
    "list for a section": (OK + "train: [1]\n", "train: should be a section with keys"),
    "number for a section": (OK + "train: 3\n", "train: should be a section with keys"),
    "key twice": (OK + "train:\n  epochs: 1\n  epochs: 2\n", "given twice, first in line 3; keep one  (r.yaml:4)"),
    "dotted key": (OK + "train.epochs: 1\n", "a key with a dot in it; write one level below the other  (r.yaml:2)"),
    "merge": (OK + "train: &t {epochs: 1}\ndata:\n  <<: *t\n", "<<: merge keys are not read"),
    "python tag": (OK + "data: {path: !!python/object/apply:os.system [ls]}\n", "apply:os.system' is refused"),
    "own tag": (OK + "data: {path: !x y}\n", "the tag '!x' is refused; write a plain value  (r.yaml:2)"),
    "endless": (OK + "data: &d\n  path: *d\n", "an alias stands inside its own anchor"),
    "tab": (OK + "train:\n\tepochs: 1\n", "not valid YAML"),
    "two documents": (OK + "---\na: 1\n", "not valid YAML"),
    "not utf-8": (b"\xff\xfe", "not valid YAML"),
    "a list": ("[1, 2]\n", "should be a mapping of keys to values"),
    "unknown key": (OK + "train:\n  epoch: 1\n", "train.epoch: unknown key; did you mean 'train.epochs'?  (r.yaml:3)"),
    "unknown section": (OK + "trian: {epochs: 1}\n", "trian.epochs: unknown key; did you mean 'train.epochs'?"),
    "number for a text": (OK + "run: {name: 007}\n", "run.name: input should be a valid string, not 7  (r.yaml:2)"),
    "left open": (OK + "data:\n  path: ???\n", "data.path: needs a value; set data.path=VALUE  (r.yaml:3)"),
    "interpolation": (OK + "run: {name: '${nope}'}\n", "run.name: Interpolation key 'nope' not found  (r.yaml:2)"),
    "target": (OK + "data: {_target_: os.system}\n", "data._target_: is refused: a config names no code"),
    "target elsewhere": (OK + "x: {y: {_target_: os.system}}\n", "x.y._target_: is refused: a config names no code"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_refused_with_its_line(here: Path, name: str) -> None:
    text, expected = WRONG[name]
    found = refused(here, text)
    assert any(expected in line for line in found), found


def test_a_recipe_that_builds_on_another_which_builds_on_it(here: Path) -> None:
    (here / "a.yaml").write_text("defaults: [r, _self_]\n")
    assert "builds on itself through 'r'" in refused(here, "defaults: [a, _self_]\n")[0]


def test_a_file_that_would_hide_one_of_ours_is_refused(here: Path) -> None:
    (here / "config.yaml").write_text("a: 1\n")
    (here / "peft").mkdir()
    (here / "peft/lora.yaml").write_text("name: lora\n")
    found = refused(here, OK)
    assert [line.split(":")[0] for line in found] == ["config.yaml", "peft/lora.yaml"]


def test_a_missing_recipe_names_the_nearest(here: Path) -> None:
    (here / "mine.yaml").write_text(OK)
    with pytest.raises(ConfigError, match=r"did you mean 'mine\.yaml'"):
        compose(Request(recipe=here / "mien.yaml"))


def test_problems_of_several_kinds_come_together(here: Path) -> None:
    text = (
        OK + "run:\n  name: 007\n  seed: ${nope}\ndata:\n  path: ???\n  _target_: x\ntrain:\n  nope: 3\n  epochs: 0\n"
    )
    found = refused(here, text)
    assert sorted(line.partition(":")[0] for line in found) == [
        "data._target_", "data.path", "run.name", "run.seed", "train.epochs", "train.nope",
    ]  # fmt: skip
    assert all("(r.yaml:" in line for line in found)


def test_what_a_recipe_leaves_open_may_come_from_the_command_line(here: Path) -> None:
    path = here / "r.yaml"
    path.write_text(OK + "data:\n  path: ???\n")
    found = compose(Request(("data.path=x",), recipe=path))
    assert found.tree["data"]["path"] == "x"
    assert found.problems == ()


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "db_password"])
def test_a_secret_of_the_environment_is_never_written_down(tmp_path: Path, name: str) -> None:
    word = f"run.name=${{oc.env:{name}}}"
    assert f"would write ${name} into the run's files" in str(compose(Request((word,))).problems[0])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"defaults: [config, _self_]\nrun:\n  name: ${{oc.env:{name}}}\n")
    with pytest.raises(ConfigError, match=f"would write .{name}") as refused:
        compose(Request(recipe=recipe))
    assert refused.value.problems[0].where.endswith("r.yaml:3")


def test_other_variables_of_the_environment_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DATA", "here.jsonl")
    assert compose(Request(("data.path=${oc.env:MY_DATA}",))).tree["data"]["path"] == "here.jsonl"
