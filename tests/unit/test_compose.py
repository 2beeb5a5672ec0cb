"""Words, recipes and Python values to one tree: what arrives, where it came from, and what is refused together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.compose import (
    Composed,
    Request,
    compose,
    expand,
    group_options,
    quote,
    shared_name,
    sweep_folder,
    swept_keys,
    words_about,
)
from aitrain.errors import ConfigError
from aitrain.validate import examine

Compose = Callable[..., Composed]

TEXT_KEYS = (
    "run.name", "run.dir", "run.resume", "model.path", "model.revision", "data.path", "data.config", "data.train_split",
    "data.valid_split", "data.columns.prompt", "data.columns.completion", "data.columns.messages", "data.columns.text",
)  # fmt: skip
AS_TYPED = (
    "007", "1e5", "true", "2024-01-01", "null ", "train[:10%]", "my file (1).jsonl", "Hello, world", "a=b=c",
    "{{input}}", "{a: 1}", "[x, y]", "it's", "'it", 'say "hi"', '"open', "a\\b", "a\\", "a\\\\", "a\\'b", 
    "üñ 你 🙂", "",
    " leading", "#no comment", "a: b", "s3://x/y?c=d&e", "~/x", "$HOME", "range(1,3)", "choice(a,b)", "a,b", "*.json",
    "C:\\dir\\file", "@x", "%x", "!x", "a\tb", "`x`", "-", "=", ",",
)  # fmt: skip


def value(tree: dict[str, Any], dotted: str) -> Any:
    for part in dotted.split("."):
        tree = tree[part]
    return tree


def problems(composed: Composed) -> dict[str, str]:
    return {problem.key: str(problem) for problem in examine(composed)[1]}


def recipe(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, len(AS_TYPED), len(TEXT_KEYS)))
def test_a_text_arrives_as_it_was_typed(composed: Compose, start: int) -> None:
    texts = dict(zip(TEXT_KEYS, AS_TYPED[start : start + len(TEXT_KEYS)], strict=False))
    tree = composed(*(f"{key}={text}" for key, text in texts.items())).tree
    assert {key: value(tree, key) for key in texts} == texts


def test_quotes_around_a_text_are_taken_off_and_null_is_null(composed: Compose) -> None:
    tree = composed("run.name='null'", 'data.path="a, b"', "data.config=null", "train.max_steps=null").tree
    assert tree["run"]["name"] == "null"
    assert tree["data"]["path"] == "a, b"
    assert tree["data"]["config"] is None
    assert tree["train"]["max_steps"] is None


def test_values_that_are_no_texts_keep_their_type(composed: Compose) -> None:
    tree = composed(
        "data.files=[a.json, b c.json, 007]", "train.learning_rate=1e-4", "train.load_best=true", "train.eval_steps=3",
        "generate.prompts=['Hello, world', what is 1+1?]", "data.columns={prompt: q}",
    ).tree  # fmt: skip
    assert tree["data"]["files"] == ["a.json", "b c.json", "007"]
    assert tree["train"]["learning_rate"] == 1e-4
    assert tree["train"]["load_best"] is True
    assert tree["train"]["eval_steps"] == 3
    assert tree["generate"]["prompts"] == ["Hello, world", "what is 1+1?"]
    assert tree["data"]["columns"]["prompt"] == "q"
    assert tree["data"]["columns"]["text"] is None


@pytest.mark.parametrize("text", AS_TYPED)
def test_quote_is_undone_by_hydras_parser(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={quote(text)}").value() == text


def test_interpolations_work(composed: Compose) -> None:
    tree = composed("run.name=a${run.seed}", "data.config=${trainer.name}").tree
    assert tree["run"]["name"] == "a42"
    assert tree["data"]["config"] == "sft"


def test_plus_signs_change_nothing(composed: Compose) -> None:
    plain = composed("peft=lora", "run.seed=7")
    for plus in ("+", "++"):
        other = composed(f"{plus}peft=lora", f"{plus}run.seed=7")
        assert (other.tree, other.origins, other.given) == (plain.tree, plain.origins, plain.given)


# --- where each value came from ------------------------------------------------------------------------------------


def line_of(path: Path, start: str) -> int:
    return next(n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.startswith(start))


def test_origins_of_defaults_name_file_and_line(composed: Compose) -> None:
    found = composed("trainer=pretrain", "peft=lora")
    root = Path(__file__).resolve().parents[2]
    assert found.origins["train.epochs"] == f"conf/config.yaml:{line_of(root / 'conf/config.yaml', '  epochs:')}"
    assert found.origins["peft.r"] == f"conf/peft/lora.yaml:{line_of(root / 'conf/peft/lora.yaml', 'r:')}"
    path = root / "conf/trainer/pretrain.yaml"
    assert found.origins["data.path"] == f"conf/trainer/pretrain.yaml:{line_of(path, '  path:')}"  # outside its section
    assert found.origins["trainer.name"] == "command line"
    assert found.given == {"trainer.name", "peft.name"}


def test_every_leaf_has_an_origin(composed: Compose) -> None:
    from aitrain.config.run import leaves

    found = composed("peft=lora", "train.epochs=1")
    assert {key for key, _ in leaves(found.tree)} == set(found.origins)


BASE = """\
# the first of two
defaults:
  - config
  - override peft: lora
  - _self_

