"""Mistakes in data and model: refused with their key, without a traceback, and nothing is left behind.

Those of the first part are only seen once a model is loaded; those in data are refused before.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import report, run, words
from safetensors.torch import load_file, save_file

from aitrain.cli import main
from aitrain.ml.sample_models import sample_model

SHORT = {"train__max_steps": 2}


def refused(folder: Path, capsys: pytest.CaptureFixture[str], nothing: str = "trained", **changes: Any) -> str:
    """What is said of a run that is refused: when it had opened, nothing was trained, before it nothing was started."""
    assert main(words(folder, **{**SHORT, **changes})) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"refused, nothing was {nothing} (")
    assert "Traceback" not in said
    assert not folder.exists()
    return said


def test_layers_that_the_model_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path / "r", capsys, peft="lora", peft__target_modules="[q_proj,v_porj,nope]")
    assert "peft.target_modules: the model has no layer 'v_porj'; did you mean 'v_proj'? There is " in said
    assert "no layer 'nope'; there is down_proj, gate_proj" in said
    assert "'q_proj'" not in said
    said = refused(tmp_path / "r", capsys, peft="lora", peft__modules_to_save="[model.nrom]")
    assert "peft.modules_to_save: the model has no layer 'model.nrom'" in said


@pytest.mark.parametrize("value", ["nope", "[input_layernorm]"])
def test_layers_that_peft_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    said = refused(tmp_path / "r", capsys, peft="lora", peft__target_modules=value)
    assert "  peft.target_modules: " in said
    assert "there is down_proj, gate_proj" in said


def model(folder: Path, **config: Any) -> Path:
    """A copy of a sample model with another config."""
    shutil.copytree(sample_model("tiny-qwen3"), folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


def test_models_that_do_not_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "kind": {"model_type": "vit", "architectures": ["ViTModel"]},
        "size": {"intermediate_size": 96},
        "unknown": {"model_type": "never-heard-of"},
    }
    for name, config in wrong.items():
        said = refused(tmp_path / "r", capsys, model__path=model(tmp_path / name, **config))
        assert f"  model.path: {tmp_path / name} " in said, name


def test_a_model_without_some_of_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = refused(tmp_path / "r", capsys, model__path=folder)
    assert "lacks 1 of the model's tensors, such as model.layers.1.mlp.up_proj.weight" in said


# --- checkpoints of other runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "r"
    run(folder, **SHORT, train__eval_steps=1, train__save_steps=1, train__save_total_limit="null")
    return folder


def test_a_checkpoint_of_another_kind_of_run(tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = other / "checkpoints" / "step-000001"
    for changes, what in (
        ({"peft": "lora"}, "peft=none, not lora"),
        ({"model__path": "sample:tiny-llama"}, "model.path=sample:tiny-qwen3, not sample:tiny-llama"),
        ({"train__optimizer": "sgd"}, "train.optimizer=adamw, not sgd"),
    ):
        said = refused(tmp_path / "r", capsys, "started", run__resume=start, **changes)
        assert f"run.resume: {start} is of a run with {what}; set the same" in said
        assert "(1 problem)" in said


def test_the_best_of_another_folder_is_not_taken_over(tmp_path: Path, other: Path) -> None:
    state = "aitrain_state.json"
    copied = tmp_path / "from" / "checkpoints" / "step-000001"
    shutil.copytree(other / "checkpoints" / "step-000001", copied)
    books = json.loads((copied / state).read_text())
    assert books["best"]["step"] == 1
    text = json.dumps({**books, "best": {**books["best"], "measures": {"loss": 0.0}}, "evaluations_without_gain": 7})
    _rewrite(copied, state, text)
    made = run(tmp_path / "r", run__resume=copied, train__eval_steps=1, train__load_best=True, train__max_steps=3,
               train__early_stopping_patience=5)  # fmt: skip
    best = report(tmp_path / "r")["best"]
    assert best["step"] in (2, 3)
    assert (made.folder / best["checkpoint"]).is_dir()
    assert made.values["metrics"]["after"]["loss"] == best["loss"] > 0
    assert made.values["metrics"]["before"] == books["before"]


def _rewrite(checkpoint: Path, name: str, text: str) -> None:
    """Change a file of a checkpoint and its manifest."""
    import hashlib

    (checkpoint / name).write_text(text)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


# --- the commonest mistakes in data ---------------------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model, whatever calls it, is a failure that no one takes for a refusal."""
    from transformers import PreTrainedModel

    def loaded(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", loaded)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def data_refused(folder: Path, capsys: pytest.CaptureFixture[str], path: Path, **changes: Any) -> list[str]:
    """The problems with which a run on a file is refused, `key: words` each."""
    said = refused(folder / "r", capsys, "started", data__path=path, data__max_samples=None, **changes)
    assert "a model was loaded" not in said
    problems = [line.strip() for line in said.splitlines()[1:] if line.startswith("  ")]
    assert f"({len(problems)} problem" in said
    return problems


GOOD = {"prompt": "Say 1", "completion": "1"}


def test_the_model_is_loaded_where_nothing_is_wrong(tmp_path: Path, no_model: None) -> None:
    with pytest.raises(AssertionError, match="a model was loaded"):
        run(tmp_path / "r", data__path=jsonl(tmp_path / "rows.jsonl", [GOOD] * 9), data__max_samples=None)


def test_columns_of_other_names(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"question_text": "a", "reply_text": "b"}] * 9)
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith("data.columns: no column says what it is; there is 'question_text', 'reply_text'; set ")
    assert "data.columns.prompt ('question_text'?) and data.columns.completion" in problem
    chosen = {"data__columns__prompt": "questoin_text", "data__columns__completion": "reply_text"}
    (problem,) = data_refused(tmp_path, capsys, path, **chosen)
    assert problem.startswith("data.columns.prompt: no column 'questoin_text'")
    assert problem.endswith("did you mean 'question_text'?")


