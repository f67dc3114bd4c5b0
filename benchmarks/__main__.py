"""`make bench`: everything, one table, written to ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import draws, kernels, selection, stages
from benchmarks.measure import Row, machine, processors_given

BENCHMARKS: dict[str, Callable[[str], Iterator[Row]]] = {
    "uncertainty": kernels.uncertainty,
    "fused_kernel": kernels.fused_kernel,
    "point_loss": kernels.point_loss,
    "patches": kernels.patches,
    "drawn_pixels": draws.drawn_pixels,
    "selection": selection.selection,
    "scoring": stages.scoring,
    "preparation": stages.preparation,
    "frozen": stages.frozen,
    "overhead": stages.overhead,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
COLUMNS = (
    "what",
    "ours",
    "plain or published way",
    "torch, vectorised and compiled",
    "figure",
    "target",
    "met",
)


def main() -> None:
    """Run all benchmarks, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU on this machine")
    torch.set_num_threads(processors_given())
    rows = []
    for name in options.only:
        started = time.perf_counter()
        for row in BENCHMARKS[name](options.device):
            print(" | ".join(_cells(row)), flush=True)
            rows.append(row)
        print(f"  {name}: {time.perf_counter() - started:.0f} s", flush=True)
    table = Table(title=machine(options.device))
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=150).print(table)
    command = "make bench" if options.device == "cpu" else "make bench-gpu"
    if options.only != list(BENCHMARKS):
        command = f"python -m benchmarks --device {options.device} --only {' '.join(options.only)}"
    _write(rows, command, options.device)


def _cells(row: Row) -> tuple[str, ...]:
    met = "" if row.is_met is None else ("yes" if row.is_met else "no")
    return row.what, row.ours, row.plain, row.compiled, row.figure, row.target or "", met


def _write(rows: list[Row], command: str, device: str) -> None:
    """Replace this command's section of the results."""
    heading = f"## {command}"
    lines = [heading, "", f"{date.today().isoformat()}; {machine(device)}; `{command}`.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    text = RESULTS.read_text() if RESULTS.exists() else "# Benchmarks\n"
    sections = text.split("\n## ")
    kept = [part for part in sections[1:] if not part.startswith(command + "\n")]
    parts = [sections[0].rstrip(), *("## " + part.rstrip() for part in kept), "\n".join(lines)]
    RESULTS.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
