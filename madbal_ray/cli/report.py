"""`madbal report`: tables and plots of runs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console


@click.command("report")
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="[default: <first run>/report]")
def command(runs: tuple[str, ...], out: Path | None) -> None:
    """Write table and plot of one or more RUNS."""
    from madbal_ray import api
    from madbal_ray.cli.summary import print_metrics, write_report

    console = Console()
    opened = [api.open_run(run) for run in runs]
    for run in opened:
        print_metrics(console, run)
    for path in write_report(opened, out if out is not None else Path(runs[0]) / "report"):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
