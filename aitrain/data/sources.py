"""Where the rows of one split come from: `data.path`, `data.files`, `data.config` and a split, turned into rows."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

from aitrain.data import folders, hub
from aitrain.data.arrow_rows import class_names, names_of_feature, rows_of
from aitrain.data.names import closest
from aitrain.data.origins import Where, row_identity
from aitrain.data.readers import FORMATS, TEXT_FAMILIES, Format, format_of, stem_of
from aitrain.data.rows import BUDGET, NO_UTF8, BadRow, Count, DataFile, Item, Row
from aitrain.data.splits import Split
from aitrain.errors import DataError, Problem

_GLOB = re.compile(r"[*?\[]")
_SLICE = re.compile(r"\[[-\d%]*:[-\d%]*\]$")
# A refused run names so many bad rows, of so many rows after the first one.
_BAD_SHOWN, _BAD_SOUGHT = 10, 10_000
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where the rows of one split come from. `find` makes it."""

    kind: Literal["files", "disk", "hub", "class"]
    path: str
    """What the user wrote."""
    files: tuple[Path, ...]
    """In reading order; empty for the Hub."""
    split: Split
    reason: str
    """Why these rows, in words."""
    config: str | None = None
    patterns: tuple[str, ...] = ()
    """Files of a Hub dataset to take."""
    streaming: bool = False
    allow_downloads: bool = False
    key: str = "data.path"
    split_key: str = "data.train_split"

    @overload
    def rows(self, on_bad: Literal["error"] = "error") -> Iterator[Row]: ...
    @overload
    def rows(self, on_bad: Literal["error", "skip"]) -> Iterator[Item]: ...
    def rows(self, on_bad: Literal["error", "skip"] = "error") -> Iterator[Item]:
        """Streams the rows of the slice with their places: `for values, place in source.rows()`.

        A row that cannot be read raises DataError, which also names the next ones; with `skip` it comes as a BadRow,
        for the caller to count. A file that cannot be read any further, and a split without rows, always raise.
        Bad rows count in slices, so a slice holds the same rows either way.
        """
        return (item for _, item in self.numbered(on_bad))

    def numbered(self, on_bad: Literal["error", "skip"]) -> Iterator[tuple[Where, Item]]:
        """As `rows`, each with the number of its file and its own number there, whatever slice is read."""
        items = self._items()
        empty = True
        for where, item in items:
            empty = False
            if on_bad == "error" and type(item) is BadRow:
                raise DataError(self._bad_rows(item, (further for _, further in items)))
            yield where, item
        if empty:
            raise self._no_rows()

    def identity(self, where: Where) -> int:
        """What tells a row from every other one, also where another source reads it."""
        file, number = where
        return row_identity(self._contents[file], number)

    def head(self, n: int, on_bad: Literal["error", "skip"] = "error") -> list[Row]:
        """The first `n` good rows, or all when there are fewer."""
        return list(islice((item for item in self.rows(on_bad) if isinstance(item, Row)), n))

    def count(self) -> Count:
        """Rows in the slice: exact from metadata or by reading files within the budget, else an estimate.

        Rows is None for the Hub, since only loading it can tell.
        """
        if self.kind == "hub":
            return Count(None, exact=False)
        return self._sliced(self._count_files(BUDGET))

    def class_names(self, column: str) -> tuple[str, ...]:
        """The names that stand for the whole numbers of a column, where the data says so (a class feature); else ()."""
        if self.kind == "hub":
            features = self._dataset.features
            return names_of_feature(features.to_dict().get(column)) if features is not None else ()
        arrow = [file for file in self._data_files if file.path.suffix in (".parquet", ".arrow", ".feather")]
        return class_names(arrow[0], column) if arrow else ()

    def fingerprint(self) -> str:
        """A hash of what the rows are: of names and contents for files, of id, configuration and revision for the Hub.

        It does not change when a folder is moved or copied. The slice is part of it.
        """
        digest = hashlib.sha256(f"{self.kind}\n{self.split}\n".encode())
        if self.kind == "hub":
            revision = hub.revision(self.path, self._dataset, self.allow_downloads)
            digest.update(f"{self.path}\n{self.config}\n{self.patterns}\n{revision}".encode())
        for file in self._data_files:
            size = file.path.stat().st_size
            digest.update(f"{file.name}\n{size}\n{_content_hash(file.path)}\n".encode())
        return digest.hexdigest()

    def sizes(self) -> str:
        """Names and sizes of the files in a word, for noticing a change without reading them."""
        listed = [(file.name, file.path.stat().st_size) for file in self._data_files]
        return hashlib.sha256(repr((self.kind, self.path, self.config, str(self.split), listed)).encode()).hexdigest()

    @cached_property
    def _data_files(self) -> tuple[DataFile, ...]:
        if not self.files:
            return ()
        root = Path(os.path.commonpath([file.parent for file in self.files]))
        return tuple(DataFile(file, file.relative_to(root).as_posix(), self.key) for file in self.files)

    @cached_property
    def _dataset(self) -> Any:
        return hub.load(
            self.path,
            split=self.split,
            config=self.config,
            files=self.patterns,
            streaming=self.streaming,
            allow_downloads=self.allow_downloads,
            key=self.key,
            split_key=self.split_key,
        )

    @cached_property
    def _contents(self) -> tuple[str, ...]:
        """A hash of what is in each file; of a Hub dataset one for the split."""
        if self.kind == "hub":
            revision = hub.revision(self.path, self._dataset, self.allow_downloads)
            return (f"{self.path}\n{self.config}\n{self.patterns}\n{self.split.name}\n{revision}",)
        return tuple(_content_hash(file.path) for file in self._data_files)

    def _items(self) -> Iterator[tuple[Where, Item]]:
        if self.kind == "hub":
            return self._hub_items()
        if self.split.needs_total:
            start, stop = self.split.range(self._count_files(None).rows or 0)
            return islice(self._all_items(), start, stop)
        return islice(self._all_items(), self.split.start, self.split.stop)

    def _all_items(self) -> Iterator[tuple[Where, Item]]:
        for index, file in enumerate(self._data_files):
            for number, item in enumerate(_format(file).read(file)):
                yield (index, number), item

    def _hub_items(self) -> Iterator[tuple[Where, Item]]:
        whole = self._dataset
        start, stop = self.split.start or 0, self.split.stop
        if not self.streaming:
            start, stop = self.split.range(whole.num_rows)
            whole = whole.select(range(start, stop))
        tables = whole.with_format("arrow").iter(batch_size=1000)
        batches = (batch for table in tables for batch in table.to_batches())
        file = DataFile(Path(self.path), self.path, self.key)
        if not self.streaming:
            rows = iter(rows_of(file, batches, start))
        else:
            rows = islice(rows_of(file, batches), start, stop)
        return (((0, row.place.number), row) for row in rows)

    def _count_files(self, limit: int | None) -> Count:
        """All rows before slicing. `limit` is how many bytes may be read for an exact number, in all files together."""
        rows, read = 0, 0
        exact = True
        for file in self._data_files:
            kind, size = _format(file), file.path.stat().st_size
            if limit is not None and read > limit and kind.family in TEXT_FAMILIES:
                rows, exact = rows + round(rows * size / read), False
            else:
                found = kind.count(file, None if limit is None else limit - read)
                rows, exact = rows + (found.rows or 0), exact and found.exact
            read += size
        return Count(rows, exact)

    def _sliced(self, total: Count) -> Count:
        start, stop = self.split.range(total.rows or 0)
        return Count(stop - start, total.exact)

    def _bad_rows(self, first: BadRow, rest: Iterator[Item]) -> list[Problem]:
        advice = f"repair it, or leave bad rows out with {_in_section(self.key, 'on_bad_rows')}=skip"
        shown, alike = [first], Counter[str]()
        further: tuple[Problem, ...] = ()
        try:
            for item in islice(rest, _BAD_SOUGHT):
                if isinstance(item, BadRow) and any(_are_one_fault(bad, item) for bad in shown):
                    alike[item.place.file] += 1
                elif isinstance(item, BadRow):
                    shown.append(item)
                if len(shown) == _BAD_SHOWN:
                    break
        except DataError as error:
            further = error.problems
        problems: list[Problem] = []
        for bad in shown:
            count = alike[bad.place.file] if NO_UTF8 in bad.reason else 0
            reason = bad.reason.replace(NO_UTF8, f"{NO_UTF8}, as in {count:,} of the rows after it") if count else ""
            problems.append(Problem(self.key, reason or bad.reason, "" if problems else advice, str(bad.place)))
        return [*problems, *further]

    def _no_rows(self) -> DataError:
        if not self.split.sliced:
            return DataError(Problem(self.key, f"{self.path} holds no rows in split '{self.split.name}'"))
        total = "" if self.kind == "hub" else f" of {self._count_files(None).rows}"
        return DataError(Problem(self.split_key, f"'{self.split}' selects none{total} rows of {self.path}"))


