"""`show`: the config as YAML that reads back the same, each value with its origin; params, options, schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrain import cli
from aitrain.commands.show import with_origins
from aitrain.compose import OPTION_GROUPS, group_options
from aitrain.parameters import all_keys, parameters


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["show", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_config_reads_back_as_it_was(run_of: Callable[..., Any]) -> None:
    run = run_of("peft=lora", "data.path=a: b # c", "run.name=007", "generate.prompts=['Hello, world','ü']",
                 "data.columns.prompt=null", "data.files=[]")  # fmt: skip
    assert yaml.safe_load(with_origins(run)) == run.tree()


def test_every_value_stands_beside_its_origin(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("defaults: [config, override trainer: pretrain, _self_]\ntrain:\n  epochs: 2\n")
    lines = shown(capsys, "r.yaml", "train.batch_size=4").splitlines()
    assert [line for line in lines if not line.endswith(":") and "  # " not in line] == []
    by_key = {line.split(":")[0].strip(): line for line in lines}
    assert by_key["epochs"].endswith("  # r.yaml:3")
    assert by_key["batch_size"].endswith("  # command line")
    assert "conf/config.yaml:" in by_key["seed"]
    assert any(line.strip().startswith("name: pretrain") and line.endswith("# r.yaml:1") for line in lines)


def test_a_text_of_several_lines_stays_one_value(run_of: Callable[..., Any]) -> None:
    run = run_of("data.path=a\nb")
    assert yaml.safe_load(with_origins(run)) == run.tree()


def test_params_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    basic, everything = shown(capsys, "params"), shown(capsys, "params", "--all")
    visible = [p.key for p in parameters() if p.visibility == "basic"]
    assert [line.split()[0] for line in basic.splitlines() if not line.startswith(" ")] == visible
    assert [line.split()[0] for line in everything.splitlines() if not line.startswith(" ")] == all_keys()
    assert "(advanced)" in everything
    assert "(advanced)" not in basic
    assert "train.scheduler  (linear|cosine|constant)" in basic
    assert "train.eval_steps  (int or epoch|never)" in basic


def test_params_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["key"]: row for row in json.loads(shown(capsys, "params", "--json"))}
    assert list(rows) == all_keys()
    assert rows["train.batch_size"]["default"] == 8
    assert rows["peft.r"]["default"] == 16
    assert rows["peft.r"]["options"] == ["lora"]
    assert {"key", "options", "type", "range", "choices", "visibility", "meaning", "nullable", "default"} == set(
        rows["run.name"]
    )


def test_options_names_every_option_with_a_word_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "options").splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(OPTION_GROUPS)
    options = [line.split(maxsplit=1) for line in lines if line.startswith(" ")]
    assert sorted(words[0] for words in options) == sorted(o for group in OPTION_GROUPS for o in group_options(group))
    assert all(len(words) == 2 and words[1].strip() for words in options)


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown(capsys, "schema"))["title"] == "aitrain recipe"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["parms"], "did you mean 'params'?"),
        (["params", "x"], "there is --all, --json"),
        (["options", "x"], "show options takes none"),
        (["schema", "--all"], "show schema takes none"),
        (["~train"], "cannot be deleted"),
    ],
)
def test_words_that_mean_nothing_are_refused(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    assert cli.main(["show", *words]) == 2
    assert text in capsys.readouterr().err