run:
  name: base
train:
  max_steps: 10
  warmup_ratio: 0.1
"""
TOP = """\
defaults: [base, override trainer: pretrain, _self_]

train:
  max_steps: 20
peft:
  r: 4
"""


def test_origins_of_a_recipe_built_on_a_recipe(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path, BASE, "base.yaml")
    found = composed("train.warmup_ratio=0", recipe=recipe(tmp_path, TOP, "top.yaml"))
    assert found.tree["train"]["max_steps"] == 20
    assert found.origins["train.max_steps"] == "top.yaml:4"
    assert found.origins["peft.r"] == "top.yaml:6"
    assert found.origins["run.name"] == "base.yaml:8"
    assert found.origins["peft.name"] == "base.yaml:4"
    assert found.origins["trainer.name"] == "top.yaml:1"
    assert found.origins["train.warmup_ratio"] == "command line"
    assert found.origins["peft.alpha"].startswith("conf/peft/lora.yaml:")
    assert found.given == {
        "run.name", "train.max_steps", "train.warmup_ratio", "peft.r", "peft.name", "trainer.name",
    }  # fmt: skip
    assert not found.problems


def test_the_command_line_wins_over_a_recipes_choice(composed: Compose, tmp_path: Path) -> None:
    text = "defaults: [config, override trainer: pretrain, _self_]\nrun: {name: x}\n"
    found = composed("trainer=sft", recipe=recipe(tmp_path, text))
    assert found.tree["trainer"]["name"] == "sft"
    assert found.origins["trainer.name"] == "command line"


PROFILE = """\
name: mine
device: cpu
processes: 3
nodes: 1
threads: 1
stop_timeout: 1
collective_timeout: 2
"""


def test_a_users_own_profile(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own/hardware").mkdir(parents=True)
    recipe(tmp_path / "own/hardware", PROFILE)
    alone = composed("hardware=mine", config_dir=tmp_path / "own")
    beside = composed("hardware=mine", recipe=recipe(tmp_path, BASE), config_dir=tmp_path / "own")
    for found in (alone, beside):
        assert found.tree["hardware"]["processes"] == 3
        assert found.origins["hardware.processes"] == "own/hardware/mine.yaml:3"
        assert found.origins["hardware.name"] == "command line"
        assert "hardware.processes" not in found.given
        assert examine(found)[1] == []


def test_a_recipe_named_by_config_name(composed: Compose, tmp_path: Path) -> None:
    recipe(tmp_path, BASE, "base.yaml")
    found = composed(config_dir=tmp_path, config_name="base")
    assert found.tree["run"]["name"] == "base"


def test_values_from_python() -> None:
    values = {"train.epochs": 1.5, "trainer": "pretrain", "data": {"columns": {"text": "body"}, "path": "${x}"}}
    found = compose(Request(("train.epochs=7", "run.seed=1"), values=values))
    assert found.tree["train"]["epochs"] == 1.5
    assert found.tree["data"]["columns"]["text"] == "body"
    assert found.tree["data"]["columns"]["prompt"] is None
    assert found.tree["data"]["path"] == "${x}"  # taken as it is
    python = {key for key, origin in found.origins.items() if origin == "python"}
    assert python == {"train.epochs", "trainer.name", "data.columns.text", "data.path"}
    assert found.origins["run.seed"] == "command line"
    assert found.given == {*python, "run.seed"}


def test_wrong_values_from_python_are_refused_together() -> None:
    values: dict[Any, Any] = {
        3: 4, "train.batch_size.x": 3, "nope": 1, "trainer.name": "x", "task": "zz", "data._target_": "os.system",
        "train.epochs": float("nan"),
    }  # fmt: skip
    found = problems(compose(Request(values=values)))
    assert set(found) == {"3", "nope", "trainer.name", "task", "train.batch_size", "data._target_", "train.epochs"}


def test_allow_downloads_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in {"FALSE": False, "1": True}.items():
        monkeypatch.setenv("ALLOW_DOWNLOADS", text)
        assert compose(Request()).tree["run"]["allow_downloads"] is expected
    monkeypatch.setenv("ALLOW_DOWNLOADS", "perhaps")
    assert "'perhaps'" in problems(compose(Request()))["run.allow_downloads"]
    assert compose(Request(("run.allow_downloads=false",))).tree["run"]["allow_downloads"] is False


# --- what is refused -----------------------------------------------------------------------------------------------


def test_many_mistakes_are_found_at_once(composed: Compose) -> None:
    words = (
        "train.batch_siz=1", "~peft", "x=1", "trainer=pretain", "data.colums.prompt=a", "train.batch_size=0",
        "data.block_size=3", "data.train-split=x", "run.seed=a", "peft.r=3", "word", "data._target_=os.system",
        "_target_=x", "task.name=llm", "train=3", "=3", "run.name=${nope}", "train.epochs=1", "++train.epochs=2",
        "train.logging_steps=1,2", "hydra.run.dir=x", "data.columns=5",
    )  # fmt: skip
    found = problems(composed(*words))
    assert "did you mean 'train.batch_size'?" in found["train.batch_siz"]
    assert "did you mean 'pretrain'?" in found["trainer"]
    assert "did you mean 'data.train_split'?" in found["data.train-split"]
    assert "did you mean 'data.columns.prompt'?" in found["data.colums.prompt"] or "data.columns" in found
    assert "data.block_size" not in found, "it has an effect with the trainer that was meant"
    assert "choose peft=lora" in found["peft.r"]
    assert "given twice" in found["train.epochs"]
    assert "add -m" in found["train.logging_steps"]
    assert "names no code" in found["data._target_"]
    assert "names no code" in found["_target_"]
    assert {"peft", "x", "train.batch_size", "run.seed", "word", "task.name", "train", "=3", "run.name",
            "hydra.run.dir"} <= set(found)  # fmt: skip
    assert len(found) >= 20


def test_a_nested_key_of_a_misspelt_section_gets_its_nearest(composed: Compose) -> None:
    found = problems(composed("data.colums.prompt=a", "trian.epochs=3"))
    assert "did you mean 'data.columns.prompt'?" in found["data.colums.prompt"]
    assert "did you mean 'train.epochs'?" in found["trian.epochs"]


def test_an_infinite_number_is_refused(composed: Compose) -> None:
    found = problems(composed("train.learning_rate=inf", "train.weight_decay=inf", "train.max_minutes=nan"))
    assert set(found) == {"train.learning_rate", "train.weight_decay", "train.max_minutes"}


def test_hydras_own_refusals_are_problems(composed: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        composed("hydra.nope=1")
    assert len(caught.value.problems) == 1
    for word in ("hydra/launcher=joblib", "hydra.sweep.dir=a"):
        assert "has no effect without -m" in str(composed(word).problems[0])
    assert "use --config-dir" in problems(composed("hydra.searchpath=[a]"))["hydra.searchpath"]


# --- multirun ------------------------------------------------------------------------------------------------------


def jobs(*words: str) -> list[tuple[str, ...]]:
    return [job.overrides for job in expand(Request(words))]


def hydras_jobs(*words: str) -> list[tuple[str, ...]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(words))
    return [tuple(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]


@pytest.mark.parametrize(
    "words",
    [
        ("train.batch_size=1,2", "trainer=sft,pretrain"),
        ("peft=none,lora", "run.seed=range(1,4)", "train.epochs=choice(1,2)"),
        ("train.learning_rate=1e-4,auto", "run.seed=1"),
        ("trainer=choice(sft,pretrain)", "train.load_best=true,false"),
        ("run.seed=sort(3,1,2)", "data.columns={prompt:a},{prompt:b}"),
        ("generate.prompts=[a,b],[c]", "data.files=a,b"),
        ("nope.a=1,2",),
        ("run.seed=7",),
    ],
)
def test_jobs_come_in_hydras_order(words: tuple[str, ...]) -> None:
    assert jobs(*words) == hydras_jobs(*words)


def test_texts_of_a_sweep_arrive_as_typed(composed: Compose) -> None:
    words = jobs(
        "data.train_split=train[:10%],train[10%:]", "data.path='a, b',c d,${run.seed},007", "data.config=null,x"
    )
    assert len(words) == 16
    found = [composed(*job).tree["data"] for job in (words[0], words[2], words[5], words[15])]
    assert [(d["train_split"], d["path"], d["config"]) for d in found] == [
        ("train[:10%]", "a, b", None),
        ("train[:10%]", "c d", None),
        ("train[:10%]", 42, "x"),
        ("train[10%:]", "007", "x"),
    ]


def test_hydras_own_words_go_into_every_job_except_those_about_the_multirun() -> None:
    words = ("hydra.sweep.dir=x", "hydra/launcher=basic", "hydra.verbose=true", "run.seed=1,2")
    assert jobs(*words) == [("run.seed=1", "hydra.verbose=true"), ("run.seed=2", "hydra.verbose=true")]


def test_a_sweep_that_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        jobs("train.epochs=interval(1,2)", "run.seed=1,", "trainer=sft,pretain", "data.path=glob(*)")
    assert {problem.key for problem in caught.value.problems} == {"train.epochs", "run.seed", "trainer", "data.path"}


def test_another_tools_name_of_an_option_leads_to_ours() -> None:
    from aitrain.elsewhere import OPTIONS

    for (group, option), ours in OPTIONS.items():
        assert ours in group_options(group)
        assert option not in group_options(group)
        (problem,) = compose(Request((f"{group}={option}",))).problems
        assert f"here it is '{ours}'" in str(problem)
        assert problem.fix == f"{group}={ours}"


@pytest.mark.parametrize(("names", "shared"), [
    (["llm-sft"], "llm-sft"), (["llm-sft", "llm-dpo"], "llm"), (["llm-sft", "llm-simpo"], "llm"),
    (["a-b-c", "a-b-d"], "a-b"), (["one", "two"], "multirun"), (["a", "a-b"], "a"),
])  # fmt: skip
def test_what_names_share(names: list[str], shared: str) -> None:
    assert shared_name(names) == shared


@pytest.mark.parametrize(("words", "folder"), [
    (("trainer=sft,dpo",), "outputs/llm/NOW"),
    (("trainer=dpo", "train.learning_rate=1e-5,1e-4"), "outputs/llm-dpo/NOW"),
    (("trainer=sft,dpo", "run.name=mine"), "outputs/mine/NOW"),
    (("run.name=one,two",), "outputs/multirun/NOW"),
    (("trainer=sft,dpo", "hydra.sweep.dir=there"), "there"),
])  # fmt: skip
def test_the_folder_of_a_multirun_is_named_after_all_of_its_jobs(words: tuple[str, ...], folder: str) -> None:
    assert str(sweep_folder(Request(words), "NOW")) == folder


def test_jobs_are_told_apart_by_the_keys_they_differ_in() -> None:
    made = expand(Request(("trainer=sft,dpo", "run.seed=1", "train.epochs=1,2")))
    keys = swept_keys(made)
    assert keys == {"trainer", "train.epochs"}
    assert [words_about(keys, job) for job in made] == [
        "trainer=sft train.epochs=1", "trainer=sft train.epochs=2",
        "trainer=dpo train.epochs=1", "trainer=dpo train.epochs=2",
    ]  # fmt: skip
