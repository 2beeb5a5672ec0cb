"""Runs on several sources: exact shares, nothing validated on that is trained on, and equal however it is run."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from runs import assert_same_run, losses, report, run, run_stopped_at, words
from test_rendering import REWRITING, a_tokenizer

from aitrain.cli import main
from aitrain.compose import Request
from aitrain.data.prepare import SourceTables, open_rows, refuse_unlike
from aitrain.data.tokens import Encoded, EncodedGroup, write_table
from aitrain.errors import Refused
from aitrain.ml.streaming import StreamBatches
from aitrain.plan import plan
from aitrain.registry import TRAINERS
from aitrain.resume import refuse_changed
from aitrain.start import Checked, check, estimated_rows, prepare_rows, run_tokenizer
from aitrain.worker import _stream


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [{"ask": f"alpha {n}", "say": f"one {n}"} for n in range(40)])
    write(tmp_path / "b.jsonl", [{"messages": turns(f"beta {n}", f"two {n} and so on")} for n in range(20)])
    return tmp_path


A, B = "path: a.jsonl, columns: {prompt: ask, completion: say}", "path: b.jsonl"
WEIGHTED = f"[{{{A}, weight: 1}}, {{{B}, weight: 3}}]"
PLAIN = f"[{{{A}}}, {{{B}}}]"
MIXED = {"data__mixture": WEIGHTED, "data__max_samples": None, "data__valid_fraction": 0.1}


def made(*more: str, **changes: Any) -> Checked:
    return check(Request((*words(None, **{**MIXED, **changes}), *more)))


def texts(rows: Any, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(rows[number].ids.tolist()) for number in range(len(rows))]


def opened(checked: Checked, folder: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """The texts trained and validated on, and what is reported of them."""
    done = prepare_rows(checked)
    planned = plan(checked.run, done.rows, checked.machine, folder, done.tokens)
    train, valid = open_rows(checked.run, planned, TRAINERS[checked.run.trainer.name].encoder(checked.run))
    tokenizer = run_tokenizer(checked.run)
    return texts(train, tokenizer), texts(valid, tokenizer) if valid is not None else [], dict(done.facts)


# --- what is trained on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stopping", "alpha", "beta"), [("first_exhausted", 6, 18), ("all_exhausted", 36, 108)])
def test_shares_are_exact_and_validation_rows_are_never_trained_on(
    here: Path, stopping: str, alpha: int, beta: int
) -> None:
    train, valid, facts = opened(made(data__mixture_stopping=stopping), here)
    assert (sum("alpha" in text for text in train), sum("beta" in text for text in train)) == (alpha, beta)
    assert (sum("alpha" in text for text in valid), sum("beta" in text for text in valid)) == (4, 2)
    assert set(train) & set(valid) == set()
    assert len(set(valid)) == len(valid)
    if stopping == "all_exhausted":
        assert len(set(train) | set(valid)) == 60
        assert set(Counter(text for text in train if "beta" in text).values()) == {6}
    assert [(source["examples"], source["share"]) for source in facts["sources"]] == [(alpha, 0.25), (beta, 0.75)]
    assert [source["read"] for source in facts["sources"]] == [40, 20]


def test_without_weights_every_row_comes_once(here: Path) -> None:
    train, valid, _ = opened(made(data__mixture=PLAIN), here)
    assert len(train) == 54
    assert len({*train, *valid}) == 60
    assert ["alpha" in text for text in train] == [True] * 36 + [False] * 18


def questions(rows: list[str]) -> set[int]:
    """Which rows of the first file texts come from, whatever column they were made of."""
    return {int(number) for text in rows for number in re.findall(r"(?:alpha|one) (\d+)", text)}


SWAPPED = "path: a.jsonl, columns: {prompt: say, completion: ask}"


@pytest.mark.parametrize(
    "second",
    [
        f"{A}, weight: 2",
        f"{A}, max_samples: 10",
        f"{A}, train_split: 'train[5:25]'",
        f"{A}, train_split: 'train[-40%:]', weight: 3",
        SWAPPED,
        f"{SWAPPED}, max_samples: 25",
        f"{A}, conversation_extension: 3",
        "path: copy.jsonl, columns: {prompt: ask, completion: say}, max_samples: 30",
        f"{A}, train_split: 'train[20:]', valid_split: 'train[:5]'",
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_file_named_twice_trains_on_no_row_that_it_validates_on(here: Path, second: str, seed: int) -> None:
    (here / "copy.jsonl").write_bytes((here / "a.jsonl").read_bytes())
    mix = f"[{{{A}}}, {{{second}}}]"
    train, valid, facts = opened(made(data__mixture=mix, data__valid_fraction=0.2, run__seed=seed), here)
    assert questions(train) & questions(valid) == set()
    assert len(questions(valid)) >= 8
    assert questions(train) | questions(valid) == set(range(40))
    assert facts["sources"][0]["name"] != facts["sources"][1]["name"]


def test_rows_left_out_are_counted_and_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mix = f"[{{{A}}}, {{{A}, train_split: 'train[5:25]'}}]"
    changes = {**MIXED, "data__mixture": mix, "data__valid_fraction": 0.2, "train__max_steps": 1}
    made_run = run(here / "r", **changes, run__progress="plain")
    sources = made_run.values["data"]["sources"]
    train, valid, facts = opened(made(**changes), here)
    left = [source.get("left_out", 0) for source in facts["sources"]]
    assert sum(left) > 0
    assert len(train) == 32 + 16 - sum(left)
    assert len(valid) == 8 + 4
    said = capsys.readouterr().out
    for source, count in zip(sources, left, strict=True):
        line = next(line for line in said.splitlines() if line.startswith(f"source   {source['name']}: "))
        assert (f", {count} left out on which another source validates, " in line) == bool(count)


def test_rows_that_are_equal_but_not_the_same_stay(here: Path) -> None:
    """What repeats inside a file is the user's; so are two files of other content."""
    write(here / "c.jsonl", [{"prompt": "same", "completion": "same"}] * 30)
    write(here / "d.jsonl", [{"prompt": "same", "completion": "same"}] * 20)
    train, valid, _ = opened(made(data__mixture="[{path: c.jsonl}, {path: d.jsonl}]"), here)
    assert (len(train), len(valid)) == (27 + 18, 3 + 2)


