"""Where rows come from: files, folders, globs, saved datasets, the Hub, samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aitrain.data import samples, sources
from aitrain.data.rows import BadRow, Row
from aitrain.data.sources import Source
from aitrain.errors import DataError

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "no_cache"))


def find(path: str | Path, split: str = "train", **more: Any) -> Source:
    settings: dict[str, Any] = {"files": None, "config": None, "allow_downloads": True, **more}
    return sources.find(str(path), split=split, **settings)


def refusal(path: str | Path, split: str = "train", **more: Any) -> DataError:
    with pytest.raises(DataError) as refused:
        find(path, split, **more)
    return refused.value


def write(name: str, numbers: range | list[int] = range(3)) -> Path:
    """A JSONL file with the rows {"n": number}, below the test's folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"n": number}) + "\n" for number in numbers))
    return path


def numbers(source: Source) -> list[int]:
    return [values["n"] for values, _ in source.rows()]


def files(source: Source) -> list[str]:
    return [file.relative_to(Path(source.path)).as_posix() for file in source.files]


# Which files


@pytest.mark.parametrize(
    ("present", "split", "expected"),
    [
        ("train.jsonl test.jsonl", "train", "train.jsonl"),
        ("train.jsonl test.jsonl", "test", "test.jsonl"),
        ("train-00000-of-00002.jsonl train-00001-of-00002.jsonl test.jsonl", "train", "train-0* 2"),
        ("train_a.jsonl train.b.jsonl trainer.jsonl test.jsonl", "train", "train.b.jsonl train_a.jsonl"),
        ("train/a.jsonl train/deep/b.jsonl test/a.jsonl", "train", "train/a.jsonl train/deep/b.jsonl"),
        ("test/train.jsonl train/test.jsonl", "test", "test/train.jsonl"),
        ("penguins_train.jsonl penguins_test.jsonl", "test", "penguins_test.jsonl"),
        ("a.jsonl b/c.jsonl", "train", "a.jsonl b/c.jsonl"),
        ("sft.jsonl dpo.jsonl", "dpo", "dpo.jsonl"),
        ("Train.JSONL Test.JSONL", "train", "Train.JSONL"),
        ("train.jsonl .train.jsonl .git/train.jsonl README.md LICENSE.txt", "train", "train.jsonl"),
    ],
)
def test_files_of_a_split(tmp_path: Path, present: str, split: str, expected: str) -> None:
    for name in present.split():
        write(f"d/{name}")
    found = files(find("d", split))
    wanted = expected.replace("train-0* 2", "train-00000-of-00002.jsonl train-00001-of-00002.jsonl")
    assert found == wanted.split()


def test_the_reason_counts_what_is_not_used() -> None:
    for name in ("train.jsonl", "test.jsonl", "more.jsonl", "README.md", "a.png", "b.png", ".hidden.jsonl"):
        write(f"d/{name}")
    assert find("d").reason == (
        "1 file of split 'train'; other splits: test; 1 of no split not used; "
        "3 that hold no rows ignored (2 .png, 1 .md)"
    )


def test_chosen_files() -> None:
    for name in ("part1.jsonl", "part2.jsonl", "sub/part3.jsonl", "test.jsonl"):
        write(f"d/{name}")
    assert files(find("d", files="part1.jsonl")) == ["part1.jsonl"]
    assert files(find("d", files="part*.jsonl")) == ["part1.jsonl", "part2.jsonl"]
    assert files(find("d", files=["sub/*", "part2.jsonl"])) == ["part2.jsonl", "sub/part3.jsonl"]
    assert files(find("d", files="**/part*.jsonl")) == ["part1.jsonl", "part2.jsonl", "sub/part3.jsonl"]
    assert files(find("d", split="test", files="*.jsonl")) == ["test.jsonl"]


def test_globs() -> None:
    for name in ("d/a.jsonl", "d/b.jsonl", "e/train-1.jsonl", "e/test-1.jsonl", "test/x.jsonl"):
        write(name)
    assert [file.name for file in find("d/*.jsonl").files] == ["a.jsonl", "b.jsonl"]
    assert [file.name for file in find("e/*.jsonl", "test").files] == ["test-1.jsonl"]
    assert [file.name for file in find("test/*.jsonl").files] == ["x.jsonl"]  # the folder is the user's choice
    assert [file.name for file in find("**/t*-1.jsonl").files] == ["train-1.jsonl"]


