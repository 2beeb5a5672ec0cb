#!/usr/bin/env python3
"""Rows a second and peak memory of preparing data, at 10^4, 10^5 and 10^6 rows; the second time from the cache.

    python scripts/bench_data.py [--sizes 10000 100000]

Each measurement is a process of its own that tokenises a JSONL file as a run does, without training. Prints one JSON
line a size. Rows are short (about 25 words); a byte of memory that grows with the rows would show between the sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import json, resource, sys, time
from aitrain.compose import Request
from aitrain.start import check, prepare_rows
began = time.process_time(), time.perf_counter()
checked = check(Request((f"data.path={sys.argv[1]}", "data.truncation=right", "hardware=cpu")))
looked = time.perf_counter() - began[1]
done = prepare_rows(checked)
wall = time.perf_counter() - began[1]
print(json.dumps({"rows": done.rows.train + done.rows.valid, "check_s": looked, "wall_s": wall,
                  "cpu_s": time.process_time() - began[0],
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def write_rows(path: Path, rows: int) -> None:
    """Prompts and answers of seeded pseudo-words."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghijklmnoprstuw", k=generator.randint(2, 9))) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt = " ".join(generator.choices(words, k=generator.randint(4, 16)))
            answer = " ".join(generator.choices(words, k=generator.randint(4, 24)))
            file.write(json.dumps({"prompt": f"{number} {prompt}", "completion": answer}) + "\n")


def measure(path: Path, cache: Path) -> dict[str, float]:
    """One process; the cache folder is its own, so that the first time is a first time."""
    environment = {**os.environ, "AITRAIN_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm.jsonl"
        write_rows(warm, 100)
        cache = Path(folder) / "cache"
        measure(warm, cache)  # makes the sample tokenizer, which is no part of what is measured
        for size in options.sizes:
            path = Path(folder) / f"{size}.jsonl"
            write_rows(path, size)
            first, second = measure(path, cache), measure(path, cache)
            result = {
                "rows": size,
                "mb": path.stat().st_size / 1e6,
                "first_rows_s": size / first["wall_s"],
                "first_rows_cpu_s": size / first["cpu_s"],
                "second_s": second["wall_s"],
                "check_s": second["check_s"],
                "first_peak_mb": first["peak_mb"],
                "second_peak_mb": second["peak_mb"],
            }
            print(json.dumps({name: round(value, 2) for name, value in result.items()}), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