def test_a_source_of_which_every_row_is_validated_on_elsewhere_is_refused(here: Path) -> None:
    mix = f"[{{{A}, train_split: 'train[10:]', valid_split: 'train[:10]'}}, {{{A}, train_split: 'train[:10]'}}]"
    with pytest.raises(
        Refused, match=r"data\.mixture\[1\]\.path: each row of a\.jsonl \(mixture\[1\]\) is one that anoth"
    ):
        prepare_rows(made(data__mixture=mix))


def test_splits_named_to_validate_on_are_used_beside_held_out_rows(here: Path) -> None:
    sources = f"[{{{A}, train_split: 'train[:30]', valid_split: 'train[30:]'}}, {{{B}}}]"
    train, valid, facts = opened(made(data__mixture=sources), here)
    assert (sum("alpha" in text for text in valid), sum("beta" in text for text in valid)) == (10, 2)
    assert sum("alpha" in text for text in train) == 30
    assert set(train) & set(valid) == set()
    assert set(facts["sources"][0]["fingerprint"]) == {"train", "valid"}


def test_other_weights_use_the_same_tables(here: Path) -> None:
    first, second = (prepare_rows(made(data__mixture=mix)) for mix in (WEIGHTED, PLAIN))
    assert first.tokens == second.tokens
    assert set(first.tokens) == {"train[0]", "train[1]"}
    assert first.rows != second.rows


def test_blocks_over_a_mixture_lose_no_token(here: Path) -> None:
    write(here / "t.jsonl", [{"text": f"gamma {n} " * (1 + n % 4)} for n in range(30)])
    write(here / "u.jsonl", [{"content": f"delta {n} " * (1 + n % 3)} for n in range(50)])
    mix = "[{path: t.jsonl, weight: 2}, {path: u.jsonl, weight: 1}]"
    changes = {"trainer": "pretrain", "data__mixture": mix, "data__block_size": 16, "data__valid_fraction": 0}
    checked = made(**changes)
    done = prepare_rows(checked)
    planned = plan(checked.run, done.rows, checked.machine, here, done.tokens)
    blocks, _ = open_rows(checked.run, planned, TRAINERS["pretrain"].encoder(checked.run))
    tokenizer = run_tokenizer(checked.run)
    ids = [*chain.from_iterable(blocks[number].ids.tolist() for number in range(len(blocks)))]
    found = Counter(tokenizer.decode(ids).split(tokenizer.eos_token))
    texts_of = [[json.loads(line)[name] for line in (here / file).read_text().splitlines()]
                for file, name in (("t.jsonl", "text"), ("u.jsonl", "content"))]  # fmt: skip
    wanted = {text: 1 for text in texts_of[1]}
    assert {text: found[text] for text in texts_of[1]} == wanted
    assert sum(found[text] for text in texts_of[0]) == 100
    assert {found[text] for text in texts_of[0]} == {3, 4}
    assert sum(found.values()) == 151  # and the nothing behind the last end
    assert all(len(blocks[number].ids) == 16 for number in range(len(blocks) - 2))