def test_a_single_file_is_train_whatever_its_name() -> None:
    write("odd [1].jsonl")
    write("dev.jsonl")
    assert numbers(find("odd [1].jsonl")) == [0, 1, 2]
    assert numbers(find("dev.jsonl")) == numbers(find("dev.jsonl", "dev")) == [0, 1, 2]


def test_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    made = write("made.jsonl").absolute()
    monkeypatch.setattr(samples, "sample_file", {"tiny": made}.get)
    assert numbers(find("sample:tiny", "train[1:]")) == [1, 2]


def test_a_link_that_leads_back_ends() -> None:
    write("d/train/a.jsonl")
    os.symlink("..", "d/train/again")
    assert files(find("d")) == ["train/a.jsonl"]


@pytest.fixture
def _some_files() -> None:
    for name in ("d/train.jsonl", "d/dev.jsonl", "flat/a.jsonl", "mixed/a.jsonl", "pictures/a.png", "named/test.jsonl"):
        write(name)
    Path("mixed/b.csv").write_text("n\n1\n")
    Path("d/empty.jsonl").touch()
    Path("nothing").mkdir()
    Path("table.xlsx").touch()


REFUSED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("d/tran.jsonl", "train", {}, "data.path", "no such file: d/tran.jsonl; did you mean 'd/train.jsonl'?"),
    ("d/train", "train", {}, "data.path", "no such file: d/train; did you mean 'd/train.jsonl'?"),
    ("nowhere/x/y", "train", {}, "data.path", "no such file: nowhere/x/y"),
    ("./flta", "train", {}, "data.path", "did you mean 'flat'?"),
    ("~/no-such-folder-here", "train", {}, "data.path", "no such file"),
    ("gone.jsonl", "train", {}, "data.path", "no such file: gone.jsonl"),
    ("gone.jsonl.gz", "train", {}, "data.path", "no such file: gone.jsonl.gz"),
    (r"d\train", "train", {}, "data.path", "no such file"),
    ("two words", "train", {}, "data.path", "no such file"),
    ("https://x.org/train.jsonl", "train", {}, "data.path", "is a URL"),
    ("samples:tiny", "train", {}, "data.path", "did you mean 'sample:tiny'?"),
    ("d/train.jsonl[:10%]", "train", {}, "data.path", "set data.train_split=train[:10%]"),
    ("~nobody-of-that-name/x", "train", {}, "data.path", "cannot be opened"),
    ("x" * 300 + "/y", "train", {}, "data.path", "cannot be opened"),
    ("d/*.csv", "train", {}, "data.path", "no file matches d/*.csv"),
    ("d/empty.jsonl", "train", {}, "data.path", "d/empty.jsonl is empty"),
    ("table.xlsx", "train", {}, "data.path", "no format is known for '.xlsx'; rows are read from .jsonl"),
    ("nothing", "train", {}, "data.path", "nothing has no data file"),
    ("pictures", "train", {}, "data.path", "pictures has no data file: 1 .png"),
    ("mixed", "train", {}, "data.path", "several kinds: json (a.jsonl), csv (b.csv); choose files of one kind"),
    ("d", "validation", {}, "data.train_split", "d has no split 'validation'; it has dev, train; did you mean 'dev'?"),
    ("d", "validation[:5]", {}, "data.train_split", "did you mean 'dev'?"),
    ("d", "tran", {}, "data.train_split", "did you mean 'train'?"),
    ("flat", "test", {}, "data.train_split", "flat has no split 'test'; it has train"),
    ("named", "train", {}, "data.train_split", "named has no split 'train'; it has test"),
    ("d/train.jsonl", "validation", {}, "data.train_split", "has no split 'validation'; it has train; name a folder"),
    ("d/train.jsonl", "train", {"config": "en"}, "data.config", "has no effect: d/train.jsonl is no Hub id"),
    ("d", "train", {"config": "en"}, "data.config", "has no effect"),
    ("d/train.jsonl", "train", {"files": "x"}, "data.files", "is neither a folder nor a Hub id"),
    ("d/*.jsonl", "train", {"files": "x"}, "data.files", "is neither a folder nor a Hub id"),
    ("sample:tiny", "train", {"files": ["x"]}, "data.files", "is neither a folder nor a Hub id"),
    ("d", "train", {"files": "trian.jsonl"}, "data.files", "d has no file 'trian.jsonl'; did you mean 'train.jsonl'?"),
    ("d", "train", {"files": "../flat/*"}, "data.files", "is no name below data.path"),
    ("d", "train", {"files": "/etc/*"}, "data.files", "is no name below data.path"),
    ("d", "train", {"files": "dev.jsonl"}, "data.train_split", "has no split 'train'; it has dev"),
    ("d", "train[:0.5]", {}, "data.train_split", "did you mean 'train[:50%]'?"),
    ("owner/name", "train", {"allow_downloads": False}, "data.path", "set run.allow_downloads=true"),
    ("owner/name", "train", {"allow_downloads": False, "streaming": True}, "data.path", "run.allow_downloads is false"),
    ("owner/name", "train[:5%]", {"streaming": True}, "data.train_split", "a stream does not have; use train[:1000]"),
    ("flta", "train", {"allow_downloads": False}, "data.path", "did you mean './flat'?"),
]


