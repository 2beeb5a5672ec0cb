"""The proofs share the small runs of tests/ml, and keep samples and tokens in a folder of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "ml"))


@pytest.fixture(scope="session", autouse=True)
def own_cache() -> Iterator[None]:
    before = os.environ.get("AITRAIN_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        if before is None:
            os.environ["AITRAIN_CACHE"] = folder
        yield
        if before is None:
            del os.environ["AITRAIN_CACHE"]