def test_a_better_answer_that_is_the_worse_one(
    tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "b"}] * 5
    path = jsonl(tmp_path / "rows.jsonl", rows)
    problems = data_refused(tmp_path, capsys, path, trainer="dpo", generate__count=None)
    assert len(problems) == 5
    assert problems[0].startswith("data.path: row cannot be used: 'chosen' and 'rejected' are the same; repair it")
    assert problems[0].endswith("(rows.jsonl:2)")


@pytest.mark.parametrize(
    ("empty", "what"),
    [
        ({"prompt": "a", "completion": " "}, "column 'completion' is empty"),
        ({"messages": [turn("user", "a"), turn("assistant", "")]}, "an answer is empty"),
        ({"messages": [turn("user", "a")]}, "holds no assistant turn to learn"),
    ],
)
def test_answers_that_are_empty(
    tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str], empty: dict[str, Any], what: str
) -> None:
    good = GOOD if "prompt" in empty else {"messages": [turn("user", "a"), turn("assistant", "b")]}
    path = jsonl(tmp_path / "rows.jsonl", [good] * 4 + [empty] + [good] * 4)
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith(f"data.path: row cannot be used: {what}")
    assert problem.endswith("repair it, or set data.on_bad_rows=skip  (rows.jsonl:5)")


@pytest.mark.parametrize(
    ("roles", "what"),
    [
        (["assistant", "user", "assistant"], "the conversation begins with an answer"),
        (["user", "assistant", "assistant"], "messages 2 and 3 are both answers"),
        (["user", "system", "assistant"], "message 2 is a system message, which should come first"),
        (["user", "bot"], "message 2 has the unknown role 'bot'; there is system, user, human, assistant"),
    ],
)
def test_roles_out_of_order(
    tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str], roles: list[str], what: str
) -> None:
    good = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    path = jsonl(tmp_path / "rows.jsonl", [good] * 8 + [{"messages": [turn(role, "x") for role in roles]}])
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith(f"data.path: row cannot be used: {what}")
    assert problem.endswith("(rows.jsonl:9)")


