"""`preview`: what is printed and what stands on the page is what the encoder gave, whatever the trainer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aitrain import cli
from aitrain.commands.preview_html import page
from aitrain.commands.preview_rows import Refused, Section, ShownRow, in_all, share_text, shown
from aitrain.data.encoding import TooLong, Unusable
from aitrain.data.preference_encoding import PairEncoder, UnpairedEncoder
from aitrain.data.tokens import Encoded, EncodedGroup
from aitrain.registry import TRAINERS

Preview = Callable[..., str]
PAIRS = [
    {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green <script>alert(1)</script> & 'so' on.", "margin": 1.5},
    {"prompt": "Grass?", "chosen": "Same.", "rejected": "Same.", "margin": 2},
]


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Preview:
    """`preview(rows, words…)`: what is printed for rows of a file, with its exit code asserted."""
    monkeypatch.chdir(tmp_path)

    def call(rows: list[dict[str, Any]], *words: str, code: int = 0) -> str:
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        given = ["preview", "data.path=rows.jsonl", "data.valid_fraction=0", "train.eval_steps=never", "hardware=cpu"]
        assert cli.main([*given, *words]) == code
        out, err = capsys.readouterr()
        return out + err

    return call


def trains_on(monkeypatch: pytest.MonkeyPatch, encoder: Any, *shapes: Any) -> None:
    monkeypatch.setitem(TRAINERS, "sft", replace(TRAINERS["sft"], encoder=encoder, shapes=shapes))


def test_an_answer_is_marked_and_its_share_is_said(preview: Preview) -> None:
    out = preview([{"prompt": "Sky?", "completion": "Blue."}])
    assert "columns    prompt=prompt, completion=completion" in out
    assert "legend     [[trained tokens]] other tokens" in out
    head, text = re.search(r"rows\.jsonl:1: (.*)\n((?:.*\n)*?)\n", out).groups()  # type: ignore[union-attr]
    assert text.startswith("<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\n[[Blue.<|im_end|>]]")
    tokens, trained, percent = re.fullmatch(r"(\d+) tokens, (\d+) trained \((\d+)%\)", head).groups()  # type: ignore[union-attr]
    assert 0 < int(trained) < int(tokens)
    assert int(percent) == round(100 * int(trained) / int(tokens))
    assert f"in all     {head}" in out


def test_both_answers_of_a_pair_are_shown_with_its_margin(preview: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    trains_on(monkeypatch, PairEncoder, "pairs")
    out = preview(PAIRS)
    assert re.search(r"rows\.jsonl:1, chosen, margin 1\.5: \d+ tokens", out)
    assert "[[Blue.<|im_end|>]]" in out
    assert re.search(r"rows\.jsonl:1, rejected: \d+ tokens", out)
    assert "[[Green <script>alert(1)</script> & 'so' on.<|im_end|>]]" in out
    assert "rows.jsonl:2: cannot be used: 'chosen' and 'rejected' are the same" in out


def test_a_reward_models_rows_are_scored_and_have_no_trained_tokens(preview: Preview) -> None:
    out = preview(PAIRS[:1], "trainer=reward")
    assert "loss       of a score of each row, read at its last token\n" in out
    assert "legend     [[tokens of the answers]] other tokens\n" in out
    assert re.search(r"rows\.jsonl:1, chosen, margin 1\.5: \d+ tokens, \d+ of the answer \(\d+%\)\n", out)
    assert re.search(r"in all     \d+ tokens, \d+ of the answer \(\d+%\)\n", out)
    assert "trained" not in out
    preview(PAIRS[:1], "trainer=reward", "--html=p.html")
    page_text = Path("p.html").read_text(encoding="utf-8")
    assert "tokens of the answers" in page_text
    assert "trained" not in "".join(read(page_text).texts)


def test_a_judged_answer_is_shown_with_its_label(preview: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    trains_on(monkeypatch, UnpairedEncoder, "unpaired", "pairs")
    rows = [{"prompt": "Sky?", "completion": "Blue.", "label": True}, {"prompt": "A", "completion": "B", "label": 0}]
    out = preview(rows)
    assert re.search(r"rows\.jsonl:1, wanted: \d+ tokens", out)
    assert re.search(r"rows\.jsonl:2, unwanted: \d+ tokens", out)
    out = preview(PAIRS[:1])
    assert re.search(r"rows\.jsonl:1, wanted: (?s:.*)rows\.jsonl:1, unwanted: \d+ tokens", out)


def test_plain_text_says_that_every_token_is_trained(preview: Preview) -> None:
    out = preview([{"text": "Once upon a time"}], "trainer=pretrain")
    assert re.search(r"rows\.jsonl:1: (\d+) tokens, \1 trained \(100%\)  <- every token is trained\n\[\[Once", out)


def test_ids_are_printed_with_a_star_where_they_are_trained(preview: Preview) -> None:
    out = preview([{"prompt": "Sky?", "completion": "Blue."}], "--ids")
    ids = re.search(r"^ids +(.*)$", out, re.MULTILINE).group(1).split()  # type: ignore[union-attr]
    trained = int(re.search(r"(\d+) trained", out).group(1))  # type: ignore[union-attr]
    assert sum(token.endswith("*") for token in ids) == trained


def test_as_many_rows_are_shown_as_asked_for(preview: Preview) -> None:
    rows = [{"prompt": f"{number}?", "completion": "Yes."} for number in range(9)]
    assert preview(rows).count("trained (") == 3 + 1
    assert preview(rows, "--rows=7").count("trained (") == 7 + 1
    assert "--rows: '0' is no number of rows" in preview(rows, "--rows=0", code=2)


def test_rows_of_which_none_can_be_used_are_refused_after_they_were_shown(
    preview: Preview, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains_on(monkeypatch, PairEncoder, "pairs")
    out = preview(PAIRS[1:], code=2)
    assert "rows.jsonl:1: cannot be used: 'chosen' and 'rejected' are the same" in out
    assert "data.path: none of the first 1 rows can be used" in out


# --- what is shown --------------------------------------------------------------------------------------------------


def rows_of(outcome: Any) -> list[Any]:
    return list(shown("f:1", outcome, Letters(), "data.max_length=9"))


def test_pieces_are_cut_where_tokens_count_differently() -> None:
    ids = [ord(letter) for letter in "abcdef"]
    (row,) = rows_of(Encoded(ids, [0, 0, 1, 1, 1, 0], truncated=True, weights=[0, 0, 1, 0.5, 0.5, 0]))
    assert [(piece.text, piece.weight) for piece in row.pieces] == [("ab", 0), ("c", 1), ("de", 0.5), ("f", 0)]
    assert (row.counts, row.note) == ("6 tokens, cut, 3 trained (50%)", "")
    (row,) = rows_of(Encoded(ids, [0, 0, 1, 1, 1, 0]))
    assert [(piece.text, piece.weight) for piece in row.pieces] == [("ab", 0), ("cde", 1), ("f", 0)]


def test_a_row_that_trains_nothing_or_everything_is_called_out() -> None:
    assert [row.note for row in rows_of(Encoded([65, 66], [0, 0]))] == ["nothing is trained"]
    assert [row.note for row in rows_of(Encoded([65, 66], [1, 1]))] == ["every token is trained"]
    assert [row.note for row in rows_of(Encoded([65, 66], [0, 1]))] == [""]


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        (Encoded([65], [1]), ["f:1"]),
        (EncodedGroup((Encoded([65], [1]), Encoded([66], [1]))), ["f:1, chosen", "f:1, rejected"]),
        (EncodedGroup((Encoded([65], [1]), Encoded([66], [1])), 0.0), ["f:1, chosen, margin 0", "f:1, rejected"]),
        (EncodedGroup((Encoded([65], [1]),), 1.0), ["f:1, wanted"]),
        (EncodedGroup((Encoded([65], [1]),), 0.0), ["f:1, unwanted"]),
        (EncodedGroup((Encoded([65], [1]),), 0.5), ["f:1, row 1, value 0.5"]),
        (EncodedGroup((Encoded([65], [1]),) * 3), ["f:1, row 1", "f:1, row 2", "f:1, row 3"]),
        (
            [EncodedGroup((Encoded([65], [1]),), 1.0), EncodedGroup((Encoded([66], [1]),), 0.0)],
            ["f:1, wanted", "f:1, unwanted"],
        ),
        (TooLong(12), ["f:1"]),
        (Unusable("it is odd"), ["f:1"]),
    ],
)
def test_every_row_of_an_example_has_a_name(outcome: Any, names: list[str]) -> None:
    assert [row.name for row in rows_of(outcome)] == names


@pytest.mark.parametrize(
    ("trained", "tokens", "text"),
    [(0, 9, "0%"), (9, 9, "100%"), (1, 3, "33%"), (1, 1000, "0.1%"), (999, 1000, "99.9%"), (0, 0, "0%")],
)
def test_nothing_and_everything_are_said_only_where_they_are_exact(trained: int, tokens: int, text: str) -> None:
    assert share_text(trained, tokens) == f"{trained} trained ({text})"


def test_the_share_of_all_rows_counts_tokens_and_not_rows() -> None:
    rows = [*rows_of(Encoded([65] * 9, [0] * 9)), *rows_of(Encoded([65], [1])), *rows_of(TooLong(12))]
    assert in_all(rows) == "10 tokens, 1 trained (10%)"


# --- the page -------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """The text of a page, its elements, and the text in each `mark`."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.marks: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.links += [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)
        if tag == "mark":
            self.marks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
        if "mark" in self.open:
            self.marks[-1] += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_shows_the_rows_needs_nothing_and_runs_nothing(
    preview: Preview, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains_on(monkeypatch, PairEncoder, "pairs")
    out = preview(PAIRS, "--html=p.html", "--ids")
    assert "page       p.html\n" in out
    assert re.search(r"in all     \d+ tokens, \d+ trained", out)
    assert "(replaced)" in preview(PAIRS, "--html=p.html", "--ids")
    text = Path("p.html").read_text(encoding="utf-8")
    reader = read(text)
    assert reader.marks == ["trained tokens", "Blue.<|im_end|>", "Green <script>alert(1)</script> & 'so' on.<|im_end|>"]
    assert {"script", "link", "img", "iframe"} & {*reader.tags} == set()
    assert reader.links == []
    assert "url(" not in text
    assert "@import" not in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "default-src &#x27;none&#x27;" in text
    assert "prefers-color-scheme: dark" in text
    said = "".join(reader.texts)
    for part in ("rows.jsonl:1, chosen, margin 1.5", "'chosen' and 'rejected' are the same", "chosen=chosen", "in all"):
        assert part in said


def test_weights_and_line_ends_are_shown_on_the_page() -> None:
    ids = [ord(letter) for letter in "a\nb\ncd"]
    (row,) = rows_of(Encoded(ids, [0, 0, 1, 1, 1, 1], weights=[0, 0, 1, 1, 0.25, 3]))
    nothing = rows_of(Encoded([65], [0]))[0]
    reader = read(page("a <title>", [Section((("data", "x & y"),), (row, nothing, Refused("f:2", "odd", True)))]))
    assert reader.marks == ["trained tokens", "counts otherwise", "counts otherwise", "b↵\n", "c", "d"]
    said = "".join(reader.texts)
    assert said.count("×0.25") == 2
    assert said.count("×3") == 2
    for part in ("a <title>", "x & y", "a↵\nb↵\nc", "nothing is trained", "f:2", "odd"):
        assert part in said


def test_a_page_is_written_over_a_page_and_over_nothing_else(preview: Preview, tmp_path: Path) -> None:
    rows = [{"prompt": "Sky?", "completion": "Blue."}]
    (tmp_path / "folder.html").mkdir()
    for value, says in (
        ("rows.jsonl", "does not end in .html"),
        ("", "does not end in .html"),
        ("no/p.html", "there is no folder no"),
        ("folder.html", "folder.html is a folder"),
    ):
        out = preview(rows, f"--html={value}", code=2)
        assert f"--html: {value!r} {says}" in out or f"--html: {says}" in out
        assert "write --html=preview.html" in out
    assert json.loads(Path("rows.jsonl").read_text(encoding="utf-8")) == rows[0]


def test_what_is_shown_is_typed_by_its_kind() -> None:
    assert isinstance(rows_of(Encoded([65], [1]))[0], ShownRow)
    assert [row.is_unusable for row in rows_of(TooLong(12)) + rows_of(Unusable("x"))] == [False, True]


def test_a_prompt_is_shown_with_what_rewards_see(preview: Preview) -> None:
    out = preview([{"prompt": "Sky?", "answer": "Blue.", "n": 3}], "trainer=ppo")
    assert re.search(r"rows\.jsonl:1: \d+ tokens of a prompt\n<\|im_start\|>user\nSky\?", out)
    assert "for rewards: answer=Blue., n=3\n" in out
    assert re.search(r"in all     \d+ tokens of prompts; the model writes the answers that it learns from\n", out)
    assert "trained" not in out
    assert "legend" not in out
    preview([{"prompt": "Sky?", "answer": "<b>"}], "trainer=ppo", "--html=p.html")
    texts = "".join(read(Path("p.html").read_text(encoding="utf-8")).texts)
    assert "for rewards: answer=<b>" in texts
    assert "trained" not in texts


def test_a_prompt_that_is_too_long_is_told_with_the_key_of_prompts(preview: Preview) -> None:
    out = preview([{"prompt": "Sky? " * 40, "answer": "Blue."}], "trainer=ppo", "data.max_prompt_length=20")
    assert re.search(r"rows\.jsonl:1: \d+ tokens, more than data\.max_prompt_length=20", out)


def test_the_rows_of_a_class_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env.py").write_text(
        "class Env:\n    def build_dataset(self, tokenizer):\n        return [{'prompt': 'Sky?'}] * 4\n"
        "    def score_episode(self, model, tokenizer, completion, case_idx):\n        return 0.0\n"
    )
    assert cli.main(["preview", "trainer=ppo", "rl=custom", f"rl.env_type={tmp_path}/env.py:Env"]) == 0
    assert "for rewards: case_idx=2" in capsys.readouterr().out