def test_margins_in_one_source_alone_are_refused(here: Path) -> None:
    row = Encoded([1, 2], [0, 1])
    chosen = made(data__mixture=PLAIN).run.data.sources()
    tables = [write_table(here / f"t{n}", [EncodedGroup((row, row), value)], {}, group=2)
              for n, value in enumerate((1.0, None))]  # fmt: skip
    unlike = [SourceTables(source, table, None) for source, table in zip(chosen, tables, strict=True)]
    with pytest.raises(Refused, match=r"data\.mixture\[1\]\.columns\.margin: no column for it, and another source"):
        refuse_unlike(unlike)
    refuse_unlike(unlike[:1])


def test_a_source_of_no_usable_row_is_refused(here: Path) -> None:
    write(here / "c.jsonl", [{"prompt": "x " * 200, "completion": "y"}])
    mix = f"[{{{A}}}, {{path: c.jsonl}}]"
    with pytest.raises(Refused, match=r"data\.max_length: all 1 rows are longer than 64 tokens .* the shortest has"):
        prepare_rows(made(data__mixture=mix, data__max_length=64, data__truncation="drop"))
    write(here / "d.jsonl", [{"prompt": "x", "completion": ""}, {"prompt": "y", "completion": "z"}])
    with pytest.raises(Refused, match=r"data\.mixture\[1\]\.path: row cannot be used: .*d\.jsonl:1"):
        prepare_rows(made(data__mixture=f"[{{{A}}}, {{path: d.jsonl}}]"))


# --- runs -----------------------------------------------------------------------------------------------------------

RUN = {**MIXED, "train__batch_size": 8, "train__max_steps": 8, "train__save_steps": 3, "train__eval_steps": 4}


def test_a_mixture_trains_alike_on_two_processes_and_continues_bit_equal(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(here / "one", **RUN, run__progress="plain")
    said = capfd.readouterr().out
    assert "source   a.jsonl: 40 rows, 36 in an epoch (25.0%), weight 1, prompt=ask, completion=say" in said
    assert "source   b.jsonl: 20 rows, 108 in an epoch (75.0%), weight 3, messages=messages" in said
    run(here / "two", **{**RUN, "hardware": "cpu_x2", "train__batch_size": 4})
    assert max(abs(a - b) for a, b in zip(losses(here / "one"), losses(here / "two"), strict=True)) <= 1e-5
    run_stopped_at(5, here / "stopped", **RUN)
    run(here / "stopped", run__resume="auto", **RUN)
    assert_same_run(here / "stopped", here / "one")
    facts = report(here / "one")["data"]
    assert [source["name"] for source in facts["sources"]] == ["a.jsonl", "b.jsonl"]
    assert (facts["train_rows"], facts["valid_rows"], facts["rows_read"]) == (144, 6, 60)
    lock = json.loads((here / "one" / "lock.json").read_text())["data"]["sources"]
    assert lock == [{"path": s["path"], **s["fingerprint"]} for s in facts["sources"]]
    assert "a.jsonl, b.jsonl" in (here / "one" / "model" / "README.md").read_text()
    # Another share, or other rows of one source, is another run.
    with pytest.raises(Refused, match=r"data\.mixture"):
        run(here / "one", run__resume="auto", **{**RUN, "data__mixture": PLAIN})
    write(here / "b.jsonl", [{"messages": turns(f"beta {n}", "else")} for n in range(20)])
    checked = made(**{**RUN, "data__mixture": WEIGHTED})
    done = prepare_rows(checked)
    planned = plan(checked.run, done.rows, checked.machine, here / "one", done.tokens)
    with pytest.raises(Refused, match=r"data\.mixture: the rows of a\.jsonl, b\.jsonl changed"):
        refuse_changed(here / "one", checked.run, planned)


def test_check_shows_each_source_with_its_share(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words(None, **MIXED)]) == 0
    said = capsys.readouterr().out
    assert "source     a.jsonl  40 rows" in said
    assert "36 rows of an epoch (25.0%), weight 1" in said
    assert "108 rows of an epoch (75.0%), weight 3" in said
    assert "columns  prompt=ask, completion=say  (prompt is 'ask' (set)" in said
    assert "18 = 1 epochs of 18" in said  # 144 rows in steps of 8


