"""Ten million images on an object store, before and after: ``python -m benchmarks.cluster``.

Requests are counted at an S3 server on loopback, memory is that of a process of its own, and
seconds are derived: requests one after another, times 20 ms each. Nothing here needs a GPU or a
cluster. ``--save FILE`` keeps the figures of a checkout, ``--before FILE`` lays them beside.
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
from benchmarks.cluster.scale import Figures
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
    for column in ("what", "before", "after"):
        table.add_column(column)
    for name in dict.fromkeys([*found, *before]):
        table.add_row(name, *(_shown(side.get(name)) for side in (before, found)))
    Console(width=140).print(table)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
