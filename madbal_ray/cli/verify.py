"""`madbal verify`: recompute what a run promises."""

from __future__ import annotations

import click


@click.command("verify")
@click.argument("run")
@click.option("--deep", is_flag=True, help="Run the networks again, over a sample of the images.")
@click.option("--key-file", metavar="FILE", help="Key that `madbal run --key-file` signed with.")
def command(run: str, deep: bool, key_file: str | None) -> None:
    """Recompute hashes, keys, ledger, queries and metrics of RUN; exit 1 at a mismatch."""
    from madbal_ray import api

    for line in api.verify(run, deep=deep, key_file=key_file):
        click.echo(line)
