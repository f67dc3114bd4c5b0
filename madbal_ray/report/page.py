"""Tables of runs as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def write_tables(metrics: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write the metrics of all runs as one CSV; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_flat(table).assign(run=name) for name, table in metrics.items()]
    path = folder / "metrics.csv"
    pd.concat(parts).to_csv(path, index=False)
    return [path]


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Give every class its own column."""
    classes = pd.DataFrame(table["class_iou"].tolist(), index=table.index)
    classes.columns = [f"iou_class_{index}" for index in classes.columns]
    return pd.concat([table.drop(columns="class_iou"), classes], axis=1)