def test_a_list_where_text_is_expected(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": ["b", "c"], "first": "b"}] * 9)
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem == (
        "data.columns.completion: column 'completion' holds a list with text ('b') in it in row 1, where text or "
        "messages is expected; set data.columns.completion to another column ('first')"
    )


def test_rows_that_are_all_too_long(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a " * 60, "completion": "b " * n} for n in range(10, 16)]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    for truncation, what in (
        ("drop", r"all 6 rows are longer than 32 tokens and left out; the shortest has \d+; raise data.max_length"),
        ("error", r"6 of 6 rows are longer than 32 tokens, the longest has \d+; raise data.max_length.*rows.jsonl:6"),
    ):
        (problem,) = data_refused(tmp_path, capsys, path, data__max_length=32, data__truncation=truncation)
        assert re.match(f"data.max_length: {what}", problem)
    problems = data_refused(tmp_path, capsys, path, data__max_length=32, data__truncation="right")
    assert "no token of the answer is left within 32 tokens" in problems[0]


def test_one_row_only(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [GOOD])
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith("data.valid_fraction: the only row cannot be both trained and validated on; set data.va")
    assert main(["check", *words(None, data__path=path)]) == 2
    assert "data.valid_fraction=0" in capsys.readouterr().err.splitlines()[-1]  # the command to type instead
    twice = jsonl(tmp_path / "rows.jsonl", [GOOD, {"prompt": "a", "completion": ""}])
    skip = {"data__on_bad_rows": "skip", "data__max_bad_rows": 0.5}
    (problem,) = data_refused(tmp_path, capsys, twice, **skip)
    assert problem.startswith("data.valid_fraction: the only row")
    few = jsonl(tmp_path / "rows.jsonl", [GOOD] * 5)
    (problem,) = data_refused(tmp_path, capsys, few, data__valid_fraction=0.05)
    assert problem.startswith("data.valid_fraction: 0.05 of 5 rows is less than one row; raise it to 0.2, or set 0")


def test_values_of_mixed_types(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [GOOD, {"prompt": "Say 2", "completion": 2}])
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith("data.columns.completion: column 'completion' holds a number (2) in row 2, where text")
    path = jsonl(tmp_path / "rows.jsonl", [GOOD] * 30 + [{"prompt": {"a": 1}, "completion": "2"}])
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith("data.path: row cannot be used: column 'prompt': message 1 has neither 'role' nor 'from'")
    assert problem.endswith("(rows.jsonl:31)")


def test_values_that_are_no_number(tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has no NaN; pandas writes one as an empty cell into CSV, and as null into a text column of Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + '\n{"prompt": "a", "completion": NaN}\n')
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem == (
        "data.path: NaN is no JSON; use null; repair it, or leave bad rows out with data.on_bad_rows=skip"
        "  (rows.jsonl:2)"
    )
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\na,b\nc,\nd,e\n")
    (problem,) = data_refused(tmp_path, capsys, path)
    assert "column 'completion' is empty" in problem
    assert problem.endswith("(rows.csv:3)")
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "completion": ["x", None, "y"]}), path)
    (problem,) = data_refused(tmp_path, capsys, path)
    assert "column 'completion' holds nothing where text is expected" in problem
    assert problem.endswith("(rows.parquet row 2)")
    pq.write_table(pa.table({"prompt": ["a", "b"], "completion": [float("nan")] * 2}), path)
    (problem,) = data_refused(tmp_path, capsys, path)
    assert problem.startswith("data.columns.completion: column 'completion' holds a number (nan) in row 1, where text")


def test_a_tokenizer_without_a_chat_template(
    tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model(tmp_path / "m")
    values = json.loads((folder / "tokenizer_config.json").read_text())
    values.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = jsonl(tmp_path / "rows.jsonl", [GOOD] * 9)
    (problem,) = data_refused(tmp_path, capsys, path, model__path=folder)
    assert problem.startswith("data.chat_format: the tokenizer has no chat template of its own to write conversations ")
    assert "choose one: " in problem
    assert "chatml" in problem
