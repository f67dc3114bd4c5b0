"""`madbal presets`: the experiments that this package brings."""

from __future__ import annotations

import click


@click.command("presets")
def command() -> None:
    """List the experiments and suites that can be given by name."""
    from madbal_ray import api

    rows = [(name, about) for name, about in api.presets().items()]
    width = max(len(name) for name, _ in rows)
    for name, about in rows:
        click.echo(f"{name:<{width}}  {about}")
    click.echo(
        "\nmadbal run quickstart, madbal suite suites/paper-camvid; a file of that name goes first"
    )
