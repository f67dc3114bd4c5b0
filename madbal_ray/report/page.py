"""One self-contained HTML page, its tables as CSV and its charts as SVG and PNG.

Longer than our usual 300 lines on purpose: one place for every table and chart of the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from madbal_ray.report import figures, headline, page_tables, pictures, plots
from madbal_ray.report.advice import advice
from madbal_ray.report.conclusions import doubts
from madbal_ray.report.pictures import ClusterGallery, RunInsight
from madbal_ray.report.ranks import Ranks
from madbal_ray.report.results import Results
from madbal_ray.report.spreadsheet import csv_bytes
from madbal_ray.report.viewer import viewer
from madbal_ray.report.words import in_words
from madbal_ray.state.storage import Folder


@dataclass(frozen=True)
class Chart:
    """A chart of the page, with the same numbers in files beside it.

    Attributes:
        name: of the files, without ending.
        plot: what plotly.js draws, as JSON.
        table: name of the CSV file.
    """

    name: str
    title: str
    plot: Markup
    table: str


def write_report(
    results: Results,
    insights: Mapping[str, RunInsight],
    galleries: Sequence[ClusterGallery],
    folder: Path,
    *,
    title: str,
    command: str | None = None,
) -> list[Path]:
    """Write ``index.html``, ``*.csv`` and ``figures/``.

    Args:
        insights: member -> what its first seed's network saw.
        galleries: superpixels of every cluster of the pool.
        command: that made all runs; None: each run knows its own.

    Returns:
        The files that were written, the page first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(results, folder)
    context = writer.context(insights, galleries) | {
        "title": title,
        "facts": headline.facts(results, command),
        **{name: _asset(file) for name, file in ASSETS.items()},
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_asset("page.html.j2")).render(context)
    Folder(folder).write("index.html", page.encode())
    return [folder / "index.html", *writer.written]


ASSETS = {"style": "page.css", "script": "page.js", "plotly": "plotly-basic.min.js"}
"""What the page holds of this package: name in the template -> file."""


def _asset(name: str) -> Markup:
    source = files("madbal_ray.report").joinpath("assets", name).read_text(encoding="utf-8")
    return Markup(source)  # ours, to the letter


