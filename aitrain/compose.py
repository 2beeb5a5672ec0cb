"""Overrides and recipes to one tree of plain values, with the origin of each. The only file that knows Hydra."""

from __future__ import annotations

import functools
import itertools
import os
import re
import sys
import time
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from aitrain.config.run import TREE, leaves
from aitrain.elsewhere import our_option, ours
from aitrain.errors import ConfigError, Problem, did_you_mean, nearest
from aitrain.recipe import YamlFile, read_values, read_yaml, secret_named
from aitrain.registry import GROUPS, field_types

OPTION_GROUPS = ("task", "trainer", "peft", "rl", "distill", "sweep", "hardware", "tracking")
KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
WORD = re.compile(r"""\s*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,])+""")
"""One value of several with commas between them; a comma inside quotes belongs to the value."""
QUIET = ("hydra/hydra_logging=none", "hydra/job_logging=none", "hydra.output_subdir=null", "hydra.run.dir=.")
COMMAND_LINE, PYTHON = "command line", "python"
SWEEPS = re.compile(r"(range|interval|choice|glob|shuffle|sort|tag)\(")
HYDRAS_OWN = {
    "hydra.run.dir": ("has no effect, a run has one folder", "set run.dir, or hydra.sweep.dir for a multirun"),
    "hydra.searchpath": ("is set by aitrain", "use --config-dir DIR"),
}

OF_MULTIRUN = ("hydra.sweep", "hydra/launcher", "hydra/sweeper", "hydra.launcher")
"""Hydra's words that only a multirun has a use for."""


def shipped(folder: str) -> Path:
    """`conf` or `recipes`: beside the package in a checkout, inside it when installed from a wheel."""
    here = Path(__file__).resolve().parent
    inside = here / folder
    return inside if inside.is_dir() else here.parent / folder


@dataclass(frozen=True)
class Request:
    """What was asked for, before anything is looked up."""

    overrides: tuple[str, ...] = ()
    recipe: Path | None = None
    config_dir: Path | None = None
    config_name: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """Dotted keys set from Python; they win over everything and are taken as they are."""

    def primary(self) -> tuple[str, list[Path]]:
        """Name of the primary config, and the folders searched besides `conf/`."""
        folders = [self.config_dir.resolve()] if self.config_dir else []
        if self.recipe:
            return self.recipe.stem, [self.recipe.resolve().parent, *folders]
        return self.config_name or "config", folders


@dataclass(frozen=True)
class Composed:
    """One resolved tree. `origins` names the source of each leaf, `given` the leaves the user set."""

    tree: dict[str, Any]
    origins: dict[str, str]
    given: frozenset[str]
    problems: tuple[Problem, ...]
    choices: Mapping[str, str]
    """The option chosen from each group."""
    folders: tuple[Path, ...] = ()
    """The user's own folders of options."""
    entries: Mapping[str, str] = field(default_factory=dict)
    """Where what stands inside a recipe's lists was written: `data.mixture[1].weight` to `file:line`."""


@dataclass
class _Override:
    text: str
    key: str
    value: str
    group: bool


# --- options on disk -----------------------------------------------------------------------------------------------


