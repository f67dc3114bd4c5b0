"""`madbal annotate`: people answer in a browser."""

from __future__ import annotations

import click

from madbal_ray.cli.options import account_name
from madbal_ray.errors import ResourceError


@click.command("annotate")
@click.argument("run")
@click.option(
    "--annotator",
    "annotators",
    multiple=True,
    metavar="NAME",
    help="Who answers; a link is printed for each.  [default: you]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Of 127.0.0.1.  [default: 8470]")
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1),
    help="Share of pixels that a second annotator is asked, too.  [default: 0.08]",
)
@click.option(
    "--correct",
    "corrects",
    is_flag=True,
    help="Show what the network takes the pixel for; Enter accepts it.",
)
@click.option(
    "--blind",
    type=click.FloatRange(0, 1),
    help="With --correct: share of pixels that are asked without showing it.  [default: 0.1]",
)
def command(
    run: str,
    annotators: tuple[str, ...],
    port: int | None,
    overlap: float | None,
    corrects: bool,
    blind: float | None,
) -> None:
    """Open the labelling page of RUN on this machine: one link for each annotator."""
    if blind is not None and not corrects:
        raise click.UsageError("--blind goes with --correct: without it nobody sees a prediction")
    try:
        from madbal_ray.annotate.correction import BLIND
        from madbal_ray.annotate.listen import PORT
        from madbal_ray.annotate.serve import serve
        from madbal_ray.annotate.work_queue import OVERLAP
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ResourceError(
            f"{error.name} is not installed; pip install 'madbal_ray[annotate]'"
        ) from None
    serve(
        run,
        annotators=annotators or (account_name(),),
        port=PORT if port is None else port,
        overlap=OVERLAP if overlap is None else overlap,
        blind=None if not corrects else BLIND if blind is None else blind,
        say=click.echo,
    )
