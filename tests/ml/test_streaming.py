"""Rows read while training: the same steps for any number of processes, and the same run when continued."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_run, losses, run, run_stopped_at, words
from test_rendering import a_tokenizer

from aitrain import look
from aitrain.cli import main
from aitrain.compose import Request
from aitrain.data.rows import Place, Row
from aitrain.data.tokens import Blocks, Encoded, Rows, write_table
from aitrain.errors import DataError
from aitrain.ml.streaming import StreamBatches, shuffled
from aitrain.start import check
from aitrain.worker import _stream

STREAM = {"data__streaming": True, "data__shuffle_buffer": 7, "train__batch_size": 4, "train__max_steps": 8,
          "train__eval_steps": None, "train__save_steps": 3, "train__gradient_accumulation": 2}  # fmt: skip


def items(count: int) -> list[Row]:
    return [Row({"n": n}, Place("f", n)) for n in range(count)]


@pytest.mark.parametrize("size", [1, 3, 10, 50])
def test_the_buffer_permutes(size: int) -> None:
    def order(seed: int) -> list[int]:
        return [row.place.number for row in shuffled(iter(items(30)), size, seed=seed)]

    assert sorted(order(0)) == list(range(30))
    assert order(0) == order(0)
    if size == 1:
        assert order(0) == list(range(30))
    else:
        assert order(0) != order(1) != list(range(30))
        # A row can come early only as far as the buffer reaches.
        assert all(number - position < size for position, number in enumerate(order(0)))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"prompt": f"Say {n}", "completion": f"{n} " * (1 + n % 5) + "."} for n in range(23)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def batches(path: Path, rank: int = 0, world: int = 1, start: int = 0, **changes: Any) -> StreamBatches:
    chosen = {**STREAM, "data__path": path, "data__max_samples": None, **changes}
    made = check(Request(tuple(words(None, **chosen)))).run
    found = StreamBatches(made, _stream(made), a_tokenizer(), rank=rank, world=world)
    found.start = start
    return found


def rows_of(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    return [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def read(stream: StreamBatches, count: int) -> list[list[list[int]]]:
    return [rows_of(batch) for batch in islice(stream, count)]


def test_every_row_once_a_round_in_orders_of_their_own(data: Path) -> None:
    flat = [tuple(row) for batch in read(batches(data), 12) for row in batch]
    first, second = flat[:23], flat[23:46]
    assert len(set(first)) == 23
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("world", [2, 4])
def test_a_step_sees_the_same_rows_over_any_number_of_processes(data: Path, world: int) -> None:
    alone = read(batches(data), 10)
    ranks = [read(batches(data, rank, world, train__batch_size=4 // world), 10) for rank in range(world)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)] == alone


def test_a_continued_stream_goes_on_where_it_was(data: Path) -> None:
    whole = read(batches(data), 14)
    assert read(batches(data, start=9), 5) == whole[9:]


def test_max_samples_are_the_first_rows(data: Path) -> None:
    flat = [row for batch in read(batches(data, data__max_samples=8), 2) for row in batch]
    roles = {"user": "prompt", "assistant": "completion"}
    chats = [[{"role": role, "content": row[name]} for role, name in roles.items()] for row in ROWS[:8]]
    expected = a_tokenizer().apply_chat_template(chats)["input_ids"]
    assert sorted(flat) == sorted(expected)


def test_blocks_of_a_stream_are_those_of_a_table(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.jsonl", [{"text": f"Text {n} " * (1 + n % 3)} for n in range(9)])
    rows = ids_of(path, a_tokenizer())
    table = Rows(write_table(tmp_path / "table", [Encoded(ids, [1] * len(ids)) for ids in rows], {}))
    total = sum(map(len, rows))
    assert {total % size for size in range(2, total + 2)} >= {0, 1}
    for size in (*range(2, 12), total - 1, total, total + 1):
        changes = {"trainer": "pretrain", "data__block_size": size, "train__batch_size": 1, "data__shuffle_buffer": 1}
        blocks = Blocks(table, size)
        wanted = [blocks[index].ids.tolist() for index in range(len(blocks))]
        assert [row for batch in read(batches(path, **changes), len(blocks)) for row in batch] == wanted


def ids_of(path: Path, tokenizer: Any) -> list[list[int]]:
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


# --- rows that cannot be used ---------------------------------------------------------------------------------------


@pytest.fixture
def only_the_first_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a run starts, as of files that are large."""
    monkeypatch.setattr(look, "SCANNED", 0)
    monkeypatch.setattr(look, "LOOKED_AT_OF_LARGER", 3)


