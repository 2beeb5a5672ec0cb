"""Which files of a folder or a glob hold the rows of a split."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aitrain.data.names import closest
from aitrain.data.readers import FORMATS, format_of, stem_of
from aitrain.data.splits import Split
from aitrain.errors import DataError, Problem

SPLITS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"})
"""Words in a file's name that say which split it belongs to, besides the split asked for."""
_VALIDATION = ("validation", "valid", "val", "dev")
# Text that goes along with data and is none, and what the `datasets` library writes beside its files.
_STRAY_STEMS = ("readme", "license", "licence", "notice", "copying", "changelog", "requirements")
_STRAY_NAMES = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json"})


@dataclass(frozen=True)
class Found:
    """The files of a split, sorted, and why these."""

    files: tuple[Path, ...]
    reason: str


def in_folder(folder: Path, split: Split, patterns: Sequence[str], key: str, split_key: str) -> Found:
    """The files of `split` in a folder and below; only those that `patterns` name, when there are any.

    A file belongs to the split that a folder above it or a word of its own name says: `test/a.csv`,
    `train-00000-of-00002.parquet`, `penguins_test.csv`. When no file says any, all of them are `train`.
    Raises DataError.
    """
    files = _walk(folder)
    if patterns:
        files = _named(folder, files, patterns, key)
    return _of_split(str(folder), {file: file.relative_to(folder) for file in files}, split, key, split_key)


def in_glob(pattern: str, split: Split, key: str, split_key: str) -> Found:
    """The files of `split` that a glob finds (`**` for any depth), by the rule of `in_folder`. Raises DataError."""
    files = [Path(name) for name in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise DataError(Problem(key, f"no file matches {pattern}", nearest_in_folder(Path(pattern))))
    return _of_split(pattern, {file: file.relative_to(_fixed(pattern)) for file in files}, split, key, split_key)


def _fixed(pattern: str) -> Path:
    """The folder of a glob before its first special character: chosen by the user, so its name says no split."""
    return Path(re.split(r"[*?\[]", os.path.expanduser(pattern))[0] + "x").parent


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library wrote a folder."""
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def in_saved(folder: Path, split: Split, key: str, split_key: str) -> Found:
    """The Arrow files of a `save_to_disk` folder, in their order. Raises DataError."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json", key).get("splits")
        splits = [str(name) for name in splits] if isinstance(splits, list) else []
        if split.name not in splits:
            raise unknown_split(split, splits, str(folder), split_key)
        return _saved_files(folder / split.name, key)
    saved_as = str(_json(folder / "state.json", key).get("_split") or "train")
    if split.name not in {saved_as, "train"}:
        raise unknown_split(split, {saved_as, "train"}, str(folder), split_key)
    return _saved_files(folder, key)


