"""`tracking=wandb`: Weights & Biases (https://docs.wandb.ai), live or as files to send later with `wandb sync`."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from aitrain.config.section import OptionSection, key
from aitrain.errors import MachineError, Problem
from aitrain.trackers.identity import own_id
from aitrain.trackers.metrics import metrics

if TYPE_CHECKING:
    from aitrain.config.run import Run

OFFLINE = "tracking.mode=offline"
PUBLIC_HOSTS = ["api.wandb.ai", "api.forge.coreweave.com"]
"""Hosts of the public service; wandb 0.31 goes to the second and takes the first one's login for it."""


class Wandb(OptionSection):
    """Weights & Biases."""

    name: Literal["wandb"]
    """The tracker; choose it with `tracking=wandb`."""
    project: str = key(min_length=1)
    """Project the run is listed in."""
    entity: str | None
    """User or team that owns the project. null: the one your login has as default."""
    mode: Literal["online", "offline"]
    """`online` sends metrics as they come; `offline` writes `wandb/` in the run directory and needs no account."""
    group: str | None
    """Runs with the same group are shown together."""
    tags: list[str]
    """Words to find the run by."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.mode == "offline":
            return
        if not run.run.allow_downloads:
            yield Problem(
                "tracking.mode",
                "online needs the network, and run.allow_downloads is false",
                f"use {OFFLINE}",
                fix=OFFLINE,
            )
        elif not has_login():
            yield Problem(
                "tracking.mode",
                "online needs a login, and there is none",
                f"run 'wandb login', set WANDB_API_KEY, or use {OFFLINE}",
                fix=OFFLINE,
            )


def has_login() -> bool:
    """Whether a key, unchecked, is in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    custom = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(custom).netloc] if custom else PUBLIC_HOSTS
    named = os.environ.get("NETRC")
    path = Path(named).expanduser() if named else Path.home() / ".netrc"
    with suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(path)
        return any((found := known.authenticators(host)) and found[2] for host in hosts)
    return False


class WandbRun:
    """One run at Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, event: dict[str, Any]) -> None:
        """Send the numbers of an event."""
        values = metrics(event)
        if values:
            # wandb drops values for a step that it has passed; as an axis of its own, `step` may go back on resuming.
            self.run.log({**values, "step": event["step"]})

    def finish(self, status: str) -> None:
        """Say how the run ended; anything but `finished` shows as failed."""
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status == "finished" else 1)


def start(run: Run, folder: Path) -> WandbRun:
    """Begin the run, or go on with it. Raises MachineError when wandb refuses."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    section: Wandb = run.tracking  # type: ignore[assignment]
    # Nothing of this process and machine besides: command line, git remote, packages, output, code, host name.
    private = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        host="",
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    try:
        begun = wandb.init(
            project=section.project,
            entity=section.entity,
            dir=str(folder),
            id=own_id(folder, "wandb"),
            name=f"{run.run.name}-{folder.name}",
            tags=section.tags,
            config=run.tree(),
            group=section.group,
            mode=section.mode,
            resume="allow" if section.mode == "online" else None,
            reinit="create_new",
            settings=private,
        )
    except wandb.errors.Error as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MachineError(
            Problem("tracking.mode", f"wandb does not start: {first}", f"use {OFFLINE}", fix=OFFLINE)
        ) from error
    begun.define_metric("step", hidden=True)
    begun.define_metric("*", step_metric="step")
    return WandbRun(begun)
