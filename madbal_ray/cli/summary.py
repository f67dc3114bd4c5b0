"""What a run shows when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from madbal_ray.api import Run
from madbal_ray.report.curves import plot_miou
from madbal_ray.report.page import write_tables


def print_metrics(console: Console, run: Run) -> None:
    """Print one row per round: labels per image and mIoU of every split."""
    metrics = run.metrics()
    splits = sorted(metrics["split"].unique())
    table = Table(title=f"{run.config.name} ({run.config.strategy.name}, seed {run.config.seed})")
    for title in ("round", "labels per image", "% labelled", *(f"mIoU {s}" for s in splits)):
        table.add_column(title, justify="right")
    for round_index, rows in metrics.groupby("round"):
        by_split = rows.set_index("split")
        first = rows.iloc[0]
        table.add_row(
            str(round_index),
            f"{first['labels_per_image']:g}",
            f"{first['percent_labelled']:.3f}",
            *(f"{by_split.loc[split, 'miou']:.4f}" for split in splits),
        )
    console.print(table)
    for line in run.protocol():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def write_report(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write table and plot of some runs; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    protocol = folder / "protocol.txt"
    protocol.write_text(
        "\n\n".join("\n".join([str(r.run_dir), *r.protocol()]) for r in runs) + "\n"
    )
    named = {str(run.run_dir).rsplit("/", 1)[-1]: run.metrics() for run in runs}
    return [protocol, *write_tables(named, folder), plot_miou(named, folder / "miou.png")]