def test_bad_rows_stop_the_run_with_their_place_or_are_counted(
    tmp_path: Path, only_the_first_rows_are_looked_at: None
) -> None:
    rows = [*ROWS[:21], {"prompt": "a", "completion": ""}, *ROWS[21:]]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"'completion' is empty.*rows.jsonl:22"):
        read(batches(path), 6)
    stream = batches(path, data__on_bad_rows="skip", data__max_bad_rows=0.1)
    assert len(read(stream, 6)) == 6  # a round of 23 rows and one of the next
    assert (stream.counts["bad"], stream.counts["read"]) == (1, 32)  # of the next one as many as fill the buffer
    with pytest.raises(DataError, match=r"more than 1\.0%"):
        read(batches(path, data__on_bad_rows="skip", data__max_bad_rows=0.01), 6)


@pytest.mark.parametrize(("first", "code", "says"), [
    (3, 2, "refused, nothing was trained (1 problem):\n  data.path: row cannot be used: column 'completion' is empty"),
    (9, 1, "failed: after step 2: data.path: row cannot be used: column 'completion' is empty"),
])  # fmt: skip
def test_a_run_that_a_row_ends_says_how_far_it_came(
    tmp_path: Path, only_the_first_rows_are_looked_at: None, capsys: pytest.CaptureFixture[str],
    first: int, code: int, says: str,
) -> None:  # fmt: skip
    rows = [*ROWS[:first], {"prompt": "a", "completion": ""}, *ROWS[first:]]
    path = write(tmp_path / "rows.jsonl", rows)
    alone = {"data__shuffle_buffer": 1, "train__gradient_accumulation": 1, "train__save_steps": None}
    changes = {**STREAM, **alone, "data__path": path, "data__max_samples": None, "run__progress": "plain"}
    assert main(words(tmp_path / "r", **changes)) == code
    said = capsys.readouterr()
    assert said.out.startswith("run      ")
    assert said.err.startswith(says)
    assert (tmp_path / "r").exists() == (code == 1)


def test_long_rows_stop_the_run_or_are_dropped_or_cut(data: Path) -> None:
    with pytest.raises(DataError, match=r"a row has \d+ tokens, more than 20"):
        read(batches(data, data__max_length=20, data__truncation="error"), 6)
    dropping = batches(data, data__max_length=20, data__truncation="drop")
    assert all(len(row) <= 20 for batch in read(dropping, 6) for row in batch)
    assert dropping.counts["dropped"] > 0
    cutting = batches(data, data__max_length=20, data__truncation="right")
    assert max(len(row) for batch in read(cutting, 6) for row in batch) == 20
    assert cutting.counts["truncated"] > 0


@pytest.mark.timeout(30)
def test_a_stream_of_rows_that_are_all_dropped_comes_to_an_end(data: Path) -> None:
    with pytest.raises(DataError, match="no row to train on"):
        read(batches(data, data__max_length=3, data__truncation="drop"), 1)


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed") / "r"
    run(folder, **STREAM)
    return folder


def test_a_stream_trains_as_its_batches_say(streamed: Path, tmp_path: Path) -> None:
    run(tmp_path / "divided", **{**STREAM, "train__batch_size": 2, "train__gradient_accumulation": 4})
    ours, wanted = losses(tmp_path / "divided"), losses(streamed)
    assert len(ours) == 8
    assert max(abs(a - b) for a, b in zip(ours, wanted, strict=True)) <= 1e-5
    assert wanted[-1] < wanted[0]


@pytest.mark.parametrize("micro_step", [3, 11])
def test_a_stopped_stream_continues_bit_equal(streamed: Path, tmp_path: Path, micro_step: int) -> None:
    run_stopped_at(micro_step, tmp_path / "r", **STREAM)
    run(tmp_path / "r", run__resume="auto", **STREAM)
    assert_same_run(tmp_path / "r", streamed)


def test_a_stream_can_be_validated(data: Path, tmp_path: Path) -> None:
    changes = {**STREAM, "data__path": data, "data__max_samples": None, "data__valid_split": "train[:5]"}
    made = run(tmp_path / "r", **{**changes, "train__eval_steps": 4})
    assert made.metrics["after"]["loss"] < made.metrics["before"]["loss"]
    assert made.values["data"]["valid_rows"] == 5


def test_what_a_stream_counts_is_reported(tmp_path: Path) -> None:
    rows = [*ROWS[:21], {"prompt": "a", "completion": ""}, *ROWS[21:]]
    path = write(tmp_path / "rows.jsonl", rows)
    changes = {**STREAM, "data__path": path, "data__max_samples": None, "data__on_bad_rows": "skip"}
    made = run(
        tmp_path / "r", **changes, **{"data.max_bad_rows": 0.1, "data.max_length": 20, "data.truncation": "right"}
    )
    found = made.values["data"]
    # 8 steps of 8 rows: two rounds of 23 good rows, and as many of the third as are read at once.
    assert (found["rows_read"], found["bad_rows"], found["dropped"]) == (72, 3, 0)
    assert found["truncated"] > 0
    assert made.values["peak_device_memory_bytes"] is None