def as_json(value: Any) -> Markup:
    """Return JSON that may stand inside a ``<script>``: no text in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c"))


class _Writer:
    def __init__(self, results: Results, folder: Path) -> None:
        self.results, self.folder = results, folder
        self.written: list[Path] = []

    def context(
        self, insights: Mapping[str, RunInsight], galleries: Sequence[ClusterGallery]
    ) -> dict[str, Any]:
        """Return what the template shows; write tables and charts on the way."""
        results = self.results
        split = results.splits[-1]
        full = list(results.full_supervision(split).values())
        ledger = results.ledger()
        metrics = pd.concat(
            [
                page_tables.flat_metrics(run.metrics).assign(member=run.member, seed=run.seed)
                for run in results.runs
            ]
        )
        self._csv("metrics", metrics)
        ranks = results.ranks(split)
        seen = viewer(insights, results.class_names, results.colors)
        return {
            "headline": split,
            "full": sum(full) / len(full) if full else None,
            "answer": headline.answer(results, split),
            "advice": advice(results, split),
            "doubts": doubts(results, split),
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
                self._chart(
                    f"curve_{split}",
                    f"mIoU on {split}",
                    plots.curves(results, split),
                    figures.curve_figure(results, split),
                )
                for split in reversed(results.splits)
            ],
            "minutes": self._minute_charts(),
            "estimates": self._table("point_metrics", page_tables.estimates(results)),
            "comparison": self._table("comparison", page_tables.comparisons(results, split)),
            "wins": self._table("wins", results.wins(split).rename_axis("member").reset_index())
            if len(results.members) > 1
            else None,
            "efficiency": self._table("label_efficiency", results.label_efficiency(split)),
            "baseline": results.baseline,
            "ranks": ranks,
            "rank_chart": None if ranks is None else self._rank_chart(ranks, split),
            "class_iou": self._class_charts(split),
            "asked": self._asked_charts(),
            "budgets": self._budget_charts(),
            "detection": self._table("error_detection", page_tables.detections(insights)),
            "heads": self._table("head_accuracy", page_tables.heads(insights)),
            "maps": self._maps(insights),
            "viewer": None if seen is None else as_json(seen),
            "seen_members": [] if seen is None else [one["name"] for one in seen["members"]],
            "galleries": [
                (gallery.cluster_id, pictures.gallery_row(gallery)) for gallery in galleries
            ],
            "palette": self._palette(),
            "ledger": self._table("ledger", ledger, page_tables.spent(ledger)),
            "costs": self._table("stage_costs", results.stage_costs()),
            "protocols": page_tables.protocols(results),
            "versions": results.runs[0].versions,
        }

    def _csv(self, name: str, table: pd.DataFrame) -> str:
        """Write a table; return the file's name."""
        path = self.folder / f"{_slug(name)}.csv"
        Folder(self.folder).write(path.name, csv_bytes(table))
        if path not in self.written:
            self.written.append(path)
        return path.name

    def _table(
        self, name: str, table: pd.DataFrame, shown: pd.DataFrame | None = None
    ) -> dict[str, Any] | None:
        """Return columns and rows as text; None for an empty table.

        Args:
            shown: what of the table the page shows; None: all.
        """
        if not len(table):
            return None
        shown = table if shown is None else shown
        return {
            "file": self._csv(name, table),
            "columns": [
                column if column in self.results.members else in_words(str(column))
                for column in shown.columns
            ],
            "rows": [
                [page_tables.cell(value) for value in row] for row in shown.itertuples(index=False)
            ],
        }

    def _chart(
        self,
        name: str,
        title: str,
        plot: plots.Plot,
        figure: Figure,
        table: pd.DataFrame | None = None,
    ) -> Chart:
        """Add a chart.

        Args:
            table: its numbers; None: a table of the page that has the chart's name.
        """
        name = _slug(name)
        self.written += figures.save_figure(figure, self.folder / "figures", name)
        file = f"{name}.csv" if table is None else self._csv(name, table)
        return Chart(name, title, as_json(plot), file)

    def _class_charts(self, split: str) -> list[Chart]:
        charts = []
        for member in self.results.members:
            table = self.results.class_iou(member, split)
            charts.append(
                self._chart(
                    f"class_iou_{_slug(member)}",
                    f"IoU by class, {member}, {split}",
                    plots.class_curves(table, split),
                    figures.class_iou_figure(self.results, member, split),
                    table.reset_index(),
                )
            )
        return charts

    def _rank_chart(self, ranks: Ranks, split: str) -> Chart:
        return self._chart(
            "ranks",
            f"Mean ranks on {split}",
            plots.ranks(ranks),
            figures.rank_figure(ranks),
            page_tables.ranked(ranks),
        )

    def _minute_charts(self) -> list[Chart]:
        charts = []
        for split in reversed(self.results.splits):
            curves = self.results.minute_curves(split)
            if not curves:
                continue
            table = pd.concat([curve.assign(member=member) for member, curve in curves])
            charts.append(
                self._chart(
                    f"minutes_{split}",
                    f"mIoU on {split}, over minutes of people",
                    plots.minutes(curves, split),
                    figures.minutes_figure(self.results, split),
                    table[["member", "round", "minutes", "miou"]],
                )
            )
        return charts

    def _asked_charts(self) -> list[Chart]:
        charts = []
        for name, what, table in (
            ("asked_classes", "true class", self.results.asked_class_shares()),
            ("asked_clusters", "cluster", self.results.asked_cluster_shares()),
        ):
            if not table.size:
                continue
            title = f"What was asked, by {what}"
            charts.append(
                self._chart(
                    name,
                    title,
                    plots.bars(table, x_label=what, y_label="share of answers"),
                    figures.share_figure(table, title=title, x_label=what),
                    table.rename_axis("member").reset_index(),
                )
            )
        return charts

    def _budget_charts(self) -> list[Chart]:
        charts = []
        for member in self.results.members:
            run = self.results.of(member)[0]
            budgets = run.cluster_budgets
            if run.shares_out:
                charts.append(
                    self._chart(
                        f"budgets_{_slug(member)}",
                        f"Budget by cluster, {member}",
                        plots.budgets(budgets),
                        figures.budget_figure(budgets, member),
                        budgets.drop(columns="class_share"),
                    )
                )
        return charts

    def _maps(self, insights: Mapping[str, RunInsight]) -> list[Chart]:
        """Draw the superpixels of the first run that has a map, once by each colour."""
        charts: list[Chart] = []
        for member, insight in insights.items():
            table = insight.superpixels
            if not len(table):
                continue
            for column, title in (
                ("cluster_id", "By cluster"),
                ("asked_in_round", f"By the round that asked, {member}"),
                ("error", f"By error, {member}, before the last round"),
            ):
                if table[column].notna().any():
                    plot = plots.superpixels(table, column)
                    figure = figures.superpixel_figure(table, column, title)
                    charts.append(self._chart(f"superpixels_{column}", title, plot, figure, table))
        return charts

    def _palette(self) -> list[tuple[str, str]]:
        """Return name and colour (as in CSS) of every class and of void."""
        names = (*self.results.class_names, "void")
        colors = pictures.class_palette(self.results.colors)
        return [
            (name, "#{:02x}{:02x}{:02x}".format(*color))
            for name, color in zip(names, colors.tolist(), strict=True)
        ]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
