"""Every command that the README and the docs show is valid."""

from __future__ import annotations

import json
import re
import shlex
from itertools import groupby
from pathlib import Path

import pytest

from aitrain.commands.words import read_words
from aitrain.compose import expand
from aitrain.errors import Refused
from aitrain.start import check

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = ("check", "preview", "show", "report", "doctor")


def commands() -> list[tuple[str, str]]:
    """Page and words of each indented command; one with an ellipsis is a form, one after a `$` shows a mistake."""
    found = []
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            match = re.match(r"    python -m aitrain\b(.*)", line)
            words = match[1].split("   #")[0].split("  #")[0].strip() if match else ""
            if match and not any(form in words for form in ("…", "FOLDER", "RUN")):
                found.append((page.name, words))
    return found


def test_there_are_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_the_docs_is_valid(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 30)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 30)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' * 30)
    (tmp_path / "my_rewards.py").write_text(
        "def score(prompts, completions, **columns):\n    return [0.0] * len(prompts)"
    )
    table = [f"word {n},{'ab'[n % 2]},{n * 0.5},{n % 7},{n * 3.5}" for n in range(40)]
    for name in ("my.csv", "houses.csv"):
        (tmp_path / name).write_text("\n".join(["text,label,score,rooms,price", *table]))
    news = [f"article number {n},line {n}" for n in range(40)]
    (tmp_path / "news.csv").write_text("\n".join(["article,summary", *news]))
    for name in ("my.conll", "train.conll"):
        (tmp_path / name).write_text("Ana B-PER\nsleeps O\n\n" * 30)
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "Ana", "answer_start": 0}]}
    questions = [{**asked, "id": str(n)} for n in range(30)]
    paragraphs = [{"context": "Ana sleeps.", "qas": questions}]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "a", "paragraphs": paragraphs}]}))
    (tmp_path / "my.yaml").write_text("defaults: [config, override trainer: sft, _self_]\ndata: {path: my.jsonl}\n")
    words = [word.replace("my-model", "sample:tiny-qwen3") for word in shlex.split(line)]
    if words[:1] and words[0] in VERBS:
        words = words[1:]
    read = read_words(words)
    for request in expand(read.request) if read.multirun else [read.request]:
        check(request, ask_hub=False)


def test_the_mistakes_of_the_readme_read_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, _, said = text.partition("    $ python -m aitrain ")[2].partition("\n")
    expected = [line[6:] for line in said.split("\n\n")[0].splitlines()[1:]]
    with pytest.raises(Refused) as refused:
        check(read_words(shlex.split(command)).request)
    assert sorted(map(str, refused.value.problems)) == sorted(expected)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_table_has_a_head_and_rows_of_one_width(page: Path) -> None:
    """A line of a table that stands apart from it is shown as text."""
    lines = page.read_text(encoding="utf-8").splitlines()
    tables = [list(group) for is_table, group in groupby(lines, lambda line: line.startswith("|")) if is_table]
    for table in tables:
        assert len(table) > 2, table
        assert re.fullmatch(r"[|: -]+", table[1]), table[:2]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table[0]
