"""The words of a command line: a recipe, overrides, and Hydra's flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aitrain.compose import Request, recipe_path
from aitrain.errors import ConfigError, Problem

WITH_VALUE = {"--config-dir": "config_dir", "-cd": "config_dir", "--config-name": "config_name", "-cn": "config_name"}
HYDRA = {"--cfg", "-c", "--info", "-i", "--package", "-p", "--resolve", "--shell-completion", "-sc", "--hydra-help"}
HYDRA_WITH_VALUE = {"--cfg", "-c", "--package", "-p"}
TAKES_WORDS = {"--shell-completion", "-sc", "--info", "-i"}
COMPLETION = {"install", "uninstall", "query"}


@dataclass(frozen=True)
class Words:
    """A command line, taken apart."""

    request: Request
    multirun: bool
    hydra_flags: tuple[str, ...]

    def refuse_flags(self, verb: str, *, multirun: bool = False) -> None:
        """Raise ConfigError when there are flags that the verb has no use for; `multirun` says whether it knows -m."""
        unused = [flag.partition("=")[0] for flag in self.hydra_flags[:1]]
        unused += ["-m"] if self.multirun and not multirun else []
        if unused:
            advice = "'aitrain check -m' looks at every job" if unused == ["-m"] else f"drop the word '{verb}'"
            raise ConfigError(Problem(flag, f"has no effect with '{verb}'", advice) for flag in unused)


def read_words(words: list[str]) -> Words:
    """Take a command line apart. Raises ConfigError for words of no meaning."""
    overrides: list[str] = []
    hydra: list[str] = []
    multirun = False
    options: dict[str, str] = {}
    recipe: Path | None = None
    problems: list[Problem] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in WITH_VALUE and name.startswith("-"):
            given = value if equals else next(rest, None)
            if given is None:
                problems.append(Problem(word, "needs a value"))
            else:
                options[WITH_VALUE[name]] = given
        elif hydra and hydra[0] in TAKES_WORDS and (not equals or name in COMPLETION):
            hydra.append(word)
        elif name in HYDRA:
            hydra.append(word)
            if name in HYDRA_WITH_VALUE and not equals:
                hydra += [value for value in (next(rest, None),) if value is not None]
            if name in ("--info", "-i") and not equals and (not words[words.index(word) + 1 :] or "=" in words[-1]):
                hydra.append("all")
        elif word in ("-m", "--multirun"):
            multirun = True
        elif word.startswith("-"):
            problems.append(Problem(word, "unknown flag", "see 'aitrain --help'"))
        elif word.endswith((".yaml", ".yml")) and not equals:
            if recipe is not None:
                problems.append(Problem(word, f"a second recipe beside {recipe}", "a recipe may build on another one"))
            recipe = recipe_path(word)
        else:
            overrides.append(word)
    if multirun and any(flag.partition("=")[0] in ("--cfg", "-c", "--info", "-i") for flag in hydra):
        problems.append(Problem("-m", f"has no effect beside {hydra[0]}", "leave one of the two out"))
    if problems:
        raise ConfigError(problems)
    request = Request(
        tuple(overrides),
        recipe,
        Path(options["config_dir"]) if "config_dir" in options else None,
        options.get("config_name"),
    )
    return Words(request, multirun, tuple(hydra))
