"""The outcome of a hyper-parameter search: table, chart, best settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import yaml
from matplotlib.figure import Figure

from madbal_ray.report.figures import STYLE, save_figure
from madbal_ray.report.spreadsheet import csv_bytes
from madbal_ray.state.storage import Folder

METRIC = "objective"


def write_search(
    rows: Sequence[Mapping[str, Any]],
    space_keys: Sequence[str],
    best: Mapping[str, Any],
    folder: Path,
) -> list[Path]:
    """Write ``trials.csv``, ``trials.svg`` and ``.png``, and ``best.yaml``.

    Args:
        rows: one per trial, best first.
        best: whole configuration with the best trial's settings.
    """
    table = pd.DataFrame(rows)
    Folder(folder).write("trials.csv", csv_bytes(table))
    charts = save_figure(_figure(table, space_keys), folder, "trials")
    text = yaml.safe_dump(dict(best), sort_keys=False, allow_unicode=True)
    Folder(folder).write("best.yaml", text.encode())
    return [folder / "best.yaml", folder / "trials.csv", *charts]


def _figure(table: pd.DataFrame, keys: Sequence[str]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(keys) + 0.6, 2.8), layout="constrained")
        for index, key in enumerate(keys):
            axes = figure.add_subplot(1, len(keys), index + 1)
            axes.scatter(table[key], table[METRIC], s=14)
            axes.scatter(table[key].iloc[:1], table[METRIC].iloc[:1], s=40, color="tab:red")
            if pd.api.types.is_numeric_dtype(table[key]) and (table[key] > 0).all():
                wide = table[key].max() > 20 * table[key].min()
                axes.set_xscale("log" if wide else "linear")
            axes.set_xlabel(key.removeprefix("train.phase2."), fontsize=8)
            if index == 0:
                axes.set_ylabel("mIoU after a round" if "miou" in table else "average precision")
    return figure