# --- streams --------------------------------------------------------------------------------------------------------

STREAM = {**MIXED, "data__valid_fraction": None, "data__streaming": True, "data__shuffle_buffer": 5,
          "train__batch_size": 4, "train__max_steps": 6, "train__save_steps": 2}  # fmt: skip


def batches(rank: int = 0, world: int = 1, start: int = 0, **changes: Any) -> StreamBatches:
    asked = check(Request(tuple(words(None, **{**STREAM, **changes})))).run
    found = StreamBatches(asked, _stream(asked), a_tokenizer(), rank=rank, world=world)
    found.start = start
    return found


def read(stream: StreamBatches, count: int) -> list[list[list[int]]]:
    return [
        [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        for batch in islice(stream, count)
    ]


def test_every_rank_streams_the_same_mixture_and_a_continued_one_goes_on(here: Path) -> None:
    alone = read(batches(), 24)
    ranks = [read(batches(rank, 2, train__batch_size=2), 24) for rank in (0, 1)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)] == alone
    assert read(batches(start=17), 7) == alone[17:]


def test_a_stream_without_weights_gives_every_row_once_a_round_and_mixes_them(here: Path) -> None:
    tokenizer = a_tokenizer()
    found = [tokenizer.decode(row) for row in chain.from_iterable(read(batches(data__mixture=PLAIN), 30))]
    first, second = found[:60], found[60:]
    assert len(set(first)) == 60
    assert sorted(first) == sorted(second)
    assert first != second
    assert 3 <= sum("beta" in text for text in first[:30]) <= 17


def test_a_weighted_stream_repeats_the_small_source_until_all_was_read(here: Path) -> None:
    tokenizer = a_tokenizer()
    found = [tokenizer.decode(row) for row in chain.from_iterable(read(batches(), 60))]
    beta = sum("beta" in text for text in found) / len(found)
    assert abs(beta - 0.75) < 0.14  # five standard deviations of 240 draws
    short = [tokenizer.decode(row) for row in chain.from_iterable(
        read(batches(data__mixture_stopping="first_exhausted"), 60))]  # fmt: skip
    assert max(Counter(text for text in found[:80] if "beta" in text).values()) > 1
    assert max(Counter(short[:20]).values()) == 1


def test_a_streamed_mixture_continues_bit_equal(here: Path) -> None:
    run(here / "whole", **STREAM)
    run_stopped_at(3, here / "r", **STREAM)
    run(here / "r", run__resume="auto", **STREAM)
    assert_same_run(here / "r", here / "whole")
    facts = report(here / "whole")["data"]
    assert [source["weight"] for source in facts["sources"]] == [1.0, 3.0]
    assert set(json.loads((here / "whole" / "lock.json").read_text())["data"]) == {"sources", "stream"}


def test_a_streamed_mixture_is_validated_on_the_splits_that_were_named(here: Path) -> None:
    sources = f"[{{{A}, train_split: 'train[:30]', valid_split: 'train[30:]'}}, {{{B}}}]"
    made_run = run(here / "r", **{**STREAM, "data__mixture": sources, "train__eval_steps": 6})
    assert made_run.values["data"]["valid_rows"] == 10
    assert made_run.metrics["after"]["loss"] < made_run.metrics["before"]["loss"]


# --- data.conversation_extension ------------------------------------------------------------------------------------


def conversations(here: Path, rows: list[dict[str, Any]], **changes: Any) -> list[str]:
    """The texts that rows become, in the order of the file."""
    path = write(here / "rows.jsonl", rows)
    asked = {"data__mixture": None, "data__path": path, "data__valid_fraction": 0, "data__conversation_extension": 3}
    return opened(made(**{**asked, **changes}), here)[0]


