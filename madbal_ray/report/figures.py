"""Charts: curves with intervals, class IoU, shares of what was asked, budgets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from madbal_ray.report.ranks import Ranks
from madbal_ray.report.results import Results

WIDE_RANGE = 10.0
"""Last clicks of the longest curve over those of the shortest from which an axis is logarithmic."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "madbal",
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of runs and classes are text, dollars included
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


def _colors(name: str) -> Sequence[tuple[float, float, float, float]]:
    """Return the colours of a map that lists them."""
    colormap = mpl.colormaps[name]
    return [colormap(index) for index in range(colormap.N)]


COLORS = _colors("tab10")


def ends_apart(ends: Sequence[float]) -> bool:
    """Tell whether curves end so far apart that the short ones need a logarithmic axis."""
    return bool(ends) and max(ends) > WIDE_RANGE * min(ends)


def curve_figure(results: Results, split: str) -> Figure:
    """Draw mean mIoU over clicks per image with bands, and full supervision."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.4), layout="constrained")
        axes = figure.subplots()
        table = results.curve_table(split)
        for index, member in enumerate(results.members):
            rows = table[table["member"] == member]
            color = COLORS[index % len(COLORS)]
            style = "-" if index < len(COLORS) else "--"
            x = rows["clicks_per_image"].to_numpy()
            axes.plot(x, rows["mean"], style, marker="o", ms=4, color=color, label=member)
            if rows["seeds"].max() > 1:
                axes.fill_between(x, rows["low"], rows["high"], color=color, alpha=0.15, lw=0)
        full = list(results.full_supervision(split).values())
        if full:
            axes.axhline(float(np.mean(full)), color="0.3", ls=":", label="every pixel labelled")
        axes.set_xlabel("clicks per pool image")
        axes.set_ylabel(f"mIoU on {split}")
        if ends_apart(table.groupby("member")["clicks_per_image"].max().tolist()):
            axes.set_xscale("log")  # whole images beside single pixels
        else:
            axes.set_xlim(left=0)
        axes.legend(fontsize=8, frameon=False)
    return figure


def minutes_figure(results: Results, split: str) -> Figure:
    """Draw each run's mIoU over the minutes that people spent on its answers."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.4), layout="constrained")
        axes = figure.subplots()
        named: set[str] = set()
        for member, curve in results.minute_curves(split):
            index = results.members.index(member)
            axes.plot(
                curve["minutes"],
                curve["miou"],
                "-" if index < len(COLORS) else "--",
                marker="o",
                ms=4,
                color=COLORS[index % len(COLORS)],
                label="_" if member in named else member,  # a line a seed, one name
            )
            named.add(member)
        axes.set_xlabel("minutes of people, over the whole pool")
        axes.set_ylabel(f"mIoU on {split}")
        axes.set_xlim(left=0)
        axes.legend(fontsize=8, frameon=False)
    return figure


def rank_figure(found: Ranks) -> Figure:
    """Draw mean ranks with bars of half the critical difference: apart where they do not meet."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 0.8 + 0.3 * len(found.mean)), layout="constrained")
        axes = figure.subplots()
        places = range(len(found.mean))
        half = found.critical_difference / 2
        axes.errorbar(
            list(found.mean.values()), places, xerr=half, fmt="o", color=COLORS[0], capsize=3
        )
        axes.set_yticks(places, list(found.mean))
        axes.invert_yaxis()
        axes.set_xlabel("mean rank, 1 is best")
    return figure


def class_iou_figure(results: Results, member: str, split: str) -> Figure:
    """Draw IoU of each class (rows) by clicks per image (columns) as a heat map."""
    table = results.class_iou(member, split).T
    return _heat_map(
        table,
        x_label="clicks per pool image",
        x_ticks=[f"{clicks:g}" for clicks in table.columns],
        title=f"IoU by class, {member}, {split}",
        cell="{:.2f}",
        top=1.0,
    )


def share_figure(table: pd.DataFrame, *, title: str, x_label: str) -> Figure:
    """Draw shares (rows: members, columns: classes or clusters) as a heat map."""
    return _heat_map(
        table,
        x_label=x_label,
        x_ticks=[str(name) for name in table.columns],
        title=title,
        cell="{:.0%}",
        top=max(0.01, float(np.nanmax(table.to_numpy(float)))),
    )


def budget_figure(budgets: pd.DataFrame, member: str) -> Figure:
    """Draw the pixels an image that each cluster gets, by round, as stacked bars.

    Args:
        budgets: rows of table `cluster_budgets` of one run.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.2), layout="constrained")
        axes = figure.subplots()
        wide = budgets.pivot_table(index="round", columns="cluster_id", values="budget")
        bottom = np.zeros(len(wide))
        colors = _colors("tab20")
        for index, cluster in enumerate(wide.columns):
            height = wide[cluster].to_numpy(float)
            axes.bar(
                wide.index.astype(str),
                height,
                bottom=bottom,
                color=colors[index % len(colors)],
                label=str(cluster),
            )
            bottom += height
        axes.set_xlabel("round")
        axes.set_ylabel("pixels per image")
        axes.set_title(f"Budget by cluster, {member}", fontsize=10)
        axes.legend(title="cluster", fontsize=7, ncols=2, frameon=False, loc="center left",
                    bbox_to_anchor=(1.0, 0.5))  # fmt: skip
    return figure


def superpixel_figure(superpixels: pd.DataFrame, column: str, title: str) -> Figure:
    """Draw superpixels in the plane of their features, coloured by a column.

    Args:
        superpixels: `RunInsight.superpixels`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.4), layout="constrained")
        axes = figure.subplots()
        known = superpixels[superpixels[column].notna()]
        axes.scatter(superpixels["x"], superpixels["y"], s=3, color="0.8", rasterized=True)
        points = axes.scatter(
            known["x"],
            known["y"],
            s=6,
            c=known[column].to_numpy(float),
            cmap="YlOrRd" if column == "error" else "tab10",
            rasterized=True,  # thousands of circles would make a large SVG
        )
        figure.colorbar(points, label=column.replace("_", " "))
        axes.set_xlabel("first component")
        axes.set_ylabel("second component")
        axes.set_title(title, fontsize=10)
    return figure


def _heat_map(
    table: pd.DataFrame, *, x_label: str, x_ticks: list[str], title: str, cell: str, top: float
) -> Figure:
    values = table.to_numpy(float)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = 1.2 + 0.26 * values.shape[0]
        width = 2.2 + 0.55 * values.shape[1]
        figure = Figure(figsize=(min(11.0, max(4.0, width)), height), layout="constrained")
        axes = figure.subplots()
        axes.imshow(values, cmap="Blues", vmin=0.0, vmax=top, aspect="auto")
        axes.set_xticks(range(values.shape[1]), x_ticks, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(values.shape[0]), [str(name) for name in table.index], fontsize=8)
        axes.set_xlabel(x_label)
        axes.set_title(title, fontsize=10)
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else cell.format(value)
            dark = value > 0.6 * top
            axes.text(
                column, row, text, ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
    return figure


def as_svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes each time."""
    with mpl.rc_context(STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    svg.write_bytes(as_svg(figure))
    figure.savefig(png, dpi=130)
    return [svg, png]
