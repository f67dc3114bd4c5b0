"""`madbal status`: where a run is."""

from __future__ import annotations

import click


@click.command("status")
@click.argument("run")
def command(run: str) -> None:
    """Show round, stage, time left and holder of RUN."""
    from madbal_ray import api

    for line in api.status(run).lines():
        click.echo(line)
