"""`madbal tune`: search phase II's settings by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

SHOWN = 10


@click.command("tune")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--space", required=True, type=click.Path(path_type=Path), help="Keys and ranges.")
@click.option("--num-samples", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--folds", default=3, show_default=True, type=click.IntRange(min=2))
@click.option(
    "--algorithm", type=click.Choice(("random", "optuna")), default="random", show_default=True
)
@click.option("--asha", is_flag=True, help="Give up early on trials that are behind.")
@click.option(
    "--objective",
    type=click.Choice(("precision", "miou")),
    default="precision",
    show_default=True,
    help="Finding wrong pixels, or mIoU after one more round (trains phase I for every trial).",
)
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/tune/<name>]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one option.")
@click.option("--address", help="Ray cluster.  [default: $RAY_ADDRESS, else a private local one]")
def command(
    config: Path,
    space: Path,
    num_samples: int,
    folds: int,
    algorithm: str,
    asha: bool,
    objective: str,
    out: Path | None,
    overrides: tuple[str, ...],
    address: str | None,
) -> None:
    """Search settings of phase II (the lambdas of Eq. 3) for CONFIG.

    Cross-validation on the initial labelled pool: phase I is trained once per fold and
    shared; a trial is judged by how well u(x) and the loss prediction find held-out labelled
    pixels that the network gets wrong. The same command carries on.
    """
    from madbal_ray import api

    console = Console(markup=False)
    rows, written = api.tune(
        config,
        space=space,
        num_samples=num_samples,
        folds=folds,
        algorithm="optuna" if algorithm == "optuna" else "random",
        use_asha=asha,
        objective="miou" if objective == "miou" else "precision",
        out=out,
        overrides=overrides,
        address=address,
        say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
    )
    _print(console, rows)
    for path in written:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{len(rows)} trials, best first")
    for name in rows[0]:
        table.add_column(name.removeprefix("train.phase2."), justify="right")
    for row in rows[:SHOWN]:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*cells)
    wide = console if console.is_terminal else Console(file=console.file, width=160, markup=False)
    wide.print(table)