def rendered(*pairs: tuple[str, str], system: str = "") -> str:
    """The same by transformers."""
    tokenizer = run_tokenizer(check(Request(tuple(words(None)))).run)
    messages = [*([{"role": "system", "content": system}] if system else []),
                *chain.from_iterable(turns(*pair) for pair in pairs)]  # fmt: skip
    return tokenizer.decode(tokenizer.apply_chat_template(messages)["input_ids"])


def test_single_turns_are_merged_in_order_and_the_rest_makes_a_shorter_one(here: Path) -> None:
    pairs = [(f"question {n}", f"answer {n}") for n in range(8)]
    found = conversations(here, [{"prompt": ask, "completion": say} for ask, say in pairs])
    assert found == [rendered(*pairs[:3]), rendered(*pairs[3:6]), rendered(*pairs[6:])]
    assert conversations(here, [{"messages": turns(*pair)} for pair in pairs]) == found


def test_every_answer_of_a_merged_conversation_is_trained(here: Path) -> None:
    path = write(here / "rows.jsonl", [{"prompt": f"q {n}", "completion": f"reply {n}"} for n in range(3)])
    checked = made(data__mixture=None, data__path=path, data__valid_fraction=0, data__conversation_extension=3)
    done = prepare_rows(checked)
    planned = plan(checked.run, done.rows, checked.machine, here, done.tokens)
    (row,) = (open_rows(checked.run, planned, TRAINERS["sft"].encoder(checked.run))[0][0],)
    trained = run_tokenizer(checked.run).decode(row.ids[row.trained == 1].tolist())
    assert all(f"reply {n}" in trained for n in range(3))
    assert "q 0" not in trained


def test_rows_that_do_not_belong_together_stay_apart_and_none_is_lost(here: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "completion": "1", "system": "Be short."},
        {"prompt": "b", "completion": "2", "system": "Be short."},
        {"prompt": "c", "completion": "3", "system": "Be long."},
        {"prompt": "d", "completion": "4", "system": None},
        {"prompt": "e", "completion": "5", "system": None},
    ]
    assert conversations(here, rows) == [
        rendered(("a", "1"), ("b", "2"), system="Be short."),
        rendered(("c", "3"), system="Be long."),
        rendered(("d", "4"), ("e", "5")),
    ]
    long = [*turns("x", "1"), *turns("y", "2")]
    mixed = [{"messages": messages} for messages in (turns("a", "b"), long, turns("c", "d"), turns("e", "f"))]
    assert conversations(here, mixed) == [
        rendered(("a", "b")), rendered(("x", "1"), ("y", "2")), rendered(("c", "d"), ("e", "f")),
    ]  # fmt: skip


def test_no_merged_conversation_is_longer_than_max_length(here: Path) -> None:
    pairs = [(f"question {n}", "word " * (4 + 9 * (n % 3))) for n in range(12)]
    tokenizer = run_tokenizer(check(Request(tuple(words(None)))).run)
    found = conversations(
        here, [{"prompt": ask, "completion": say} for ask, say in pairs], data__max_length=90, data__truncation="error"
    )
    assert max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in found) <= 90
    assert "".join(found).count("question ") == 12
    start = 0
    for text in found:  # one more row would have been too long, or too many
        end = start + text.count("question ")
        assert text == rendered(*pairs[start:end])
        if end - start < 3 and end < 12:
            longer = rendered(*pairs[start : end + 1])
            assert len(tokenizer(longer, add_special_tokens=False)["input_ids"]) > 90
        start = end
    assert 4 < len(found) < 12


