"""`madbal suite`: strategies x seeds on one axis."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from madbal_ray.cli.options import ENGINES
from madbal_ray.errors import RunDirError


@click.command("suite")
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--folder", help="Folder of the suite.  [default: runs/suites/<name>]")
@click.option("--engine", type=click.Choice(ENGINES), default="ray", show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For all members.")
@click.option("--address", help="Ray cluster.  [default: $RAY_ADDRESS, else a private local one]")
def command(
    suite: Path,
    folder: str | None,
    engine: str,
    overrides: tuple[str, ...],
    address: str | None,
) -> None:
    """Run every strategy and seed of SUITE (YAML) that is not finished, then report.

    Members and comparability are checked before anything runs. Failed runs are listed at
    the end and do not stop the others; the same command tries them again.
    """
    from madbal_ray import api
    from madbal_ray.cli.summary import print_results

    console = Console(markup=False)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    root, failed = api.run_suite(
        suite,
        folder=folder,
        engine="local" if engine == "local" else "ray",
        overrides=overrides,
        address=address,
        say=say,
    )
    for result in failed:
        say(f"failed: {result.task.run.name}: {result.error}")
    try:
        results, written = api.report([root], warn=say)
    except RunDirError as error:  # no run has a finished round
        say(f"no report: {error}")
        sys.exit(1)
    print_results(console, results)
    say(f"wrote {written[0]}, {len(written) - 1} tables and charts beside it")
    if failed:
        say(f"{len(failed)} runs failed, see above; the same command tries them again")
        sys.exit(1)
