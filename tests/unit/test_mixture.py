"""`data.mixture`: how many rows of each source make an epoch, which ones, and what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from aitrain.compose import Composed, Request
from aitrain.config.run import Run
from aitrain.data import mixture
from aitrain.data.mixture import compose_epoch, epoch_counts, interleave
from aitrain.errors import DataError, Refused
from aitrain.look import look_at_data
from aitrain.schema import schema
from aitrain.start import check, estimated_rows
from aitrain.validate import examine

Compose = Callable[..., Composed]

# --- how many -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "weights", "shortest", "longest"),
    [
        ((10, 100), (1, 1), [10, 10], [100, 100]),
        ((10, 100), (None, None), [10, 100], [10, 100]),
        ((10, 100), (None, 9), [10, 90], [11, 101]),  # 100 / 0.9 = 111.1, so 112 rows: 11.2 and 100.8
        ((7, 5), (0.7, 0.3), [7, 3], [12, 5]),  # 10 rows; 5 / 0.3 = 16.7, so 17 rows: 11.9 and 5.1
        ((4, 5, 3), (1, 1, 1), [3, 3, 3], [5, 5, 5]),
        ((1, 1, 1), (3, 2, 1), [1, 1, 0], [3, 2, 1]),
        ((1000, 3), (0.1, 0.2), [1, 3], [1000, 2000]),
    ],
)
def test_the_rows_of_an_epoch_by_hand(
    sizes: tuple[int, ...], weights: tuple[float | None, ...], shortest: list[int], longest: list[int]
) -> None:
    assert epoch_counts(sizes, weights, "first_exhausted") == shortest
    assert epoch_counts(sizes, weights, "all_exhausted") == longest


@pytest.mark.parametrize("seed", range(200))
def test_shares_are_exact_and_epochs_neither_shorter_nor_longer_than_they_must_be(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randrange(1, 6)
    sizes = [draw.randrange(1, 60) for _ in range(count)]
    weights = [draw.choice([0.1, 0.25, 0.3, 1, 2, 3.5, 10]) for _ in range(count)]
    whole = sum(Fraction(str(weight)) for weight in weights)
    shares = [Fraction(str(weight)) / whole for weight in weights]
    few, many = (epoch_counts(sizes, weights, how) for how in ("first_exhausted", "all_exhausted"))
    for counts in (few, many):
        assert all(abs(n - share * sum(counts)) < 1 for n, share in zip(counts, shares, strict=True))
    assert all(n <= size for n, size in zip(few, sizes, strict=True))
    assert any(share * (sum(few) + 1) > size for share, size in zip(shares, sizes, strict=True))
    assert all(n >= size for n, size in zip(many, sizes, strict=True))
    assert any(share * (sum(many) - 1) < size for share, size in zip(shares, sizes, strict=True))


# --- which ones -----------------------------------------------------------------------------------------------------


def parts(*sizes: int) -> list[Any]:
    """Numbers of their own for the examples of each source."""
    import numpy as np

    ends = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in pairwise(ends)]


def test_repeated_rows_come_equally_often() -> None:
    epoch = compose_epoch(parts(5, 40), [3, 1], "all_exhausted", seed=1)
    seen = Counter(epoch.tolist())
    assert len(epoch) == 160
    assert sum(seen[n] for n in range(5)) == 120
    assert {seen[n] for n in range(5)} == {24}
    assert {seen[n] for n in range(5, 45)} == {1}
    uneven = Counter(compose_epoch(parts(7, 12), [1, 1], "all_exhausted", seed=1).tolist())
    assert sorted(uneven[n] for n in range(7)) == [1, 1, 2, 2, 2, 2, 2]


def test_an_epoch_is_made_by_the_seed_alone_and_holds_the_sources_side_by_side() -> None:
    def epoch(seed: int) -> list[int]:
        return compose_epoch(parts(50, 200), [1, 1], "first_exhausted", seed).tolist()

    assert epoch(3) == epoch(3) != epoch(4)
    assert {n for n in epoch(3) if n >= 50} != {n for n in epoch(4) if n >= 50}
    first_half = epoch(3)[:50]
    assert 12 <= sum(n < 50 for n in first_half) <= 38


def test_without_weights_each_row_comes_once_in_the_order_of_the_sources() -> None:
    assert compose_epoch(parts(3, 4), [None, None], "all_exhausted", seed=9).tolist() == list(range(7))


def test_weights_that_ask_for_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "MOST", 1000)
    with pytest.raises(DataError, match=r"data\.mixture_stopping: an epoch .* 1,001 rows .*use first_exhausted"):
        compose_epoch(parts(1, 1), [1, 1000], "all_exhausted", seed=0)
    assert len(compose_epoch(parts(1, 1), [1, 999], "all_exhausted", seed=0)) == 1000


# --- streams --------------------------------------------------------------------------------------------------------


def streams(*texts: str) -> list[Callable[[], Any]]:
    return [lambda text=text: iter(text) for text in texts]


def test_streams_without_weights_give_each_item_once_in_the_order_of_each() -> None:
    found = list(interleave(streams("abcdef", "123", ""), [1, 1, 1], None, "s"))
    assert [item for item in found if item.isalpha()] == list("abcdef")
    assert [item for item in found if item.isdigit()] == list("123")
    assert len(found) == 9


def test_a_stream_ends_with_the_first_source_or_when_all_were_read() -> None:
    first = list(interleave(streams("abcdef", "123"), [1, 1], "first_exhausted", "s"))
    assert set(first) >= set("123") or set(first) >= set("abcdef")
    assert len(first) == len(set(first)) < 9
    whole = list(interleave(streams("abcdef", "123"), [1, 1], "all_exhausted", "s"))
    letters, digits = ([item for item in whole if kind(item)] for kind in (str.isalpha, str.isdigit))
    assert set(letters) == set("abcdef")
    assert digits == list("123" * 9)[: len(digits)]
    assert list(interleave(streams("", "ab"), [1, 1], "all_exhausted", "s")) == ["a", "b"]


def test_a_stream_draws_by_weight_and_equally_for_equal_seeds() -> None:
    endless = streams("a" * 30_000, "b" * 30_000)
    drawn = Counter(islice(interleave(endless, [3.0, 1.0], "first_exhausted", "s"), 20_000))
    assert abs(drawn["a"] / 20_000 - 0.75) < 0.015  # five standard deviations
    orders = [list(interleave(streams("abcdef", "123456"), [1, 1], None, seed)) for seed in ("1", "1", "2")]
    assert orders[0] == orders[1] != orders[2]


# --- the config -----------------------------------------------------------------------------------------------------


def problems(composed: Composed) -> dict[str, str]:
    return {problem.key: str(problem) for problem in examine(composed)[1]}


def test_a_wrong_key_inside_a_source_is_named_with_its_place(composed: Compose) -> None:
    word = (
        "data.mixture=[{path: a.jsonl, weight: 0}, {path: b.jsonl, colums: {prompt: q}, files: 3}, c.jsonl,"
        " {weight: 1}, {path: d.jsonl, nonsense: 1}]"
    )
    found = problems(composed(word))
    assert found["data.mixture[0].weight"].endswith("input should be greater than 0, not 0")
    assert found["data.mixture[1].colums.prompt"].endswith(
        "unknown key; did you mean 'data.mixture[1].columns.prompt'?"
    )
    assert "valid string or a valid list" in found["data.mixture[1].files"]
    assert found["data.mixture[2]"].endswith("should be keys with values, not 'c.jsonl'; write {path: c.jsonl}")
    assert "is missing" in found["data.mixture[3].path"]
    assert "there is path, name, weight, files" in found["data.mixture[4].nonsense"]
    assert len(found) == 6
    wrong_role = problems(composed("data.mixture=[{path: a.jsonl, columns: {promt: q}}]"))
    assert "did you mean 'data.mixture[0].columns.prompt'?" in wrong_role["data.mixture[0].columns.promt"]


def test_a_call_of_code_inside_a_source_is_refused(composed: Compose) -> None:
    found = problems(composed("data.mixture=[{path: a.jsonl, _target_: os.system}]"))
    assert "names no code to call" in found["data.mixture[0]._target_"]


BOTH = "data.mixture=[{path: a.jsonl, weight: 2}, {path: b.jsonl}]"
PLAIN = "data.mixture=[{path: a.jsonl}, {path: b.jsonl}]"


@pytest.mark.parametrize(
    ("words", "key", "what"),
    [
        ((BOTH, "data.path=c.jsonl"), "data.path", "has no effect beside data.mixture"),
        ((BOTH, "data.files=c.jsonl"), "data.files", "has no effect beside data.mixture"),
        (("data.mixture=[]",), "data.mixture", "names no source"),
        ((PLAIN, "data.mixture_stopping=first_exhausted"), "data.mixture_stopping", "without a weight"),
        (("data.mixture_stopping=first_exhausted",), "data.mixture_stopping", "without data.mixture"),
        (("data.mixture=[{path: a.jsonl, max_samples: 3}]", "data.max_samples=2"), "data.max_samples", "has its own"),
        ((PLAIN, "data.valid_split=test", "data.valid_fraction=0.2"), "data.valid_fraction", "has no effect beside"),
        (
            ("data.mixture=[{path: a.jsonl, valid_split: test}]", "train.eval_steps=never"),
            "data.mixture[0].valid_split",
            "has no effect: nothing is evaluated",
        ),
        ((PLAIN, "data.conversation_extension=3", "data.train_on=last"), "data.train_on", "trains one answer"),
        (("data.conversation_extension=11",), "data.conversation_extension", "less than or equal to 10"),
        (
            ("data.conversation_extension=3", "data.chat_format=alpaca"),
            "data.conversation_extension",
            "has no effect with data.chat_format=alpaca, which has no place for a second turn",
        ),
        (
            ("data.mixture=[{path: a, conversation_extension: 3}]", "data.chat_format=alpaca"),
            "data.mixture[0].conversation_extension",
            "has no place for a second turn",
        ),
        ((PLAIN, "data.conversation_extension=3", "data.chat_format=raw"), "data.conversation_extension", "raw"),
        (('data.mixture=[{path: a.jsonl, name: " "}]',), "data.mixture[0].name", "is empty; give it a name"),
        (
            ("data.mixture=[{path: a, name: x}, {path: b, name: x}]",),
            "data.mixture[1].name",
            "'x' is the name of data.mixture[0] already",
        ),
        (("trainer=pretrain", "data.conversation_extension=2"), "data.conversation_extension", "acts with trainer=sft"),
    ],
)
def test_what_has_no_effect_is_refused(composed: Compose, words: tuple[str, ...], key: str, what: str) -> None:
    found = problems(composed(*words))
    assert list(found) == [key]
    assert what in found[key]


@pytest.mark.parametrize(
    "words",
    [
        (BOTH, "data.mixture_stopping=first_exhausted"),
        (PLAIN, "data.max_samples=5", "data.max_samples_strategy=even"),
        ("data.mixture=[{path: a.jsonl, max_samples: 3}, {path: b.jsonl}]", "data.max_samples_strategy=even"),
        ("data.mixture=[{path: a.jsonl, valid_split: test}, {path: b.jsonl}]", "data.valid_fraction=0.3"),
        ("data.mixture=[{path: a.jsonl, valid_split: test}]", "data.valid_fraction=0", "train.eval_steps=5"),
    ],
)
def test_what_acts_is_accepted(composed: Compose, words: tuple[str, ...]) -> None:
    assert problems(composed(*words)) == {}


def test_a_source_takes_from_data_what_it_does_not_say(run_of: Callable[..., Run]) -> None:
    sources = (
        "{path: a.jsonl, name: A, train_split: 'train[:5]', columns: {prompt: q}}, {path: b.jsonl, max_samples: 2}"
    )
    run = run_of(f"data.mixture=[{sources}]", "data.max_samples=7", "data.train_split=train[:9]",
                 "data.valid_split=test", "data.columns.completion=c")  # fmt: skip
    first, second = run.data.sources()
    assert (first.key, first.name, first.train_split, first.max_samples) == ("data.mixture[0]", "A", "train[:5]", 7)
    assert (second.key, second.name, second.train_split, second.max_samples) == (
        "data.mixture[1]", "b.jsonl", "train[:9]", 2,
    )  # fmt: skip
    assert first.valid_split == second.valid_split == "test"
    assert {role: name for role, name in first.columns.items() if name} == {"prompt": "q", "completion": "c"}
    assert {role: name for role, name in second.columns.items() if name} == {"completion": "c"}
    assert run.tree()["data"]["mixture"][1] == {"path": "b.jsonl", "max_samples": 2}  # what is not said is not written


def test_sources_of_one_path_have_names_of_their_own(run_of: Callable[..., Run]) -> None:
    run = run_of("data.mixture=[{path: a.jsonl}, {path: b.jsonl}, {path: a.jsonl, max_samples: 3}]")
    assert [source.name for source in run.data.sources()] == [
        "a.jsonl (mixture[0])", "b.jsonl", "a.jsonl (mixture[2])",
    ]  # fmt: skip
    assert run.data.described == "a.jsonl (mixture[0]), b.jsonl, a.jsonl (mixture[2])"


def test_a_problem_in_a_recipe_says_where(tmp_path: Path, composed: Compose) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("defaults: [config, override task: llm, override trainer: sft, _self_]\n"
                      "data:\n  mixture:\n  - {path: a.jsonl, weigth: 2}\n")  # fmt: skip
    (problem,) = examine(composed(recipe=recipe))[1]
    assert problem.key == "data.mixture[0].weigth"
    assert problem.where.endswith("r.yaml:4")


def test_each_problem_inside_a_list_of_a_recipe_has_its_own_line(tmp_path: Path, composed: Compose) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("defaults: [config, override task: llm, override trainer: sft, _self_]\n"
                      "data:\n  mixture:\n"
                      "  - path: a.jsonl\n    weight: 0\n"
                      "  - path: b.jsonl\n    columns:\n      prompt: a\n      promt: b\n"
                      "  - weight: 1\n"
                      "  - c.jsonl\n")  # fmt: skip
    found = {problem.key: problem.where.rpartition("/")[2] for problem in examine(composed(recipe=recipe))[1]}
    assert found == {"data.mixture[0].weight": "r.yaml:5", "data.mixture[2].path": "r.yaml:10",
                     "data.mixture[3]": "r.yaml:11"}  # fmt: skip
    recipe.write_text(recipe.read_text().replace("weight: 0", "weight: 2").replace("  - weight: 1\n  - c.jsonl\n", ""))
    again = examine(composed(recipe=recipe, config_dir=tmp_path))[1]
    assert [(problem.key, problem.where.rpartition("/")[2]) for problem in again] == [
        ("data.mixture[1].columns.promt", "r.yaml:9"),
    ]  # fmt: skip
    said_otherwise = examine(composed("data.mixture=[{path: a.jsonl, weight: 0}]", recipe=recipe))[1]
    assert [problem.where for problem in said_otherwise] == [""], "the recipe's list was not used"


def test_editors_know_the_keys_of_a_source() -> None:
    entry = schema()["properties"]["data"]["properties"]["mixture"]
    (listed,) = [part for part in entry["anyOf"] if part.get("type") == "array"]
    assert {"path", "weight", "columns"} <= set(listed["items"]["properties"])
    assert "$ref" not in json.dumps(entry)


# --- the data -------------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.jsonl", [{"ask": f"q{n}", "say": f"a{n}"} for n in range(30)])
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    write(tmp_path / "chats.jsonl", [{"messages": turns, "more": n} for n in range(10)])
    return tmp_path


def test_each_source_has_columns_of_its_own(run_of: Callable[..., Run], here: Path) -> None:
    run = run_of("data.mixture=[{path: pairs.jsonl, columns: {prompt: ask, completion: say}}, {path: chats.jsonl}]")
    found = look_at_data(run)
    assert [source.columns for source in found.sources] == ["prompt=ask, completion=say", "messages=messages"]
    assert "'ask' (set)" in found.sources[0].choice.reason
    assert "not used: 'more'" in found.sources[1].choice.reason
    assert (found.train_count.rows, found.train_count.exact) == (40, True)


def test_problems_of_all_sources_come_together_under_their_keys(composed: Compose, here: Path) -> None:
    word = (
        "data.mixture=[{path: pairs.jsonl, columns: {prompt: aks, completion: say}}, {path: chat.jsonl},"
        " {path: chats.jsonl, train_split: 'train[:q]'}, {path: chats.jsonl, valid_split: test}]"
    )
    with pytest.raises(Refused) as caught:
        check(Request((word,)))
    found = {problem.key: problem for problem in caught.value.problems}
    assert list(found) == ["data.mixture[0].columns.prompt", "data.mixture[1].path", "data.mixture[2].train_split",
                           "data.mixture[3].valid_split"]  # fmt: skip
    assert "did you mean 'ask'?" in found["data.mixture[0].columns.prompt"].advice
    assert all(problem.fix == "" for problem in found.values()), "an override cannot set a key inside a list"


def test_what_a_source_takes_from_data_is_reported_there(composed: Compose, here: Path) -> None:
    words = ("data.mixture=[{path: pairs.jsonl}, {path: chats.jsonl}]", "data.columns.prompt=ask",
             "data.columns.completion=say", "data.valid_split=test")  # fmt: skip
    with pytest.raises(Refused) as caught:
        check(Request(words))
    found = [(problem.key, problem.what) for problem in caught.value.problems]
    assert [key for key, _ in found] == ["data.valid_split", "data.valid_split", "data.columns.prompt",
                                         "data.columns.completion"]  # fmt: skip
    assert found[2][1] == "no column 'ask' in data.mixture[1]; there is 'messages', 'more'"


def test_sources_that_may_share_rows_are_counted_by_estimate(here: Path) -> None:
    columns = "columns: {prompt: ask, completion: say}"
    for second, exact in (("pairs.jsonl, max_samples: 3", False), ("chats.jsonl", True)):
        more = columns if "pairs" in second else "weight: null"
        word = f"data.mixture=[{{path: pairs.jsonl, {columns}}}, {{path: {second}, {more}}}]"
        assert estimated_rows(check(Request((word,)))).exact is exact


def test_bad_rows_advise_keys_that_there_are(composed: Compose, here: Path) -> None:
    (here / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\nnonsense\n')
    with pytest.raises(Refused, match=r"data\.mixture\[1\]\.path: .*data\.on_bad_rows=skip.*bad\.jsonl:2"):
        check(Request(("data.mixture=[{path: chats.jsonl}, {path: bad.jsonl}]",)))


@pytest.mark.parametrize(
    ("words", "train", "valid"),
    [
        ((PLAIN, "data.valid_fraction=0.1"), 27 + 9, 3 + 1),
        ((BOTH, "data.valid_fraction=0.1"), 27 + 14, 3 + 1),  # 27 / (2/3) = 40.5, so 41 rows: 27.3 and 13.7
        ((BOTH, "data.valid_fraction=0.1", "data.mixture_stopping=first_exhausted"), 18 + 9, 3 + 1),
        ((PLAIN, "data.valid_split=train[:2]"), 40, 4),
        ((PLAIN, "data.max_samples=5", "data.valid_fraction=0.4"), 3 + 3, 2 + 2),
        ((PLAIN, "data.conversation_extension=4", "data.valid_fraction=0"), 8 + 3, 0),
    ],
)
def test_rows_are_estimated_as_they_will_be_mixed(here: Path, words: tuple[str, ...], train: int, valid: int) -> None:
    columns = "columns: {prompt: ask, completion: say}"
    mixed = words[0].replace("a.jsonl", f"pairs.jsonl, {columns}").replace("b.jsonl", "chats.jsonl")
    found = estimated_rows(check(Request((mixed, *words[1:]))))
    assert (found.train, found.valid) == (train, valid)
