"""Model folders by their small files: whether there is one, what its tokenizer knows, and whether it gives a score."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitrain.data.hub import cached_model
from aitrain.errors import ConfigError, Problem, nearest

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIG, ADAPTER, TOKENIZER = "config.json", "adapter_config.json", "tokenizer.json"


def missing_folder(key: str, path: str) -> Problem | None:
    """What is wrong with a path that is neither a folder nor could be a Hub id."""
    folder = Path(path).expanduser()
    if folder.is_file():
        return Problem(key, f"{path} is a file", "name the folder that holds config.json")
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1 or (folder.parent.is_dir() and "/" in path)
    if not looks_local and HUB_ID.fullmatch(path):
        return None
    near = _nearest_folder(folder)
    advice = f"did you mean '{near}'?" if near else "name a folder, a Hub id or sample:NAME"
    return Problem(key, f"no such folder: {path}", advice)


def _nearest_folder(folder: Path) -> Path | None:
    """The folder most like one that is not there, of the same place."""
    lost = folder
    while not lost.parent.is_dir() and lost.parent != lost:
        lost = lost.parent
    siblings = [each.name for each in lost.parent.iterdir() if each.is_dir()] if lost.parent.is_dir() else []
    near = nearest(lost.name, siblings)
    if near is None:
        return None
    whole = lost.parent / near / folder.relative_to(lost)
    return whole if whole.is_dir() else lost.parent / near


def local_folder(path: str, revision: str | None = None) -> Path | None:
    """The folder of a local model, of one in the Hub's cache, or of a sample's tokenizer; None where there is none."""
    if path.startswith("sample:"):
        from aitrain.data.samples import sample_tokenizer

        return sample_tokenizer(path.removeprefix("sample:"))
    folder = Path(path).expanduser()
    return folder if folder.is_dir() else cached_model(path, revision)


def read_object(file: Path) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def vocabulary(folder: Path) -> dict[str, int]:
    """Token to id by a folder's `tokenizer.json`; of an adapter without one that of the model it stands on. Empty where
    the files do not tell."""
    tokenizer = read_object(folder / TOKENIZER)
    if not tokenizer and (base := read_object(folder / ADAPTER).get("base_model_name_or_path")):
        below = local_folder(str(base))
        return vocabulary(below) if below is not None and below != folder else {}
    model = tokenizer.get("model")
    pieces = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(pieces, list):  # Unigram: pairs of piece and score
        pieces = {str(piece[0]): number for number, piece in enumerate(pieces)}
    if not isinstance(pieces, Mapping):
        return {}
    added = {str(each["content"]): int(each["id"]) for each in tokenizer.get("added_tokens") or ()}
    return {**pieces, **added}


def not_a_scorer(folder: Path) -> str:
    """Why the model in a folder gives no single score, by its config; '' when it does."""
    adapter = read_object(folder / ADAPTER)
    if adapter:
        kind = adapter.get("task_type")
        return "" if kind == "SEQ_CLS" else f"is an adapter for {kind or 'an unknown task'}, not for a score (SEQ_CLS)"
    config = read_object(folder / CONFIG)
    if not config:
        return "has no config.json that can be read"
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        return f"has no head that gives a score: it is {' or '.join(kinds) or 'of an unknown kind'}"
    labels = config.get("id2label")
    outputs = len(labels) if isinstance(labels, Mapping) else config.get("num_labels", 2)  # two are not written down
    return "" if outputs == 1 else f"gives {outputs} outputs, and a reward is one"


def not_downloaded(key: str, path: str, revision: str | None = None) -> ConfigError:
    """The refusal of a model that would have to be fetched where nothing may be."""
    wanted = path if revision is None else f"{path} in revision {revision}"
    what = f"{wanted} is neither a folder nor in the local cache, and run.allow_downloads is false"
    return ConfigError(Problem(key, what, "download it first, or set run.allow_downloads=true"))