def find(
    path: str,
    *,
    split: str,
    files: str | list[str] | None,
    config: str | None,
    allow_downloads: bool,
    streaming: bool = False,
    key: str = "data.path",
    split_key: str = "data.train_split",
) -> Source:
    """Finds the rows of one split, without reading them.

    `path` is `sample:NAME`, a file, a folder, a glob, a `save_to_disk` folder or a Hub id; what looks like a path is
    never taken for a Hub id. Raises DataError with what is wrong, under `key`, `split_key` or their siblings.
    """
    wanted = Split.parse(split, key=split_key)
    patterns = _patterns(files, key)
    try:
        local = Path(path).expanduser()
        is_hub = not _is_local(path, local)
        _refuse_unused(path, bool(patterns) and not (is_hub or local.is_dir()), config is not None and not is_hub, key)
        kind: Literal["files", "disk", "hub"] = "hub" if is_hub else "files"
        if is_hub:
            _check_hub(path, wanted, allow_downloads, streaming, key, split_key)
            found = folders.Found((), "no file or folder has that name, so it is a dataset of the Hub")
        elif not patterns and folders.is_saved(local):
            kind, found = "disk", folders.in_saved(local, wanted, key, split_key)
        else:
            found = _in_files(path, local, wanted, patterns, key, split_key)
        _refuse_empty(found.files, key)
    except (OSError, RuntimeError) as error:  # RuntimeError: `~name` of no user
        raise DataError(Problem(key, f"{path} cannot be opened: {error}")) from error
    return Source(
        kind, path, found.files, wanted, found.reason, config, patterns, streaming, allow_downloads, key, split_key
    )


