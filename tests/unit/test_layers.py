"""Imports point one way, and nothing in the package runs text as code. Read off the source."""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aitrain.registry import TRACKERS

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "aitrain").rglob("*.py"))
}
OPTIONS = ("tasks", "trainers", "estimators", "adapters", "trackers")
STAGES = {
    "elsewhere", "elastic", "recipe", "compose", "parameters", "schema", "validate", "look", "plan", "machine",
    "memory", "lockfile", "progress", "resume",
    "look_rewards", "model_folders", "predicting", "report", "report_read", "report_html", "report_markup",
    "report_pictures", "card", "worker", "launch", "start", "api",
}  # fmt: skip
BESIDE = ("data", "ml", "evaluation", "tabular")
"""Packages that stages use, and that use none of them."""
LAYERS = ("errors", "rundir", "config", "rl", "options", "registry", "stages", "commands", "cli")


def layer(module: str) -> str:
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return "cli"
    if parts[1] in OPTIONS:
        return "options"
    if parts[1] == "rendering":  # the public face of what `data` renders
        return "data"
    return "stages" if parts[1] in STAGES else parts[1]


@functools.cache
def _all_imports(path: Path, anywhere: bool) -> tuple[tuple[str, str], ...]:
    return tuple(_imports(parsed(path), anywhere))


def imports(path: Path, *, anywhere: bool = False) -> Iterator[tuple[str, str]]:
    """Module and name of each import at module level, or anywhere; those under TYPE_CHECKING do not count."""
    yield from _all_imports(path, anywhere)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(node: ast.AST, anywhere: bool) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, "") for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from ((child.module or "", alias.name) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not anywhere:
            continue
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(other, anywhere)
        else:
            yield from _imports(child, anywhere)


def ours(path: Path, *, anywhere: bool = False) -> set[str]:
    """Our modules that a file imports."""
    found = set()
    for module, name in imports(path, anywhere=anywhere):
        if module.split(".")[0] == "aitrain":
            full = f"{module}.{name}"
            found.add(full if full in FILES else module)
    return found


def test_every_module_has_a_layer() -> None:
    known = {*LAYERS, *BESIDE}
    assert {module: layer(module) for module in FILES if layer(module) not in known} == {}


def test_imports_at_module_level_go_one_way() -> None:
    wrong = set()
    for module, path in FILES.items():
        mine = layer(module)
        for other in ours(path):
            theirs = layer(other)
            if mine in BESIDE:
                continue
            highest = "stages" if theirs == "data" else theirs  # stages and what stands above them may use data
            if theirs in ("ml", "evaluation", "tabular") or LAYERS.index(highest) > LAYERS.index(mine):
                wrong.add((module, other))
    assert wrong == set()


def test_ml_and_data_import_nothing_above_them() -> None:
    allowed = {
        "data": {"data", "errors"},
        "evaluation": {"evaluation", "errors"},
        "tabular": {"tabular", "evaluation", "data", "rundir", "config", "errors"},
        "ml": {"ml", "evaluation", "data", "rl", "rundir", "config", "errors"},
    }
    wrong = [
        (module, other)
        for module, path in FILES.items()
        if layer(module) in allowed
        for other in ours(path, anywhere=layer(module) == "ml")
        if layer(other) not in allowed[layer(module)]
    ]
    assert wrong == []


def test_data_and_rewards_never_import_torch() -> None:
    heavy = {"torch", "accelerate", "peft", "trl"}
    wrong = [
        (module, imported)
        for module, path in FILES.items()
        if layer(module) in ("data", "rl")
        for imported, _ in imports(path, anywhere=True)
        if imported.split(".")[0] in heavy or imported.startswith("aitrain.ml")
    ]
    assert wrong == []


def test_only_compose_knows_hydra_and_only_launch_starts_processes() -> None:
    def users(*packages: str) -> set[str]:
        return {
            module
            for module, path in FILES.items()
            if any(imported.split(".")[0] in packages for imported, _ in imports(path, anywhere=True))
        }

    assert users("hydra", "omegaconf") == {"aitrain.compose"}
    # the second asks git, the third runs programs that a model wrote, away from the run
    assert users("subprocess", "multiprocessing") == {"aitrain.launch", "aitrain.lockfile", "aitrain.rl.sandbox"}


def test_every_package_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: found for name, found in project["optional-dependencies"].items() if name != "dev"}
    ranges = [*project["dependencies"], *(text for found in extras.values() for text in found)]
    declared = {canonicalize_name(Requirement(text).name) for text in ranges}
    providers = packages_distributions()
    of_extras = {tracker.module for tracker in TRACKERS.values()}
    missing = {
        (top, module)
        for module, path in FILES.items()
        for imported, _ in imports(path, anywhere=True)
        if (top := imported.split(".")[0]) not in {*sys.stdlib_module_names, "aitrain", *of_extras}
        and declared.isdisjoint(canonicalize_name(name) for name in providers.get(top, [top]))
    }
    assert missing == set()


def dangers(tree: ast.AST) -> Iterator[str]:
    """Calls that run text as code or read objects out of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            yield from (name for name in names if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal"))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        is_builtin = name in ("eval", "exec", "compile", "__import__")
        if is_builtin or name in ("os.system", "os.popen") or last in ("instantiate", "get_method", "get_class"):
            yield name
        if keywords.get("shell") == "True" or keywords.get("weights_only") == "False":
            yield name
        if name == "torch.load" and keywords.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") and "Safe" not in keywords.get("Loader", ""):
            yield name


def test_nothing_runs_text_as_code() -> None:
    found = {m: bad for m, path in FILES.items() if (bad := list(dangers(parsed(path))))}
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')", "exec(x)", "import pickle", "from pickle import loads", "subprocess.run(x, shell=True)",
        "torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(x)", "hydra.utils.instantiate(c)",
        "os.system('ls')",
    ],
)  # fmt: skip
def test_the_search_for_dangers_finds_them(text: str) -> None:
    assert list(dangers(ast.parse(text)))