def group_options(group: str, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Options of a group and their files: the registered ones, and profiles in the user's own folders."""
    found: dict[str, Path] = {}
    for folder in (shipped("conf"), *folders):
        for path in sorted((folder / group).glob("*.yaml")):
            if group == "hardware" or folder != shipped("conf") or path.stem in GROUPS.get(group, {}):
                found.setdefault(path.stem, path)
    return found


def _shown(path: Path) -> str:
    root = shipped("conf").parent
    for base in (Path.cwd(), root):
        try:
            return path.resolve().relative_to(base.resolve()).as_posix()
        except ValueError:
            continue
    return str(path)


# --- the command line's words --------------------------------------------------------------------------------------


def _split(word: str) -> tuple[str, str] | None:
    key, equals, value = word.partition("=")
    return (key.lstrip("+"), value) if equals else None


def _is_hydra(word: str) -> bool:
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def _read_overrides(request: Request, sweep: bool) -> tuple[list[_Override], list[str], list[Problem]]:
    """Every word that is about our tree, the words that are Hydra's own, and what is wrong with them."""
    ours: list[_Override] = []
    hydras: list[str] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    folders = request.primary()[1]
    for word in request.overrides:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            problems.append(Problem(ascii(word), "is not UTF-8 text", "type it in UTF-8"))
            continue
        if _is_hydra(word):
            name = word.lstrip("+~").partition("=")[0]
            if name in HYDRAS_OWN:
                problems.append(Problem(name, *HYDRAS_OWN[name]))
            elif not sweep and name.startswith(OF_MULTIRUN):
                problems.append(Problem(name, "has no effect without -m", "add -m, or leave it out"))
            else:
                hydras.append(word)
            continue
        found = _override(word, folders, sweep)
        if isinstance(found, Problem):
            problems.append(found)
        elif found.key in seen:
            problems.append(Problem(found.key, f"given twice: {seen[found.key]} and {word}", "keep one"))
        else:
            seen[found.key] = word
            ours.append(found)
    return ours, hydras, problems


def moved(dotted: str, known: Sequence[str]) -> str:
    """The known key of the same last word that lies elsewhere; empty when there is none, since a guess is no repair."""
    near = nearest(dotted, known) or ""
    return near if near.rpartition(".")[2] == dotted.rpartition(".")[2] else ""


def code_named(dotted: str) -> Problem | None:
    """The refusal of a key by which Hydra would call code."""
    if dotted.rpartition(".")[2] in ("_target_", "_partial_", "_args_"):
        return Problem(dotted, "is refused: a config names no code to call", "remove it")
    return None


def _override(word: str, folders: Sequence[Path], sweep: bool) -> _Override | Problem:
    if word.startswith("~"):
        return Problem(word.lstrip("~"), "cannot be deleted, every key has a value", "set it to null or to none")
    parts = _split(word)
    if parts is None:
        return Problem(word, "should be key=value, a recipe ending in .yaml, or a verb")
    key, value = parts
    if secret := secret_named(key, value):
        return secret
    if key in OPTION_GROUPS:
        return _group_override(key, value, folders, sweep)
    if not KEY.fullmatch(key):
        near = key.replace("-", "_")
        advice = f"did you mean '{near}'?" if field_types(near) else "keys are words with dots between them"
        return Problem(key or word, "not a key", advice)
    section, _, rest = key.partition(".")
    if section in TREE and not rest:
        return Problem(key, "is a section, not a key", f"set one of its keys: {key}.KEY=VALUE")
    if section in OPTION_GROUPS and rest == "name":
        fix = f"{section}={value}" if value in group_options(section, folders) else ""
        return Problem(key, "is set by choosing the option", f"use {section}={value}", fix=fix)
    if not rest:
        known = [*_known_keys(), *OPTION_GROUPS]
        if elsewhere := ours(key):
            return Problem(key, "unknown key", f"here it is '{elsewhere}'", fix="" if elsewhere in TREE else elsewhere)
        return code_named(key) or Problem(key, "unknown key", did_you_mean(key, known), fix=moved(key, known))
    text = f"++{key}={_grammar(key, value, sweep)}"
    if not sweep and ("," in value or SWEEPS.match(value)) and _is_sweep(text):
        return Problem(key, f"{value} is several values", f"add -m for a run with each; a list is {key}=[…]")
    return _Override(text, key, value, group=False)


def _group_override(group: str, value: str, folders: Sequence[Path], sweep: bool) -> _Override | Problem:
    options = group_options(group, folders)
    wanted = _choices(value) if sweep else [value]
    for option in wanted:
        if option not in options:
            known = our_option(group, option)
            near = known or nearest(option, options)
            fix = f"{group}={near}" if near and wanted == [option] else ""
            advice = f"here it is '{known}'" if known else did_you_mean(option, options)
            return Problem(group, f"no option '{option}'", advice, fix=fix)
    return _Override(f"{group}={value}", group, value, group=True)


def _choices(value: str) -> list[str]:
    inner = value[len("choice(") : -1] if value.startswith("choice(") and value.endswith(")") else value
    return [part.strip() for part in inner.split(",")]


def _is_text(annotation: Any) -> bool:
    """Whether a key takes a text and nothing else, null apart."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_text(parts[0])
    if origin in (typing.Union, types.UnionType):
        return all(_is_text(part) for part in parts if part is not type(None))
    return annotation is str


def _grammar(key: str, value: str, sweep: bool) -> str:
    """The value as Hydra's grammar takes it: texts are quoted, so that `007`, `train[:10%]` and `a, b` stay texts."""
    kinds = field_types(key)
    text_only = bool(kinds) and all(_is_text(kind) for kind in kinds)
    if sweep and ("," in value or SWEEPS.match(value)):
        return _sweep_texts(value) if text_only else value
    if value == "null":
        return value
    if text_only and not value.startswith(("${", "'", '"')):
        return quote(value)
    return value if _parsed(f"{key}={value}") else quote(value)


def _sweep_texts(value: str) -> str:
    """The values of a sweep over texts, each quoted: Hydra would put a backslash before every space in them."""
    if SWEEPS.match(value) and not (value.startswith("choice(") and value.endswith(")")):
        return value
    inner = value.removeprefix("choice(").removesuffix(")") if value.startswith("choice(") else value
    parts = [part.strip() for part in WORD.findall(inner)]
    return ",".join(part if part == "null" or part.startswith(("'", '"')) else quote(part) for part in parts)


def quote(value: str) -> str:
    """A text in Hydra's quotes."""
    escaped = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + r"\'", value)
    escaped = re.sub(r"(\\+)$", lambda m: m.group(1) * 2, escaped)
    return f"'{escaped}'"


