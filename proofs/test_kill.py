"""Proof that a run killed at any moment and continued is the run that was not, to the last bit.

    make proofs                                       # all of them
    python -m pytest proofs/test_kill.py -s           # with the numbers on the terminal
    AITRAIN_PROOF_SEED=7 python -m pytest proofs/test_kill.py -s    # at other moments

Each case is killed with SIGKILL at 20 random moments, from the first line of Python to the last checkpoint, and
continued each time; a run that comes to its end before that is followed by another. After every kill each published
checkpoint must be whole; at the end metrics, report and weights must equal the uninterrupted run's.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dying import start
from runs import assert_same_run, events, report, run, words

from aitrain.rundir import checkpoints

KILLS = 20
SEED = int(os.environ.get("AITRAIN_PROOF_SEED", "0"))
LONG = {"train__max_steps": 120, "train__batch_size": 4, "train__gradient_accumulation": 2, "train__save_steps": 4,
        "train__eval_steps": 20, "train__save_total_limit": 2}  # fmt: skip
LORA = {**LONG, "peft": "lora", "peft.r": 4, "peft.dropout": 0.2}
CASES: dict[str, dict[str, Any]] = {
    "qwen3": {**LONG, "model__path": "sample:tiny-qwen3"},
    "mistral": {**LONG, "model__path": "sample:tiny-mistral"},
    "gemma2 with lora": {**LORA, "model__path": "sample:tiny-gemma2"},
    "llama from a stream": {
        **LORA, "model__path": "sample:tiny-llama", "data__streaming": True, "data__shuffle_buffer": 9,
        "train__eval_steps": None,
    },
}  # fmt: skip


class Count:
    """What the kills met."""

    def __init__(self) -> None:
        self.kills = self.in_save = self.before_training = self.runs = 0
        self.lost = 0
        """Most steps that a kill cost."""

    def take(self, folder: Path) -> None:
        self.kills += 1
        self.in_save += any((folder / "checkpoints").glob(".*"))
        found = checkpoints.existing(folder)
        for checkpoint in found:
            assert checkpoints.fault(checkpoint.path) is None
        steps = [event["step"] for event in events(folder, "train")]
        self.before_training += not steps
        if steps:
            self.lost = max(self.lost, steps[-1] - (found[-1].step if found else 0))


def assert_done_alike(folder: Path, whole: Path) -> None:
    assert_same_run(folder, whole)
    ours, wanted = report(folder), report(whole)
    for key in ("status", "steps", "epochs", "ended_by", "metrics", "parameters"):
        assert ours[key] == wanted[key], key


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_moments(tmp_path: Path, case: str) -> None:
    changes, draw, count = CASES[case], random.Random(f"{SEED} {case}"), Count()
    began = time.monotonic()
    run(tmp_path / "whole", **changes)
    pace = time.monotonic() - began
    while count.kills < KILLS:
        folder = tmp_path / f"r{count.runs}"
        while count.kills < KILLS:
            process = start(words(folder, run__resume="auto", **changes))
            process.join(draw.uniform(0.05, pace * 0.6))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            count.take(folder)
        run(folder, run__resume="auto", **changes)
        assert_done_alike(folder, tmp_path / "whole")
        shutil.rmtree(folder)
        count.runs += 1
    print(f"\n{case}: seed {SEED}, {vars(count)}")


@pytest.mark.timeout(1200)
def test_two_processes_killed_at_random_moments(tmp_path: Path) -> None:
    """The launcher is killed; its workers must be gone 3 s later, and the run continues."""
    from test_processes import processes_of, until

    draw, count = random.Random(f"{SEED} two"), Count()
    changes = {**LORA, "hardware": "cpu_x2", "train__batch_size": 2}
    run(tmp_path / "whole", **changes)
    folder = tmp_path / "r"
    for _ in range(5):
        command = [sys.executable, "-m", "aitrain", *words(folder, run__resume="auto", **changes)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = len(events(folder, "train"))
        until(lambda p=process, n=seen: p.poll() is not None or len(events(folder, "train")) > n, 120, "a step")  # type: ignore[misc]
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not processes_of(folder), 3, "an end of every process")
        count.take(folder)
    run(folder, run__resume="auto", **changes)
    assert_done_alike(folder, tmp_path / "whole")
    print(f"\ntwo processes: seed {SEED}, {vars(count)}")
