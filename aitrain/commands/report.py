"""`report`: runs below a folder as a table, one run in detail, or the differences between two."""

from __future__ import annotations

from pathlib import Path

from aitrain.errors import ConfigError, DataError, Problem
from aitrain.report import Report, summary
from aitrain.report_html import write_html
from aitrain.report_read import curve_text, diff_runs, diff_table, list_runs, read_run, table


def report(words: list[str]) -> int:
    """`report [FOLDER ...]` or `report diff A B`. Raises DataError for a folder that holds no run."""
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise ConfigError(Problem(flags[0], "unknown flag", "report takes folders, or diff A B"))
    if words[:1] == ["diff"]:
        if len(words) != 3:
            raise ConfigError(Problem("report diff", "compares two runs", "report diff FOLDER FOLDER"))
        print(diff_table(diff_runs(read_run(Path(words[1])), read_run(Path(words[2])))))
        return 0
    folders = [Path(word) for word in words or ["outputs"]]
    if len(folders) == 1 and (folders[0] / "plan.json").is_file():
        return _one(folders[0])
    runs = [run for folder in folders for run in list_runs(folder)]
    if not runs:
        raise DataError(
            Problem("report", f"no run below {', '.join(map(str, folders))}", "name a folder that holds runs")
        )
    print(table(runs))
    return 0


def _one(folder: Path) -> int:
    run = read_run(folder)
    if run.report:
        print(summary(Report(folder, run.report)))
    print(curve_text(run))
    for gap in run.gaps:
        print(gap)
    print(f"page    {write_html(folder)}")
    return 0
