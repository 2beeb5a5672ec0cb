"""The samples: made anywhere, the same each time, and with nothing to learn by heart."""

from __future__ import annotations

import ast
import itertools
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aitrain.data import samples
from aitrain.data.samples import pydoc, skills, tokenizer
from aitrain.errors import ConfigError, DataError

A_FEW = [
    {"prompt": "Spell ABC backwards.", "completion": "CBA"},
    {"prompt": "Übung?", "completion": "ja"},
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AITRAIN_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache that the tests of this module fill once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AITRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows_of(name: str) -> list[dict[str, Any]]:
    with samples.sample_file(name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AITRAIN_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert samples.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("AITRAIN_CACHE")
    assert samples.cache_dir() == tmp_path / "xdg" / "aitrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert samples.cache_dir() == tmp_path / ".cache" / "aitrain"


def test_names_are_the_keys_they_are_listed_under() -> None:
    assert all(name == data.name for name, data in samples.SAMPLE_DATA.items())
    assert all(name == model.name for name, model in samples.SAMPLE_MODELS.items())


def test_an_unknown_sample_is_refused_with_the_nearest(cache: Path) -> None:
    with pytest.raises(DataError) as refused:
        samples.sample_file("tuter")
    assert str(refused.value) == "data.path: there is no 'sample:tuter'; did you mean 'sample:tutor'?"
    with pytest.raises(ConfigError, match=r"model\.path: .*did you mean 'sample:tiny-llama'"):
        samples.sample_tokenizer("tiny-lama")
    assert list(cache.iterdir()) == []


def test_a_file_is_made_once_and_nothing_is_left_beside_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def rows() -> Any:
        calls.append(1)
        yield from A_FEW

    monkeypatch.setitem(samples.SAMPLE_DATA, "few", samples.SampleData("few", "", rows))
    path = samples.sample_file("few")
    assert samples.sample_file("few") == path
    assert len(calls) == 1
    assert rows_of("few") == A_FEW
    assert [each.name for each in path.parent.iterdir()] == ["few.jsonl"]


def test_a_maker_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Any:
        yield A_FEW[0]
        raise RuntimeError("half way")

    monkeypatch.setitem(samples.SAMPLE_DATA, "few", samples.SampleData("few", "", rows))
    with pytest.raises(RuntimeError, match="half way"):
        samples.sample_file("few")
    assert [each for each in cache.rglob("*") if each.is_file()] == []


def test_makers_at_once_agree(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = samples.SampleData("few", "", lambda: itertools.islice(skills.skill_rows(), 500))
    monkeypatch.setitem(samples.SAMPLE_DATA, "few", few)
    target = cache / "folder"

    def make(number: int) -> tuple[str, int]:
        with samples.made_aside(target) as aside:
            (aside / "x").write_text("whole")
        return (target / "x").read_text(), len(samples.sample_file("few").read_text().splitlines())

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(make, range(16))) == {("whole", 500)}
    assert [each.name for each in cache.iterdir() if each.name.startswith(".")] == []


def test_another_code_or_python_makes_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = samples.samples_dir()
    samples._edition.cache_clear()
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert samples.samples_dir() != here
    monkeypatch.undo()
    samples._edition.cache_clear()


@pytest.mark.parametrize("skill", skills.SKILLS, ids=lambda skill: skill.name)
def test_each_skill_has_one_right_answer_of_few_letters(skill: skills.Skill) -> None:
    drawn = [skill.make(random.Random(seed)) for seed in range(300)]
    assert len(dict(drawn)) == len(set(drawn))
    assert len(dict(drawn)) > 200
    assert all(0 < len(answer) <= 8 and answer == answer.strip() for _, answer in drawn)


def test_skill_answers_are_right() -> None:
    def answer(prompt: str) -> str:
        asked = [part.strip(".,?") for part in prompt.split()]
        named = [part for part in asked if part.isupper() or part.isdigit()]
        rules = {
            "backwards": lambda: named[0][::-1],
            "Sort": lambda: "".join(sorted(named[0])),
            "first": lambda: named[0][0],
            "last": lambda: named[0][-1],
            "letters": lambda: str(len(named[0])),
            "follows": lambda: str(int(named[0]) + 1),
            "larger": lambda: str(max(int(number) for number in named)),
        }
        return next(rule() for key, rule in rules.items() if key in asked)

    for row in skills.some_skill_rows(1000):
        assert row["completion"] == answer(row["prompt"]), row


def test_skills_are_unique_seeded_and_without_end() -> None:
    rows = list(skills.some_skill_rows(3000))
    assert len({row["prompt"] for row in rows}) == 3000
    assert rows == list(skills.some_skill_rows(3000))
    assert rows != list(skills.some_skill_rows(3000, seed=1))


SOURCE = '''
"""A module."""
class Kept(Base):
    """A class.

    More of it.
    """
    def method(self, x=1, *rest):
        """Do
        it."""
    def _hidden(self):
        """Not shown."""
def bare():
    pass
async def later(y: int) -> None:
    """Do it later."""
'''


def test_documented_in_reads_signatures_and_docstrings_in_order() -> None:
    found = [(item.kind, item.signature) for item in pydoc.documented_in(SOURCE.encode(), "m")]
    assert found == [
        ("module", "m"),
        ("class", "m.Kept(Base)"),
        ("function", "m.Kept.method(self, x=1, *rest)"),
        ("function", "m.later(y: int)"),
    ]


def test_first_paragraph_is_one_line() -> None:
    assert pydoc.first_paragraph("Do\n    it.\n\n    And that.") == "Do it."


def test_library_files_come_in_order_without_tests(tmp_path: Path) -> None:
    for name in ("json/__init__.py", "json/tests/x.py", "test/x.py", "ast.py", "mine.py", "site-packages/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = list(pydoc.library_files(tmp_path))
    assert [pydoc.module_name(path, tmp_path) for path in paths] == ["ast", "json"]


def test_a_python_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without the source"):
        pydoc.documented_library(tmp_path)


def test_pydoc_rows_are_unique_and_do_not_import(made: None) -> None:
    rows = rows_of("pydoc")
    assert len(rows) > 2000
    assert len({row["prompt"] for row in rows}) == len({row["completion"].lower() for row in rows}) == len(rows)
    asked = {row["prompt"]: row["completion"] for row in rows}
    signature = f"ast.literal_eval({ast.unparse(next(_functions('literal_eval')).args)})"
    assert asked[f"What does {signature} do?"].startswith("Evaluate an expression node")


def _functions(name: str) -> Any:
    tree = ast.parse(Path(ast.__file__).read_bytes())
    return (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def test_pydoc_text_is_long_and_unique(made: None) -> None:
    texts = [row["text"] for row in rows_of("pydoc-text")]
    assert len(set(texts)) == len(texts) > 500
    assert min(map(len, texts)) > pydoc.SHORTEST_TEXT


def test_tutor_mixes_both_and_other_lessons_differ(made: None) -> None:
    rows = rows_of("tutor")
    assert len({row["prompt"] for row in rows}) == len(rows) == samples.TUTOR_SKILL_ROWS + samples.TUTOR_QUESTIONS
    head = [row["prompt"].startswith(("What does", "What is class")) for row in rows[:1000]]
    assert 10 < sum(head) < 200
    assert rows == list(samples.tutor_rows())
    assert rows != list(samples.tutor_rows(seed=1))


@pytest.fixture(scope="module")
def coder(made: None) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(samples.sample_tokenizer("tiny-llama") / "tokenizer.json"))


def test_the_vocabulary_is_full_and_the_special_ids_are_as_configured(coder: Any) -> None:
    assert coder.get_vocab_size() == tokenizer.VOCABULARY
    assert coder.token_to_id(tokenizer.PAD) == tokenizer.PAD_ID
    assert coder.token_to_id(tokenizer.END) == tokenizer.END_ID
    for model in samples.SAMPLE_MODELS.values():
        assert model.config["vocab_size"] == tokenizer.VOCABULARY
        end = None if model.kind == "encoder" else 1
        assert (model.config["pad_token_id"], model.config["eos_token_id"]) == (0, end)


def test_capitals_and_digits_are_single_tokens(coder: Any) -> None:
    assert coder.encode("TABLE 409").tokens == [*"TABLE", "Ġ", *"409"]
    assert coder.encode("Spell ABC backwards.").tokens[-6:] == ["Ġ", "A", "B", "C", "Ġbackwards", "."]


def test_any_text_comes_back(coder: Any) -> None:
    text = "def f(x_y):\n\t# Übér 东京 \N{SNOWMAN}\n    return 'A  b' \n"
    assert coder.decode(coder.encode(text).ids) == text


def test_the_template_marks_answers(made: None) -> None:
    transformers = pytest.importorskip("transformers")
    learner = transformers.AutoTokenizer.from_pretrained(samples.sample_tokenizer("tiny-llama"))
    assert (learner.pad_token_id, learner.eos_token_id, learner.bos_token) == (0, 1, None)
    chat = [{"role": "user", "content": "Spell AB backwards."}, {"role": "assistant", "content": "BA"}]
    coded = learner.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [each for each, is_answer in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if is_answer]
    assert learner.decode(marked) == "BA<|im_end|>"
    asked = learner.apply_chat_template(chat[:1], add_generation_prompt=True, tokenize=False)
    assert learner.apply_chat_template(chat, tokenize=False).startswith(asked)


def test_samples_need_no_torch() -> None:
    code = (
        "import sys, aitrain.data.samples; print({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-qwen3", "tiny-mistral", "tiny-gemma2"])
def test_tiny_models_load_and_are_the_same_bytes_each_time(
    name: str, made: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from aitrain.ml.sample_models import _save, _untrained, sample_model

    torch.manual_seed(5)
    before = torch.get_rng_state()
    folder = sample_model(name)
    assert torch.equal(before, torch.get_rng_state())
    _save(_untrained(dict(samples.SAMPLE_MODELS[name].config)), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    learner = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(learner) == model.config.vocab_size
    for key, value in samples.SAMPLE_MODELS[name].config.items():
        assert getattr(model.config, key) == value, key


def test_classes_tokens_and_pairs_follow_from_the_library() -> None:
    classes = rows_of("pydoc-classes")
    labels = {row["label"] for row in classes}
    assert len(labels) == 8
    assert labels <= sys.stdlib_module_names
    assert len({row["text"] for row in classes}) == len(classes) > 300
    lines = rows_of("pydoc-tokens")
    assert len(lines) == 4_000
    assert {tag for row in lines for tag in row["tags"]} >= {"KEYWORD", "NAME", "NUMBER", "STRING", "OPERATOR"}
    assert all(len(row["tokens"]) == len(row["tags"]) for row in lines)
    of_def = {row["tags"][row["tokens"].index("def")] for row in lines if "def" in row["tokens"]}
    assert of_def == {"KEYWORD"}
    pairs = rows_of("pydoc-pairs")
    answers = {row["prompt"]: row["completion"] for row in rows_of("pydoc")}
    assert all(row["chosen"] == answers[row["prompt"]] != row["rejected"] for row in pairs)


def test_pairs_of_skills_prefer_the_right_answer() -> None:
    rows = rows_of("skill-pairs")
    assert len(rows) == len({row["prompt"] for row in rows}) == 4_000
    for row in rows:
        asked, right, wrong = row["prompt"], row["chosen"], row["rejected"]
        assert right != wrong
        if asked.startswith("Spell"):
            assert right == asked.split()[1][::-1]
        elif asked.startswith("Which number"):
            assert int(right) == int(asked.split()[-1].rstrip("?")) + 1
        elif asked.startswith("Which is larger"):
            numbers = [int("".join(filter(str.isdigit, word))) for word in asked.split() if any(map(str.isdigit, word))]
            assert int(right) == max(numbers)
        elif asked.startswith("How many"):
            assert int(right) == len(asked.split()[-1].rstrip("?"))