@pytest.mark.usefixtures("_some_files")
@pytest.mark.parametrize(("path", "split", "more", "key", "says"), REFUSED)
def test_what_cannot_be_found_is_refused(path: str, split: str, more: dict[str, Any], key: str, says: str) -> None:
    error = refusal(path, split, **more)
    assert error.problems[0].key == key
    assert says in str(error)


def test_all_missing_files_are_reported_at_once_under_the_keys_in_use() -> None:
    write("d/train.jsonl")
    error = refusal("d", files=["x.jsonl", "y.jsonl"], key="eval.data.path", split_key="eval.data.split")
    assert [problem.key for problem in error.problems] == ["eval.data.files", "eval.data.files"]
    assert refusal("d/train.jsonl", files="x", config="y").problems[1].key == "data.config"


def test_the_advice_for_a_split_is_an_override() -> None:
    write("d/train.jsonl")
    write("d/dev.jsonl")
    error = refusal("d", "valid[:10%]", split_key="data.valid_split")
    assert error.problems[0].fix == "data.valid_split=dev[:10%]"


# Rows


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:2]", [0, 1]),
        ("train[2:5]", [2, 3, 4]),
        ("train[-2:]", [5, 6]),
        ("train[:-5]", [0, 1]),
        ("train[50%:]", [4, 5, 6]),
        ("train[5:500]", [5, 6]),
    ],
)
def test_slices_go_across_files(split: str, expected: list[int]) -> None:
    write("d/train-0.jsonl", range(3))
    write("d/train-1.jsonl", range(3, 7))
    source = find("d", split)
    assert numbers(source) == expected
    assert source.count() == (len(expected), True)
    assert [row.values["n"] for row in source.head(2)] == expected[:2]


def test_places_name_files_below_their_common_folder() -> None:
    write("d/train/a.jsonl", [1])
    write("d/train/more/b.jsonl", [2])
    assert [str(row.place) for row in find("d").rows()] == ["a.jsonl:1", "more/b.jsonl:1"]
    assert str(find("d/train/a.jsonl").head(1)[0].place) == "a.jsonl:1"


def test_a_bad_row_is_an_error_that_names_the_next_ones_too() -> None:
    lines = ['{"n": 0}', "oops", '{"n": 2}', "[]", '{"n": 4}', *["{" for _ in range(20)]]
    Path("t.jsonl").write_text("\n".join(lines))
    rows = find("t.jsonl").rows()
    assert next(rows).values == {"n": 0}
    with pytest.raises(DataError) as refused:
        next(rows)
    assert [problem.where for problem in refused.value.problems] == [
        f"t.jsonl:{line}" for line in (2, 4, *range(6, 14))
    ]
    assert "data.on_bad_rows=skip" in str(refused.value)


def test_bad_rows_can_be_skipped_and_count_in_slices() -> None:
    Path("t.jsonl").write_text('{"n": 0}\noops\n{"n": 2}\n{"n": 3}\n')
    kinds = [type(item) for item in find("t.jsonl", "train[:3]").rows("skip")]
    assert kinds == [Row, BadRow, Row]
    assert [row.values["n"] for row in find("t.jsonl").head(2, "skip")] == [0, 2]
    assert find("t.jsonl").count() == (4, True)


