"""`madbal requests`: queries out to other tools, answers back."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from madbal_ray.cli.options import account_name


@click.group("requests")
def command() -> None:
    """Hand the pixels that wait for people to other tools, and take the answers."""


@command.command("export")
@click.argument("run")
@click.option("--format", "form", default="csv", show_default=True, help="Of the file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--all", "with_answered", is_flag=True, help="Answered pixels too, with answers.")
@click.option("--overwrite", is_flag=True, help="Write over FILE where it exists.")
def export(run: str, form: str, out: Path, with_answered: bool, overwrite: bool) -> None:
    """Write the pixels of RUN that wait for an answer."""
    from madbal_ray import api

    count = api.export_requests(
        run, form=form, out=out, with_answered=with_answered, overwrite=overwrite
    )
    click.echo(f"wrote {out}: {count} pixels{'' if with_answered else ' that wait'}")


@command.command("import")
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", default="csv", show_default=True, help="Of the file.")
@click.option("--annotator", help="Who answered, where the file does not say.  [default: you]")
def import_(run: str, file: Path, form: str, annotator: str | None) -> None:
    """Take the answers of FILE for RUN; what an annotator said already is not added again.

    Of two files that differ the later one counts, also where it is the older file once more. An
    answer that does not fit its pixel is refused with its row, the rest is taken; exit code 1
    tells that some were refused.
    """
    from madbal_ray import api

    who = account_name() if annotator is None else annotator
    report = api.import_requests(run, file, form=form, annotator=who)
    counts, *refused = report.lines()
    if annotator is None and report.unnamed:
        counts += (
            f"; the file names nobody for {report.unnamed} of them: --annotator NAME where several "
            "people answered"
        )
    for line in (counts, *refused):
        click.echo(line)
    if report.refused:
        sys.exit(1)
