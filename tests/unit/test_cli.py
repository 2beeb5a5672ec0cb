"""The command line from outside: exit codes, golden refusals, no traceback for a user's mistake, no stray files."""

from __future__ import annotations

import os
import random
import shlex
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrain import cli
from aitrain.errors import ConfigError, Problem, Stopped, TrainingFailed
from aitrain.parameters import all_keys

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

RECIPES = {
    "ok.yaml": "defaults: [config, override peft: lora, _self_]\ntrain:\n  max_steps: 3\n",
    "wrong.yaml": "defaults: [config, _self_]\nrun:\n  name: 007\ntrain:\n  epoch: 3\n  batch_size: 0\n"
    "data:\n  path: ???\n",
    "twice.yaml": "defaults: [config, _self_]\ntrain:\n  epochs: 3\n  epochs: 4\n",
    "plain.yaml": "train: {epochs: 3}\n",
    "added.yaml": "defaults: [config, peft: lora, _self_]\n",
    "broken.yaml": "defaults: [config\n",
    "option.yaml": "defaults:\n  - config\n  - override trainer: pretrian\n  - _self_\n",
}
ERRORS = {
    "unknown_keys": "train.batch_siz=4 data.columns.promt=q data.colums.prompt=q trian.epochs=3 epochs=3",
    "unknown_keys_far_off": "train.zzz=4 zzz.zzz=q zzz=1",
    "unknown_option": "trainer=pretrian",
    "unknown_group": "pef=lora",
    "unknown_verb": "chekc train.epochs=1",
    "unknown_flag": "show --nope",
    "not_a_key": "train.batch-size=4 train..epochs=4 =4 word",
    "a_section": "train=4 data.columns=q ~train.epochs ~peft",
    "option_by_its_name": "trainer.name=pretrain",
    "given_twice": "train.epochs=1 train.epochs=2 peft=lora peft=none",
    "several_values": "train.batch_size=1,2 run.seed=range(1,3)",
    "wrong_types": "train.batch_size=many train.eval_steps=sometimes train.load_best=yes "
    "generate.prompts=hello run.name=null",
    "wrong_list_items": "generate.prompts=[1,2] train.batch_size=1.5 train.eval_batch_size=true",
    "wrong_choice": "train.scheduler=linaer",
    "out_of_range": "train.warmup_ratio=1 train.batch_size=0 run.seed=-1",
    "target": "data._target_=os.system",
    "interpolation": "run.name=${nope}",
    "needs_the_other_option": "peft.r=8",
    "no_effect": "data.block_size=128",
    "no_effect_without": "data.shuffle_buffer=5 data.max_samples_strategy=even train.max_steps=3 train.epochs=2",
    "early_stopping_without_evaluation": "train.early_stopping_patience=2 train.eval_steps=never",
    "stream_without_an_end": "data.streaming=true",
    "remote_code": "model.path=a/b model.trust_remote_code=true",
    "processes_on_one_device": "hardware.device=cuda:0 hardware.processes=2",
    "no_device": "hardware.device=tpu run.name=a/b",
    "resume_without_a_folder": "run.resume=auto",
    "recipe_gone": "okk.yaml",
    "recipe_wrong": "wrong.yaml",
    "recipe_key_twice": "twice.yaml",
    "recipe_without_defaults": "plain.yaml",
    "recipe_without_override": "added.yaml",
    "recipe_is_no_yaml": "broken.yaml",
    "recipe_option": "option.yaml",
    "recipe_and_word": "ok.yaml train.epochs=2",
    "two_recipes": "ok.yaml plain.yaml",
    "config_name_gone": "--config-dir . --config-name okk",
    "flag_without_value": "--config-dir",
    "hydras_own": "hydra.run.dir=x",
    "many_kinds_at_once": "~peft trainer=pretrian data.colums.prompt=q run.seed=x peft.r=3 task.name=llm "
    "data.block_size=1",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def golden(path: Path, text: str) -> None:
    if os.environ.get("AITRAIN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "AITRAIN_UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("name", ERRORS)
def test_golden_refusals(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    words = shlex.split(ERRORS[name])
    verb = [] if name in ("unknown_verb", "unknown_flag") else ["show"]
    assert cli.main([*verb, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    text = f"$ python -m aitrain {shlex.join([*verb, *words])}\n{err}"
    golden(GOLDEN / f"errors/{name}.txt", text.replace(str(folder), "FOLDER"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(RECIPES)


def test_no_golden_text_is_left_over() -> None:
    assert {path.stem for path in (GOLDEN / "errors").glob("*.txt")} == set(ERRORS)


@pytest.mark.parametrize(("name", "words"), [("help", ["--help"]), ("show_options", ["show", "options"])])
def test_golden_help(capsys: pytest.CaptureFixture[str], name: str, words: list[str]) -> None:
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 120
    golden(GOLDEN / f"{name}.txt", out)


def test_help_is_found_anywhere_and_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "x=1", "-h"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS)


# --- exit codes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError(Problem("a.b", "is wrong", "write 1", "x.yaml:3")), 2, "  a.b: is wrong; write 1  (x.yaml:3)"),
        (TrainingFailed("the loss is not a number"), 1, "failed: the loss is not a number"),
        (Stopped(2), 130, "stopped by signal 2; nothing was saved"),
        (Stopped(15, "x/step-1"), 143, "stopped by signal 15; state saved in x/step-1"),
    ],
)
def test_exit_codes(capsys: pytest.CaptureFixture[str], error: Exception, code: int, text: str) -> None:
    def run() -> int:
        raise error

    assert cli.run_safely(run, []) == code
    assert text in capsys.readouterr().err


def test_a_bug_prints_its_traceback() -> None:
    def run() -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        cli.run_safely(run, [])


def test_the_corrected_command_is_offered_where_every_problem_has_a_correction(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", "train.batch_siz=4", "trainer=pretrian", "run.name=my run"]) == 2
    corrected = capsys.readouterr().err.splitlines()[-1]
    assert corrected == "try: python -m aitrain show train.batch_size=4 trainer=pretrain 'run.name=my run'"
    assert cli.main(shlex.split(corrected.partition("aitrain ")[2])) == 0
    capsys.readouterr()
    assert cli.main(["show", "train.batch_siz=4", "nope.nope=4"]) == 2
    assert "try:" not in capsys.readouterr().err


def test_check_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    assert cli.main(["check", "ok.yaml", "data.path=rows.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "nothing is wrong" in out
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RECIPES, "rows.jsonl"])


def test_check_of_a_multirun_looks_at_every_job(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    words = ["check", "-m", "data.path=rows.jsonl"]
    assert cli.main([*words, "run.seed=1,2,3", "train.batch_size=4,5"]) == 0
    out = capsys.readouterr().out
    assert "runs       6; the first one: data.path=rows.jsonl run.seed=1 train.batch_size=4\n" in out
    assert "4 rows x 1 accumulated" in out
    assert cli.main([*words, "train.batch_size=4,0", "run.seed=1,-2", "data.max_length=8,2000"]) == 2
    err = capsys.readouterr().err
    assert "(3 problems)" in err
    assert all(key in err for key in ("train.batch_size: ", "run.seed: ", "data.max_length: 2000 tokens"))
    assert cli.main([*words, "run.dir=run", "run.seed=1,2"]) == 2
    assert "runs 0 and 1 would both write to run" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RECIPES, "rows.jsonl"])


def test_a_problem_of_some_jobs_says_which(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 20)
    assert cli.main(["check", "-m", "trainer=dpo,sft", "data.path=rows.jsonl", "train.batch_size=4,0"]) == 2
    head, size, columns = capsys.readouterr().err.splitlines()
    assert "(2 problems)" in head
    assert size.endswith("(in 2 of 4 runs: trainer=dpo train.batch_size=0; trainer=sft train.batch_size=0)")
    assert "choose trainer=dpo" in columns
    assert columns.endswith("(in 2 of 4 runs: trainer=sft train.batch_size=4; trainer=sft train.batch_size=0)")
    assert cli.main(["check", "-m", "trainer=dpo,orpo", "data.path=rows.jsonl", "run.seed=-1"]) == 2
    assert "runs" not in capsys.readouterr().err
    assert cli.main(["check", "-m", "trainer=dpo,orpo", "data.path=rows.jsonl"]) == 0
    assert "folder     outputs/llm/TIMESTAMP/0\n" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "corrected"), [
    ("trainer=cpo trainer.loss_type=simpo", "trainer=simpo"),
    ("trainer=dpo train.padding_free=false run.seed=1", "trainer=dpo run.seed=1"),
    ("data.path=pairs.jsonl data.columns.chosen=chosen",
     "data.path=pairs.jsonl data.columns.chosen=chosen trainer=dpo"),
    ("trainer=sft data.path=pairs.jsonl", "trainer=dpo data.path=pairs.jsonl"),
    ("trainer=dpo data.path=judged.jsonl", "trainer=kto data.path=judged.jsonl"),
    ("trainer=reward data.path=judged.jsonl", "trainer=kto data.path=judged.jsonl"),
    ("trainer=kto data.path=answers.jsonl", "trainer=sft data.path=answers.jsonl"),
])  # fmt: skip
def test_the_corrected_command_names_the_option_that_fits(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, corrected: str
) -> None:
    rows = {
        "pairs": '{"prompt": "a", "chosen": "b", "rejected": "c"}',
        "judged": '{"prompt": "a", "completion": "b", "label": true}',
        "answers": '{"prompt": "a", "completion": "b"}',
    }
    for name, row in rows.items():
        (folder / f"{name}.jsonl").write_text(f"{row}\n" * 20)
    assert cli.main(["check", *words.split()]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"try: python -m aitrain check {corrected}"
    assert cli.main(["check", *corrected.split()]) == 0


def test_check_counts_wanted_and_unwanted_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f'{{"prompt": "{n}", "completion": "b", "label": {n % 3 // 2}}}' for n in range(21)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    assert cli.main(["check", "trainer=kto", "data.path=rows.jsonl"]) == 0
    assert "answers    7 wanted, 14 unwanted\n" in capsys.readouterr().out
    assert cli.main(["check", "trainer=kto"]) == 0
    assert "answers    one wanted and one unwanted of each pair\n" in capsys.readouterr().out
    assert cli.main(["check", "trainer=dpo"]) == 0
    assert "answers" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("check --cfg job", "--cfg"), ("check --info=all", "--info"), ("check -m -p hydra run.seed=1,2", "-p"),
        ("show --cfg job", "--cfg"), ("show -m run.seed=1,2", "-m"), ("show --resolve", "--resolve"),
        ("preview -c job", "-c"), ("preview --multirun run.seed=1,2", "-m"), ("preview --hydra-help", "--hydra-help"),
    ],
)  # fmt: skip
def test_flags_without_effect_are_refused(capsys: pytest.CaptureFixture[str], words: str, flag: str) -> None:
    verb = words.split()[0]
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"  {flag}: has no effect with '{verb}'; " in err


def test_check_refuses_a_folder_that_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run").mkdir()
    (folder / "run/x").write_text("")
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    assert cli.main(["check", "run.dir=run", "data.path=rows.jsonl"]) == 2
    assert "run.dir: run exists and is not empty; choose another run.dir" in capsys.readouterr().err
    assert cli.main(["check", "run.dir=ok.yaml", "data.path=rows.jsonl"]) == 2
    assert "run.dir: ok.yaml is a file" in capsys.readouterr().err


# --- whatever is typed ---------------------------------------------------------------------------------------------

VALUES = (
    "", "0", "-1", "1e309", "nan", "null", "true", "[]", "{}", "[1,", "{a", "'", '"', "\\", "a,b", "${x}", "${", "}",
    "???", "x" * 300,
    "\n", "\x00", "é", "\udcff", "~", "1:2:3", "0x10", "1_000", "!!python/name:os.system", "$(ls)", "*",
    "range(1,", "glob(*)", "choice()", "tag(a)", "int(1)", "[[[]]]", "{a:{b:{c:1}}}", "=", "==", "/", "../..", " ",
)  # fmt: skip


def fuzzed_words(rng: random.Random, keys: list[str]) -> Iterator[str]:
    """Words that are nearly right: known keys with strange values, keys with a slip, and noise."""
    while True:
        key, value = rng.choice(keys), rng.choice(VALUES)
        kind = rng.random()
        if kind < 0.25:
            key = slip(key, rng)
        elif kind < 0.35:
            key = "".join(rng.choices(string.printable, k=rng.randrange(1, 8))).strip() or "x"
        elif kind < 0.45:
            key = rng.choice(["+", "++", "~", "hydra.", "hydra/", "trainer", "peft", "data.columns"]) + rng.choice(
                ["", key]
            )
        word = key if kind > 0.97 else f"{key}={value}"
        if not word.startswith("-") and not word.endswith((".yaml", ".yml")):
            yield word


def slip(text: str, rng: random.Random) -> str:
    """One letter left out, doubled, replaced or changed places, never at a dot."""
    while True:
        at = rng.randrange(len(text))
        made = rng.choice([
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
            text[:at] + rng.choice(string.ascii_lowercase) + text[at + 1 :],
            text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
        ])  # fmt: skip
        if made != text and text[at] != "." and text[at : at + 2][-1:] != ".":
            return made


def test_whatever_is_typed_is_valid_or_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(7)
    words = fuzzed_words(rng, all_keys())
    for number in range(12):
        line = [next(words) for _ in range(rng.choice((1, 20, 30, 40)))]
        code = cli.main(["show", *line])
        out, err = capsys.readouterr()
        assert code in (0, 2), line
        assert (code == 2) == err.startswith("refused, nothing was started ("), (line, err)
        assert "Traceback" not in err + out, line
        if number % 4 == 3:
            assert sorted(path.name for path in folder.iterdir()) == sorted(RECIPES), line


def test_whatever_a_recipe_holds_is_valid_or_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(8)
    text = (Path(__file__).resolve().parents[2] / "recipes/llm_sft.yaml").read_text(encoding="utf-8")
    for _ in range(20):
        mutated = list(text)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(mutated))
            mutated[at] = rng.choice(
                ["", "\n", "\t", ":", "- ", "{", "&a ", "*a", "!", "?", "'", " ", "x", "0", "#", "é"]
            )
        (folder / "mutated.yaml").write_text("".join(mutated), encoding="utf-8")
        code = cli.main(["show", "mutated.yaml"])
        out, err = capsys.readouterr()
        assert code in (0, 2), "".join(mutated)
        assert "Traceback" not in err + out
        assert (code == 2) == err.startswith("refused, nothing was started ("), (err, "".join(mutated))


