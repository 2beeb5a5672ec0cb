"""What came out of a run, for machines (`report.json`) and for eyes (the table at the end, `report.html`)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitrain.config.run import Run
from aitrain.plan import Plan
from aitrain.rundir.events import now, read_events
from aitrain.rundir.folder import REPORT, read_json, write_json


@dataclass(frozen=True)
class Report:
    """What a run came to. `values` is the content of `report.json`."""

    folder: Path
    values: Mapping[str, Any]
    found: bool = False
    """Whether the run was finished before this start, which then did nothing."""

    @property
    def status(self) -> str:
        """`finished`, `stopped` or `failed`."""
        return str(self.values["status"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """`before`, `after` and `baselines`."""
        found: Mapping[str, Any] = self.values["metrics"]
        return found

    @property
    def losses(self) -> list[float]:
        """Training losses in the order they were logged."""
        return [event["loss"] for event in read_events(self.folder) if event["event"] == "train"]


def begin_report(run: Run, plan: Plan, folder: Path, data: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The part of the report known at the start; written at once, so that a killed run has one too."""
    earlier = read_json(folder / REPORT) or {}
    values = {
        "status": "running",
        "name": run.run.name,
        "task": run.task.name,
        "trainer": run.trainer.name,
        "model": run.model.path,
        "started": earlier.get("started", now()),
        "ended": None,
        "seconds": None,
        "steps": 0,
        "planned_steps": plan.steps,
        "epochs": None,
        "metrics": {"before": None, "after": None, "baselines": {}},
        "best": None,
        "peak_memory_bytes": None,
        "peak_device_memory_bytes": None,
        "data": _data_facts(data, plan),
        "parameters": None,
        "ended_by": None,
        "error": None,
        "command": command,
        "processes": plan.processes,
        "device": plan.device,
    }
    write_json(folder / REPORT, values)
    return values


def _data_facts(data: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    train = data.get("train") or {}
    return {
        "train_rows": plan.train_rows,
        "valid_rows": plan.valid_rows,
        "rows_read": train.get("read"),
        "bad_rows": train.get("bad", 0) + (data.get("valid") or {}).get("bad", 0),
        "truncated": train.get("truncated", 0),
        "dropped": train.get("dropped", 0),
        "train_tokens": data.get("train_tokens"),
        "trained_tokens": train.get("trained_tokens"),
        "columns": data.get("columns"),
        "reason": data.get("reason"),
        "rendering": data.get("rendering"),
        **({"sources": data["sources"]} if "sources" in data else {}),
    }


def end_report(folder: Path, status: str, outcome: Mapping[str, Any] | None, error: str | None = None) -> Report:
    """Complete `report.json` and draw `report.html`."""
    values = dict(read_json(folder / REPORT) or {})
    events = list(read_events(folder))
    values |= {
        "status": status,
        "ended": now(),
        "seconds": _seconds(events),
        "steps": max((event["step"] for event in events), default=0),
        "error": error,
        "peak_memory_bytes": peak_memory(),
    }
    if outcome is not None:
        values |= {
            "steps": outcome["steps"],
            "epochs": outcome["epochs"],
            "metrics": {name: outcome[name] for name in ("before", "after", "baselines")},
            "best": outcome["best"],
            "parameters": outcome["parameters"],
            "ended_by": outcome["ended_by"],
            "peak_device_memory_bytes": outcome["peak_device_memory_bytes"],
            "data": values["data"] | _stream_facts(values["data"], outcome["stream_counts"]),
        }
    write_json(folder / REPORT, values)
    from aitrain.report_html import write_html

    write_html(folder)
    return Report(folder, values)


def _stream_facts(known: Mapping[str, Any], counts: Mapping[str, int] | None) -> dict[str, int]:
    """What was counted of a stream while it was trained on, beside the bad rows known before, of the validation."""
    if counts is None:
        return {}
    return {
        "rows_read": counts["read"],
        "bad_rows": known["bad_rows"] + counts["bad"],
        "truncated": counts["truncated"],
        "dropped": counts["dropped"],
    }


def _seconds(events: list[dict[str, Any]]) -> float | None:
    return next((event["seconds"] for event in reversed(events) if event["event"] == "train"), None)


def peak_memory() -> int:
    """Largest resident size of this process or of the largest of its children, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return unit * max(own, children)


def summary(report: Report) -> str:
    """The table printed at the end of a run."""
    values = report.values
    lines = [""]
    before, after = values["metrics"]["before"], values["metrics"]["after"]
    if after:
        unigram = values["metrics"]["baselines"].get("unigram")
        width = max(16, *(len(name) + 2 for name in after))
        beside = f"{'unigram':>12}" if unigram is not None else ""
        lines.append(f"{'validation':<{width}}{'before':>12}{'after':>12}{beside}")
        for name in after:
            if name == "tokens":
                continue
            first = _number(before[name]) if before and name in before else "-"
            base = f"{_number(unigram):>12}" if name == "loss" and unigram is not None else ""
            lines.append(f"{name.replace('_', ' '):<{width}}{first:>12}{_number(after[name]):>12}{base}")
        lines.append("")
    lines += _generations(report)
    lines.append(f"{values['status']} after {values['steps']} of {values['planned_steps']} steps")
    for title, path in (("model", "model"), ("report", "report.html")):
        if (report.folder / path).exists():
            lines.append(f"{title:<8}{report.folder / path}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) >= 1000 else f"{value:.4f}"


def _generations(report: Report) -> list[str]:
    """The first and the last answers to a few fixed prompts, side by side."""
    rounds = [event for event in read_events(report.folder) if event["event"] == "generate"]
    if not rounds:
        return []
    lines = []
    for first, last in list(zip(rounds[0]["samples"], rounds[-1]["samples"], strict=True))[:4]:
        prompt = " ".join(str(first["prompt"]).split())
        lines.append(f"  asked   {prompt[-100:]}")
        if len(rounds) > 1:
            lines.append(f"  before  {_short(first['text'])}")
        mark = {True: "  (right)", False: "  (wrong)", None: ""}[last["correct"]]
        lines.append(f"  after   {_short(last['text'])}{mark}")
        if last["correct"] is False:
            lines.append(f"  wanted  {_short(last['expected'])}")
        lines.append("")
    return lines


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else text[:87] + "…"
