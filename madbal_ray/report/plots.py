"""Charts that a reader can touch: descriptions that plotly.js draws in the page.

`figures` draws the same numbers as files. A description is Plotly's own: ``data`` (traces) and
``layout``; colours of text and grid are the page's, which knows light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.colors import to_hex

from madbal_ray.report import figures
from madbal_ray.report.ranks import Ranks
from madbal_ray.report.results import Results

Plot = dict[str, Any]

COLORS = tuple(to_hex(color) for color in figures.COLORS)
"""Of series, in order."""

DASHES = ("solid", "dash", "dot")
"""Of the first ten series, of the next ten, and so on."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        x, y: points; NaN in `y`: a gap.
        low, high: interval of `y`; None: not drawn.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def lines(
    series: Iterable[Series], *, x_label: str, y_label: str, level: tuple[str, float] | None = None
) -> Plot:
    """Draw lines with markers and bands.

    Args:
        level: name and height of a dotted line across.
    """
    shown = list(series)
    traces: list[Plot] = []
    for index, one in enumerate(shown):
        color, group = COLORS[index % len(COLORS)], f"series {index}"
        if one.low is not None and one.high is not None:
            traces.append(
                {
                    "x": [*one.x, *reversed(one.x)],
                    "y": [*_numbers(one.high), *reversed(_numbers(one.low))],
                    "fill": "toself",
                    "fillcolor": color + "26",
                    "line": {"width": 0},
                    "mode": "lines",
                    "hoverinfo": "skip",
                    "showlegend": False,
                    "legendgroup": group,
                }
            )
        traces.append(
            {
                "name": as_text(one.name),
                "x": list(one.x),
                "y": _numbers(one.y),
                "customdata": list(
                    zip(_numbers(one.low or one.y), _numbers(one.high or one.y), strict=True)
                ),
                "mode": "lines+markers",
                "line": {"color": color, "dash": DASHES[index // len(COLORS) % len(DASHES)]},
                "legendgroup": group,
                "hovertemplate": "%{y:.4f}"
                + (" [%{customdata[0]:.4f}, %{customdata[1]:.4f}]" if one.low else ""),
            }
        )
    values = [x for one in shown for x in one.x]
    axis: Plot = {"title": {"text": as_text(x_label)}, "rangemode": "tozero"}
    ends = [max(one.x) for one in shown if one.x]
    if values and min(values) > 0 and figures.ends_apart(ends):
        axis = {"title": {"text": as_text(x_label)}, "type": "log"}  # whole images beside pixels
    if level is not None and values:
        traces.append(
            {
                "name": as_text(level[0]),
                "x": [min(values), max(values)],
                "y": [level[1]] * 2,
                "mode": "lines",
                "line": {"color": "#7f7f7f", "dash": "dot"},
                "hovertemplate": "%{y:.4f}",
            }
        )
    layout = {"xaxis": axis, "yaxis": {"title": {"text": as_text(y_label)}}, "hovermode": "x"}
    return {"data": traces, "layout": layout}


def bars(table: pd.DataFrame, *, x_label: str, y_label: str, is_stacked: bool = False) -> Plot:
    """Draw a bar for each cell: rows are series, columns places on the axis."""
    digits = ":.1%" if not is_stacked else ":.3g"
    traces = [
        {
            "type": "bar",
            "name": as_text(name),
            "x": [as_text(column) for column in table.columns],
            "y": _numbers(row),
            "marker": {"color": COLORS[index % len(COLORS)], "opacity": 1 - 0.4 * (index >= 10)},
            "hovertemplate": "%{x}: %{y" + digits + "}",
        }
        for index, (name, row) in enumerate(zip(table.index, table.to_numpy(float), strict=True))
    ]
    layout = {
        "barmode": "stack" if is_stacked else "group",
        "xaxis": {"title": {"text": as_text(x_label)}, "type": "category"},
        "yaxis": {"title": {"text": as_text(y_label)}, "tickformat": "" if is_stacked else ".0%"},
    }
    return {"data": traces, "layout": layout}


def curves(results: Results, split: str) -> Plot:
    """Draw mean mIoU over clicks per image with bands, and full supervision."""
    table = results.curve_table(split)
    full = list(results.full_supervision(split).values())
    series = []
    for member in results.members:
        rows = table[table["member"] == member]
        has_band = bool(len(rows)) and rows["seeds"].max() > 1
        series.append(
            Series(
                member,
                rows["clicks_per_image"].tolist(),
                rows["mean"].tolist(),
                rows["low"].tolist() if has_band else None,
                rows["high"].tolist() if has_band else None,
            )
        )
    return lines(
        series,
        x_label="clicks per pool image",
        y_label=f"mIoU on {split}",
        level=("every pixel labelled", sum(full) / len(full)) if full else None,
    )


def minutes(curves: Iterable[tuple[str, pd.DataFrame]], split: str) -> Plot:
    """Draw mIoU over the minutes that people spent, a line a run.

    Args:
        curves: as `Results.minute_curves` returns them.
    """
    return lines(
        (Series(name, rows["minutes"].tolist(), rows["miou"].tolist()) for name, rows in curves),
        x_label="minutes of people, over the whole pool",
        y_label=f"mIoU on {split}",
    )


def ranks(found: Ranks) -> Plot:
    """Draw mean ranks with bars of half the critical difference: apart where they do not meet."""
    half = found.critical_difference / 2
    trace = {
        "x": _numbers(found.mean.values()),
        "y": [as_text(name) for name in found.mean],
        "mode": "markers",
        "marker": {"color": COLORS[0], "size": 9},
        "error_x": {"type": "constant", "value": half, "color": COLORS[0]},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
        "showlegend": False,
    }
    layout = {
        "xaxis": {"title": {"text": "mean rank, 1 is best"}},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        "hovermode": "closest",
    }
    return {"data": [trace], "layout": layout}


def class_curves(table: pd.DataFrame, split: str) -> Plot:
    """Draw IoU of each class over clicks per image.

    Args:
        table: as `Results.class_iou` returns it.
    """
    clicks = [float(value) for value in table.index]
    return lines(
        (Series(str(name), clicks, table[name].tolist()) for name in table.columns),
        x_label="clicks per pool image",
        y_label=f"IoU on {split}",
    )


def budgets(table: pd.DataFrame) -> Plot:
    """Draw the pixels an image that each cluster gets, by round, as stacked bars.

    Args:
        table: rows of table `cluster_budgets` of one run.
    """
    wide = table.pivot_table(index="cluster_id", columns="round", values="budget").fillna(0.0)
    wide.index = pd.Index([f"cluster {cluster}" for cluster in wide.index])
    return bars(wide, x_label="round", y_label="pixels per image", is_stacked=True)


def superpixels(table: pd.DataFrame, column: str) -> Plot:
    """Draw superpixels in the plane of their features.

    Args:
        table: `RunInsight.superpixels`.
        column: that colours them: ``cluster_id``, ``asked_in_round`` or ``error``.
    """
    traces: list[Plot] = []
    if column == "error":
        known = table[table["error"].notna()]
        shade = {
            "color": _numbers(known["error"]),
            "colorscale": "YlOrRd",
            "reversescale": True,  # dark = wrong, as `figures` draws it
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"title": {"text": "wrong pixels"}, "tickformat": ".0%", "thickness": 12},
        }
        traces.append(_dots(known, "superpixels", {**shade, "size": 5, "line": {"width": 0}}))
        return {"data": traces, "layout": dict(MAP_LAYOUT)}
    groups = table.assign(**{column: table[column].fillna(-1).astype(int)}).groupby(column)
    for index, (value, rows) in enumerate(groups):
        name = f"cluster {value}" if column == "cluster_id" else f"round {value}"
        color, size = COLORS[index % len(COLORS)], 5
        if value == -1:
            name, color, size = "not asked", "#9aa0a8", 3
        traces.append(_dots(rows, name, {"color": color, "size": size}))
    return {"data": traces, "layout": dict(MAP_LAYOUT)}


MAP_LAYOUT: Plot = {
    "xaxis": {"title": {"text": "first component"}, "zeroline": False},
    "yaxis": {"title": {"text": "second component"}, "zeroline": False},
    "hovermode": "closest",
}


def _dots(rows: pd.DataFrame, name: str, marker: Plot) -> Plot:
    places = zip(rows["image_id"], rows["superpixel_id"], rows["cluster_id"], strict=True)
    return {
        "name": name,
        "mode": "markers",
        "x": [round(float(value), 3) for value in rows["x"]],
        "y": [round(float(value), 3) for value in rows["y"]],
        "text": [f"{as_text(image)}, superpixel {one}, cluster {k}" for image, one, k in places],
        "hovertemplate": "%{text}",
        "marker": marker,
    }


def as_text(name: object) -> str:
    """Return a name that Plotly shows as it is: it takes some markup for its own."""
    return html.escape(str(name), quote=False)


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Return numbers as JSON knows them: NaN is none."""
    return [None if math.isnan(value) else round(float(value), 6) for value in values]