def _parsed(word: str) -> Any:
    """Hydra's reading of a word, or None when it cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _is_sweep(word: str) -> bool:
    found = _parsed(word)
    return found is not None and bool(found.is_sweep_override())


@functools.lru_cache(maxsize=1)
def _known_keys() -> tuple[str, ...]:
    from aitrain.parameters import all_keys

    return tuple(all_keys())


# --- composing -----------------------------------------------------------------------------------------------------


def compose(request: Request) -> Composed:
    """Compose one tree. Raises ConfigError only when nothing can be composed; other problems are in the result."""
    ours, hydras, problems = _read_overrides(request, sweep=False)
    recipes = _read_recipes(request)
    folders = request.primary()[1]
    in_files = _file_problems(recipes, folders)
    problems += in_files
    if in_files:
        raise ConfigError(problems)
    values = dict(_python_values(request.values, folders, ours, problems))
    tree, choices = _hydra_tree(request, [o.text for o in ours] + hydras, problems)
    origins, given = _origins(tree, recipes, choices, request.primary()[1])
    for override in ours:
        _mark(override, tree, origins, given, PYTHON if override.key in request.values else COMMAND_LINE)
    for dotted, value in values.items():
        _set(tree, dotted, value)
        origins[dotted] = PYTHON
        given.add(dotted)
    for recipe in recipes:  # OmegaConf keeps the default where a recipe says ???
        missing = [key for key in recipe.unset if origins.get(key) == recipe.where(key)]
        problems += [Problem(key, "needs a value", f"set {key}=VALUE", recipe.where(key)) for key in missing]
    chosen_options = {group: choices[group] for group in OPTION_GROUPS}
    entries = dict(_entries(recipes, origins))
    return Composed(tree, origins, frozenset(given), tuple(problems), chosen_options, tuple(folders), entries)


def defaults(composed: Composed) -> dict[str, Any]:
    """The tree as it would be with the same options and no key set by the user."""
    base = read_values(shipped("conf") / "config.yaml")
    base["run"]["allow_downloads"] = True
    for group, option in composed.choices.items():
        path = group_options(group, composed.folders).get(option)
        if path is not None:
            values = read_values(path)
            _merge(base, values if read_yaml(path, "").package == "_global_" else {group: values})
    return base


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _mark(override: _Override, tree: dict[str, Any], origins: dict[str, str], given: set[str], who: str) -> None:
    if override.group:
        origins[f"{override.key}.name"] = who
        given.add(f"{override.key}.name")
        return
    for dotted in [override.key, *(leaf for leaf in origins if leaf.startswith(override.key + "."))]:
        origins[dotted] = who
        given.add(dotted)


def _python_values(
    values: Mapping[str, Any], folders: Sequence[Path], ours: list[_Override], problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each leaf; options among them join the overrides."""
    texts = {key: value for key, value in values.items() if isinstance(key, str)}
    problems += [Problem(str(key), "not a key", "keys are texts") for key in values if key not in texts]
    for key, value in leaves(texts):
        group, _, rest = key.partition(".")
        if key in OPTION_GROUPS or (group in OPTION_GROUPS and rest == "name"):
            found = _override(f"{key}={value}", folders, False)
            problems += [found] if isinstance(found, Problem) else []
            ours += [found] if isinstance(found, _Override) else []
        else:
            yield key, value


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, name = dotted.split(".")
    node = tree
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[name] = value


