"""`madbal status`: where a run is."""

from __future__ import annotations

import click


@click.command("status")
@click.argument("run")
def command(run: str) -> None:
    """Show round, stage, time left and holder of RUN."""
    from madbal_ray.runs.status import read_status
    from madbal_ray.state.run_dir import RunDir

    for line in read_status(RunDir(run)).lines():
        click.echo(line)
