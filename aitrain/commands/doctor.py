"""`doctor`: what this installation and machine offer, what is missing, and the command that repairs it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from aitrain.errors import ConfigError, Problem, did_you_mean

FLAGS = ("--deep", "--json")
OFFLINE_VARIABLES = ("ALLOW_DOWNLOADS", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
NOT_FOR_USERS = ("dev",)
"""Extras that only serve work on aitrain itself."""


@dataclass(frozen=True)
class Package:
    """A package that aitrain asks for."""

    name: str
    needed: str
    """The version range; empty when any will do."""
    installed: str | None
    fits: bool

    @property
    def requirement(self) -> str:
        """The package as pip takes it."""
        return f"{self.name}{self.needed}"


@dataclass(frozen=True)
class Extra:
    """An optional part of aitrain."""

    name: str
    installed: bool
    command: str
    """What installs it."""


@dataclass(frozen=True)
class Place:
    """A folder and what is free there."""

    path: str
    free_gib: float | None
    """GiB; None where the system does not tell."""


@dataclass
class Findings:
    """Everything `doctor` found. `problems` are what keeps aitrain from working, `repairs` the commands against it."""

    aitrain: str
    python: str
    platform: str
    cores: int
    memory_gib: float | None
    accelerators: list[str]
    packages: list[Package]
    extras: list[Extra]
    cache: Place
    working_folder: Place
    hub_login: bool
    offline: dict[str, str]
    problems: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    deep: dict[str, Any] | None = None


def doctor(argv: list[str]) -> int:
    """Print what there is. Returns 0 when the core works, else 2. Raises ConfigError for an unknown flag."""
    unknown = [word for word in argv if word not in FLAGS]
    if unknown:
        raise ConfigError(Problem(word, "not a flag of doctor", did_you_mean(word, FLAGS)) for word in unknown)
    found = examine()
    if "--deep" in argv and not found.problems:
        _add_deep(found)
    if "--json" in argv:
        print(json.dumps(asdict(found), indent=2, allow_nan=False))
    else:
        for title, text in lines(found):
            print(f"{title:<13}{text}")
    return 2 if found.problems else 0


def examine() -> Findings:
    """Look at versions, machine and folders. Imports none of the heavy packages."""
    from aitrain.plan import this_machine

    machine = this_machine()
    found = Findings(
        aitrain=_version("aitrain") or "not installed, run from its folder",
        python=platform.python_version(),
        platform=platform.platform(),
        cores=machine.cores,
        memory_gib=_memory(),
        accelerators=list(machine.accelerators),
        packages=core_packages(),
        extras=extras(),
        cache=place(_cache_dir()),
        working_folder=place(Path.cwd()),
        hub_login=has_hub_login(os.environ),
        offline={name: os.environ[name] for name in OFFLINE_VARIABLES if name in os.environ},
    )
    _judge(found)
    return found


def _judge(found: Findings) -> None:
    if not found.packages:
        found.problems.append("aitrain is not installed here, so its requirements are unknown")
        found.repairs.append("pip install -e .")
    python = _python_range()
    if python and not _contains(python, found.python):
        found.problems.append(f"python {found.python}: needs {python}")
        found.repairs.append(f"make an environment with Python {python} and install aitrain there")
    bad = [package for package in found.packages if not package.fits]
    for package in bad:
        has = package.installed or "missing"
        found.problems.append(f"{package.name} {has}: needs {package.needed or 'any version'}")
    if bad:
        found.repairs.append(shlex.join(["pip", "install", *(package.requirement for package in bad)]))


# --- packages --------------------------------------------------------------------------------------------------------


def core_packages() -> list[Package]:
    """What aitrain cannot do without, by the metadata of the installed distribution; empty if it is not installed."""
    return [_package(name, needed) for name, needed, extra in _requirements() if extra is None]


def extras() -> list[Extra]:
    """Every extra, with whether all its packages are there in versions that fit."""
    by_name: dict[str, list[Package]] = {}
    for name, needed, extra in _requirements():
        if extra is not None and extra not in NOT_FOR_USERS:
            by_name.setdefault(extra, []).append(_package(name, needed))
    return [
        Extra(name, all(package.fits for package in packages), f"pip install 'aitrain[{name}]'")
        for name, packages in sorted(by_name.items())
    ]


def _requirements() -> Iterator[tuple[str, str, str | None]]:
    """Name, range and extra of each requirement that applies to this Python and system."""
    from packaging.requirements import Requirement

    try:
        distribution = metadata.distribution("aitrain")
    except metadata.PackageNotFoundError:
        return
    names = distribution.metadata.get_all("Provides-Extra") or []
    for text in distribution.requires or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield requirement.name, str(requirement.specifier), None
            continue
        for extra in names:
            if marker.evaluate({"extra": extra}):
                yield requirement.name, str(requirement.specifier), extra


def _package(name: str, needed: str) -> Package:
    installed = _version(name)
    return Package(name, needed, installed, installed is not None and _contains(needed, installed))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _contains(needed: str, version: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(needed).contains(version, prereleases=True)


def _python_range() -> str:
    try:
        return str(metadata.distribution("aitrain").metadata["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        return ""


# --- machine ---------------------------------------------------------------------------------------------------------


def _memory() -> float | None:
    """Memory of the machine in GiB, or None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _cache_dir() -> Path:
    from aitrain.data.samples import cache_dir

    return cache_dir()


