"""`madbal report`: one page, tables and charts of runs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console


@click.command("report")
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="[default: <first folder>/report]")
@click.option("--baseline", help="Member that others are compared with.  [default: the suite's]")
def command(runs: tuple[str, ...], out: Path | None, baseline: str | None) -> None:
    """Write one self-contained page, CSV tables and charts of RUNS or suites.

    Runs that differ in seed only are averaged. Runs of different data sets or protocols
    are refused.
    """
    from madbal_ray import api
    from madbal_ray.cli.summary import print_results

    console = Console(markup=False)

    def warn(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    results, written = api.report(runs, out=out, baseline=baseline, warn=warn)
    print_results(console, results)
    console.print(
        f"wrote {written[0]}, {len(written) - 1} tables and charts beside it",
        highlight=False,
        soft_wrap=True,
    )
