"""mIoU over labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure


def plot_miou(metrics: Mapping[str, pd.DataFrame], path: Path) -> Path:
    """Draw mIoU over labels per image, one line per run and split; write a PNG.

    Args:
        metrics: name -> table `metrics` of a run.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, table in metrics.items():
        for split, rows in table.groupby("split"):
            axes.plot(rows["labels_per_image"], rows["miou"], marker="o", label=f"{name} ({split})")
    axes.set_xlabel("asked pixels per image")
    axes.set_ylabel("mIoU")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
