"""`madbal verify`: recompute what a run promises."""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("run")
def command(run: str) -> None:
    """Recompute hashes and ledger of RUN and replay its selection; exit 1 at a mismatch."""
    from madbal_ray import api

    for line in api.verify(run):
        click.echo(line)
    click.echo("verified")