def _read_recipes(request: Request) -> list[YamlFile]:
    """The recipe and those it builds on, the innermost first."""
    if request.recipe and not request.recipe.is_file():
        raise ConfigError(_no_recipe(request.recipe))
    name, folders = request.primary()
    found: list[YamlFile] = []
    while name != "config":
        path = next(
            (p for f in folders if (p := f / f"{name}.yaml").is_file() or (p := f / f"{name}.yml").is_file()), None
        )
        if path is None:
            where = ", ".join(map(str, folders)) or "no --config-dir was given"
            raise ConfigError(Problem("--config-name", f"no config '{name}'", f"searched: {where}"))
        recipe = read_yaml(path, _shown(path))
        if not found and path.stem == "config":
            recipe.problems.append(Problem(recipe.shown, "a recipe cannot be called config.yaml", "rename it"))
        if not recipe.problems:
            recipe.problems += _recipe_form(recipe)
        found.insert(0, recipe)
        if recipe.problems:
            break
        name = next(entry for entry, option, _ in recipe.defaults if option is None and entry != "_self_")
        if any((folder / f"{name}.yaml") == r.path for r in found for folder in folders):
            recipe.problems.append(Problem(recipe.shown, f"builds on itself through '{name}'", "end with 'config'"))
            break
    return found


def _recipe_form(recipe: YamlFile) -> list[Problem]:
    """What is wrong with a recipe before any of its options is looked up."""
    if not recipe.has_defaults:
        return [_no_defaults(recipe)]
    plain = [entry for entry, option, _ in recipe.defaults if option is None]
    where = f"{recipe.shown}:{recipe.defaults[0][2] if recipe.defaults else 1}"
    found = []
    if len(bases := [entry for entry in plain if entry != "_self_"]) != 1:
        what = f"builds on {', '.join(bases) or 'nothing'}"
        found.append(Problem("defaults", what, "name one config it builds on, such as config", where))
    elif plain != [*bases, "_self_"]:
        found.append(
            Problem("defaults", "should have _self_ after what it builds on", "write [config, …, _self_]", where)
        )
    if recipe.package not in (None, "_global_"):
        found.append(Problem(recipe.shown, f"a recipe has no package '{recipe.package}'", "remove that line", where))
    for group, line in recipe.added:
        advice = f"write 'override {group}: …'"
        found.append(Problem(group, "has an option already", advice, f"{recipe.shown}:{line}"))
    for key in recipe.lines:
        section, _, rest = key.partition(".")
        if key in TREE:
            what, advice = "should be a section with keys", f"set one of its keys: {key}.KEY"
            found.append(Problem(key, what, advice, recipe.where(key)))
        elif section in OPTION_GROUPS and rest == "name":
            advice = f"put 'override {section}: …' into defaults"
            found.append(Problem(key, "is set by choosing the option", advice, recipe.where(key)))
    return found


def _file_problems(recipes: Sequence[YamlFile], folders: Sequence[Path]) -> list[Problem]:
    """What is wrong with the user's files; nothing can be composed before it is mended."""
    return [*_shadows(folders), *(p for r in recipes for p in (*r.problems, *_recipe_options(r, folders)))]


def _shadows(folders: Sequence[Path]) -> Iterator[Problem]:
    """Files in the user's folders that would take the place of ours, unseen by `group_options`."""
    ours = shipped("conf")
    for folder in folders:
        if folder.resolve() == ours.resolve():
            continue
        names = ["config.yaml", *(f"{g}/{path.name}" for g in OPTION_GROUPS for path in (ours / g).glob("*.yaml"))]
        for name in names:
            if (folder / name).is_file():
                yield Problem(_shown(folder / name), f"has the name of aitrain's own {name}", "rename it or move it")


def recipe_path(word: str) -> Path:
    """The file itself, or the recipe of that name that comes with aitrain."""
    path = Path(word)
    beside = shipped("recipes") / path.name
    if not path.exists() and beside.is_file() and path.parent.as_posix() in (".", "recipes"):
        return beside
    return path


def _no_recipe(path: Path) -> Problem:
    known = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    known = known or [f"recipes/{p.name}" for p in sorted(shipped("recipes").glob("*.yaml"))]
    return Problem(str(path), "no such recipe", did_you_mean(path.name, known))


def _no_defaults(recipe: YamlFile) -> Problem:
    return Problem(
        recipe.shown,
        "a recipe begins with a defaults list",
        "put 'defaults: [config, override task: llm, override trainer: sft, _self_]' on top",
        where=f"{recipe.shown}:1",
    )