ONE_TURN = (
    "{% if messages | length > 2 %}{{ raise_exception('one question at a time') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_rows_that_make_no_conversation_are_refused_and_never_left_single_in_silence(here: Path) -> None:
    (here / "one.jinja").write_text(ONE_TURN)
    rows = [{"prompt": f"q {n}", "completion": f"a {n}"} for n in range(7)]
    own = {"data__chat_format": "one.jinja"}
    with pytest.raises(Refused) as refused:
        conversations(here, rows, **own)
    problems = refused.value.problems
    assert [problem.where for problem in problems] == ["rows.jsonl:1", "rows.jsonl:4"]
    assert problems[0].what == (
        "row cannot be used: it makes no conversation with the next 2: the chat template refuses the conversation: "
        "one question at a time"
    )
    assert problems[0].advice == "set data.conversation_extension=1, or choose another data.chat_format"
    with pytest.raises(Refused, match=r"6 of 7 rows \(85\.7%\) are bad"):
        conversations(here, rows, **own, data__on_bad_rows="skip", data__max_bad_rows=0.5)
    left = conversations(here, rows, **own, data__on_bad_rows="skip", data__max_bad_rows=1.0)
    assert [text.count("q ") for text in left] == [1]
    assert len(conversations(here, rows, **own, data__conversation_extension=1)) == 7


def test_answers_that_a_template_rewrites_when_others_follow_are_refused_in_a_merged_conversation(here: Path) -> None:
    (here / "rewriting.jinja").write_text(REWRITING)
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(4)]
    with pytest.raises(Refused, match=r"rewrites turn 2 .*; set data\.conversation_extension=1") as refused:
        conversations(here, rows, data__chat_format="rewriting.jinja")
    assert "data.train_on=last" not in str(refused.value)


def test_a_bad_row_among_merged_ones_is_named_with_its_own_place(here: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": ""}, {"prompt": "e", "completion": "f"}]
    with pytest.raises(Refused, match=r"column 'completion' is empty.*rows\.jsonl:2"):
        conversations(here, rows)
    assert conversations(here, rows, data__on_bad_rows="skip", data__max_bad_rows=0.5) == [
        rendered(("a", "b")), rendered(("e", "f")),
    ]  # fmt: skip


def test_plain_text_has_no_turns_to_merge(here: Path) -> None:
    with pytest.raises(Refused, match=r"data\.conversation_extension: merges questions with their answers.*'text'"):
        conversations(here, [{"text": "abc"}, {"text": "def"}])
    write(here / "t.jsonl", [{"text": "abc"}, {"text": "def"}])
    with pytest.raises(Refused, match=r"data\.mixture\[1\]\.conversation_extension"):
        made(data__mixture=f"[{{{A}}}, {{path: t.jsonl}}]", data__conversation_extension=2)
    alone = f"[{{{A}}}, {{path: t.jsonl, conversation_extension: 1}}]"
    train, _, facts = opened(made(data__mixture=alone, data__conversation_extension=2, data__valid_fraction=0), here)
    assert len(train) == 20 + 2
    assert [(source["read"], source["kept"]) for source in facts["sources"]] == [(40, 20), (2, 2)]


def test_the_extension_is_part_of_the_caches_key_and_of_a_stream(here: Path) -> None:
    made_with = [prepare_rows(made(data__mixture=PLAIN, data__conversation_extension=n)) for n in (1, 2, 3)]
    assert len({done.tokens["train[0]"] for done in made_with}) == 3
    tokenizer = a_tokenizer()
    stream = batches(data__mixture=PLAIN, data__conversation_extension=5)
    found = [tokenizer.decode(row) for row in chain.from_iterable(read(stream, 3))]
    assert sorted(text.count("alpha") + text.count("beta") for text in found) == [5] * 12
    assert stream.counts["read"] == 60


def test_both_answers_of_a_pair_are_on_one_side_of_the_validation(here: Path) -> None:
    path = write(
        here / "p.jsonl", [{"prompt": f"p {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(30)]
    )
    changes = {"trainer": "kto", "data__mixture": None, "data__path": path, "data__valid_fraction": 0.2}
    checked = made(**changes)
    assert (estimated_rows(checked).train, estimated_rows(checked).valid) == (48, 12)
    done = prepare_rows(checked)
    planned = plan(checked.run, done.rows, checked.machine, here, done.tokens)
    both = open_rows(checked.run, planned, TRAINERS["kto"].encoder(checked.run))
    tokenizer = run_tokenizer(checked.run)
    sides = []
    for examples in both:
        assert examples is not None
        texts_of = [tokenizer.decode(row.ids.tolist()) for n in range(len(examples)) for row in examples[n].rows]
        sides.append({int(found[1]) for text in texts_of if (found := re.search(r"p (\d+)", text))})
    assert [len(examples) for examples in both if examples is not None] == [48, 12]
    assert [len(side) for side in sides] == [24, 6]
    assert not sides[0] & sides[1]
