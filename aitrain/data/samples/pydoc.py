"""Questions and answers, and text, from the docstrings of the Python that runs: real English on every machine.

The standard library's source is parsed, never imported, so nothing of it runs.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aitrain.errors import DataError, Problem

# Tests, programs and tables: their docstrings are few, alike or not about the library.
SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "_pyrepl",
        "distutils",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "test",
        "tests",
        "turtledemo",
    }
)
LONGEST_PROMPT = 160
LONGEST_COMPLETION = 240
SHORTEST_TEXT = 200
"""Characters. Rows outside these bounds are left out, never cut, so that no answer ends in mid-sentence."""


@dataclass(frozen=True)
class Documented:
    """A module, class or function that has a docstring."""

    kind: str
    """`module`, `class` or `function`."""
    signature: str
    """`textwrap.dedent(text)`; a class has its bases between the parentheses, a module is its name alone."""
    docstring: str


def library_files(folder: Path) -> Iterator[Path]:
    """The source files of the standard library in `folder`: its modules first, then its packages, each by name."""
    names = sorted(name for name in os.listdir(folder) if name.removesuffix(".py") in sys.stdlib_module_names)
    yield from (folder / name for name in names if name.endswith(".py"))
    for package in names:
        for root, folders, files in os.walk(folder / package):
            folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
            if package not in SKIPPED_FOLDERS:
                yield from (Path(root, name) for name in sorted(files) if name.endswith(".py"))


def module_name(path: Path, folder: Path) -> str:
    """`json.decoder` for `json/decoder.py`, `json` for `json/__init__.py`."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def documented_in(source: bytes, module: str) -> Iterator[Documented]:
    """What `source` documents: the module, then its public classes and functions in their order."""
    tree = ast.parse(source)
    if docstring := ast.get_docstring(tree, clean=True):
        yield Documented("module", module, docstring)
    yield from _documented_members(tree, module)


def _documented_members(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Documented]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        if docstring := ast.get_docstring(node, clean=True):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            yield Documented(kind, f"{name}({_between_parentheses(node)})", docstring)
        if isinstance(node, ast.ClassDef):
            yield from _documented_members(node, name)


def _between_parentheses(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        return ", ".join(ast.unparse(base) for base in node.bases)
    return ast.unparse(node.args)


@cache
def documented_library(folder: Path) -> tuple[Documented, ...]:
    """Everything the standard library's own source in `folder` documents, kept since two samples are made of it.

    Raises DataError when this Python comes without its sources.
    """
    if not (folder / "ast.py").is_file():
        what = "this Python comes without the source of its standard library, which the sample is made from"
        raise DataError(Problem("data.path", what, "use sample:skills, or a Python with its sources"))
    return tuple(
        item for path in library_files(folder) for item in documented_in(path.read_bytes(), module_name(path, folder))
    )


def library_folder() -> Path:
    """Where the running Python keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def first_paragraph(docstring: str) -> str:
    """The docstring up to its first empty line, on one line."""
    return " ".join(inspect.cleandoc(docstring).split("\n\n", 1)[0].split())


def question_rows() -> Iterator[dict[str, Any]]:
    """`prompt` asks about a signature, `completion` is the first paragraph of its docstring; no answer comes twice."""
    seen: set[str] = set()
    for item in documented_library(library_folder()):
        if item.kind == "module":
            continue
        prompt = f"What does {item.signature} do?" if item.kind == "function" else f"What is class {item.signature}?"
        completion = first_paragraph(item.docstring)
        alike = completion.lower().rstrip(".")
        if len(prompt) > LONGEST_PROMPT or not 2 < len(alike) <= LONGEST_COMPLETION or alike in seen:
            continue
        seen.add(alike)
        yield {"prompt": prompt, "completion": completion}


def text_rows() -> Iterator[dict[str, Any]]:
    """`text` is a name, an empty line and its whole docstring, for those of some length."""
    seen: set[str] = set()
    for item in documented_library(library_folder()):
        if len(item.docstring) >= SHORTEST_TEXT and item.docstring not in seen:
            seen.add(item.docstring)
            yield {"text": f"{item.signature}\n\n{item.docstring}"}