def _recipe_options(recipe: YamlFile, folders: Sequence[Path]) -> list[Problem]:
    found = [
        Problem(key, "has no effect in a recipe", "give Hydra's own settings on the command line", recipe.where(key))
        for key in recipe.lines
        if key.partition(".")[0] == "hydra"
    ]
    for group, option, line in recipe.defaults:
        if option is None:
            continue
        where = f"{recipe.shown}:{line}"
        if group not in OPTION_GROUPS:
            found.append(Problem(group, "no such group", did_you_mean(group, OPTION_GROUPS), where))
        elif option not in (options := group_options(group, folders)):
            found.append(Problem(group, f"no option '{option}'", did_you_mean(option, options), where))
    return found


def _hydra_tree(request: Request, words: list[str], problems: list[Problem]) -> tuple[dict[str, Any], dict[str, str]]:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _register_resolvers()
    name, folders = request.primary()
    GlobalHydra.instance().clear()
    try:
        first, *further = _search_order(name, folders)
        with hydra.initialize_config_dir(str(first), version_base="1.3"):
            config = hydra.compose(name, [*words, *QUIET, *_searchpath(further)], return_hydra_config=True)
            choices = {str(k): str(v) for k, v in config.hydra.runtime.choices.items()}
            with _open(config):
                del config["hydra"]
            tree = _resolved(config, problems)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError([*problems, _hydra_problem(error)]) from error
    return {str(k): v for k, v in tree.items()}, choices


def _resolved(config: Any, problems: list[Problem]) -> dict[Any, Any]:
    """Plain values. An interpolation that leads nowhere becomes null and a problem, so that others are found too."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    while True:
        try:
            tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
            assert isinstance(tree, dict)
            return tree
        except OmegaConfBaseException as error:
            found = _hydra_problem(error)
            if not KEY.fullmatch(found.key) or any(problem.key == found.key for problem in problems):
                raise
            problems.append(found)
            with _open(config):
                OmegaConf.update(config, found.key, None)


@contextmanager
def _open(config: Any) -> Iterator[None]:
    from omegaconf import open_dict, read_write

    with read_write(config), open_dict(config):
        yield


def _search_order(name: str, folders: Sequence[Path]) -> list[Path]:
    """Hydra wants the primary config in the first folder: ours for `config`, the user's for a recipe."""
    return [shipped("conf"), *folders] if name == "config" else [*folders, shipped("conf")]


def _searchpath(folders: Sequence[Path]) -> list[str]:
    if not folders:
        return []
    return ["hydra.searchpath=[" + ",".join(quote(f"file://{folder}") for folder in folders) + "]"]


def _hydra_problem(error: BaseException) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None) or "config"
    advice = " ".join(line for line in lines[1:3] if not line.startswith(("full_key:", "object_type=")))
    return Problem(str(key), lines[0] if lines else type(error).__name__, advice)


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("allow_downloads", _allow_downloads, replace=True)


def _allow_downloads() -> Any:
    """The environment's ALLOW_DOWNLOADS; a value that is no yes or no is passed on and refused by validation."""
    value = os.environ.get("ALLOW_DOWNLOADS", "true").strip()
    return {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }.get(value.lower(), value)


# --- provenance ----------------------------------------------------------------------------------------------------


def _origins(
    tree: Mapping[str, Any], recipes: Sequence[YamlFile], choices: Mapping[str, str], folders: Sequence[Path]
) -> tuple[dict[str, str], set[str]]:
    """Where each leaf was set last, in the order Hydra merges: config.yaml, the options, the recipes."""
    base = read_yaml(shipped("conf") / "config.yaml", "conf/config.yaml")
    lines = {key: base.where(key) for key in base.lines}
    given: set[str] = set()
    for group in [group for group, option, _ in base.defaults if option is not None]:
        path = group_options(group, folders).get(choices.get(group, ""))
        if path is None:
            continue
        option = read_yaml(path, _shown(path))
        prefix = "" if option.package == "_global_" else f"{group}."
        lines |= {prefix + key: option.where(key) for key in option.lines}
    for recipe in recipes:
        lines |= {key: recipe.where(key) for key in recipe.lines}
        given |= set(recipe.lines)
        chosen = {f"{group}.name": f"{recipe.shown}:{line}" for group, option, line in recipe.defaults if option}
        lines |= chosen
        given |= set(chosen)
    origins = {leaf: _line_of(leaf, lines) for leaf, _ in leaves(tree)}
    return origins, given


