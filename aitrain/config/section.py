"""The base of every typed section. Values live in `conf/`; type, bounds, visibility and meaning live here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.errors import Problem

Visibility = Literal["basic", "advanced", "internal"]


class Section(BaseModel):
    """One section of a run. Frozen; an unknown key and a value of another type are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), defer_build=True, allow_inf_nan=False
    )

    reads: ClassVar[tuple[str, ...]] = ()
    """Keys of shared sections that change what this option does, as patterns (`data.*`). A key that nothing chosen
    reads is refused when the user sets it."""

    def problems(self, run: Run) -> Iterator[Problem]:
        """Rules that need more than one key. Only called when every key has the right type."""
        return iter(())


def key(*, visibility: Visibility = "basic", **bounds: Any) -> Any:
    """A field of a section: pydantic's bounds, and who needs to see it in `show params`."""
    return Field(json_schema_extra={"visibility": visibility}, **bounds)


class OptionSection(Section):
    """The section of an option that is chosen from a group."""

    name: str
    """The option; choose it with `GROUP=NAME`."""


class Unset(OptionSection):
    """The section of a group's `none`."""

    name: Literal["none"]
    """The option; choose it with `GROUP=none`."""