def test_a_split_without_rows_is_an_error() -> None:
    Path("t.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"t\.csv holds no rows in split 'train'"):
        list(find("t.csv").rows())
    write("t.jsonl", range(50))
    with pytest.raises(DataError, match=r"'train\[100:200\]' selects none of 50 rows"):
        list(find("t.jsonl", "train[100:200]").rows())


def test_the_rows_are_streamed() -> None:
    """The first rows come without the rest being read: it holds a fault that would be found."""
    with Path("t.json").open("w") as file:
        file.write('[{"n": 0}' + f',\n{{"n": 1, "text": "{"x" * 1000}"}}' * 5_000 + " oops")
    assert next(find("t.json").rows()).values == {"n": 0}
    with pytest.raises(DataError, match="where a comma"):
        list(find("t.json").rows())


def test_many_large_files_are_estimated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        write(f"d/{number}.jsonl", range(10_000, 20_000))
    assert find("d").count() == (100_000, True)
    monkeypatch.setattr(sources, "BUDGET", 300_000)
    count = find("d", "train[:50%]").count()
    assert count.rows == pytest.approx(50_000, rel=0.05)
    assert not count.exact


# Fingerprints


def test_a_fingerprint_follows_content_names_and_slice_and_not_the_folder() -> None:
    write("d/train.jsonl")
    write("elsewhere/d/train.jsonl")
    write("other/train.jsonl", [7, 8, 9])
    write("renamed/train-1.jsonl")
    same = find("d").fingerprint()
    assert find("elsewhere/d").fingerprint() == find("d/train.jsonl").fingerprint() == same
    others = [find("other"), find("renamed"), find("d", "train[:1]")]
    assert len({same, *(source.fingerprint() for source in others)}) == 4


# Saved datasets and the Hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved")
    whole = datasets.Dataset.from_list([{"n": number} for number in range(10)], split="test")
    whole.save_to_disk(folder / "one", num_shards=2)
    datasets.DatasetDict({"train": whole.select([3, 1, 2]), "dev": whole}).save_to_disk(folder / "two")
    return folder


def test_saved_datasets(saved: Path) -> None:
    assert numbers(find(saved / "one", "test[2:4]")) == [2, 3]
    assert numbers(find(saved / "one")) == list(range(10))
    source = find(saved / "two")
    assert (source.kind, numbers(source), source.count()) == ("disk", [3, 1, 2], (3, True))
    assert str(source.head(1)[0].place) == "data-00000-of-00001.arrow row 1"
    assert "has no split 'validation'; it has dev, train; did you mean 'dev'?" in str(
        refusal(saved / "two", "validation")
    )


def test_a_saved_dataset_that_lacks_a_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "d" / name).write_text((saved / "one" / name).read_text())
    assert "lacks data-00000-of-00002.arrow, data-00001-of-00002.arrow" in str(refusal("d"))


@pytest.fixture
def hub_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """`load_dataset` that takes the Hub id for a folder of the test's; gives the arguments of the calls."""
    datasets = pytest.importorskip("datasets")
    real, calls = datasets.load_dataset, []

    def load_dataset(path: str, **more: Any) -> Any:
        calls.append({"path": path, **more, "offline": datasets.config.HF_HUB_OFFLINE})
        return real(str(Path("hub", path)), cache_dir=str(Path("cache").absolute()), **more)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.disable_progress_bars()
    yield calls
    datasets.enable_progress_bars()


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_the_hub(hub_calls: list[dict[str, Any]], streaming: bool) -> None:
    write("hub/owner/name/train.jsonl", range(10))
    write("hub/owner/name/test.jsonl", [7])
    source = find("owner/name", "train[2:4]", streaming=streaming)
    assert (source.kind, source.count()) == ("hub", (None, False))
    assert hub_calls == []
    assert [(row.values["n"], str(row.place)) for row in source.rows()] == [
        (2, "owner/name row 3"),
        (3, "owner/name row 4"),
    ]
    assert numbers(find("owner/name", "test", streaming=streaming)) == [7]
    with pytest.raises(DataError, match=r"owner/name has no split 'tran'; it has test, train; did you mean 'train'\?"):
        list(find("owner/name", "tran", streaming=streaming).rows())
    if not streaming:
        assert numbers(find("owner/name", "train[-20%:]")) == [8, 9]
        assert find("owner/name").fingerprint() != find("owner/name", "test").fingerprint()


def test_chosen_files_of_the_hub(hub_calls: list[dict[str, Any]]) -> None:
    write("hub/owner/name/a.jsonl", [1])
    write("hub/owner/name/test.jsonl", [7])
    assert numbers(find("owner/name", files="a.jsonl")) == [1]
    both = ["a.jsonl", "test*.jsonl"]
    assert numbers(find("owner/name", "test", files=both)) == [7]
    assert hub_calls[1]["data_files"] == {"test": ["test*.jsonl"]}
    with pytest.raises(DataError, match="has no split 'dev'; it has test, train"):
        list(find("owner/name", "dev", files=both).rows())


