"""The user's own code: `file.py:function`, or `package.module:function` of something installed.

Only a name that the user wrote in the config of a run is ever imported. Checks read the file and do not run it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from aitrain.errors import ConfigError, Problem, did_you_mean


def is_reference(text: str) -> bool:
    """Whether a text names code of the user's, and not something built in, a folder or `sample:NAME`."""
    source, colon, name = text.rpartition(":")
    return bool(colon) and source != "sample" and name.isidentifier() and (is_file(source) or _is_module(source))


def is_file(source: str) -> bool:
    """Whether the part before the colon is a file, not a module."""
    return source.endswith(".py")


def _is_module(source: str) -> bool:
    return bool(source) and all(part.isidentifier() for part in source.split("."))


def reference_problems(text: str, key: str) -> Iterator[Problem]:
    """What is wrong with a reference, seen without running the user's code."""
    source, _, name = text.rpartition(":")
    if not is_file(source):
        package = source.partition(".")[0]
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            yield Problem(key, f"there is no installed package '{package}'", "a file is named as FILE.py:NAME")
        return
    path = Path(source).expanduser()
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        yield Problem(key, f"no such file: {source}", near if near.startswith("did") else "")
        return
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError, ValueError) as error:
        yield Problem(key, f"{source} is not Python that can be read: {error}")
        return
    names = set(_defined(tree.body))
    if name not in names and "*" not in names:
        near = did_you_mean(name, (n for n in names if not n.startswith("_")))
        yield Problem(key, f"{source} has no '{name}'", near)


def class_in_file(text: str) -> ast.ClassDef | None:
    """The class that a reference to a file names, as source; None where it is made in another way."""
    source, _, name = text.rpartition(":")
    if not is_file(source):
        return None
    try:
        tree = ast.parse(Path(source).expanduser().read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return None
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def load_reference(text: str, key: str) -> Any:
    """The object. An exception of the user's own code while it is imported goes through as it is."""
    problems = list(reference_problems(text, key))
    if problems:
        raise ConfigError(problems)
    source, _, name = text.rpartition(":")
    module = _file_module(Path(source).expanduser()) if is_file(source) else _installed(source, key)
    try:
        return getattr(module, name)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise ConfigError(Problem(key, f"{source} has no '{name}'", did_you_mean(name, names))) from None


def fingerprint(text: str) -> dict[str, str]:
    """`{file: sha256}` of a reference to a file, for the lock; of anything else nothing."""
    source = text.rpartition(":")[0]
    path = Path(source).expanduser()
    if not is_file(source) or not path.is_file():
        return {}
    return {source: hashlib.sha256(path.read_bytes()).hexdigest()}


def _installed(source: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name and f"{source}.".startswith(f"{error.name}."):
            raise ConfigError(Problem(key, f"there is no installed module '{source}'")) from None
        raise


def _file_module(path: Path) -> ModuleType:
    """A file as a module of its own name; one file is one module for its rewards and environments alike."""
    path = path.resolve()
    content = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()
    name = f"aitrain_user_{path.stem}_{content[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up here
    sys.path.append(str(path.parent))  # a file may import its neighbours, while it is loaded
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module binds at its top level, also inside `if` and `try`; `*` where that cannot be told."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
            case ast.If() | ast.For() | ast.While():
                yield from _defined([*node.body, *node.orelse])
            case ast.With():
                yield from _defined(node.body)
            case ast.Try():
                yield from _defined([*node.body, *node.orelse, *node.finalbody])
                yield from (name for handler in node.handlers for name in _defined(handler.body))
            case _:
                stores = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
                yield from (n.id for n in stores)
