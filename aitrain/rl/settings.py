"""The options of a reward or an environment, `{name: length, target: 40}`, as typed classes; mistakes in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aitrain.errors import Problem, did_you_mean

Made = TypeVar("Made", bound=BaseModel)


class Settings(BaseModel):
    """A frozen object made of its options; an unknown option and a value of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True, allow_inf_nan=False)


def option(default: Any, **bounds: Any) -> Any:
    """An option with its default and pydantic's bounds."""
    return Field(default, **bounds)


def made(cls: type[Made], options: Mapping[str, Any], key: str) -> Made | list[Problem]:
    """The object, or all that is wrong with its options."""
    try:
        return cls(**options)
    except ValidationError as error:
        found = [_problem(cls, key, dict(detail)) for detail in error.errors(include_url=False)]
        return list({problem.key: problem for problem in found}.values())


def _problem(cls: type[BaseModel], key: str, detail: dict[str, Any]) -> Problem:
    path = [str(part) for part in detail["loc"]]
    dotted = ".".join([key, *path[:1]])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = [name for name, field in cls.model_fields.items() if not field.exclude]
        return Problem(dotted, "unknown option", did_you_mean(path[0], known))
    if kind == "missing":
        return Problem(dotted, "is needed", f"add {path[0]}: VALUE")
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if kind in ("value_error", "assertion_error"):
        return Problem(dotted, message)
    return Problem(dotted, f"{message}, not {detail['input']!r}")
