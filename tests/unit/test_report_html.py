"""The page of a run: everything is shown, nothing breaks out of its place, nothing is fetched."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aitrain.errors import DataError
from aitrain.report_html import (
    CONTENT_POLICY,
    STYLE,
    Curve,
    Figure,
    Scale,
    fitted,
    origin_kind,
    smoothed,
    thinned,
    write_html,
)

PROMPTS = [
    ("Reverse: stone", "enots"),
    ("Sort: 7 3 9 1", "1 3 7 9"),
    ("Add: 17 + 25", "42"),
    ("Escape: </script><script>alert(1)</script>", "&lt;b&gt;"),
    ("Continue: def read(path):", None),
]


def train_loss(step: int) -> float:
    return 2.9 + 4.7 * math.exp(-step / 45) + 0.12 * math.sin(step * 2.1)


def answer(prompt: str, expected: str | None, step: int, index: int) -> str:
    learned = step >= 60 + 40 * index
    if expected is None:
        return "\n    with open(path) as file:\n        return file.read()\n" + "x = 1\n" * (60 if step > 150 else 2)
    return expected if learned else ["", "zz zz", "the the", "<img src=x onerror=alert(1)>"][(step // 50 + index) % 4]


def run_events(steps: int = 200) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"event": "start", "step": 0, "time": "2026-11-20T10:00:00+00:00"}]
    for step in range(steps + 1):
        if step % 50 == 0:
            loss = train_loss(step) + 0.1 if step else 7.62
            events.append(
                {
                    "event": "eval",
                    "step": step,
                    "epoch": step / 66.7,
                    "split": "validation",
                    "loss": loss,
                    "perplexity": math.exp(loss),
                    "token_accuracy": 0.001 + 0.41 * step / steps,
                    "tokens": 9000,
                    "seconds": 1.2,
                }
            )
            answers = [(p, e, answer(p, e, step, i)) for i, (p, e) in enumerate(PROMPTS)]
            listed = [
                {"prompt": p, "expected": e, "text": t, "correct": None if e is None else t == e} for p, e, t in answers
            ]
            events.append({"event": "generate", "step": step, "samples": listed})
        if step and step % 2 == 0:
            events.append(
                {
                    "event": "train",
                    "step": step,
                    "epoch": step / 66.7,
                    "loss": train_loss(step),
                    "learning_rate": 1e-3 * min(1, step / 20) * 0.5 * (1 + math.cos(math.pi * step / steps)),
                    "grad_norm": 1.2 + math.sin(step) * 0.3 + (9 if step == 84 else 0),
                    "tokens": step * 1500,
                    "tokens_per_second": 4321.0 + 200 * math.sin(step / 7),
                    "seconds": step * 0.36,
                }
            )
        if step and step % 50 == 0:
            path = f"checkpoints/step-{step:06d}"
            saved = {"event": "checkpoint", "step": step, "path": path, "seconds": 0.2, "bytes": 13_631_488}
            events.append({**saved, "best": step <= 150})
    events.append({"event": "note", "step": 84, "text": "gradient clipped from 10.4 <b>to</b> 1.0"})
    events.append({"event": "end", "step": steps, "time": "2026-11-20T10:01:13+00:00"})
    return events


REPORT = {
    "status": "finished",
    "name": "reverse-words",
    "task": "llm",
    "trainer": "sft",
    "started": "2026-11-20T10:00:00+00:00",
    "ended": "2026-11-20T10:01:13+00:00",
    "seconds": 73.2,
    "steps": 200,
    "planned_steps": 200,
    "epochs": 3.0,
    "metrics": {
        "before": {"loss": 7.62, "perplexity": 2038.5, "token_accuracy": 0.001},
        "after": {"loss": 3.1, "perplexity": 22.2, "token_accuracy": 0.411},
        "baselines": {"unigram": 5.4},
    },
    "best": {"step": 150, "loss": 3.0, "checkpoint": "checkpoints/step-000150"},
    "peak_memory_bytes": 812_646_400,
    "data": {
        "train_rows": 1000,
        "valid_rows": 50,
        "bad_rows": 0,
        "truncated": 3,
        "dropped": 0,
        "train_tokens": 148_213,
        "trained_tokens": 61_007,
        "columns": "prompt=instruction, completion=response",
        "reason": "instruction and response are the usual names of a prompt and its answer",
    },
    "parameters": {"total": 1_700_000, "trainable": 1_700_000},
    "error": None,
    "command": "python -m aitrain recipes/reverse.yaml 'run.name=reverse-words' train.learning_rate=0.001",
    "processes": 1,
}

PLAN = {
    "steps": 200,
    "global_batch_size": 16,
    "processes": 1,
    "threads": 2,
    "device": "cpu",
    "argv": ["python", "-m", "aitrain.worker", "config.json"],
    "autos": [
        {"key": "train.precision", "value": "float32", "reason": "this CPU has no fast bfloat16"},
        {"key": "data.max_length", "value": 256, "reason": "the 99th percentile of the rows, rounded up to 64"},
    ],
    "origins": {
        "train.learning_rate": "command line",
        "run.name": "command line",
        "trainer.name": "conf/trainer/sft.yaml:2",
        "data.path": "recipes/reverse.yaml:7",
        "train.batch_size": "recipes/reverse.yaml:9",
    },
}

CONFIG = """\
run: {name: reverse-words, dir: outputs/reverse-words/1, seed: 42, resume: never, progress: auto}
task: {name: llm}
trainer: {name: sft, loss: cross_entropy}
model: {path: 'sample:tiny', revision: null, dtype: auto, trust_remote_code: false}
data: {path: 'sample:skills', max_length: auto, columns: {prompt: instruction, completion: response}, truncation: end}
train:
  epochs: 3
  batch_size: 4
  gradient_accumulation: 4
  learning_rate: 0.001
  scheduler: cosine
  warmup_ratio: 0.1
  weight_decay: 0.0
  max_grad_norm: 1.0
  optimizer: adamw
  precision: auto
