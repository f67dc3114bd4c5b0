"""`madbal data check`: a look at somebody's data before anything is run."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group("data")
def command() -> None:
    """Look at data before anything is run."""


@command.command("check")
@click.argument("root")
@click.option("--out", type=click.Path(path_type=Path), help="Write an experiment for this data.")
@click.option("--page", type=click.Path(path_type=Path), help="Write images under their masks.")
@click.option(
    "--most", default=2000, show_default=True, type=click.IntRange(min=1), help="Images looked at."
)
def check(root: str, out: Path | None, page: Path | None, most: int) -> None:
    """Tell what lies below ROOT: layout, sizes, classes, what is missing, damaged or twice.

    Exit code 1 where a simulation could not run on it as it is.
    """
    from madbal_ray import api

    for path in (out, page):
        if path is not None and path.exists():
            raise click.UsageError(f"{path} exists; choose another name, or remove it")
    found = api.check_data(root, most=most)
    for line in found.lines():
        click.echo(line)
    written = api.write_experiment(found, out) if out is not None else []
    if page is not None:
        written.append(api.write_check_page(found, page))
    for path in written:
        click.echo(f"wrote {path}")
    problems = found.problems if out is None else found.lasting_problems
    if out is not None:
        first = "mend what is called a problem above, then" if problems else "next"
        click.echo(f"{first}: madbal run {out}")
    if problems:
        sys.exit(1)


@command.command("from-coco")
@click.argument("annotations", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("root")
@click.option("--rest", metavar="NAME", help="Class of pixels without annotation.  [default: void]")
@click.option(
    "--panoptic",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the PNG files of panoptic ANNOTATIONS.  [default: their name without suffix]",
)
def from_coco(annotations: Path, root: str, rest: str | None, panoptic: Path | None) -> None:
    """Write ROOT/masks and ROOT/classes.yaml from COCO ANNOTATIONS of ROOT/images.

    Instances, stuff and panoptic segments; an image whose annotations cannot be drawn gets no
    mask, and is named. Exit code 1 where none was written.
    """
    from madbal_ray import api

    found = api.masks_from_coco(annotations, root, rest=rest, panoptic=panoptic)
    for line in found.lines():
        click.echo(line)
    if not found.written:
        sys.exit(1)
    click.echo(f"next: madbal data check {root} --out experiment.yaml")