def place(path: Path) -> Place:
    """A folder with the space free there; of one that does not exist yet, that of the nearest folder above it."""
    nearest = path.absolute()
    while not nearest.is_dir() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        return Place(str(path), round(shutil.disk_usage(nearest).free / 2**30, 1))
    except OSError:
        return Place(str(path), None)


def has_hub_login(environment: Mapping[str, str]) -> bool:
    """Whether a token for the Hugging Face Hub is at hand, in the environment or a file. It is neither read out nor
    checked."""
    if environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    from aitrain.data.hub import hub_home

    path = Path(environment.get("HF_TOKEN_PATH") or hub_home(environment) / "token").expanduser()
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


# --- torch -----------------------------------------------------------------------------------------------------------


def _add_deep(found: Findings) -> None:
    try:
        found.deep = try_torch()
    except Exception as error:  # a broken installation fails in ways that cannot be listed
        first = (str(error).strip().splitlines() or [""])[0]
        found.problems.append(f"torch does not compute: {type(error).__name__}: {first}")
        torch = next((p.requirement for p in found.packages if p.name == "torch"), "torch")
        found.repairs.append(shlex.join(["pip", "install", "--force-reinstall", torch]))


def try_torch() -> dict[str, Any]:
    """One tiny forward and backward pass on each kind of device. Raises what torch raises, and ArithmeticError when a
    gradient is wrong."""
    import torch

    kinds = ["cpu"]
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    for kind in kinds:
        weight = torch.full((3, 2), 0.5, device=kind, requires_grad=True)
        (torch.ones(4, 3, device=kind) @ weight).sum().backward()
        if weight.grad is None or not torch.equal(weight.grad.cpu(), torch.full((3, 2), 4.0)):
            raise ArithmeticError(f"the gradient on {kind} is wrong")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads(), "devices": kinds, "gpus": names}


# --- text ------------------------------------------------------------------------------------------------------------


def lines(found: Findings) -> Iterator[tuple[str, str]]:
    """Title and text of each line."""
    yield "aitrain", found.aitrain
    yield "python", f"{found.python} on {found.platform}"
    memory = "" if found.memory_gib is None else f", {found.memory_gib:g} GiB memory"
    yield "machine", f"{found.cores} cores{memory}"
    yield "accelerators", ", ".join(found.accelerators) or "none found"
    for index, package in enumerate(found.packages):
        state = "" if package.fits else "  <- does not fit" if package.installed else "  <- missing"
        needs = f"  (needs {package.needed})" if package.needed else ""
        yield "" if index else "packages", f"{package.name} {package.installed or '-'}{needs}{state}"
    for index, extra in enumerate(found.extras):
        yield "" if index else "extras", f"{extra.name}: {'installed' if extra.installed else extra.command}"
    yield "cache", _place_line(found.cache)
    yield "folder", _place_line(found.working_folder)
    yield "hub login", "yes" if found.hub_login else "no (only needed for private or gated models: hf auth login)"
    yield "offline", ", ".join(f"{name}={value}" for name, value in found.offline.items()) or "no variable is set"
    if found.deep is not None:
        devices = ", ".join([*found.deep["devices"], *found.deep["gpus"]])
        yield "torch", f"{found.deep['torch']} computes on {devices} with {found.deep['threads']} threads"
    for problem in found.problems:
        yield "wrong", problem
    for repair in found.repairs:
        yield "repair", repair
    if not found.problems:
        yield "result", "nothing is wrong"


def _place_line(found: Place) -> str:
    return found.path if found.free_gib is None else f"{found.path}  ({found.free_gib:g} GiB free)"
