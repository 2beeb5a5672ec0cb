"""Runs a Python program that a model wrote, in a process of its own, and says whether it came to its end.

No security boundary. It keeps honest mistakes in check (loops, memory, files, processes) and, where the kernel lets it
(Linux with user namespaces), takes network, other processes and write access to all but its own folder away. It can
still read what the user can read. `Outcome.isolated` tells which of the two it was. Where models or data are not
trusted, run the training in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

KEEPER = Path(__file__).with_name("sandbox_keeper.py")
PROGRAM = "program.py"
SPARE = 10.0
"""Seconds the keeper may take beyond the time limit, before it is killed itself."""
ERROR_CHARACTERS = 2000

Reason = Literal["passed", "failed", "time", "processes", "broken"]


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0
    """Wall-clock time; CPU time of each process is held to it as well."""
    memory_mb: int = 1024
    """Address space of each process."""
    file_mb: int = 16
    """Size of each file it writes."""
    processes: int = 16
    """Processes alive at once."""
    open_files: int = 64


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    reason: Reason
    """`passed`: it came to its last line. `failed`: it raised, exited or was killed by a limit before. `time` and
    `processes`: it was stopped. `broken`: the machine could not run it."""
    error: str = ""
    """The end of what it wrote to stderr."""
    isolated: bool = False
    """Whether namespaces kept it from network, other processes and files."""

    @property
    def passed(self) -> bool:
        return self.reason == "passed"


def supported() -> bool:
    """Whether this system has process groups and resource limits."""
    return os.name == "posix"


def run(source: str, limits: Limits | None = None, *, namespaces: bool = True) -> Outcome:
    """Run a program to its end. It passes when its last line was reached, so `sys.exit(0)` half-way does not count.

    `namespaces=False` does without them even where the kernel has them.
    """
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="aitrain-code-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as errors,
    ):
        program = Path(folder) / PROGRAM
        program.write_text(f"{source}\n\nimport os as _os\n_os.write(3, b'{token}')\n", encoding="utf-8")
        try:
            report = _kept(folder, limits, namespaces, errors)
        except (OSError, ValueError) as error:
            return Outcome("broken", f"{type(error).__name__}: {error}")
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - ERROR_CHARACTERS))
        text = errors.read().decode("utf-8", "replace").strip().replace(folder + os.sep, "")
    isolated = bool(report.get("isolated"))
    stopped = report.get("stopped")
    if stopped in ("time", "processes", "broken"):
        return Outcome(stopped, text, isolated)
    passed = report.get("said") == token and report.get("status") == 0
    return Outcome("passed" if passed else "failed", text, isolated)


def _kept(folder: str, limits: Limits, namespaces: bool, errors: IO[bytes]) -> dict[str, object]:
    """What the keeper reports: it starts the program, watches it, and leaves nothing alive behind."""
    request = json.dumps({"folder": folder, "program": PROGRAM, "namespaces": namespaces, **asdict(limits)})
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(KEEPER), request],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    try:
        out, _ = keeper.communicate(timeout=limits.seconds + SPARE)
    except subprocess.TimeoutExpired:
        return {"stopped": "time"}
    finally:
        _end(keeper)
    return dict(json.loads(out)) if out.strip() else {"stopped": "broken"}


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Nobody of its group outlives it: the program dies with the keeper, which the kernel was asked to see to."""
    if keeper.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        deadline = time.monotonic() + SPARE
        while keeper.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    if keeper.stdout:
        keeper.stdout.close()
