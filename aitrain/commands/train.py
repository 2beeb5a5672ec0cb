"""`train`: one run, or with `-m` one for each combination of values, each in a process of its own."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

from aitrain.commands.words import Words, read_words
from aitrain.compose import Request, compose, expand, hydra_main, sweep_folder, swept_keys, words_about
from aitrain.report import summary
from aitrain.start import check_jobs, start
from aitrain.validate import validate


def train(words: list[str]) -> int:
    """Run what the words ask for. Raises Refused, Stopped or TrainingFailed."""
    read = read_words(words)
    if any(flag.partition("=")[0] in ("--cfg", "-c") for flag in read.hydra_flags):
        validate(compose(read.request))
    if read.hydra_flags:
        hydra_main(read.request, (*read.hydra_flags, *(["-m"] if read.multirun else [])), _nothing)
        return 0
    if read.multirun:
        return _multirun(read, words)
    report = start(read.request, command=command_of(words))
    if report.found:
        print(f"already finished: {report.folder}")
    print(summary(report))
    return 0


def command_of(words: list[str]) -> str:
    """The command as it would be typed again."""
    return shlex.join(["python", "-m", "aitrain", *words])


def _nothing(folder: Path, request: Request) -> None:
    """Flags like `--cfg` print and start no job."""


def _multirun(read: Words, words: list[str]) -> int:
    """Validate every job, then run them all; a job that fails lets the others go on. Returns the worst exit code."""
    jobs = expand(read.request)
    check_jobs(jobs)
    folder = sweep_folder(read.request)
    print(f"{len(jobs)} runs in {folder}", flush=True)
    job = partial(_job, command=command_of(words), swept=swept_keys(jobs))
    hydra_main(read.request, ["-m"], job, sweep_dir=folder)
    return _finish(folder, jobs)


def _job(folder: Path, request: Request, *, command: str, swept: frozenset[str]) -> int:
    from aitrain.launch import run_in_fresh_process

    print(f"run {folder.name} of the multirun: {words_about(swept, request)}", flush=True)
    return run_in_fresh_process(request, command, folder)


def _finish(folder: Path, jobs: list[Request]) -> int:
    from aitrain.launch import read_exit_codes
    from aitrain.report_read import list_runs, table

    print(table(list_runs(folder)))
    codes = read_exit_codes(folder)
    missing = len(jobs) - len(codes)
    if missing:
        print(f"{missing} of {len(jobs)} runs were not started", file=sys.stderr)
    return max([*codes.values(), 1 if missing else 0])