def _entries(recipes: Sequence[YamlFile], origins: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Inside of a list and its line, for the lists that a recipe had the last word on."""
    for recipe in recipes:
        for inside, line in recipe.entries.items():
            key = inside.partition("[")[0]
            if origins.get(key) == recipe.where(key):
                yield inside, f"{recipe.shown}:{line}"


def _line_of(leaf: str, lines: Mapping[str, str]) -> str:
    while leaf not in lines and "." in leaf:
        leaf = leaf.rpartition(".")[0]
    return lines.get(leaf, "conf/config.yaml")


# --- multirun and Hydra's own flags --------------------------------------------------------------------------------


def expand(request: Request) -> list[Request]:
    """The jobs of a multirun, in Hydra's order: the last swept key varies fastest."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    ours, hydras, problems = _read_overrides(request, sweep=True)
    parser = OverridesParser.create()
    axes: list[list[str]] = []
    for override in ours:
        try:
            parsed = parser.parse_override(override.text)
            words = parsed.sweep_string_iterator() if parsed.is_sweep_override() else [override.value]
            axes.append([f"{override.key}={word}" for word in words])
        except HydraException as error:
            first = str(error).splitlines()[0]
            advice = "write values with commas between them, or range(a,b), or choice(a,b); put texts into quotes"
            problems.append(Problem(override.key, first, advice))
    if problems:
        raise ConfigError(problems)
    of_each_job = [word for word in hydras if not word.lstrip("+").startswith(OF_MULTIRUN)]
    return [replace(request, overrides=(*words, *of_each_job)) for words in itertools.product(*axes)]


def sweep_folder(request: Request, moment: str | None = None) -> Path:
    """Folder of a multirun: `hydra.sweep.dir` if the user set it, else a fresh `outputs/NAME/TIMESTAMP`.

    NAME is `run.name`, or where the jobs differ in it what their names begin with alike (`llm` of `llm-sft` and
    `llm-dpo`). `moment` is written in place of the time.
    """
    words = [word for word in request.overrides if word.lstrip("+").startswith("hydra.sweep.dir=")]
    if words:
        return Path(words[-1].partition("=")[2].strip("'\""))
    names = {str(compose(job).tree["run"]["name"]) for job in expand(request)}
    return Path("outputs") / shared_name(names) / (moment or time.strftime("%Y-%m-%d_%H-%M-%S"))


def shared_name(names: Iterable[str]) -> str:
    """The words that names with dashes between them begin with alike; `multirun` where they share none."""
    words = [name.split("-") for name in names]
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return "-".join(column[0] for column in alike) or "multirun"


def swept_keys(jobs: Sequence[Request]) -> frozenset[str]:
    """The keys in which the jobs of a multirun differ."""
    counts = Counter(word for job in jobs for word in set(job.overrides))
    return frozenset(word.partition("=")[0] for word, count in counts.items() if count < len(jobs))


def words_about(keys: frozenset[str], job: Request) -> str:
    """What a job says of some keys."""
    return " ".join(word for word in job.overrides if word.partition("=")[0] in keys)


def hydra_main(
    request: Request, flags: Sequence[str], job: Callable[[Path, Request], Any], sweep_dir: Path | None = None
) -> None:
    """Hand over to `@hydra.main`: multirun with its launchers, `--cfg`, `--info`, shell completion.

    `job(folder, request)` is called once a job, with its folder below `sweep_dir`. Raises ConfigError for what Hydra
    refuses.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _register_resolvers()
    ours, hydras, problems = _read_overrides(request, sweep="-m" in flags)
    name, folders = request.primary()
    problems += _file_problems(_read_recipes(request), folders)
    if problems:
        raise ConfigError(problems)
    hydras = [word for word in hydras if not (sweep_dir and word.lstrip("+").startswith("hydra.sweep.dir="))]
    words = [override.text for override in ours] + hydras + list(QUIET) + _searchpath(folders[1:])
    if folders:
        words = ["--config-dir", str(folders[0]), "--config-name", name, *words]
    if sweep_dir:
        words.append("hydra.sweep.dir=" + quote(str(sweep_dir)))
    main = hydra.main(config_path=str(shipped("conf")), config_name="config", version_base="1.3")(
        functools.partial(_job, job=job, request=request)
    )
    argv, sys.argv = sys.argv, [sys.argv[0], *flags, *words]
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_hydra_problem(error)) from error
    finally:
        sys.argv = argv


def _job(config: Any, *, job: Callable[[Path, Request], Any], request: Request) -> Any:
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.sweep.dir) / hydra_config.sweep.subdir
    words = [w.lstrip("+") for w in hydra_config.overrides.task]
    return job(folder, replace(request, overrides=tuple(words)))
