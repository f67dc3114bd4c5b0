"""`madbal ranks`: members over several suites."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table


@click.command("ranks")
@click.argument("suites", nargs=-1, required=True)
@click.option("--split", default="test", show_default=True, help="What was measured on.")
@click.option("--baseline", help="Member that others are compared with.  [default: the suite's]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tables and a picture.")
def command(suites: tuple[str, ...], split: str, baseline: str | None, out: Path | None) -> None:
    """Rank the members of several SUITES, of different data sets say.

    Every seed of every suite is a block: Friedman's test, Nemenyi's critical difference
    (Demsar 2006). Only members that all of them have are ranked. --out keeps ranks.csv,
    ranks.png and curves.csv; a curves.csv may stand in place of the suites that it is of.
    """
    from madbal_ray import api
    from madbal_ray.report.page_tables import cell

    ranks, rows = api.ranks(suites, split=split, baseline=baseline, out=out, warn=click.echo)
    console = Console(markup=False)
    num_suites = sum(str(column).endswith(": points") for column in rows.columns)
    table = Table(title=f"areas on {split}, {ranks.num_blocks} seeds, suites: {num_suites}")
    for column in rows.columns:
        is_name = column == "member"
        justify = "left" if is_name else "right"
        table.add_column(str(column), justify=justify, no_wrap=is_name, overflow="fold")
    for row in rows.itertuples(index=False):
        table.add_row(*map(cell, row))
    console.print(table)
    click.echo(
        f"Friedman's test that all are alike: p = {ranks.p_value:.3g}; two members differ by more "
        f"than chance (Nemenyi, 5 % over all pairs) from {ranks.critical_difference:.2f} ranks on"
    )
    for group in ranks.groups:
        click.echo(f"not told apart: {', '.join(group)}")
