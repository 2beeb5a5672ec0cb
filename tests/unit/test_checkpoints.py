"""Checkpoints are whole or not there: every kind of damage is found and named, and tidying keeps what is needed."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from aitrain.errors import DataError
from aitrain.rundir import checkpoints
from aitrain.rundir.folder import CHECKPOINTS


def save(folder: Path, step: int, *, files: int = 3) -> checkpoints.Checkpoint:
    partial = checkpoints.begin(folder)
    (partial / "inner").mkdir()
    for number in range(files):
        (partial / ("inner" if number else ".") / f"file-{number}.bin").write_bytes(
            os.urandom(64) + bytes([step % 256])
        )
    (partial / "empty").write_bytes(b"")
    return checkpoints.publish(partial, folder, step, {"epoch": 0.5})


def files_of(checkpoint: checkpoints.Checkpoint) -> list[Path]:
    return sorted(path for path in checkpoint.path.rglob("*") if path.is_file())


def test_a_published_checkpoint_is_whole(tmp_path: Path) -> None:
    made = save(tmp_path, 12)
    assert made.path.name == "step-000012"
    assert checkpoints.fault(made.path) is None
    assert checkpoints.existing(tmp_path) == [made]
    assert checkpoints.newest_valid(tmp_path) == (made, [])
    assert checkpoints.named(made.path) == made


def test_nothing_is_visible_before_it_is_published(tmp_path: Path) -> None:
    partial = checkpoints.begin(tmp_path)
    (partial / "a").write_text("x")
    assert checkpoints.existing(tmp_path) == []
    assert checkpoints.newest_valid(tmp_path) == (None, [])
    checkpoints.tidy(tmp_path, newest=0, keep=None, best=None)
    assert not partial.exists()


def test_every_file_missing_cut_or_changed_is_found(tmp_path: Path) -> None:
    made = save(tmp_path, 1)
    for path in files_of(made):
        content = path.read_bytes()
        path.unlink()
        found = checkpoints.fault(made.path)
        assert found is not None, path
        assert path.name in found
        for damaged in (content[:-1], content + b"x", bytes([content[0] ^ 1]) + content[1:]) if content else (b"x",):
            path.write_bytes(damaged)
            found = checkpoints.fault(made.path)
            # A byte after the manifest's last line may still be JSON; its entries are what counts.
            assert found is not None or (path.name == checkpoints.MANIFEST and damaged == content[:-1]), (path, damaged)
        path.write_bytes(content)
        assert checkpoints.fault(made.path) is None


def test_a_damaged_manifest_is_a_fault_and_never_an_exception(tmp_path: Path) -> None:
    made = save(tmp_path, 1)
    manifest = made.path / checkpoints.MANIFEST
    content = bytearray(manifest.read_bytes())
    rng = random.Random(0)
    files_end = content.index(b'"files"')
    for position in range(files_end, len(content) - 4, 2):
        damaged = content.copy()
        damaged[position] ^= 1 << rng.randrange(8)
        manifest.write_bytes(damaged)
        found = checkpoints.fault(made.path)
        is_blank = chr(content[position]).isspace() and chr(damaged[position]).isspace()
        assert found is not None or is_blank, (position, bytes(damaged[position - 10 : position + 10]))
    for text in (
        "",
        "[]",
        "{}",
        '{"files": []}',
        '{"files": {"a": 1}}',
        '{"files": {"a\\u0000": {"bytes": 1, "sha256": ""}}}',
    ):
        manifest.write_text(text)
        assert checkpoints.fault(made.path) is not None, text


def test_the_newest_whole_one_is_found_below_damaged_ones(tmp_path: Path) -> None:
    first, second, third = (save(tmp_path, step) for step in (5, 10, 1_000_000))
    assert checkpoints.newest_valid(tmp_path)[0] == third
    files_of(third)[1].write_bytes(b"")
    (second.path / checkpoints.MANIFEST).unlink()
    found, faults = checkpoints.newest_valid(tmp_path)
    assert found == first
    assert [name in fault for name, fault in zip(("step-1000000", "step-000010"), faults, strict=True)] == [True, True]
    (first.path / "empty").unlink()
    assert checkpoints.newest_valid(tmp_path)[0] is None


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    old = files_of(save(tmp_path, 3))[1].read_bytes()
    again = save(tmp_path, 3)
    assert checkpoints.existing(tmp_path) == [again]
    assert checkpoints.fault(again.path) is None
    assert files_of(again)[1].read_bytes() != old


def test_tidying_never_removes_the_newest_nor_the_best(tmp_path: Path) -> None:
    for number, (keep, best) in enumerate(itertools.product((None, 1, 3, 9), (None, 1, 2))):
        folder = tmp_path / str(number)
        made = [save(folder, step, files=1) for step in (1, 2, 3, 4)]
        removed = checkpoints.tidy(folder, newest=4, keep=keep, best=best)
        left = [c.step for c in checkpoints.existing(folder)]
        expected = {1, 2, 3, 4} if keep is None else {4, *(range(5 - keep, 5)), best} & {1, 2, 3, 4}
        assert set(left) == expected, (keep, best)
        assert sorted([*removed, *(c.path for c in checkpoints.existing(folder))]) == sorted(c.path for c in made)
        assert sorted(p.name for p in (folder / CHECKPOINTS).iterdir()) == [f"step-{s:06d}" for s in sorted(expected)]


def test_checkpoints_after_the_newest_usable_one_go(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    checkpoints.tidy(tmp_path, newest=2, keep=1, best=None)
    assert [c.step for c in checkpoints.existing(tmp_path)] == [2]


def test_other_things_in_the_folder_are_no_checkpoints(tmp_path: Path) -> None:
    root = tmp_path / CHECKPOINTS
    for name in ("step-x", "step-1-old", "xstep-1", "best"):
        (root / name).mkdir(parents=True)
    (root / "step-7").write_text("a file")
    assert checkpoints.existing(tmp_path) == []
    assert checkpoints.existing(tmp_path / "gone") == []


def test_naming_a_checkpoint(tmp_path: Path) -> None:
    made = save(tmp_path, 4)
    with pytest.raises(DataError, match=r"did you mean '.*/checkpoints/step-000004'"):
        checkpoints.named(tmp_path)
    with pytest.raises(DataError, match="is no checkpoint"):
        checkpoints.named(tmp_path / "gone")
    files_of(made)[0].write_bytes(b"x")
    with pytest.raises(DataError, match=r"not whole: .*instead of"):
        checkpoints.named(made.path)
