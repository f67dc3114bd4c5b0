"""Pool stage `tap_statistics`: mean and deviation of every channel of a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from madbal_ray import rng
from madbal_ray.engine.contract import Computed, TableJob
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir

MOST_SHARDS = 16
"""A mean over some hundreds of images is as good as one over millions."""


def sampled_shards(shard_ids: Sequence[int]) -> list[int]:
    """Return the shards that statistics are taken from, the same whatever else is kept."""
    count = min(MOST_SHARDS, len(shard_ids))
    drawn = rng.stream(0, "tap_statistics").choice(len(shard_ids), count, replace=False)
    return sorted(shard_ids[index] for index in drawn)


@dataclass(kw_only=True)
class TapStatistics(TableJob):
    """Adds up the sums of some shards.

    Attributes:
        features: finished stage `backbone_features`.
    """

    features: StageDir
    shard_ids: Sequence[int]

    def compute(self) -> Computed:
        """Return one row for each tap."""
        sums = self.features.read_table("tap_sums", list(self.shard_ids)).to_pylist()
        rows = []
        for tap in sorted({row["tap"] for row in sums}):
            parts = [row for row in sums if row["tap"] == tap]
            count = sum(row["count"] for row in parts)
            mean = np.sum([row["total"] for row in parts], axis=0) / count
            square = np.sum([row["total_square"] for row in parts], axis=0) / count
            deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
            rows.append({"tap": tap, "mean": mean.tolist(), "deviation": deviation.tolist()})
        table = tables.from_rows("tap_statistics", rows)
        return Computed({("tap_statistics", 0): table}, {"shards": len(self.shard_ids)})
