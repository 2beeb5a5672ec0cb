"""What came out of a run, for machines (`report.json`) and for eyes (the table at the end, `report.html`)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aitrain.config.run import Run
from aitrain.plan import Plan
from aitrain.registry import trainer_of
from aitrain.report_read import MOST_DIGITS
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
        "data": _data_facts(data, plan, "answer_tokens" if trainer_of(run).scores else "trained_tokens"),
        "parameters": None,
        "aims": dict(trainer_of(run).metrics),
        "headline": list(trainer_of(run).headline),
        "weights_step": None,
        "ended_by": None,
        "ended_because": None,
        "error": None,
        "command": command,
        "processes": plan.processes,
        "device": plan.device,
    }
    write_json(folder / REPORT, values)
    return values


def _data_facts(data: Mapping[str, Any], plan: Plan, marked: str) -> dict[str, Any]:
    """`marked` is what the tokens that the encoder marks are to the trainer."""
    train = data.get("train") or {}
    sources = [{marked if key == "trained_tokens" else key: source[key] for key in source}
               for source in data.get("sources", ())]  # fmt: skip
    return {
        "train_rows": plan.train_rows,
        "valid_rows": plan.valid_rows,
        "rows_read": train.get("read"),
        "bad_rows": train.get("bad", 0) + (data.get("valid") or {}).get("bad", 0),
        "truncated": train.get("truncated", 0),
        "dropped": train.get("dropped", 0),
        "train_tokens": data.get("train_tokens"),
        marked: train.get("trained_tokens"),
        **{name: data[name] for name in ("wanted_rows", "unwanted_rows") if name in data},
        **({"rows_from": data["rows_from"]} if "rows_from" in data else {}),
        "columns": data.get("columns"),
        "reason": data.get("reason"),
        "rendering": data.get("rendering"),
        **({"sources": sources} if sources else {}),
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
    faults = [event["reward_faults"] for event in events if event["event"] == "train" and "reward_faults" in event]
    if faults:
        values["reward_faults"] = sum(faults)
    if outcome is not None:
        values |= {
            "steps": outcome["steps"],
            "epochs": outcome["epochs"],
            "metrics": {name: outcome[name] for name in ("before", "after", "baselines")},
            "best": outcome["best"],
            "parameters": outcome["parameters"],
            "weights_step": outcome["weights_step"],
            "ended_by": outcome["ended_by"],
            "ended_because": outcome["ended_because"],
            **({"details": outcome["details"]} if outcome.get("details") else {}),
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
        lines += [*_table(before, after, simple_rivals(values["metrics"]["baselines"], after)), ""]
    lines += _generations(report)
    because = f": {values['ended_because']}" if values.get("ended_because") else ""
    if values.get("reward_faults"):
        lines.append(f"{values['reward_faults']:,} rewards failed; rl.reward_error_penalty stood in for them")
    lines.append(f"{values['status']} after {values['steps']} of {values['planned_steps']} steps{because}")
    kept = values.get("weights_step")
    whose = f"  (step {kept}'s weights)" if kept not in (None, values["steps"]) else ""
    for title, path, more in (("model", "model", whose), ("report", "report.html", "")):
        if (report.folder / path).exists():
            lines.append(f"{title:<8}{report.folder / path}{more}")
    return "\n".join(lines)


def simple_rivals(baselines: Mapping[str, Any], after: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    """For each measure the simple answer that it stands beside, by name, and what that is worth: `unigram` has a loss,
    `majority_accuracy` is the majority's accuracy; one that is measured like the model has all its measures."""
    found: dict[str, tuple[str, float]] = {}
    for name, value in baselines.items():
        if isinstance(value, Mapping):
            for measure, number in value.items():
                found.setdefault(measure, (name, number))
            continue
        rival, _, measure = name.partition("_")
        measure = measure or "loss"
        if measure in after:
            found.setdefault(measure, (rival, value))
    return found


def _table(
    before: Mapping[str, float] | None, after: Mapping[str, float], rivals: Mapping[str, tuple[str, float]]
) -> Iterator[str]:
    """Measures of the validation: before, where there was something, after, and what a simple answer is worth."""
    width = max(16, *(len(name) + 2 for name in after))
    rival = ", ".join(dict.fromkeys(name for name, _ in rivals.values()))
    heads = [*(["before"] if before else []), "after", *([rival] if rivals else [])]
    yield f"{'validation':<{width}}" + "".join(f"{head:>12}" for head in heads)
    for name in after:
        if name == "tokens":
            continue
        told = numbers([(before or {}).get(name), after[name], rivals[name][1] if name in rivals else None])
        shown = [*(told[:1] if before else []), told[1], *([told[2] if name in rivals else ""] if rivals else [])]
        yield f"{name.replace('_', ' '):<{width}}" + "".join(f"{text:>12}" for text in shown).rstrip()


def numbers(values: Sequence[float | None]) -> list[str]:
    """Numbers that are read side by side, with as many decimals as tell those apart that differ; `-` for none."""
    known = {value for value in values if value is not None}
    decimals = 4
    while decimals < MOST_DIGITS and len({float(f"{value:.{decimals}f}") for value in known}) < len(known):
        decimals += 1
    return ["-" if value is None else _number(value, decimals) for value in values]


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}g}" if abs(value) >= 1000 else f"{value:.{decimals}f}"


def _generations(report: Report) -> list[str]:
    """The first and the last answers to a few fixed prompts, side by side."""
    rounds = [event for event in read_events(report.folder) if event["event"] == "generate"]
    if not rounds:
        return []
    lines = []
    for first, last in list(zip(rounds[0]["samples"], rounds[-1]["samples"], strict=True))[:4]:
        lines.append(f"  asked   {_ending(str(first['prompt']))}")
        if len(rounds) > 1:
            lines.append(f"  before  {_short(first['text'])}")
        mark = {True: "  (right)", False: "  (wrong)", None: ""}[last["correct"]]
        mark += f"  (reward {last['reward']:.3g})" if "reward" in last else ""
        lines.append(f"  after   {_short(last['text'])}{mark}")
        if last["correct"] is False:
            lines.append(f"  wanted  {_short(last['expected'])}")
        lines.append("")
    return lines


def _ending(text: str, longest: int = 100) -> str:
    """The end of a prompt, where its question stands, from a whole word on."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    _, space, words = text[-longest:].partition(" ")
    return f"… {words}" if space else f"…{text[-longest:]}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else text[:87] + "…"
