"""`doctor`: what fits, what does not, what repairs it, and that it shows no token and imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from aitrain.commands import doctor as module
from aitrain.commands.doctor import doctor, examine, extras, has_hub_login, place
from aitrain.errors import ConfigError

TOKEN = "hf_planted0badc0de0badc0de"


class Distribution:
    """Stands for the installed aitrain."""

    def __init__(self, requires: list[str], python: str = ">=3.11", extras: list[str] | None = None) -> None:
        self.requires = requires
        self.metadata: Any = Metadata(python, extras or [])


class Metadata(dict[str, str]):
    def __init__(self, python: str, extras: list[str]) -> None:
        super().__init__({"Requires-Python": python})
        self.extras = extras

    def get_all(self, name: str) -> list[str]:
        assert name == "Provides-Extra"
        return self.extras


def pretend(monkeypatch: pytest.MonkeyPatch, distribution: Distribution, versions: Mapping[str, str]) -> None:
    def version(name: str) -> str:
        try:
            return versions[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(module.metadata, "distribution", lambda name: distribution)
    monkeypatch.setattr(module.metadata, "version", version)


def test_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, Distribution(["torch>=2.10"]), {"aitrain": "9.9", "torch": "2.13.0+cpu"})
    assert doctor([]) == 0
    text = capsys.readouterr().out
    assert "torch 2.13.0+cpu" in text
    assert "nothing is wrong" in text


def test_old_and_missing_packages_come_with_one_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Distribution(["torch>=2.10", "peft<1,>=0.20", "rich>=13", "absent>=1; python_version < '3'"])
    pretend(monkeypatch, wanted, {"aitrain": "9.9", "torch": "2.9.1", "rich": "14"})
    assert doctor([]) == 2
    found = capsys.readouterr().out
    assert "torch 2.9.1: needs >=2.10" in found
    assert "peft missing: needs <1,>=0.20" in found
    assert "pip install 'torch>=2.10' 'peft<1,>=0.20'\n" in found
    assert "absent" not in found


def test_a_release_candidate_in_range_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Distribution(["torch>=2.10"]), {"aitrain": "9.9", "torch": "2.14.0rc1"})
    assert not examine().problems


def test_python_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Distribution([], python=">=99"), {"aitrain": "9.9"})
    assert any("needs >=99" in problem for problem in examine().problems)


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "distribution", nothing)
    monkeypatch.setattr(module.metadata, "version", nothing)
    assert doctor([]) == 2
    assert "pip install -e ." in capsys.readouterr().out


def test_extras_are_complete_only_when_every_package_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["a; extra == 'one'", "b>=2; extra == 'one'", "a; extra == 'two'", "a; extra == 'dev'"]
    pretend(monkeypatch, Distribution(requires, extras=["one", "two", "dev"]), {"aitrain": "9", "a": "1", "b": "1"})
    assert [(extra.name, extra.installed) for extra in extras()] == [("one", False), ("two", True)]
    assert extras()[0].command == "pip install 'aitrain[one]'"


def test_json_is_strict_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    doctor(["--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["cores"] >= 1
    assert {"packages", "extras", "cache", "working_folder", "problems", "repairs"} <= set(found)
    assert "torch" in [package["name"] for package in found["packages"]]


def test_the_hub_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    doctor([])
    doctor(["--json"])
    text = capsys.readouterr().out
    assert TOKEN not in text
    assert "hub login    yes" in text
    assert '"hub_login": true' in text


def test_a_token_file_is_a_login(tmp_path: Path) -> None:
    assert not has_hub_login({"HF_HOME": str(tmp_path)})
    (tmp_path / "token").write_text("")
    assert not has_hub_login({"HF_HOME": str(tmp_path)})
    (tmp_path / "token").write_text(TOKEN)
    assert has_hub_login({"HF_HOME": str(tmp_path)})
    assert has_hub_login({"HF_HOME": str(tmp_path / "no"), "HF_TOKEN_PATH": str(tmp_path / "token")})


def test_offline_variables_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    doctor([])
    assert "HF_HUB_OFFLINE=1" in capsys.readouterr().out


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    missing = place(tmp_path / "a" / "b")
    assert missing.free_gib is not None
    assert missing.free_gib >= 0
    assert missing.path.endswith("b")


def test_broken_torch_is_a_problem_of_deep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, Distribution(["torch>=2.10"]), {"aitrain": "9.9", "torch": "2.13.0"})

    def broken() -> dict[str, Any]:
        raise OSError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr(module, "try_torch", broken)
    assert doctor(["--deep"]) == 2
    text = capsys.readouterr().out
    assert "torch does not compute: OSError: libtorch.so" in text
    assert "pip install --force-reinstall 'torch>=2.10'" in text


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean '--json'"):
        doctor(["--jsn"])


def test_torch_is_not_imported() -> None:
    script = (
        "import sys; from aitrain.commands.doctor import doctor; doctor([]);"
        "assert not {'torch', 'transformers', 'datasets', 'numpy', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
