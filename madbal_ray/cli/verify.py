"""`madbal verify`: recompute what a run promises."""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("run")
def command(run: str) -> None:
    """Recompute hashes and ledger of RUN and replay its selection; exit 1 at a mismatch."""
    from madbal_ray.runs.verify import verify_run
    from madbal_ray.state.run_dir import RunDir

    for line in verify_run(RunDir(run)):
        click.echo(line)
    click.echo("verified")