@pytest.mark.parametrize(
    ("error", "key", "says"),
    [
        (ConnectionError("no route"), "data.path", "the Hub cannot be reached for owner/name: no route"),
        (FileNotFoundError("Dataset 'owner/name' doesn't exist"), "data.path", "doesn't exist; check the name"),
        (ValueError("BuilderConfig 'xx' not found. Available: ['en']"), "data.config", "Available: ['en']"),
        (ValueError("Config name is missing. Pick one of ['en']"), "data.config", "Pick one of ['en']"),
        (RuntimeError("Dataset scripts are no longer supported"), "data.path", "no longer supported"),
    ],
)
def test_refusals_of_the_hub(monkeypatch: pytest.MonkeyPatch, error: Exception, key: str, says: str) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as refused:
        list(find("owner/name").rows())
    assert refused.value.problems[0].key == key
    assert says in str(refused.value)


def test_a_cached_dataset_is_read_without_the_network(
    hub_calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    write("hub/owner/MyName/train.jsonl")
    Path("cached/owner___my_name/default/0.0.0/abc").mkdir(parents=True)
    monkeypatch.setenv("HF_DATASETS_CACHE", "cached")
    offline_before = datasets.config.HF_HUB_OFFLINE
    assert numbers(find("owner/MyName", allow_downloads=False)) == [0, 1, 2]
    assert hub_calls[0]["offline"]
    assert offline_before == datasets.config.HF_HUB_OFFLINE


# Real data


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="needs the data folder beside the repository")
@pytest.mark.parametrize(
    ("path", "split", "rows", "columns"),
    [
        ("sft/dolly_open_qa", "train", 1600, "instruction response"),
        ("sft_chat/sgd_plain", "train", 150, "messages"),
        ("sft_chat/sgd_tools", "test", None, "id tools messages"),
        ("pretrain/tinyshakespeare/input.txt", "train", 32777, "text"),
        ("pretrain/tinyshakespeare/docs.jsonl", "train", None, "text"),
        ("seq2seq/e2e_nlg", "test", None, "mr ref"),
        ("text_classification/banking77", "train", None, "text category"),
        ("text_regression/emobank", "dev", None, ""),
        ("tabular/california_housing/housing.csv", "train", None, ""),
        ("sentence_pairs/question_similarity/pairs.csv", "train", None, "question_1 question_2 similar"),
    ],
)
def test_real_data(path: str, split: str, rows: int | None, columns: str) -> None:
    source = find(REAL_DATA / path, split)
    found = list(source.rows())
    assert source.count() == (len(found), True)
    assert len(found) == rows or rows is None
    assert {tuple(row.values) for row in found} == {tuple(columns.split()) or tuple(found[0].values)}


def test_finding_and_reading_text_loads_nothing_heavy() -> None:
    write("d/train.jsonl")
    code = (
        "import sys; from aitrain.data import columns, sources, splits;"
        "source = sources.find('d', split='train[:50%]', files=None, config=None, allow_downloads=True);"
        "source.count(), source.head(1), source.fingerprint();"
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'datasets', 'transformers') if name in sys.modules])"
    )
    root = str(Path(sources.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Another encoding


def test_a_file_in_another_encoding_is_told_once(tmp_path: Path) -> None:
    text = "prompt,completion\nfine,b\n" + "café,b\n" * 12 + '"a"b,c\n' + "très,b\n" * 3
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError) as refused:
        list(find(tmp_path / "a.csv").rows())
    first, second = refused.value.problems
    assert first.what == "the byte 0xe9 at column 4 is no UTF-8, as in 14 of the rows after it; save the file as UTF-8"
    assert "leave bad rows out" in first.advice
    assert first.where == "a.csv:3"
    assert (second.what[:26], second.where) == ("text after a closing quote", "a.csv:15")
    (tmp_path / "b.csv").write_bytes("prompt,completion\nfine,b\ncafé,b\n".encode("cp1252"))
    with pytest.raises(DataError) as refused:
        list(find(tmp_path / "b.csv").rows())
    (only,) = refused.value.problems
    assert only.what == "the byte 0xe9 at column 4 is no UTF-8; save the file as UTF-8"
