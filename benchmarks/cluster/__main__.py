"""Ten million images on an object store, before and after: ``python -m benchmarks.cluster``.

Requests are counted at an S3 server on loopback, memory is that of a process of its own, and
seconds are derived: requests one after another, times 20 ms each. Nothing here needs a GPU or a
cluster. ``--save FILE`` keeps the figures of a checkout, ``--before FILE`` lays them beside. The
exit code is 1 where a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cluster.memory import allocate, cut, index, markers, sample
from benchmarks.cluster.pipeline import pipeline
from benchmarks.cluster.requests import derive, requests, run_requests
from benchmarks.cluster.scale import SHARDS, Figures
from benchmarks.cluster.small_labels import small_labels

PARTS: dict[str, Callable[[], Figures]] = {
    "requests": requests,
    "run_requests": run_requests,
    "pipeline": pipeline,
    "index": index,
    "sample": sample,
    "allocate": allocate,
    "cut": cut,
    "markers": markers,
    "small_labels": small_labels,
}

AT_MOST: Figures = {
    "driver, a fresh stage of two tables, requests": SHARDS / 500,
    "driver, resuming a stage half done, requests": SHARDS / 500,
    "index of 10^7 images, GiB": 2,
    "K-means: sample of 5 * 10^9 superpixels, GiB": 2,
    "allocation: statistics of all shards, GiB": 2,
    "selection: cuts from the counts of all shards, GiB": 2,
    "driver: markers of 40 stages, GiB": 2,
    "20,000 images, round 0: of them without labels": 0,
    "20,000 images, round 1: of them without labels": 0,
}
AT_LEAST: Figures = {"scoring on local, device busy": 0.8, "scoring on ray, device busy": 0.8}


def main() -> None:
    """Measure every part in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help="for the index; scaled to 10^7")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--before", type=Path, default=Path(__file__).with_name("before.json"))
    options = parser.parse_args()
    if options.part:
        part = PARTS[options.part]
        given = [options.images] if options.part == "index" and options.images else []
        print(json.dumps(part(*given)))
        return
    found: Figures = {}
    for name in options.only:
        more = ["--images", str(options.images)] if options.images else []
        command = [sys.executable, "-m", "benchmarks.cluster", "--part", name, *more]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
        print(f"{name} is done", file=sys.stderr, flush=True)
    if "requests" in options.only:
        found |= derive(found)
    if options.save:
        options.save.write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(options.before.read_text()) if options.before.exists() else {}
    table = Table(title="Ten million images on an object store")
    for column in ("what", "before", "after", "target"):
        table.add_column(column)
    missed = [name for name in found if not _is_met(name, found[name])]
    for name in dict.fromkeys([*found, *before]):
        sides = (_shown(side.get(name)) for side in (before, found))
        table.add_row(name, *sides, _target(name) + (", MISSED" if name in missed else ""))
    Console(width=150).print(table)
    sys.exit(bool(missed))


def _is_met(name: str, value: float) -> bool:
    return AT_LEAST.get(name, value) <= value <= AT_MOST.get(name, value)


def _target(name: str) -> str:
    if name in AT_LEAST:
        return f"≥ {_shown(AT_LEAST[name])}"
    return f"≤ {_shown(AT_MOST[name])}" if name in AT_MOST else ""


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