def nearest_in_folder(path: Path) -> str:
    """Advice for a path that is not there: the nearest name in its folder, or the first folder that is missing."""
    parent = path.expanduser().parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    near = closest(path.name, [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")])
    if near:
        return f"did you mean '{parent / near}'?"
    return f"{parent.resolve()} has nothing with a name like '{path.name}'"


def split_of(path: PurePosixPath | Path, asked: str) -> str | None:
    """The split that a path relative to the data folder names: a folder first, then a word of the file's name."""
    known = SPLITS | {asked.lower()}
    for folder in path.parts[:-1]:
        if folder.lower() in known:
            return folder.lower()
    stem = stem_of(Path(path.name)).lower()
    if stem == asked.lower() or re.match(re.escape(asked.lower()) + r"[-_.]", stem):
        return asked.lower()
    words = re.split(r"[-_.]", stem)
    return next((word for word in (words[0], words[-1], *words) if word in known), None)


def unknown_split(split: Split, known: Iterable[str], path: str, split_key: str) -> DataError:
    """The error for a split that is not there, with those that are."""
    names = sorted(known)
    near = next((name for name in names if name in _VALIDATION and split.name in _VALIDATION), None)
    near = near or closest(split.name, names)
    shown = ", ".join(names) or "none"
    advice = f"did you mean '{near}'?" if near else "set one of them"
    fix = f"{split_key}={Split(near, split.start, split.stop, split.percent)}" if near else ""
    return DataError(Problem(split_key, f"{path} has no split '{split.name}'; it has {shown}", advice, fix=fix))


def _walk(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, sorted. Links to folders are followed, each folder once.

    Raises OSError for a folder that may not be read, which os.walk would leave out.
    """
    files: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(parent)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__"))) if real not in seen else []
        if real not in seen:
            files += [Path(parent, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _named(folder: Path, files: list[Path], patterns: Sequence[str], key: str) -> list[Path]:
    names = {file: file.relative_to(folder).as_posix() for file in files}
    chosen: set[Path] = set()
    problems = []
    for pattern in patterns:
        found = {file for file, name in names.items() if _matches(name, pattern)}
        if not found:
            data = [name for file, name in names.items() if format_of(file)]
            near = closest(pattern, data)
            advice = f"did you mean '{near}'?" if near else f"there is {', '.join(data[:10]) or 'no data file'}"
            problems.append(Problem(files_key(key), f"{folder} has no file {pattern!r}", advice))
        chosen |= found
    if problems:
        raise DataError(problems)
    return sorted(chosen)


def _matches(name: str, pattern: str) -> bool:
    """Whether a glob, of which `*` stays within one folder and `**` does not, is the whole name."""
    regex = "".join(_PIECES.get(piece) or re.escape(piece) for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))
    return name == pattern or re.fullmatch(regex, name) is not None


_PIECES = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def files_key(key: str) -> str:
    """`data.files` for `data.path`."""
    return f"{key.rpartition('.')[0]}.files"


def _of_split(where: str, files: dict[Path, Path], split: Split, key: str, split_key: str) -> Found:
    """Of files with their names below `where`, those of the split."""
    data = {file: name for file, name in files.items() if _is_data(file)}
    ignored = [file for file in files if file not in data]
    if not data:
        found = f": {_kinds(ignored)}" if ignored else ""
        raise DataError(Problem(key, f"{where} has no data file{found}", "rows are read from " + ", ".join(FORMATS)))
    named = {file: split_of(name, split.name) for file, name in data.items()}
    splits = {name for name in named.values() if name}
    if not splits:
        splits, named = {"train"}, dict.fromkeys(named, "train")
    chosen = tuple(file for file in data if named[file] == split.name.lower())
    if not chosen:
        raise unknown_split(split, splits, where, split_key)
    return Found(_one_family(chosen, where, key), _reason(chosen, named, split, ignored))


def _is_data(file: Path) -> bool:
    stray = file.name in _STRAY_NAMES or (file.suffix == ".txt" and stem_of(file).lower().startswith(_STRAY_STEMS))
    return format_of(file) is not None and not stray


def _one_family(files: tuple[Path, ...], where: str, key: str) -> tuple[Path, ...]:
    families: dict[str, Path] = {}
    for file in files:
        kind = format_of(file)
        assert kind is not None
        families.setdefault(kind.family, file)
    if len(families) > 1:
        found = ", ".join(f"{family} ({file.name})" for family, file in families.items())
        advice = f"choose files of one kind: {files_key(key)}='*{next(iter(families.values())).suffix}'"
        raise DataError(Problem(key, f"one split of {where} holds files of several kinds: {found}", advice))
    return files


def _reason(chosen: Sequence[Path], named: dict[Path, str | None], split: Split, ignored: Sequence[Path]) -> str:
    files = "1 file" if len(chosen) == 1 else f"{len(chosen)} files"
    reason = f"{files} of split '{split.name}'"
    others = Counter(name for name in named.values() if name and name != split.name.lower())
    if others:
        reason += "; other splits: " + ", ".join(sorted(others))
    unnamed = sum(name is None for name in named.values())
    if unnamed:
        reason += f"; {unnamed} of no split not used"
    if ignored:
        reason += f"; {len(ignored)} that hold no rows ignored ({_kinds(ignored)})"
    return reason


def _kinds(files: Sequence[Path]) -> str:
    kinds = Counter(file.suffix if format_of(file) is None and file.suffix else file.name for file in files)
    return ", ".join(f"{times} {kind}" for kind, times in kinds.most_common(5))


def _saved_files(folder: Path, key: str) -> Found:
    state = _json(folder / "state.json", key)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        what = f"{folder} was saved with an index beside its rows by an old version of the datasets library"
        raise DataError(Problem(key, what, "load it with that library and save it again"))
    entries = state.get("_data_files")
    files = tuple(folder / Path(entry["filename"]).name for entry in entries) if isinstance(entries, list) else ()
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"{folder} lacks {', '.join(missing) or 'its data files'}, which its state.json names"
        raise DataError(Problem(key, what, "copy the folder again"))
    return Found(files, f"{len(files)} Arrow files of a save_to_disk folder")


def _json(file: Path, key: str) -> dict[str, object]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(Problem(key, f"{file} cannot be read: {error}", "save the dataset again")) from error
    if not isinstance(values, dict):
        raise DataError(Problem(key, f"{file} holds no object", "save the dataset again"))
    return values
