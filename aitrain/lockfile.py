"""`lock.json`: what a run stood on. Versions, code, data, model, seeds and machine, for comparing and repeating it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aitrain.config.rl import RL
from aitrain.config.run import Run
from aitrain.look_rewards import learns_from_rewards
from aitrain.plan import Plan
from aitrain.registry import trainer_of
from aitrain.rundir.events import now

PACKAGES = ("aitrain", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors",
            "hydra-core", "omegaconf", "pydantic", "numpy", "pyarrow", "trl", "deepspeed")  # fmt: skip
HASHED = 64 << 20
"""Files up to this size are hashed whole; of larger ones a MiB at the beginning of each part of this size."""


def lock(run: Run, plan: Plan, data: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to repeat the run, as plain values."""
    return {
        "made": now(),
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(Path(__file__).resolve().parent.parent),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "device": plan.device},
        "seed": run.run.seed,
        "threads": plan.threads,
        "processes": plan.processes,
        "data": {
            **{
                name: data[name]["fingerprint"]
                for name in ("train", "valid")
                if "fingerprint" in (data.get(name) or ())
            },
            **_mixture(data),
            **({"stream": plan.tokens["stream"]} if plan.tokens.get("stream") else {}),
        },
        "model": dict(model),
        **_reference(run),
        **_code(run),
    }


def _code(run: Run) -> dict[str, Any]:
    """The user's files that rewards and environment stand on, each with its sha256."""
    if not learns_from_rewards(run) or not isinstance(run.rl, RL):
        return {}
    from aitrain.rl.chosen import user_files

    files = user_files(run.rl)
    return {"code": files} if files else {}


def _reference(run: Run) -> dict[str, Any]:
    """The model that a trainer holds its own to, where another one was named."""
    path = getattr(run.trainer, "ref_model", None)
    return {"ref_model": _fingerprint(path, None)} if path else {}


def _mixture(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprints of each source of a mixture."""
    sources = data.get("sources")
    return {"sources": [{"path": s["path"], **s["fingerprint"]} for s in sources]} if sources else {}


def model_fingerprint(run: Run) -> dict[str, Any]:
    """A hash of a local model's files, or the name and revision of one from elsewhere; {} for a run without."""
    if trainer_of(run).encoder is None:
        return {}
    return _fingerprint(run.model.path, run.model.revision)


def _fingerprint(path: str, revision: str | None) -> dict[str, Any]:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _folder_fingerprint(folder)
    if path.startswith("sample:"):
        from aitrain.data.samples import samples_dir

        return {"path": path, "edition": samples_dir().name}  # Python version and hash of what makes it
    return {"path": path, "revision": revision}


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    import subprocess

    try:
        commit = _run_git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_run_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _run_git(folder: Path, *words: str) -> str:
    import subprocess

    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _folder_fingerprint(folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.name}\n{size}\n".encode())
        with path.open("rb") as file:
            for start in range(0, size, HASHED):  # all of a small file, the beginning of each part of a larger one
                file.seek(start)
                digest.update(file.read(HASHED if size <= HASHED else 1 << 20))
    return {"sha256": digest.hexdigest()}