def _in_files(
    path: str, local: Path, split: Split, patterns: tuple[str, ...], key: str, split_key: str
) -> folders.Found:
    if path.startswith("sample:"):
        from aitrain.data.samples import sample_file

        return _single(sample_file(path.removeprefix("sample:")), path, split, key, split_key)
    if local.is_dir():
        return folders.in_folder(local, split, patterns, key, split_key)
    if local.exists():
        return _single(local, path, split, key, split_key)
    if _GLOB.search(path) and not _SLICE.search(path):
        return folders.in_glob(path, split, key, split_key)
    raise _no_such_file(path, local, key, split_key)


def _sibling(key: str, name: str) -> str:
    return f"{key.rpartition('.')[0]}.{name}"


def _in_section(key: str, name: str) -> str:
    """A key that holds for every source: `data.streaming` for `data.mixture[1].path`."""
    return f"{key.partition('.')[0]}.{name}"


def _patterns(files: str | list[str] | None, key: str) -> tuple[str, ...]:
    patterns = () if files is None else (files,) if isinstance(files, str) else tuple(files)
    problems = [
        Problem(folders.files_key(key), f"{name!r} is no name below {key}", f"write it relative to {key}")
        for name in patterns
        if not name or Path(name).is_absolute() or ".." in Path(name).parts
    ]
    if problems:
        raise DataError(problems)
    return patterns


