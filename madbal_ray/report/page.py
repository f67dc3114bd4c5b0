"""One self-contained HTML page, its tables as CSV and its charts as SVG and PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from madbal_ray.report import figures, pictures
from madbal_ray.report.pictures import ClusterGallery, RunInsight
from madbal_ray.report.results import Results
from madbal_ray.report.spreadsheet import csv_bytes
from madbal_ray.state.storage import Folder
from madbal_ray.state.tables import HALF_WIDTH


@dataclass(frozen=True)
class Chart:
    """A figure on the page."""

    name: str
    source: str
    alt: str


def write_report(
    results: Results,
    insights: Mapping[str, RunInsight],
    galleries: Sequence[ClusterGallery],
    folder: Path,
    *,
    title: str,
) -> list[Path]:
    """Write ``index.html``, ``*.csv`` and ``figures/``.

    Args:
        insights: member -> what its first seed's network saw.
        galleries: superpixels of every cluster of the pool.

    Returns:
        The files that were written, the page first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(results, folder)
    context = writer.context(insights, galleries) | {"title": title}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("madbal_ray.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(context)
    Folder(folder).write("index.html", page.encode())
    return [folder / "index.html", *writer.written]


class _Writer:
    def __init__(self, results: Results, folder: Path) -> None:
        self.results, self.folder = results, folder
        self.written: list[Path] = []

    def context(
        self, insights: Mapping[str, RunInsight], galleries: Sequence[ClusterGallery]
    ) -> dict[str, Any]:
        """Return what the template shows; write tables and charts on the way."""
        results = self.results
        headline = results.splits[-1]
        full = list(results.full_supervision(headline).values())
        metrics = pd.concat(
            [_flat(run.metrics).assign(member=run.member, seed=run.seed) for run in results.runs]
        )
        self._csv("metrics", metrics)
        return {
            "headline": headline,
            "full": sum(full) / len(full) if full else None,
            "verdict": results.verdict(headline),
            "num_runs": len(results.runs),
            "members": results.members,
            "summaries": {
                split: self._table(f"summary_{split}", results.summary_table(split))
                for split in reversed(results.splits)
            },
            "points": {
                split: self._table(f"curve_{split}", results.curve_table(split))
                for split in reversed(results.splits)
            },
            "curves": [
                self._chart(f"curve_{split}", figures.curve_figure(results, split))
                for split in reversed(results.splits)
            ],
            "minutes": self._minute_charts(),
            "estimates": self._table("point_metrics", _estimates_table(results)),
            "comparison": self._table("comparison", _comparison_table(results, headline)),
            "wins": self._table("wins", results.wins(headline).rename_axis("member").reset_index())
            if len(results.members) > 1
            else None,
            "class_iou": [
                self._chart(
                    f"class_iou_{_slug(member)}",
                    figures.class_iou_figure(results, member, headline),
                )
                for member in results.members
            ],
            "asked": self._asked_charts(),
            "budgets": self._budget_charts(),
            "detection": self._table("error_detection", _detection_table(insights)),
            "heads": self._table("head_accuracy", _head_table(insights)),
            "insights": self._pictures(insights),
            "galleries": [
                (gallery.cluster_id, pictures.gallery_row(gallery)) for gallery in galleries
            ],
            "palette": self._palette(),
            "ledger": self._table("ledger", results.ledger()),
            "costs": self._table("stage_costs", results.stage_costs()),
            "protocols": _protocols(results),
            "versions": results.runs[0].versions,
        }

    def _csv(self, name: str, table: pd.DataFrame) -> None:
        path = self.folder / f"{_slug(name)}.csv"
        Folder(self.folder).write(path.name, csv_bytes(table))
        self.written.append(path)

    def _table(self, name: str, table: pd.DataFrame) -> dict[str, Any] | None:
        """Return columns and rows as text; None for an empty table."""
        if not len(table):
            return None
        self._csv(name, table)
        return {
            "name": name,
            "columns": [str(column).replace("_", " ") for column in table.columns],
            "rows": [[_cell(value) for value in row] for row in table.itertuples(index=False)],
        }

    def _chart(self, name: str, figure: Figure) -> Chart:
        self.written += figures.save_figure(figure, self.folder / "figures", name)
        return Chart(
            name, pictures.data_uri(figures.as_svg(figure), "svg+xml"), name.replace("_", " ")
        )

    def _minute_charts(self) -> list[Chart]:
        charts = []
        for split in reversed(self.results.splits):
            curves = self.results.minute_curves(split)
            if not curves:
                continue
            table = pd.concat([curve.assign(member=member) for member, curve in curves])
            self._csv(f"minutes_{split}", table[["member", "round", "minutes", "miou"]])
            figure = figures.minutes_figure(self.results, split)
            charts.append(self._chart(f"minutes_{split}", figure))
        return charts

    def _asked_charts(self) -> list[Chart]:
        charts = []
        classes = self.results.asked_class_shares()
        if not len(classes):
            return charts
        charts.append(
            self._chart(
                "asked_classes",
                figures.share_figure(
                    classes, title="Classes of the pixels that were asked", x_label="true class"
                ),
            )
        )
        self._csv("asked_classes", classes.rename_axis("member").reset_index())
        clusters = self.results.asked_cluster_shares()
        if clusters.size:
            figure = figures.share_figure(
                clusters, title="Clusters of the pixels that were asked", x_label="cluster"
            )
            charts.append(self._chart("asked_clusters", figure))
            self._csv("asked_clusters", clusters.rename_axis("member").reset_index())
        return charts

    def _budget_charts(self) -> list[Chart]:
        charts = []
        for member in self.results.members:
            budgets = self.results.of(member)[0].cluster_budgets
            if len(budgets):
                figure = figures.budget_figure(budgets, member)
                charts.append(self._chart(f"budgets_{_slug(member)}", figure))
        return charts

    def _pictures(self, insights: Mapping[str, RunInsight]) -> list[dict[str, Any]]:
        colors = self.results.colors
        shown = []
        for member, insight in insights.items():
            rows = []
            for picture in insight.pictures:
                panels = [
                    (f"asked: {len(picture.y)} pixels", pictures.query_image(picture)),
                    ("prediction", pictures.class_map(picture.prediction, colors)),
                    (f"uncertainty: {picture.score_name}", pictures.score_map(picture.score)),
                ]
                if picture.truth is not None:
                    panels.append(("ground truth", pictures.class_map(picture.truth, colors)))
                rows.append({"image_id": picture.image_id, "panels": panels})
            shown.append({"member": member, "round": insight.round_index, "rows": rows})
        return shown

    def _palette(self) -> list[tuple[str, str]]:
        """Return name and colour (as in CSS) of every class and of void."""
        names = (*self.results.class_names, "void")
        colors = pictures.class_palette(self.results.colors)
        return [
            (name, "#{:02x}{:02x}{:02x}".format(*color))
            for name, color in zip(names, colors.tolist(), strict=True)
        ]


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Give every class its own column."""
    classes = pd.DataFrame(table["class_iou"].tolist(), index=table.index)
    classes.columns = [f"iou_class_{index}" for index in classes.columns]
    return pd.concat([table.drop(columns="class_iou"), classes], axis=1)


def _estimates_table(results: Results) -> pd.DataFrame:
    """Return what the last round of every run measured on points, with intervals."""
    rows = []
    for run in results.runs:
        for row in _last_round(run.point_metrics):
            name = row["measure"].replace("_", " ")
            if row["measure"] == "class_iou":
                name = f"IoU {run.class_names[int(row['class_id'])]}"
            rows.append(
                {
                    "member": run.member,
                    "seed": run.seed,
                    "split": row["split"],
                    "measure": {"miou": "mIoU"}.get(name, name),
                    **{column: row[column] for column in ("value", "low", "high", "num_points")},
                    f"points_for_{HALF_WIDTH}": row["points_needed"],
                }
            )
    return pd.DataFrame(rows)


def _last_round(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows[rows["round"] == rows["round"].max()].to_dict("records") if len(rows) else []


def _comparison_table(results: Results, split: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "member": comparison.first,
                "against": comparison.second,
                "difference_points": 100 * comparison.difference.mean,
                "low": 100 * comparison.difference.low,
                "high": 100 * comparison.difference.high,
                "ahead_in_seeds": f"{comparison.wins} of {comparison.difference.count}",
                "smallest_visible": 100 * comparison.smallest_visible,
                "p_holm": math.nan if comparison.p_value is None else comparison.p_value,
            }
            for comparison in results.comparisons(split)
        ]
    )


def _detection_table(insights: Mapping[str, RunInsight]) -> pd.DataFrame:
    """Return one row per member: average precision of every signal, chance beside it."""
    rows = []
    for member, insight in insights.items():
        if insight.error_rate is None:
            continue
        row: dict[str, Any] = {
            "member": member,
            "images": insight.num_images,
            "chance": insight.error_rate,
        }
        signals = insight.detection
        row |= dict(zip(signals["signal"], signals["average_precision"], strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _head_table(insights: Mapping[str, RunInsight]) -> pd.DataFrame:
    rows = []
    for member, insight in insights.items():
        heads = insight.head_accuracy
        if len(heads) > 1:
            values = zip(heads["output"], heads["pixel_accuracy"], strict=True)
            rows.append({"member": member} | dict(values))
    return pd.DataFrame(rows)


def _protocols(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Return the protocols in words, members with the same words together."""
    names: dict[tuple[str, ...], list[str]] = {}
    for run in results.runs:
        members = names.setdefault(run.protocol, [])
        if run.member not in members:
            members.append(run.member)
    return [(", ".join(members), lines) for lines, members in names.items()]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        return f"{value:.0f}" if value.is_integer() and abs(value) >= 10 else f"{value:.4g}"
    return str(value)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
