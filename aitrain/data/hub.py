"""Datasets of the Hugging Face Hub, through the `datasets` library."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from aitrain.data.folders import split_of, unknown_split
from aitrain.data.splits import Split
from aitrain.errors import DataError, Problem

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_cached(name: str) -> bool:
    """Whether the `datasets` library holds this dataset ready, so that it loads without a network."""
    owner, slash, dataset = name.rpartition("/")
    # The library files a dataset under its name in snake case.
    snake = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", dataset)
    snake = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", snake).lower()
    folder = _cache_folder() / (f"{owner}___{snake}" if slash else snake)
    return any(entry.is_dir() for entry in folder.glob("*/*/*"))


def _cache_folder() -> Path:
    if chosen := os.environ.get("HF_DATASETS_CACHE"):
        return Path(chosen).expanduser()
    return hub_home(os.environ) / "datasets"


def hub_home(environment: Mapping[str, str]) -> Path:
    """Where the Hub's libraries keep models, datasets and the token: HF_HOME, else `huggingface` in the user's cache,
    as https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables has it."""
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(os.path.expandvars(home)).expanduser()


def cached_model(name: str, revision: str | None) -> Path | None:
    """The snapshot of a model in the local cache that holds a config.json; None when it has to be fetched.

    `revision` is a branch, a tag or a commit. Without one it is what `main` was when it was last fetched, or where
    nobody fetched `main`, the newest snapshot.
    """
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    place = Path(os.path.expandvars(chosen)).expanduser() if chosen else hub_home(os.environ) / "hub"
    folder = place / f"models--{name.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    if ref.is_file():
        snapshot = ref.read_text(encoding="utf-8").strip()
    elif revision is not None:
        snapshot = revision if COMMIT.fullmatch(revision) else ""
    else:
        found = sorted(folder.glob("snapshots/*/config.json"), key=lambda path: path.stat().st_mtime)
        snapshot = found[-1].parent.name if found else ""
    path = folder / "snapshots" / snapshot
    return path if snapshot and (path / "config.json").is_file() else None


def load(
    name: str,
    *,
    split: Split,
    config: str | None,
    files: Sequence[str],
    streaming: bool,
    allow_downloads: bool,
    key: str,
    split_key: str,
) -> Any:
    """The `datasets` object that holds the whole split. Raises DataError when the Hub or the library refuses."""
    import datasets

    # Without names that say a split, files of the user's choice are all `train`, as in a folder.
    data_files: dict[str, list[str]] = {}
    for pattern in files:
        words = PurePosixPath(re.sub(r"[*?\[\]]+", "-", pattern))
        data_files.setdefault(split_of(words, split.name) or "train", []).append(pattern)
    if data_files and split.name.lower() not in data_files:
        raise unknown_split(split, data_files, f"{name} with the files chosen", split_key)
    try:
        with _network(allow_downloads):
            return datasets.load_dataset(
                name,
                name=config,
                split=split.name,
                data_files={split.name: data_files[split.name.lower()]} if data_files else None,
                streaming=streaming,
            )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _refused(name, split, config, error, key, split_key) from error


def revision(name: str, dataset: Any, allow_downloads: bool) -> str:
    """What the rows of a loaded dataset are a version of: it names the folder of the cache; a stream asks the Hub.

    Raises DataError when the Hub does not say.
    """
    if files := getattr(dataset, "cache_files", None):
        return "\n".join(f"{Path(file['filename']).parent.name}/{Path(file['filename']).name}" for file in files)
    import huggingface_hub

    try:
        with _network(allow_downloads):
            return str(huggingface_hub.HfApi().dataset_info(name).sha)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise DataError(Problem("data.path", f"the Hub does not tell the revision of {name}: {error}")) from error


@contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Keeps the library off the network: it reads its switch at import, so the constants are set as well."""
    if allowed:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    modules: list[Any] = [datasets.config, huggingface_hub.constants]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _refused(name: str, split: Split, config: str | None, error: Exception, key: str, split_key: str) -> DataError:
    text = " ".join(str(error).split())
    section = key.rpartition(".")[0]
    if known := re.search(r"(?:Unknown|Bad) split.*?(?:one of|Available splits:) \[(.*?)\]", text):
        return unknown_split(split, re.findall(r"'([^']+)'", known[1]), name, split_key)
    if "BuilderConfig" in text or "Config name is missing" in text:
        what = f"{name} has no configuration '{config}'" if config else f"{name} has several configurations"
        return DataError(Problem(f"{section}.config", f"{what}: {text[:300]}", f"set {section}.config to one of them"))
    if isinstance(error, ConnectionError):
        return DataError(Problem(key, f"the Hub cannot be reached for {name}: {text[:200]}", "use a local copy"))
    advice = "check the name; a private one needs `hf auth login`; a local file needs its ending or ./ before it"
    return DataError(Problem(key, f"the Hub gives no rows for {name}: {text[:300]}", advice))
