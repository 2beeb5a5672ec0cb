"""aitrain: one command from a composed config to a finished, evaluated, reproducible model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aitrain.api import train as train

__all__ = ["__version__", "train"]


def __getattr__(name: str) -> Any:
    """`aitrain.train` is imported when first used, so that `import aitrain` costs nothing."""
    if name == "train":
        from aitrain.api import train

        return train
    raise AttributeError(f"module 'aitrain' has no attribute {name!r}")
