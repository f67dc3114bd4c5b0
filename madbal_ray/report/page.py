"""Tables of runs as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def write_tables(metrics: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write the metrics of all runs as one CSV; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [table.assign(run=name) for name, table in metrics.items()]
    path = folder / "metrics.csv"
    pd.concat(parts).to_csv(path, index=False)
    return [path]
