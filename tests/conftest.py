"""What every test gets: a cache of its own, no network, and a function that composes a config."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub when it is first imported
os.environ.pop("ALLOW_DOWNLOADS", None)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup leaves it ignored, and a run then lets it be


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where samples and tokenised rows go: AITRAIN_TEST_CACHE to keep them between sessions, else a fresh folder that
    all processes of pytest-xdist share."""
    kept = os.environ.get("AITRAIN_TEST_CACHE")
    base = tmp_path_factory.getbasetemp()
    folder = Path(kept) if kept else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AITRAIN_CACHE", str(folder))
        yield folder


@functools.lru_cache(maxsize=256)
def _composed(words: tuple[str, ...], recipe: Path | None, config_dir: Path | None, name: str | None) -> Any:
    from aitrain.compose import Request, compose

    return compose(Request(words, recipe=recipe, config_dir=config_dir, config_name=name))


@pytest.fixture(scope="session")
def composed() -> Callable[..., Any]:
    """`composed("trainer=pretrain", recipe=…)` composes; equal calls of one session share the result."""

    def call(
        *words: str, recipe: Path | None = None, config_dir: Path | None = None, config_name: str | None = None
    ) -> Any:
        return _composed(words, recipe, config_dir, config_name)

    return call


@pytest.fixture(scope="session")
def run_of(composed: Callable[..., Any]) -> Callable[..., Any]:
    """`run_of(…)` composes and validates."""
    from aitrain.validate import validate

    def call(*words: str, **where: Any) -> Any:
        return validate(composed(*words, **where))

    return call