peft: {name: none}
hardware: {device: auto, processes: 1, nodes: 1}
"""

LOCK = {
    "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
    "git": {"commit": "ebe711c", "dirty": True},
    "data": {"fingerprint": "sha256:9f2c", "rows": 1050},
    "seeds": {"python": 42, "torch": 42},
    "user_code": {},
}


def write_run(folder: Path, events: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A run directory with every file; `changes` replace entries of report.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints" / "step-000150").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (folder / "lock.json").write_text(json.dumps(LOCK))
    (folder / "report.json").write_text(json.dumps({**REPORT, **changes}))
    lines = [json.dumps(event) for event in (run_events() if events is None else events)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


class Page(HTMLParser):
    """Checks nesting while it reads, and keeps what the tests ask about."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.shown: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def count(self, tag: str, **wanted: str) -> int:
        return sum(t == tag and all(a.get(k.rstrip("_")) == v for k, v in wanted.items()) for t, a in self.tags)


def page_of(folder: Path) -> Page:
    return Page(write_html(folder).read_text(encoding="utf-8"))


def test_a_finished_run_is_summed_up_in_the_head(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run")).text
    assert "reverse-words finished validation loss 7.62 → 3.10 in 73 s; unigram baseline 5.40, beaten" in text
    assert "steps 200 of 200" in text
    assert "parameters 1.70 M" in text
    assert "peak memory 775.0 MiB" in text
    assert "Not everything is here" not in text


def test_before_and_after_stand_beside_the_baseline(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run")).text
    assert "loss 7.620 3.100 −4.520 better 5.400" in text
    assert "token accuracy 0.001 0.411 +0.410 better –" in text


def test_a_worse_result_is_called_worse(tmp_path: Path) -> None:
    metrics = {"before": {"loss": 3.0}, "after": {"loss": 6.0}, "baselines": {"unigram": 5.4}}
    text = page_of(write_run(tmp_path / "run", metrics=metrics)).text
    assert "unigram baseline 5.40, not reached" in text
    assert "+3 worse" in text


def test_sections_come_in_reading_order(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        *("results", "curves", "generations", "data", "plan"),
        *("config", "checkpoints", "versions", "again", "notes"),
    ]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in sections]
    assert len(page.ids) == len(set(page.ids))


def test_facts_of_every_file_are_shown(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run")).text
    assert "training rows 1,000" in text
    assert "rows truncated 3" in text
    assert "tokens that carry loss 61,007" in text
    assert "4 a device × 4 accumulated × 1 processes = 16 sequences a step × 200 steps = 3,200" in text
    assert "train.precision float32 this CPU has no fast bfloat16" in text
    assert "data.max_length auto → 256" in text
    assert "torch 2.13.0" in text
    assert "commit ebe711c" in text
    assert "python -m aitrain recipes/reverse.yaml 'run.name=reverse-words' train.learning_rate=0.001" in text
    assert "step 84 gradient clipped from 10.4 <b>to</b> 1.0" in text
    assert "150 checkpoints/step-000150 13.0 MiB 0.2 s on disk ★ best" in text
    assert "200 checkpoints/step-000200 13.0 MiB 0.2 s removed" in text


def test_batch_arithmetic_that_does_not_hold_is_not_claimed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "plan.json").write_text(json.dumps({**PLAN, "global_batch_size": 32}))
    text = page_of(folder).text
    assert "accumulated" not in text
    assert "32 sequences a step × 200 steps = 6,400" in text


def test_settings_of_the_user_are_marked_and_defaults_are_not(tmp_path: Path) -> None:
    source = write_html(write_run(tmp_path / "run")).read_text()
    rows = dict(re.findall(r'<tr class="(mine|default)"><th scope="row">([^<]+)', source)[::-1])
    marked = {
        key for kind, key in re.findall(r'<tr class="(mine|default)"><th scope="row">([^<]+)', source) if kind == "mine"
    }
    assert marked == {"run.name", "train.learning_rate", "data.path", "train.batch_size"}
    assert set(rows) == {"mine", "default"}


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("command line", "command line"),
        ("python", "Python"),
        ("recipes/x.yaml:7", "recipe"),
        ("x.yaml:7", "recipe"),
        ("conf/trainer/sft.yaml:2", "default"),
        ("lib/aitrain/conf/config.yaml:2", "default"),
        ("conf.yaml:3", "recipe"),
        ("default", "default"),
        ("", "default"),
    ],
)
def test_origin_kind(origin: str, kind: str) -> None:
    assert origin_kind(origin) == kind


