"""What runs and suites show when they end."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Console
from rich.table import Table

from madbal_ray.api import Run
from madbal_ray.labels.ledger import WAITING, latest_revisions
from madbal_ray.report.conclusions import doubts, verdict
from madbal_ray.report.results import Results
from madbal_ray.state.tables import HALF_WIDTH


def print_metrics(console: Console, run: Run) -> None:
    """Print one row per round: labels per image and mIoU of every split."""
    metrics = run.metrics()
    if metrics.empty:
        labels = latest_revisions(run.table("labels")).to_pandas()
        counts = labels[labels["status"] != WAITING].groupby("round").size()
        said = ", ".join(f"{count} in round {index}" for index, count in counts.items())
        console.print(f"labels: {said}; nothing was measured, for want of masks", soft_wrap=True)
        return
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
    for line in point_lines(run):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in run.protocol():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def point_lines(run: Run) -> Iterator[str]:
    """Yield what the last round measured on points, with intervals."""
    rows = run.point_metrics()
    rows = rows[rows["measure"] != "class_iou"]
    for row in rows[rows["round"] == rows["round"].max()].to_dict("records"):
        name = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}[row["measure"]]
        line = f"{row['split']}, {name}: "
        if pd.isna(row["value"]):
            yield f"{line}no point says anything"
        elif pd.isna(row["low"]):
            yield (
                f"{line}{row['value']:.4f} from {row['num_points']} points; no interval: all "
                "images say the same"
            )
        else:
            yield (
                f"{line}{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}] from "
                f"{row['num_points']} points; about {row['points_needed']:.0f} would give "
                f"+- {HALF_WIDTH}"
            )


def print_results(console: Console, results: Results) -> None:
    """Print one table per split, a row per member, and what may be concluded."""
    wide = console if console.is_terminal else Console(file=console.file, width=110, markup=False)
    for split in results.splits:
        full = list(results.full_supervision(split).values())
        title = f"{split}: last mIoU, area under the curve; mean over seeds [95 % interval]"
        table = Table(title=title, expand=False)
        for column in ("member", "seeds", "clicks / image", "mIoU", "area", "of full"):
            table.add_column(column, justify="left" if column == "member" else "right")
        for row in results.summary_table(split).to_dict("records"):
            table.add_row(
                row["member"],
                str(row["seeds"]),
                *(
                    ("–", "–")  # no round was measured
                    if pd.isna(row["miou"])
                    else (
                        f"{row['clicks_per_image']:g}",
                        f"{row['miou']:.4f} [{row['miou_low']:.4f}, {row['miou_high']:.4f}]",
                    )
                ),
                "–"  # pixels and whole images have no range of clicks in common
                if pd.isna(row["area"])
                else f"{row['area']:.4f} [{row['area_low']:.4f}, {row['area_high']:.4f}]",
                "–" if pd.isna(row["share_of_full"]) else f"{row['share_of_full']:.1%}",
            )
        wide.print(table)
        if full:
            console.print(f"every pixel labelled: {sum(full) / len(full):.4f}", highlight=False)
    split = results.splits[-1]
    for line in doubts(results, split) + verdict(results, split):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_step(console: Console, run: Run, step: str) -> None:
    """Print what a step left behind, and where."""
    if step == "train":
        print_metrics(console, run)
        return
    if step == "prepare":
        images, bad = (run.table(name).num_rows for name in ("images", "quarantine"))
        text = f"{images} images, {bad} quarantined; pool {run.run_dir.pool_folder(run.config)}"
    else:
        found = [i for i in range(run.config.num_rounds) if run.run_dir.find("select", i)]
        round_index = max(found)
        stage = run.stage("select", round_index)
        asked = stage.read_table("queries").num_rows
        text = f"round {round_index}: {asked} queries in {stage.folder.uri}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