def test_a_slip_in_a_key_gets_the_right_advice(composed: Callable[..., Any]) -> None:
    from aitrain.validate import examine

    rng = random.Random(9)
    keys = [key for key in all_keys() if not key.endswith(".name")]
    right, seen = 0, 0
    for start in range(0, len(keys), 40):
        typed = {}
        for key in keys[start : start + 40]:
            section, _, rest = key.partition(".")
            wrong = f"{section}.{slip(rest, rng)}"
            if wrong not in keys:
                typed[wrong] = key
        options = {"peft=lora"} | {f"tracking={o}" for o in ("wandb",)}
        advice = {p.key: str(p) for p in examine(composed(*options, *(f"{wrong}=1" for wrong in typed)))[1]}
        for wrong, key in typed.items():
            seen += 1
            right += f"'{key}'" in advice.get(wrong, "")
    assert right / seen >= 0.95, (right, seen)


# --- Hydra's own flags ---------------------------------------------------------------------------------------------


def test_cfg_job_prints_the_composed_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert cli.main(["--cfg", "job", "ok.yaml", "data.path=Hello, world", "run.name=007"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["peft"]["name"], tree["train"]["max_steps"]) == ("lora", 3)
    assert (tree["data"]["path"], tree["run"]["name"]) == ("Hello, world", "007")
    assert sorted(path.name for path in folder.iterdir()) == sorted(RECIPES)


@pytest.mark.parametrize("word", ["twice.yaml", "plain.yaml", "trainer=pretrian", "train.epochs=1,2"])
def test_cfg_job_refuses_what_a_run_refuses(folder: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert cli.main(["--cfg", "job", word]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refused, nothing was started (1 problem):")