def test_generations_stand_side_by_side_and_right_ones_are_marked_in_words(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert "before training 0 of 4 right step 50 0 of 4 right step 100 2 of 4 right" in page.text
    assert "step 200 4 of 4 right" in page.text
    assert page.text.count("✓ right") == page.count("td", class_="right") == 0 + 0 + 2 + 3 + 4
    assert "Reverse: stone expected enots" in page.text
    assert "(nothing)" in page.text


def test_many_evaluations_keep_the_first_and_the_last(tmp_path: Path) -> None:
    sample = {"prompt": "p", "expected": None, "text": "t", "correct": None}
    events = [{"event": "generate", "step": step, "samples": [sample]} for step in range(0, 1000, 10)]
    text = page_of(write_run(tmp_path / "run", events)).text
    assert "before training step 90 " in text
    assert "step 990" in text
    assert "88 evaluation(s) in between are left out" in text


HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\'&amp;\x00\x1b[31m\ud800'


def test_nothing_a_run_recorded_becomes_markup(tmp_path: Path) -> None:
    calm = page_of(write_run(tmp_path / "calm"))
    sample = {"prompt": HOSTILE, "expected": HOSTILE, "text": HOSTILE, "correct": False}
    events = [
        {"event": "eval", "step": 0, "split": HOSTILE, "loss": 3.0, HOSTILE: 1.0},
        {"event": "train", "step": 10, "loss": 2.0, HOSTILE: 1.0},
        {"event": "generate", "step": 10, "samples": [sample]},
        {"event": "checkpoint", "step": 10, "path": "checkpoints/" + HOSTILE, "best": True},
        {"event": "note", "step": 10, "text": HOSTILE},
    ]
    fields = ("name", "task", "trainer", "status", "error", "command", "started")
    folder = write_run(tmp_path / "run", events, **dict.fromkeys(fields, HOSTILE), data={HOSTILE: HOSTILE})
    auto = {"key": HOSTILE, "value": HOSTILE, "reason": HOSTILE}
    (folder / "plan.json").write_text(json.dumps({**PLAN, HOSTILE: HOSTILE, "autos": [auto]}))
    (folder / "lock.json").write_text(json.dumps({HOSTILE: {HOSTILE: HOSTILE}}))
    (folder / "config.yaml").write_text(json.dumps({"task": {HOSTILE[:-1]: HOSTILE[:-1]}}))
    page = page_of(folder)
    assert page.count("script") == calm.count("script") == 1
    assert page.count("img") == 0
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert '</script><script>alert(1)</script><img src=x onerror="alert(2)">' in page.text
    assert not set("".join(page.shown)) & set("\x00\x1b")


def test_the_page_needs_no_network_and_forbids_it(tmp_path: Path) -> None:
    source = write_html(write_run(tmp_path / "run")).read_text()
    page = Page(source)
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\(", source)
    assert not any({"src", "srcset", "action", "data"} & set(attributes) for _, attributes in page.tags)
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    policies = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [CONTENT_POLICY]
    assert str(tmp_path) not in source


def test_every_picture_says_what_it_shows(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 2 + 6
    for attributes in pictures:
        assert set((attributes["aria-labelledby"] or "").split()) <= set(page.ids)
    assert "validation: 7.620 at step 0, 2.956 at step 200. unigram baseline 5.40: 5.400." in page.text


def test_the_read_out_gets_the_recorded_values(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    plots = [json.loads(a["data-plot"] or "") for _, a in page.tags if "data-plot" in a]
    loss = plots[0]
    assert loss["steps"] == [0.0, 200.0]
    assert set(loss["views"]) == {"linear", "log"}
    assert loss["curves"][2]["points"][0] == [0.0, 7.62]
    assert [10.0, pytest.approx(train_loss(10), rel=1e-4)] in loss["curves"][0]["points"]


def test_no_log_scale_for_losses_below_zero(tmp_path: Path) -> None:
    events = [{"event": "train", "step": step, "loss": 1.0 - step / 10} for step in range(1, 20)]
    page = page_of(write_run(tmp_path / "run", events, metrics={}))
    assert page.count("input", type="radio") == 0
    assert page.count("figure") == 1


def test_a_loss_that_is_no_number_is_a_gap_and_is_said(tmp_path: Path) -> None:
    losses: list[float | None] = [5.0, 4.0, None, 3.0, 2.0]
    events = [{"event": "train", "step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    page = page_of(write_run(tmp_path / "run", events, metrics={}))
    paths = [a["d"] or "" for t, a in page.tags if t == "path" and a.get("class") == "curve train"]
    assert all(path.count("M") == 2 for path in paths)
    assert paths
    assert "The loss was not a number at 1 logged step(s), first at step 3." in page.text


def test_a_point_without_a_neighbour_is_a_dot(tmp_path: Path) -> None:
    """A line of one point has no length, and neither has a stretch of one between two gaps."""
    losses: list[float | None] = [5.0, 4.0, None, 3.0, None]
    for name, drawn, alone in (("one", [2.5], 1), ("gap", losses, 1), ("none", [2.5, 2.0], 0)):
        events = [{"event": "train", "step": i + 1, "loss": loss} for i, loss in enumerate(drawn)]
        page = page_of(write_run(tmp_path / name, events, metrics={}))
        seen = [a["d"] or "" for t, a in page.tags if t == "path" and a.get("class") == "dots train"]
        assert [path.count("M") for path in seen] == [alone] * (2 if alone else 0)  # a path for each of the two scales


@pytest.mark.parametrize(
    ("best", "aims"),
    [
        ({"step": 150, "metric": "loss", "value": 3.25}, {}),
        ({"step": 150, "loss": 3.25}, {}),
        ({"step": 150, "metric": "reward", "value": 0.5, "loss": None}, {"reward": "max"}),
    ],
)
def test_a_start_that_no_evaluation_beats_is_said(tmp_path: Path, best: dict[str, Any], aims: dict[str, str]) -> None:
    metrics = {"before": {"loss": 3.125, "reward": 0.75}, "after": {"loss": 3.5, "reward": 0.25}}
    best = {**best, "checkpoint": "checkpoints/step-000150"}
    text = page_of(write_run(tmp_path / "run", metrics=metrics, best=best, aims=aims)).text
    told = "reward 0.750 before training, 0.500" if aims else "loss 3.125 before training, 3.250"
    assert f"The start was better: {told} at step 150." in text
    assert "150 checkpoints/step-000150 13.0 MiB 0.2 s on disk the start was better" in text
    assert "best, step" not in text
    assert "★ best" not in text


def test_a_best_that_beats_the_start_is_marked(tmp_path: Path) -> None:
    text = page_of(write_run(tmp_path / "run")).text
    assert "best, step 150" in text
    assert "start was better" not in text


def test_a_killed_run_shows_what_there_is_and_what_is_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for name in ("report.json", "lock.json"):
        (folder / name).unlink()
    whole_text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole_text[: len(whole_text) // 2])
    text = page_of(folder).text
    assert "report.json is missing: the run is still going, or was killed" in text
    assert "lock.json is missing" in text
    assert "the last, is half-written" in text
    assert "reverse-words unfinished unfinished at step" in text
    assert "The report has no final metrics: after is the evaluation at step 100." in text
    assert "As the processes were started; the report has no command." in text


@pytest.mark.parametrize("name", ["config.yaml", "plan.json", "lock.json", "metrics.jsonl", "report.json"])
def test_one_file_alone_is_enough(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    for file in folder.glob("*.*"):
        if file.name != name:
            file.unlink()
    assert page_of(folder).text.count("is missing") == 4


STRANGE: list[Any] = [None, True, "text", -1.5, 1e308, 5e-324, 10**400, [1], {"a": None}]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: repr(value)[:12])
def test_any_field_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: Any) -> None:
    """Every field of every file in turn becomes something unexpected."""
    monkeypatch.setitem(globals(), "CONFIG", "train: {batch_size: 4}\n")  # parsing YAML would take most of the time
    for key in REPORT:
        page_of(write_run(tmp_path / f"report-{key}", [], **{key: strange}))
    kinds = {event["event"]: event for event in run_events(50)}
    for kind, event in kinds.items():
        for key in event:
            changed = [{**event, key: strange} if other == kind else sound for other, sound in kinds.items()]
            page_of(write_run(tmp_path / f"{kind}-{key}", changed))
    for key in PLAN:
        folder = write_run(tmp_path / f"plan-{key}", [])
        (folder / "plan.json").write_text(json.dumps({**PLAN, key: strange}))
        (folder / "lock.json").write_text(json.dumps(strange))
        page_of(folder)


def test_a_folder_without_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run in this folder"):
        write_html(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_html(folder)
    assert (folder / "report.html").read_text() == "old"
    assert not list(folder.glob(".report*"))


def test_a_long_run_stays_light_and_keeps_its_spike(tmp_path: Path) -> None:
    events = [
        {"event": "train", "step": s, "loss": 99.0 if s == 7777 else 3.0, "grad_norm": 1.0} for s in range(1, 20_001)
    ]
    page = page_of(write_run(tmp_path / "run", events))
    assert (tmp_path / "run" / "report.html").stat().st_size < 200_000
    loss = json.loads(next(a["data-plot"] or "" for _, a in page.tags if "data-plot" in a))
    assert [7777.0, 99.0] in loss["curves"][0]["points"]


def test_thinning_keeps_gaps_ends_and_extremes() -> None:
    points: list[tuple[float, float | None]] = [(float(i), math.sin(i / 50)) for i in range(5000)]
    points[1234] = (1234.0, 50.0)
    kept = thinned(points)
    assert len(kept) <= 602
    assert (1234.0, 50.0) in kept
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_smoothing_does_not_lag_behind_a_straight_line() -> None:
    line: list[tuple[float, float | None]] = [(float(i), 10.0 - i) for i in range(200)]
    assert [value for _, value in smoothed(line)] == pytest.approx([value for _, value in line])


@pytest.mark.parametrize(
    ("values", "log"),
    [([2.0, 8.0], False), ([3.0, 3.0], False), ([0.0, 0.0], False), ([-5.0, 2.0], False), ([20.0, 2000.0], True)],
)
def test_scales_hold_their_values_and_round_ticks(values: list[float], log: bool) -> None:
    scale = fitted(values, log=log, from_zero=False)
    assert all(0 <= scale.place(value) <= 1 for value in values)
    assert all(-1e-9 <= scale.place(tick) <= 1 + 1e-9 for tick in scale.ticks(5))
    assert 2 <= len(scale.ticks(5)) <= 8


@pytest.mark.parametrize(
    ("scale", "wanted", "texts"),
    [
        (Scale(0.6935, 0.7021), 3, ["0.695", "0.700"]),
        (Scale(0.6935, 0.7021), 7, ["0.694", "0.696", "0.698", "0.700", "0.702"]),
        (Scale(0, 1), 3, ["0.0", "0.5", "1.0"]),
        (Scale(0, 12_345), 3, ["0", "5,000", "10,000"]),
        (Scale(0, 9.7e-5), 3, ["0", "5e-5"]),
        (Scale(0.693147, 0.6931474), 3, ["0.6931470", "0.6931472", "0.6931474"]),
        (Scale(-0.14, 0), 3, ["-0.10", "-0.05", "0.00"]),
        (Scale(0.003, 12, log=True), 7, ["0.01", "0.1", "1", "10"]),
        (Scale(30, 3000, log=True), 7, ["30", "100", "300", "1,000", "3,000"]),
        (Scale(0, 1e20), 3, ["0", "5e19", "1e20"]),
    ],
)
def test_ticks_have_the_decimals_of_their_distance(scale: Scale, wanted: int, texts: list[str]) -> None:
    assert scale.tick_texts(wanted) == texts
    assert len(scale.ticks(wanted)) == len(texts)


def test_no_two_ticks_of_a_page_read_alike(tmp_path: Path) -> None:
    """A loss that hardly moves, as that of preferences at their low rates."""
    events = [
        {"event": kind, "step": step, "loss": 0.6931 + 0.004 * math.sin(step), "learning_rate": step * 1e-7}
        for step in range(1, 4)
        for kind in ("train", "eval")
    ]
    source = write_html(write_run(tmp_path / "run", events)).read_text(encoding="utf-8")
    axes = re.findall(r'<div class="y".*?</div>', source)
    assert len(axes) >= 2
    for axis in axes:
        for view in ("in-linear", "in-log"):
            shown = re.findall(rf'<span class="{view}"[^>]*>([^<]*)</span>', axis)
            assert len(set(shown)) == len(shown), shown
    steps = re.findall(r"<span[^>]*>([^<]*)</span>", re.findall(r'<div class="x".*?</div>', source)[0])
    assert steps == ["0", "1", "2", "3"]


def test_what_differs_reads_differently_before_and_after(tmp_path: Path) -> None:
    metrics = {"before": {"loss": 0.693147}, "after": {"loss": 0.693101}, "baselines": {"unigram": 0.6931}}
    text = page_of(write_run(tmp_path / "run", metrics=metrics)).text
    assert "validation loss 0.693147 → 0.693101 in 73 s; unigram baseline 0.693100, not reached" in text
    assert "loss 0.693147 0.693101 −4.6e-5 better 0.693100" in text


def test_better_and_worse_are_said_where_the_trainer_knows(tmp_path: Path) -> None:
    values = {"loss": 0.5, "mean_reward": 0.0, "odd": 1.0}
    metrics = {"before": values, "after": {"loss": 0.4, "mean_reward": -2.5, "odd": 0.5}, "baselines": {}}
    text = page_of(write_run(tmp_path / "run", metrics=metrics, aims={"loss": "min", "odd": "max"})).text
    assert "loss 0.500 0.400 −0.100 better" in text
    assert "mean reward 0 -2.500 −2.500 odd" in text
    assert "odd 1 0.500 −0.500 worse" in text


def test_an_early_end_and_the_weights_it_kept_are_said(tmp_path: Path) -> None:
    why = "loss has not improved in 3 evaluations (best 3.0 at step 150)"
    changes = {"ended_by": "early_stopping", "ended_because": why, "weights_step": 150}
    text = page_of(write_run(tmp_path / "run", **changes)).text
    assert f"Stopped: {why}." in text
    assert "ended by early stopping" in text
    assert "weights of step 150" in text
    assert "The model ends with the weights of step 150, and after is what they gave." in text
    assert "weights of" not in page_of(write_run(tmp_path / "last", weights_step=200)).text


def test_charts_have_titles_of_one_kind(tmp_path: Path) -> None:
    names = ("kl", "nll_loss", "rewards/chosen", "token_accuracy")
    events = [{"event": kind, "step": step, "loss": 1.0, **dict.fromkeys(names, 1.0 + step)}
              for step in (1, 2) for kind in ("train", "eval")]  # fmt: skip
    source = write_html(write_run(tmp_path / "run", events)).read_text(encoding="utf-8")
    titles = re.findall(r'<strong class="title">([^<]*)</strong>', source)
    assert titles == ["Loss", "Token accuracy", "Rewards/chosen", "KL", "NLL loss"]
    assert "first-letter" not in STYLE


def test_tokens_of_answers_and_judgements_are_counted_by_their_names(tmp_path: Path) -> None:
    data = {"train_rows": 57, "answer_tokens": 412, "wanted_rows": 19, "unwanted_rows": 38}
    text = page_of(write_run(tmp_path / "run", data=data)).text
    assert "tokens of the answers 412" in text
    assert "wanted answers 19" in text
    assert "unwanted answers 38" in text
    assert "carry loss" not in text


def test_places_on_scales() -> None:
    assert Scale(0, 10).place(2.5) == 0.25
    assert Scale(1, 100, log=True).place(10) == pytest.approx(0.5)


def test_level_lines_close_together_do_not_cover_each_other() -> None:
    curve = Curve("train", [(0.0, 1.0), (1.0, 9.0)], "train")
    figure = Figure("Loss", [curve], Scale(0, 1), levels=(("a", 5.0), ("b", 5.1)), from_zero=False)
    assert [("under" in label) for label in figure.labels(figure.views())] == [False, True]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    channels = (
        [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)] if len(digits) == 6 else [int(c, 16) / 15 for c in digits]
    )
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_light_and_dark() -> None:
    """4.5 to 1 for text and 3 to 1 for lines of a graphic: WCAG 2.2, 1.4.3 and 1.4.11."""
    light, dark = (
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]+)", part)) for part in STYLE.split("@media (prefers")[:2]
    )
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        grounds = {"soft": ("paper", "sheet", "tint", "warn-tint", "good-tint"), "train": ("paper",)}
        grounds |= {name: (f"{name}-tint", "paper") for name in ("good", "bad", "warn", "live")}
        for name, on in grounds.items():
            assert min(contrast(theme[name], theme[ground]) for ground in on) >= 4.5, name
        assert min(contrast(theme[f"split-{i}"], theme["paper"]) for i in range(3)) >= 3


def test_importing_needs_no_third_party_package() -> None:
    code = "import sys, aitrain.report_html; print({'rich', 'yaml', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rewards_come_first_where_answers_were_rewarded(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [
        {"event": "train", "step": step, "loss": 0.1, "reward": step / 9, "reward/length": step / 3,
         "reward/right": 0.0, "kl": 0.1, "learning_rate": 1e-3, "reward_faults": 2, "entropy": 1.0}
        for step in range(1, 10)
    ]  # fmt: skip
    sample = {"prompt": "Say a.", "text": "amber", "expected": None, "correct": None, "reward": 0.25}
    parts = {"length": 0.5, "right": -0.25}
    events.append({"event": "generate", "step": 9, "samples": [{**sample, "rewards": parts}]})
    page = page_of(write_run(tmp_path / "run", events, metrics={}))
    titles = [title.strip() for title in page.shown if title.strip()]
    order = [titles.index(name) for name in ("Reward", "Reward faults", "Reward/length", "Reward/right", "Loss")]
    assert order == sorted(order)
    assert titles.index("Loss") < titles.index("Learning rate")
    assert "reward 0.25 (length 0.50, right -0.25)" in page.text


def test_rows_of_a_class_are_not_said_to_be_a_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", data={"train_rows": 9, "rows_from": "my.py:Env"})
    text = page_of(folder).text
    assert "rows from my.py:Env" in text
    assert "data.path" not in text.partition("Config")[0].partition("Data")[2]
