"""What a run shows while it runs: a live view on a terminal, plain lines in a pipe, or nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from aitrain.config.run import Run
from aitrain.plan import Plan
from aitrain.rundir.folder import LOG


def progress_view(run: Run, plan: Plan, folder: Path) -> PlainView:
    """The view that `run.progress` asks for, to be closed at the end; it also keeps `log.txt`."""
    kind = run.run.progress
    if kind == "auto":
        kind = "rich" if sys.stdout.isatty() else "plain"
    if kind == "rich":
        return RichView(plan, folder)
    return PlainView(plan, folder, shown=kind == "plain")


class PlainView:
    """One line an event, on standard output and in `log.txt`."""

    def __init__(self, plan: Plan, folder: Path, *, shown: bool) -> None:
        self.plan = plan
        self.folder = folder
        self.shown = shown
        self.clock = Clock(plan.steps)

    def log(self, event: dict[str, Any]) -> None:
        """Print the event, if it says something to a reader."""
        line = describe(event, self.plan.steps, self.clock)
        if line:
            write_log(self.folder, line)
            if self.shown:
                self.show(line, event)

    def show(self, line: str, event: dict[str, Any]) -> None:
        """Put a line on the terminal."""
        print(line, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""


class RichView(PlainView):
    """A bar with time left below the lines that scroll by."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(plan, folder, shown=True)
        columns = (
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, transient=True)
        self.bar = self.progress.add_task("", total=plan.steps, loss="…")
        self.progress.start()

    def show(self, line: str, event: dict[str, Any]) -> None:
        if event["event"] == "train":
            self.progress.update(self.bar, completed=event["step"], loss=f"{event['loss']:.4f}")
        else:
            self.progress.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        self.progress.stop()


class Clock:
    """Time left, from the pace since this start."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.first: tuple[int, float] | None = None

    def left(self, step: int) -> str:
        """Time until the last step at the pace so far, as `1 min 20 s`; empty before two readings."""
        now = time.monotonic()
        if self.first is None:
            self.first = (step, now)
            return ""
        done = step - self.first[0]
        return duration((self.steps - step) * (now - self.first[1]) / done) if done else ""


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def describe(event: dict[str, Any], steps: int, clock: Clock) -> str:
    """An event in a line; empty for those that only matter to machines."""
    at = f"step {event['step']}/{steps}"
    kind = event["event"]
    if kind == "train":
        left = clock.left(event["step"])
        ending = f"  {left} left" if left and event["step"] < steps else ""
        speed = f"{event['tokens_per_second']:,.0f} tokens/s"
        found = f"loss {event['loss']:.4f}{_told_apart(event)}{_rewarded(event)}"
        return f"{at}  {found}  lr {event['learning_rate']:.2e}  {speed}{ending}"
    if kind == "eval":
        loss = f" loss {event['loss']:.4f}" if "loss" in event else ""
        accuracy = f"  token accuracy {event['token_accuracy']:.1%}" if "token_accuracy" in event else ""
        texts = f"  chrF {event['chrf']:.1f}" if "chrf" in event else ""
        return f"{at}  validation{loss}{accuracy}{texts}{_told_apart(event)}{_rewarded(event)}"
    if kind == "generate":
        judged = [s["correct"] for s in event["samples"] if s["correct"] is not None]
        return f"{at}  {sum(judged)} of {len(judged)} fixed prompts answered right" if judged else ""
    if kind == "trial":
        failed = f"failed: {event['error']}" if event["error"] else f"{event['objective']} {event['value']:.5g}"
        best = f"  best {event['best']:.5g}" if event["best"] is not None else ""
        return f"trial {event['step']}/{steps}  {failed}{best}  {event['seconds']:.1f} s"
    if kind == "checkpoint":
        return f"{at}  saved {event['path']}" + ("  (best so far)" if event["best"] else "")
    if kind == "resume":
        return f"{at}  resumed"
    if kind == "note":
        return f"{at}  {event['text']}"
    return ""


def _told_apart(event: dict[str, Any]) -> str:
    """Of preferences: the share of pairs in the right order, and by how much on average."""
    found = {"accuracy": "", "margin": ""}
    for name, value in event.items():
        if name in ("rewards/accuracies", "accuracy"):
            found["accuracy"] = f"  accuracy {value:.1%}"
        if name in ("rewards/margins", "margin"):
            found["margin"] = f"  margin {value:.3f}"
    return found["accuracy"] + found["margin"]


def _rewarded(event: dict[str, Any]) -> str:
    """Of episodes: their mean reward, the divergence from the reference, and the length of the answers."""
    words = (("reward", "  reward {:.3f}"), ("kl", "  KL {:.3f}"), ("length", "  {:.1f} tokens"))
    return "".join(word.format(event[name]) for name, word in words if name in event)


def write_log(folder: Path, line: str) -> None:
    """Add a line with the time to `log.txt`."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(time.strftime("%H:%M:%S ") + line + "\n")
