"""From the composed tree to a typed run: every problem once and in its place; rules between keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.compose import Composed, Request, compose
from aitrain.config.run import TREE, leaves
from aitrain.errors import ConfigError, did_you_mean, nearest
from aitrain.parameters import parameters
from aitrain.validate import examine, validate

Compose = Callable[..., Composed]


def problems(composed: Composed) -> dict[str, str]:
    return {problem.key: str(problem) for problem in examine(composed)[1]}


def test_a_valid_run_is_frozen_and_equal_to_its_tree(composed: Compose) -> None:
    found = composed("peft=lora", "train.epochs=2")
    run = validate(found)
    assert run.tree() == found.tree
    assert list(run.tree()) == list(TREE)
    assert run.given == found.given
    with pytest.raises(Exception, match="frozen"):
        run.train.epochs = 3.0  # type: ignore[misc]


def test_a_wrong_run_is_refused_with_every_problem_in_the_order_of_the_tree(composed: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(
            composed("train.batch_size=0", "run.seed=-1", "data.max_length=0", "train.max_grad_norm=-1", "peft.r=1")
        )
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["run.seed", "data.max_length", "train.batch_size", "train.max_grad_norm", "peft.r"]
    assert caught.value.exit_code == 2


def test_a_wrong_value_does_not_hide_the_rules_between_keys(composed: Compose) -> None:
    found = problems(composed("train.batch_size=0", "train.max_steps=3", "train.epochs=2", "hardware.device=tpu"))
    assert set(found) == {"train.batch_size", "train.epochs", "hardware.device"}


def test_a_wrong_value_is_reported_once(composed: Compose) -> None:
    run, found = examine(composed("train.eval_steps=0", "data.path=", "train.learning_rate=fast"))
    assert sorted(problem.key for problem in found) == ["data.path", "train.eval_steps", "train.learning_rate"]
    assert run is not None
    assert run.train.learning_rate == "auto"  # stands in for the wrong value, so that the other checks can go on


def test_nothing_is_converted(composed: Compose) -> None:
    words = ("train.batch_size=1.0", "train.load_best=1", "run.seed='3'", "train.epochs='3'", "train.max_steps=true")
    assert set(problems(composed(*words))) == {
        "train.batch_size", "train.load_best", "run.seed", "train.epochs", "train.max_steps",
    }  # fmt: skip


def test_a_key_of_another_option_names_it(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("defaults: [config, _self_]\npeft: {alpha: 3}\ndata: {block_size: 7}\n")
    found = problems(composed(recipe=path))
    assert "it is a key of lora; choose peft=lora or remove it" in found["peft.alpha"]
    assert found["peft.alpha"].endswith("r.yaml:2)")
    assert "has no effect with task=llm trainer=sft; it acts with trainer=pretrain" in found["data.block_size"]
    assert found["data.block_size"].endswith("r.yaml:3)")


def test_a_default_that_nothing_reads_is_no_problem(composed: Compose) -> None:
    assert problems(composed("trainer=pretrain")) == {}  # data.train_on has a value, which the user did not set


def test_every_shared_key_set_by_the_user_is_accepted_or_refused_with_a_reader(composed: Compose) -> None:
    """Setting each shared key to its own default is fine, or refused as without effect; never anything else."""
    shared = {
        key: v for key, v in leaves(validate(composed()).tree()) if key.partition(".")[0] in ("data", "train", "model")
    }
    found = compose(Request(values=shared))
    for key, text in problems(found).items():
        assert "has no effect" in text or "set one of the two" in text or "there are no" in text, (key, text)


RULES: tuple[dict[tuple[str, ...], str], ...] = (
    {
        ("data.valid_split=test", "data.valid_fraction=0.1"): "data.valid_fraction",
        ("data.max_bad_rows=0.5",): "data.max_bad_rows",
        ("train.load_best=true", "train.save_steps=never"): "train.load_best",
        ("train.early_stopping_threshold=0.1",): "train.early_stopping_threshold",
        ("train.save_total_limit=1",): "train.save_total_limit",
        ("hardware.collective_timeout=9",): "hardware.collective_timeout",
        ("hardware.stop_timeout=9",): "hardware.stop_timeout",
        ("model.dtype=bfloat16",): "model.dtype",
        ("model.revision=main",): "model.revision",
        ("generate.prompts=[a,' ']",): "generate.prompts",
        ("generate.count=3",): "generate.count",
        ("data.columns.text=body", "data.train_on=last"): "data.train_on",
        ("run.name=.hidden",): "run.name",
    },
    {
        ("data.streaming=true", "train.max_steps=3", "train.save_steps=epoch"): "train.save_steps",
        ("data.max_samples=5", "data.max_samples_strategy=even"): "data.max_samples_strategy",
        ("train.overfit_batch=true",): "train.overfit_batch",
        ("train.eval_steps=5",): "train.eval_steps",
        ("peft=lora", "peft.target_modules=[]"): "peft.target_modules",
    },
    {
        ("data.valid_fraction=0", "train.load_best=true"): "train.load_best",
        ("train.early_stopping_patience=2",): "train.early_stopping_patience",
        ("train.eval_batch_size=2",): "train.eval_batch_size",
        ("train.eval_steps=5",): "train.eval_steps",
        ("generate.max_new_tokens=9",): "generate.max_new_tokens",
        ("generate.count=9",): "generate.count",
    },
    {
        ("train.eval_steps=never", "data.valid_split=test"): "data.valid_split",
        ("generate.prompts=[a]",): "generate.prompts",
    },
    {("train.overfit_batch=true", "data.valid_split=test"): "data.valid_split"},
    {("generate.count=0", "generate.max_new_tokens=9"): "generate.max_new_tokens"},
    {("generate.prompts=[]", "generate.max_new_tokens=9"): "generate.max_new_tokens"},
)
"""Sets of words that each break one rule, put into one command."""


@pytest.mark.parametrize("rules", RULES)
def test_rules_between_keys(composed: Compose, rules: dict[tuple[str, ...], str]) -> None:
    found = problems(composed(*(word for words in rules for word in words)))
    assert set(found) == set(rules.values())
    assert [text for text in found.values() if ";" not in text] == [], "each says what to do"


@pytest.mark.parametrize(
    "words",
    [
        ("train.eval_steps=never", "generate.count=0"),
        ("train.eval_steps=never", "data.valid_fraction=0.2"),
        ("hardware=cpu_x2", "hardware.collective_timeout=9", "hardware.stop_timeout=9"),
        ("hardware.processes=2", "hardware.collective_timeout=9"),
        ("generate.count=0", "train.eval_on_start=false"),
        ("generate.prompts=[a]", "generate.max_new_tokens=9"),
        ("model.path=owner/name", "model.revision=main"),
    ],
)
def test_keys_that_act_or_ask_for_nothing_are_accepted(composed: Compose, words: tuple[str, ...]) -> None:
    assert problems(composed(*words)) == {}


def test_typed_words_win_over_what_a_recipe_sets_for_another_case(composed: Compose, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "defaults: [config, override hardware: cpu_x2, _self_]\n"
        "model: {path: owner/name, revision: main}\ndata: {valid_split: test}\n"
        "train: {eval_steps: 5, eval_batch_size: 2}\ngenerate: {prompts: [a], max_new_tokens: 9}\n"
        "hardware: {collective_timeout: 9}\n"
    )
    assert problems(composed(recipe=path)) == {}
    assert problems(composed("train.eval_steps=never", recipe=path)) == {}
    assert problems(composed("hardware=cpu", "model.path=sample:tiny-llama", recipe=path)) == {}
    found = problems(composed("train.eval_steps=never", "generate.max_new_tokens=4", recipe=path))
    assert set(found) == {"generate.max_new_tokens"}
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("eval_steps: 5", "eval_steps: never"))
    assert set(problems(composed(recipe=other))) == {
        "data.valid_split", "train.eval_batch_size", "generate.prompts", "generate.max_new_tokens",
    }  # fmt: skip


def test_a_folder_has_no_revisions(composed: Compose, tmp_path: Path) -> None:
    found = problems(composed(f"model.path={tmp_path}", "model.revision=main"))
    assert set(found) == {"model.revision"}
    assert "a folder has no revisions" in found["model.revision"]


@pytest.mark.parametrize(
    ("uri", "refused"),
    [
        ("https://TOKEN@host", True),
        ("https://name:word@host/path", True),
        ("https://host/?token=abc", True),
        ("https://host/?a=1&API_KEY=abc", True),
        ("https://host/#access_token=abc", True),
        ("postgresql://name@host/db", True),
        ("https://[host", True),
        ("https://host:5000/path?workspace=1", False),
        ("databricks://profile", False),
        ("mlruns", False),
    ],
)
def test_an_address_with_a_login_is_kept_out_of_the_files(composed: Compose, uri: str, refused: bool) -> None:
    found = problems(composed("tracking=mlflow", f"tracking.tracking_uri={uri}"))
    assert set(found) == ({"tracking.tracking_uri"} if refused else set())
    assert "abc" not in str(found)
    assert "TOKEN@" not in str(found)


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("train.batchsize", ["train.batch_size", "train.eval_batch_size", "data.block_size"], "train.batch_size"),
        ("data.pth", ["data.path", "model.path"], "data.path"),
        ("model.pth", ["data.path", "model.path"], "model.path"),
        ("pretrian", ["sft", "pretrain"], "pretrain"),
        ("xyz", ["sft", "pretrain"], None),
        ("a", [], None),
    ],
)
def test_the_nearest_name(name: str, known: list[str], expected: str | None) -> None:
    assert nearest(name, known) == expected
    assert did_you_mean(name, known) == (
        f"did you mean '{expected}'?" if expected else "there is pretrain, sft" if known else ""
    )


def test_problems_survive_pickling() -> None:
    """They cross process borders: a job of a multirun tells its parent."""
    import copy

    error: Any = ConfigError([*examine(compose(Request(("train.nope=1", "x=2"))))[1]])
    again = copy.copy(error)
    assert again.problems == error.problems
    assert str(again) == str(error)


def test_a_measure_that_the_trainer_does_not_report_is_refused(composed: Compose) -> None:
    (problem,) = examine(composed("train.metric_for_best_model=token_acuracy"))[1]
    assert problem.key == "train.metric_for_best_model"
    assert "trainer=sft does not report 'token_acuracy'" in str(problem)
    assert problem.fix == "train.metric_for_best_model=token_accuracy"
    (problem,) = examine(composed("train.metric_for_best_model=bleu"))[1]
    assert "there is loss, perplexity, token_accuracy" in str(problem)
    (problem,) = examine(composed("train.metric_for_best_model=perplexity", "data.valid_fraction=0"))[1]
    assert "there are no validation rows" in str(problem)


def misspelt(choice: str) -> str:
    return choice + choice[-1]


def literal_keys() -> list[tuple[str, str, str]]:
    """Option, key and a choice of every key that takes words out of a list."""
    return [
        (parameter.options[0] if parameter.options else "", parameter.key, parameter.choices[-1])
        for parameter in parameters()
        if parameter.choices and not parameter.key.endswith(".name")
    ]


@pytest.mark.parametrize(("option", "key", "choice"), literal_keys())
def test_a_misspelt_choice_gets_the_nearest_one(composed: Compose, option: str, key: str, choice: str) -> None:
    chosen = [f"{key.partition('.')[0]}={option}"] if option else []
    found = {problem.key: problem for problem in examine(composed(*chosen, f"{key}={misspelt(choice)}"))[1]}
    assert f"did you mean '{choice}'?" in found[key].advice
    assert found[key].fix == f"{key}={choice}"


@pytest.mark.parametrize(
    ("words", "says", "fix"),
    [
        ("trainer=dpo trainer.loss_type=sigmod", "there is no 'sigmod'; did you mean 'sigmoid'?",
         "trainer.loss_type=sigmoid"),
        ("trainer=dpo trainer.loss_type=[sft,hing]", "there is no 'hing'; did you mean 'hinge'?",
         "trainer.loss_type=[sft,hinge]"),
        ("trainer=dpo trainer.loss_type=zzzz", "'sigmoid', 'hinge', 'ipo'", ""),
        ("trainer=cpo trainer.loss_type=simpo", "'simpo' is an option of its own; choose trainer=simpo",
         "trainer=simpo"),
        ("trainer=cpo trainer.loss_type=kto", "choose trainer=kto", "trainer=kto"),
        ("train.scheduler=COSINE", "'linear', 'cosine' or 'constant', not 'COSINE'; did you mean 'cosine'?",
         "train.scheduler=cosine"),
        ("train.eval_steps=epochs", "did you mean 'epoch'?", "train.eval_steps=epoch"),
        ("train.load_best=Yes", "write true", "train.load_best=true"),
        ("train.padding_free=off", "write false", "train.padding_free=false"),
        ("data.mixture=my.jsonl", "'data.mixture=[{path: my.jsonl}]'", "data.mixture=[{path: my.jsonl}]"),
        ("data.mixture={a:1}", "'data.mixture=[{path: …}, {path: …}]'", ""),
        ("generate.prompts=hello", "'generate.prompts=[hello]'", "generate.prompts=[hello]"),
        ("trainer=dpo trainer.loss_weights=0.5", "'trainer.loss_weights=[0.5]'", "trainer.loss_weights=[0.5]"),
        ("trainer=dpo trainer.loss_weights=true", "'trainer.loss_weights=[0.5,0.5]'", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_comes_with_the_right_one(composed: Compose, words: str, says: str, fix: str) -> None:
    problem = next(p for p in examine(composed(*words.split()))[1] if p.key != "data.path")
    assert says in str(problem)
    assert problem.fix == fix


def test_a_list_of_texts_is_quoted_where_hydra_needs_it(composed: Compose) -> None:
    (problem,) = examine(composed("generate.prompts=Is it's 2 (or 3)?"))[1]
    assert problem.fix == "generate.prompts=['Is it\\'s 2 (or 3)?']"
    assert composed(problem.fix).tree["generate"]["prompts"] == ["Is it's 2 (or 3)?"]


@pytest.mark.parametrize("trainer", ["dpo", "orpo", "cpo", "simpo", "kto", "reward"])
@pytest.mark.parametrize("value", ["true", "false", "auto"])
def test_padding_free_is_refused_where_it_does_nothing(composed: Compose, trainer: str, value: str) -> None:
    (problem,) = examine(composed(f"trainer={trainer}", f"train.padding_free={value}"))[1]
    assert str(problem).startswith(f"train.padding_free: has no effect with trainer={trainer}")
    assert (problem.advice, problem.fix) == ("leave it out", "~train.padding_free")