def _is_local(path: str, local: Path) -> bool:
    """Whether a path is there, is a sample, or looks like a path so much that it is no Hub id."""
    return (
        path.startswith(("sample:", ".", "/", "~"))
        or os.path.lexists(local)
        or format_of(local) is not None
        or path.count("/") > 1
        or "\\" in path
        or "://" in path
        or _GLOB.search(path) is not None
        or ("/" in path and local.parent.is_dir())
        or ("/" not in path and local.suffix != "")
        or hub.HUB_ID.fullmatch(path) is None
    )


def _refuse_unused(path: str, files: bool, config: bool, key: str) -> None:
    problems = []
    if files:
        what = f"has no effect: {path} is neither a folder nor a Hub id"
        problems.append(Problem(folders.files_key(key), what, f"leave it out, or name the folder in {key}"))
    if config:
        problems.append(Problem(_sibling(key, "config"), f"has no effect: {path} is no Hub id", "leave it out"))
    if problems:
        raise DataError(problems)


def _check_hub(path: str, split: Split, allow_downloads: bool, streaming: bool, key: str, split_key: str) -> None:
    problems = []
    if not allow_downloads and (streaming or not hub.is_cached(path)):
        near = closest(path, [entry.name for entry in Path().iterdir()])
        what = f"{path} is no file here, and the Hub may not be asked for it: run.allow_downloads is false"
        if not streaming:
            what += ", and the cache of the datasets library does not hold it"
        advice = f"did you mean './{near}'?" if near else "set run.allow_downloads=true, or name a local file"
        problems.append(Problem(key, what, advice))
    if streaming and split.needs_total:
        what = f"'{split}' needs the number of rows, which a stream does not have"
        advice = f"use {split.name}[:1000], or {_in_section(key, 'streaming')}=false"
        problems.append(Problem(split_key, what, advice))
    if problems:
        raise DataError(problems)


def _single(file: Path, name: str, split: Split, key: str, split_key: str) -> folders.Found:
    """A file that the user named: it is `train` whatever its name, and the split of its name too."""
    if format_of(file) is None:
        advice = "rows are read from " + ", ".join(FORMATS) + "; the text formats also with .gz or .zst"
        raise DataError(Problem(key, f"{name}: no format is known for '{file.suffix}'", advice))
    if split.name not in {"train", stem_of(file)}:
        what = f"the one file {name} has no split '{split.name}'; it has train"
        raise DataError(Problem(split_key, what, "name a folder with a file for each split, or a slice of 'train'"))
    return folders.Found((file,), "one file")


def _refuse_empty(files: tuple[Path, ...], key: str) -> None:
    problems = [Problem(key, f"{file} is empty") for file in files if file.is_file() and file.stat().st_size == 0]
    problems += [Problem(key, f"{file} is no file") for file in files if not file.is_file()]
    if problems:
        raise DataError(problems)


def _no_such_file(path: str, local: Path, key: str, split_key: str) -> DataError:
    if "://" in path:
        return DataError(Problem(key, f"{path} is a URL", "download it, or name a Hub dataset as owner/name"))
    if sliced := _SLICE.search(path):
        fix = f"{split_key}=train{sliced[0]}"
        return DataError(Problem(key, f"no such file: {path}", f"the slice is no part of the path; set {fix}", fix=fix))
    scheme, colon, rest = path.partition(":")
    if colon and closest(scheme, ["sample"]):
        return DataError(Problem(key, f"{path}: no scheme '{scheme}'", f"did you mean 'sample:{rest}'?"))
    return DataError(Problem(key, f"no such file: {path}", folders.nearest_in_folder(local)))


def _content_hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _are_one_fault(first: BadRow, second: BadRow) -> bool:
    """Whether both come of the encoding of their file, which is told once."""
    return first.place.file == second.place.file and NO_UTF8 in first.reason and NO_UTF8 in second.reason


def _format(file: DataFile) -> Format:
    kind = format_of(file.path)
    assert kind is not None, "find() takes data files only"
    return kind
