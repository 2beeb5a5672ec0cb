"""What is known of data and model before torch loads, and each way they can be wrong."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aitrain.cli import main
from aitrain.commands.doctor import has_hub_login
from aitrain.compose import Request
from aitrain.config.architectures import positions
from aitrain.config.run import Run
from aitrain.data.hub import hub_home
from aitrain.errors import ConfigError, DataError, Refused
from aitrain.look import look, look_at_data, look_at_model
from aitrain.machine import checkpoints_at_once, disk_need, environment_problems
from aitrain.memory import Estimate
from aitrain.plan import Machine, Rows, plan
from aitrain.start import Checked, check, estimated_rows

CHAT = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(20)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def rows(path: Path, values: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def model_folder(path: Path, tensors: dict[str, list[int]] | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in (tensors or {}).items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.fixture(scope="module")
def base(run_of: Callable[..., Run]) -> Run:
    return run_of("run.allow_downloads=true")


@pytest.fixture
def run(base: Run) -> Callable[..., Run]:
    """`run(data__path=…)`: a valid run with other values, as if the user had set them."""

    def call(**values: Any) -> Run:
        sections: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            section, _, name = key.partition("__")
            sections.setdefault(section, {})[name] = value
        made = {name: getattr(base, name).model_copy(update=update) for name, update in sections.items()}
        given = base.given | {key.replace("__", ".") for key in values}
        return Run(**{**dict(base.sections()), **made}, origins=base.origins, given=given)

    return call


# --- data ----------------------------------------------------------------------------------------------------------


def test_rows_columns_and_counts_are_found(run: Callable[..., Run], here: Path) -> None:
    rows(here / "a.jsonl", CHAT)
    found = look_at_data(run(data__path="a.jsonl"))
    assert found.train_count.rows == 20
    assert found.choice.columns == {"prompt": "prompt", "completion": "completion"}
    assert found.first == CHAT[0]
    assert found.valid is None


def test_problems_of_data_model_and_config_come_together(run: Callable[..., Run], here: Path) -> None:
    with pytest.raises(Refused) as caught:
        check(Request(("data.path=gone.jsonl", "model.path=./gone", "train.batch_siz=1", "run.seed=-1")))
    assert [problem.key for problem in caught.value.problems] == [
        "run.seed",
        "train.batch_siz",
        "data.path",
        "model.path",
    ]


def test_an_empty_file_holds_no_row(run: Callable[..., Run], here: Path) -> None:
    (here / "a.jsonl").write_text("")
    with pytest.raises(DataError, match=r"data\.path"):
        look_at_data(run(data__path="a.jsonl"))


def test_a_hub_id_without_downloads_is_refused(run: Callable[..., Run], here: Path) -> None:
    with pytest.raises(DataError, match="allow_downloads"):
        look_at_data(run(data__path="owner/name", run__allow_downloads=False))


def test_train_on_needs_answers(run: Callable[..., Run], here: Path) -> None:
    rows(here / "a.jsonl", [{"text": "plain"}] * 5)
    with pytest.raises(DataError, match=r"use data\.train_on=all"):
        look_at_data(run(data__path="a.jsonl", data__train_on="assistant"))
    assert look_at_data(run(data__path="a.jsonl", data__train_on="all")).choice.shape == "text"


def test_a_validation_split_that_is_missing_is_named(run: Callable[..., Run], here: Path) -> None:
    (here / "d").mkdir()
    rows(here / "d/train.jsonl", CHAT)
    with pytest.raises(DataError, match=r"data\.valid_split"):
        look_at_data(run(data__path="d", data__valid_split="test"))
    rows(here / "d/test.jsonl", CHAT[:4])
    found = look_at_data(run(data__path="d", data__valid_split="test"))
    assert (found.train_count.rows, found.valid_count.rows) == (20, 4)


def turns(*said: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in said]


ASKS, SAYS = ("user", "a"), ("assistant", "b")
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
FAULTS: list[tuple[tuple[str, ...], dict[str, Any], dict[str, Any], str]] = [
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS, SAYS, SAYS)}, "messages 2 and 3 are both answers"),
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(SAYS, ASKS, SAYS)}, "begins with an answer"),
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS, ("bot", "b"))}, "has the unknown role 'bot'"),
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS, ("assistant", " "))}, "an answer is empty"),
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS)}, "holds no assistant turn to learn"),
    ((), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS, SAYS, ("system", "s"))}, "should come first"),
    ((), CHAT[0], {"prompt": "a", "completion": " "}, "column 'completion' is empty"),
    ((), CHAT[0], {"prompt": turns(ASKS, SAYS), "completion": "b"}, "column 'prompt' ends with an answer"),
    ((), CHAT[0], {"prompt": "a", "completion": turns(ASKS, SAYS)}, "column 'completion' begins with a user turn"),
    (("data.chat_format=mistral",), {"messages": turns(ASKS, SAYS)}, {"messages": turns(ASKS, ASKS, SAYS)},
     "message 2 is of the user, and in the mistral format one of the assistant is due"),
    (("data.chat_format=raw",), CHAT[0], {"prompt": turns(("system", "s"), ASKS), "completion": "b"}, "has no place"),
    (("trainer=pretrain",), {"text": "a"}, {"text": ""}, "column 'text' is empty"),
    (("trainer=dpo",), PAIR, {**PAIR, "rejected": "b"}, "'chosen' and 'rejected' are the same"),
    (("trainer=reward",), {**PAIR, "margin": 1}, {**PAIR, "margin": None}, "column 'margin' holds nothing"),
    (("trainer=kto",), {"prompt": "a", "completion": "b", "label": 1}, {"prompt": "a", "completion": "b", "label": "?"},
     "where true or false, or 1 or 0, is expected"),
    (("trainer=dpo", "data.chat_format=vicuna"),
     {"chosen": turns(ASKS, SAYS), "rejected": turns(ASKS, ("assistant", "no"))},
     {"chosen": turns(ASKS, ASKS, SAYS), "rejected": turns(ASKS, ASKS, ("assistant", "no"))},
     "message 2 is of the user"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "good", "bad", "says"), FAULTS, ids=[f"{n}" for n in range(len(FAULTS))])
def test_rows_that_no_tokenizer_could_use_are_refused_before_one_is_loaded(
    here: Path, words: tuple[str, ...], good: dict[str, Any], bad: dict[str, Any], says: str
) -> None:
    rows(here / "rows.jsonl", [good] * 24 + [bad])
    request = Request(("data.path=rows.jsonl", *words))
    with pytest.raises(Refused) as caught:
        check(request)
    (problem,) = caught.value.problems
    assert (problem.key, problem.where) == ("data.path", "rows.jsonl:25")
    assert problem.what.startswith("row cannot be used: ")
    assert says in problem.what
    assert problem.advice == "repair it, or set data.on_bad_rows=skip"
    assert check(request, judge_rows=False).found.problems == ()


def test_rows_of_parquet_are_named_by_their_number(here: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([*CHAT, {"prompt": "a", "completion": None}]), here / "rows.parquet")
    with pytest.raises(Refused, match=r"'completion' holds nothing where text .* \(rows\.parquet row 21\)"):
        check(Request(("data.path=rows.parquet",)))


def test_faults_of_rows_that_are_not_used_are_none(here: Path) -> None:
    rows(here / "a.jsonl", [*CHAT, {"prompt": "a", "completion": ""}])
    words = ("data.path=a.jsonl", "data.valid_fraction=0")
    for more in (("data.max_samples=20",), ("data.train_split=train[:20]",), ("data.on_bad_rows=skip",)):
        assert check(Request((*words, *more))).found.problems == ()
    with pytest.raises(Refused, match=r"data\.valid_split: row cannot be used: .*\(a\.jsonl:21\)"):
        check(Request(("data.path=a.jsonl", "data.train_split=train[:9]", "data.valid_split=train[9:]")))


def test_at_most_ten_faulty_rows_are_named(here: Path) -> None:
    rows(here / "a.jsonl", [*CHAT, *[{"prompt": "a", "completion": ""}] * 30])
    with pytest.raises(Refused) as caught:
        check(Request(("data.path=a.jsonl",)))
    assert [problem.where for problem in caught.value.problems] == [f"a.jsonl:{number}" for number in range(21, 31)]


@pytest.mark.parametrize(
    ("scanned", "more", "unread"),
    [
        (1 << 20, (), ""),
        (1 << 20, ("data.max_samples=5",), ""),
        (0, (), "only the first 7 rows of a.jsonl are looked at yet"),
        (0, ("data.max_samples=7",), ""),
        (0, ("data.train_split=train[5:]",), "only the first 7 rows of a.jsonl are looked at yet"),
        (0, ("data.train_split=train[50%:]",), "the rows of a.jsonl are not looked at yet"),
        (0, ("data.max_samples=9", "data.max_samples_strategy=even"), "the rows of a.jsonl are not looked at yet"),
    ],
)
def test_of_a_larger_file_it_is_said_what_was_not_looked_at(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    scanned: int, more: tuple[str, ...], unread: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("aitrain.look.SCANNED", scanned)
    monkeypatch.setattr("aitrain.look.LOOKED_AT_OF_LARGER", 7)
    rows(here / "a.jsonl", CHAT)
    words = ("data.path=a.jsonl", "data.valid_fraction=0", *more)
    found = check(Request(words)).found.data
    assert found is not None
    assert found.sources[0].unread == unread
    assert main(["check", *words]) == 0
    said = capsys.readouterr().out
    last = "nothing is wrong with what was looked at; drop" if unread else "nothing is wrong; drop"
    assert said.splitlines()[-1].startswith(last)
    assert (f"rows       {unread}; a run looks at all when it tokenises them" in said) == bool(unread)
    rows(here / "a.jsonl", [*CHAT[:6], {"prompt": "a", "completion": ""}, *CHAT[6:]])
    if not unread.startswith("the rows"):
        with pytest.raises(Refused, match=r"\(a\.jsonl:7\)"):
            check(Request(tuple(word for word in words if "max_samples" not in word and "split" not in word)))


@pytest.mark.parametrize(
    ("values", "train", "valid"),
    [
        ({}, 19, 1),
        ({"data__valid_fraction": 0.0}, 20, 0),
        ({"data__valid_fraction": 0.5}, 10, 10),
        ({"data__valid_fraction": 0.01}, 20, 0),
        ({"data__max_samples": 10, "data__valid_fraction": 0.2}, 8, 2),
        ({"data__train_split": "train[:50%]", "data__valid_fraction": 0.1}, 9, 1),
        ({"data__valid_split": "train[:5]", "data__train_split": "train[5:]"}, 15, 5),
        pytest.param(
            {"data__max_samples": 1, "data__valid_fraction": 0.9}, 1, 0,
        ),
    ],
)  # fmt: skip
def test_rows_are_estimated_as_they_will_be_held_out(
    run: Callable[..., Run], here: Path, values: dict[str, Any], train: int, valid: int
) -> None:
    from aitrain.data.splits import hold_out

    rows(here / "a.jsonl", CHAT)
    asked = run(data__path="a.jsonl", **values)
    found = estimated_rows(Checked(asked, look(asked), Machine(1, ())))
    assert (found.train, found.valid) == (train, valid)
    if asked.data.valid_split is None:
        drawn = hold_out(train + valid, asked.data.valid_fraction, asked.run.seed)
        assert (len(drawn.train), len(drawn.valid)) == (train, valid)


# --- models --------------------------------------------------------------------------------------------------------


def test_a_model_folder_tells_its_family_and_size(run: Callable[..., Run], here: Path) -> None:
    model_folder(here / "m", {"a": [10, 4], "b": [7], "scalar": []})
    found = look_at_model(run(model__path="m"))
    assert (found.kind, found.config, found.parameters) == ("folder", {"model_type": "llama"}, 48)


@pytest.mark.parametrize(
    ("files", "has_template"),
    [
        ({}, None),  # an old tokenizer without a config
        ({"tokenizer_config.json": "{}"}, False),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, True),
        ({"tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"}, True),
        ({"tokenizer_config.json": "{}", "tekken.json": "{}"}, None),
    ],
)
def test_a_tokenizer_without_a_chat_template_is_seen_before_it_is_loaded(
    run: Callable[..., Run], here: Path, files: dict[str, str], has_template: bool | None
) -> None:
    folder = model_folder(here / "m")
    for name, text in files.items():
        (folder / name).write_text(text)
    rows(here / "a.jsonl", CHAT)
    asked = run(model__path=str(folder), data__path=str(here / "a.jsonl"))
    found = look(asked)
    assert found.model is not None
    assert found.model.has_template is has_template
    refused = [(problem.key, problem.fix) for problem in found.problems]
    assert refused == ([("data.chat_format", "data.chat_format=chatml")] if has_template is False else [])


def test_a_format_that_the_rows_do_not_fit_is_seen_before_anything_is_loaded(
    run: Callable[..., Run], here: Path
) -> None:
    rows(
        here / "chats.jsonl", [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    rows(here / "texts.jsonl", [{"text": "a"}, {"text": "b"}])
    for name, chosen in (("chats", "raw"), ("texts", "chatml")):
        path = str(here / f"{name}.jsonl")
        (problem,) = look(run(data__path=path, data__chat_format=chosen, data__valid_fraction=0)).problems
        assert problem.key == "data.chat_format"
        assert chosen in problem.what


def test_a_hybrid_is_not_laid_end_to_end_and_says_so_at_once(run: Callable[..., Run], here: Path) -> None:
    rows(here / "a.jsonl", CHAT)
    asked = {"data__path": str(here / "a.jsonl"), "model__path": "sample:tiny-lfm2"}
    assert look(run(**asked)).problems == ()
    (problem,) = look(run(**asked, train__padding_free=True)).problems
    assert (problem.key, problem.fix) == ("train.padding_free", "train.padding_free=auto")
    assert "lfm2" in problem.what


def test_a_sample_model_has_a_config(run: Callable[..., Run]) -> None:
    found = look_at_model(run())
    assert found.kind == "sample"
    assert found.config is not None
    assert found.config["model_type"] == "llama"


def test_an_unknown_sample_is_refused_with_the_nearest(run: Callable[..., Run], here: Path) -> None:
    rows(here / "rows.jsonl", CHAT)
    slips = [("model__path", "sample:tiny-lama", "tiny-llama"), ("data__path", "sample:tutr", "tutor")]
    for key, value, right in slips:
        problems = look(run(**{"data__path": "rows.jsonl", key: value})).problems
        assert len(problems) == 1
        assert right in str(problems[0])


@pytest.mark.parametrize(
    "case", ["file", "gone", "slip", "empty", "no weights", "adapter", "below", "no json", "not utf-8"]
)
def test_a_wrong_model_folder_is_refused(run: Callable[..., Run], here: Path, case: str) -> None:
    path, folder = "m", here / "m"
    model_folder(folder)
    expected = {
        "file": "is a file", "gone": "no such folder", "slip": "did you mean", "empty": "has no config.json",
        "no weights": "has no weights", "adapter": "holds an adapter", "below": "m/checkpoint-model",
        "no json": "is not JSON",
        "not utf-8": "is not JSON",
    }[case]  # fmt: skip
    if case == "file":
        (here / "f").write_text("x")
        path = "f"
    elif case == "gone":
        path = "./x/y/z"
    elif case == "slip":
        model_folder(here / "models/tiny-model")
        path = "models/tiny-modle"
    elif case == "no weights":
        (folder / "model.safetensors").unlink()
    elif case in ("no json", "not utf-8"):
        (folder / "config.json").write_bytes(b"{" if case == "no json" else b"\xff\xfe")
    else:
        (folder / "config.json").unlink()
        if case == "adapter":
            (folder / "adapter_config.json").write_text("{}")
        if case == "below":
            model_folder(folder / "checkpoint-model")
    with pytest.raises(ConfigError, match=expected):
        look_at_model(run(model__path=path))


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 50) + b"{"],
    ids=["empty", "short", "a list", "cut"],
)
def test_a_broken_weights_file_is_no_traceback(run: Callable[..., Run], here: Path, content: bytes) -> None:
    model_folder(here / "m")
    (here / "m/model.safetensors").write_bytes(content)
    rows(here / "rows.jsonl", CHAT)
    found = look(run(model__path="m", data__path="rows.jsonl"))
    assert found.model is None
    assert [str(problem) for problem in found.problems] == [
        "model.path: m/model.safetensors is no safetensors file; it is cut or damaged"
    ]


def test_a_hub_model_needs_downloads_or_the_cache(run: Callable[..., Run], here: Path) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor in the local cache"):
        look_at_model(run(model__path="owner/name", run__allow_downloads=False))
    assert look_at_model(run(model__path="owner/name", run__allow_downloads=True)).kind == "hub"
    model_folder(here / "hf/hub/models--owner--name/snapshots/abc", {"a": [3]})
    found = look_at_model(run(model__path="owner/name", run__allow_downloads=False))
    assert (found.kind, found.parameters) == ("hub", 3)


def test_the_revision_names_the_snapshot(run: Callable[..., Run], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = here / "hf/hub/models--owner--name"
    commits = {"main": "a" * 40, "v1": "b" * 40, "": "c" * 40}
    for size, (name, commit) in enumerate(commits.items(), 1):
        model_folder(cache / "snapshots" / commit, {"w": [size]})
        os.utime(cache / "snapshots" / commit / "config.json", (size, size))
        if name:
            (cache / "refs").mkdir(exist_ok=True)
            (cache / "refs" / name).write_text(commit)

    def size(revision: str | None) -> int | None:
        asked = run(model__path="owner/name", model__revision=revision, run__allow_downloads=False)
        return look_at_model(asked).parameters

    assert (size(None), size("main"), size("v1"), size("c" * 40)) == (1, 1, 2, 3)
    for absent in ("v2", "d" * 40):
        with pytest.raises(ConfigError, match=f"owner/name in revision {absent} is neither"):
            size(absent)
    (cache / "refs/main").unlink()
    assert size(None) == 3, "the newest, where nobody fetched main"


def test_one_place_for_what_the_hub_libraries_keep(
    run: Callable[..., Run], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aitrain.data.hub import is_cached

    assert hub_home({}) == Path.home() / ".cache/huggingface"
    assert hub_home({"HF_HOME": "", "XDG_CACHE_HOME": ""}) == Path.home() / ".cache/huggingface"
    assert hub_home({"HF_HOME": "a", "XDG_CACHE_HOME": "b"}) == Path("a")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "xdg"))
    home = here / "xdg/huggingface"
    model_folder(home / "hub/models--owner--name/snapshots/abc", {"a": [3]})
    (home / "datasets/owner___rows/default/0.0.0/abc").mkdir(parents=True)
    (home / "token").write_text("planted")
    assert look_at_model(run(model__path="owner/name", run__allow_downloads=False)).parameters == 3
    assert is_cached("owner/rows")
    assert has_hub_login(os.environ)


# --- lengths -------------------------------------------------------------------------------------------------------


def with_positions(folder: Path, **config: Any) -> None:
    model_folder(folder)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "gpt2", "n_positions": 64, "n_ctx": 32}, 64),
        ({"model_type": "gpt2", "n_ctx": 32}, 32),
        ({"model_type": "opt", "max_position_embeddings": 2048}, 2048),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 8}}, 8),
        ({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 4.0}}, 400),
        ({"max_position_embeddings": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 32),
        ({"max_position_embeddings": 128,
          "rope_scaling": {"factor": 8, "original_max_position_embeddings": 8}}, 128),
        ({"model_type": "bloom", "n_positions": 64}, None),
        ({"model_type": "falcon", "alibi": True, "max_position_embeddings": 64}, None),
        ({"model_type": "mamba"}, None),
    ],
)  # fmt: skip
def test_positions_by_the_models_config(config: dict[str, Any], most: int | None) -> None:
    assert positions(config) == most


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({}, "data.max_length: 1024 tokens, which is the default, but m has 512 positions; use data.max_length=512"),
        ({"data__max_length": 600}, "data.max_length: 600 tokens, but m has 512 positions; use data.max_length=512"),
        ({"data__max_length": 512}, None),
    ],
)
def test_rows_longer_than_the_model_has_positions_are_refused(
    run: Callable[..., Run], here: Path, words: dict[str, Any], problem: str | None
) -> None:
    with_positions(here / "m", model_type="gpt2", n_positions=512)
    rows(here / "rows.jsonl", CHAT)
    found = look(run(model__path="m", data__path="rows.jsonl", **words)).problems
    assert [str(p).removesuffix(" or less") for p in found] == ([problem] if problem else [])
    assert [p.fix for p in found] == (["data.max_length=512"] if problem else [])


def test_the_key_that_the_trainer_reads_is_compared(run_of: Callable[..., Run], here: Path) -> None:
    with_positions(here / "m", model_type="llama", max_position_embeddings=512)
    asked = run_of("trainer=pretrain", f"model.path={here / 'm'}", "data.block_size=513")
    assert [problem.key for problem in look(asked).problems] == ["data.block_size"]
    assert look(run_of("trainer=pretrain", f"model.path={here / 'm'}", "data.block_size=512")).problems == ()


# --- the machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "processes", "accelerators", "key"),
    [
        ("cpu", 4, (), None),
        ("auto", 1, (), None),
        ("cuda", 1, (), "hardware.device"),
        ("mps", 1, ("cuda",), "hardware.device"),
        ("cuda", 2, ("cuda", "cuda"), None),
        ("cuda", 3, ("cuda", "cuda"), "hardware.processes"),
        pytest.param(
            "auto",
            3,
            ("cuda", "cuda"),
            "hardware.processes",
        ),
        ("cuda:1", 1, ("cuda", "cuda"), None),
        ("cuda:2", 1, ("cuda", "cuda"), "hardware.device"),
    ],
)
def test_devices_that_are_absent_are_refused(
    run: Callable[..., Run], device: str, processes: int, accelerators: tuple[str, ...], key: str | None
) -> None:
    asked = run(hardware__device=device, hardware__processes=processes)
    found = [problem.key for problem in environment_problems(asked, Machine(4, accelerators))]
    assert found == ([key] if key else [])


@pytest.mark.parametrize(
    ("device", "accelerators", "refused"),
    [("cpu", ("cuda",), True), ("auto", (), True), ("auto", ("cuda",), False), ("cuda", ("cuda",), False)],
)
def test_fp16_needs_an_accelerator(
    run: Callable[..., Run], device: str, accelerators: tuple[str, ...], refused: bool
) -> None:
    asked = run(hardware__device=device, train__precision="fp16")
    found = [problem.key for problem in environment_problems(asked, Machine(4, accelerators))]
    assert found == (["train.precision"] if refused else [])


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"save_steps": "never"}, 0),
        ({"save_steps": 10, "save_total_limit": None}, 10),
        ({"save_steps": 30, "save_total_limit": None}, 4),
        ({"save_steps": 10, "save_total_limit": 2}, 4),
        ({"save_steps": 10, "save_total_limit": 2, "eval_steps": "never"}, 3),
        ({"save_steps": 50, "save_total_limit": 2}, 2),
    ],
)
def test_checkpoints_on_disk_at_once(run: Callable[..., Run], values: dict[str, Any], count: int) -> None:
    asked = run(**{f"train__{name}": value for name, value in {"max_steps": 100, **values}.items()})
    made = plan(asked, Rows(400, 20), Machine(1, ()), Path("x"))
    assert checkpoints_at_once(asked, made) == count


def test_disk_is_needed_for_each_checkpoint(run: Callable[..., Run]) -> None:
    asked = run(train__max_steps=100, train__save_steps=10, train__save_total_limit=None)
    made = plan(asked, Rows(400, 20), Machine(1, ()), Path("x"))
    estimate = Estimate(100, 100, 200, 7, 7, 7)
    assert disk_need(asked, made, estimate) == 100 + 10 * 300
