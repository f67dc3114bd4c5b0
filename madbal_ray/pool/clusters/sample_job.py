"""What K-means on a sample asks of every shard: its share of the sample, its inertia."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from madbal_ray import rng
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.pool.clusters.feature_rows import TABLE, FeatureRows, read_features
from madbal_ray.pool.clusters.nearest import measure_inertia
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class SampleRows(LightShardJob):
    """The features of superpixels drawn from the whole pool without replacement.

    Every worker draws the same row numbers, so that neither their number nor the order of shards
    changes the sample.

    Attributes:
        size: rows to draw, of all shards together.
    """

    features: StageDir
    shard_ids: list[int]
    size: int
    seed: int
    table_names = (TABLE,)
    counts_images = False

    def setup(self) -> None:
        """Draw row numbers, and find where each shard's begin."""
        rows = FeatureRows(self.features, self.shard_ids)
        drawn = rng.stream(self.seed, "kmeans_sample").choice(rows.total, self.size, replace=False)
        self._chosen = np.sort(drawn)
        ends = np.cumsum(list(rows.counts.values()))
        self._ends = dict(zip(rows.counts, ends.tolist(), strict=True))
        self._counts = rows.counts

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the rows drawn from one shard, in their order; a shard without is not opened."""
        end = self._ends.get(shard_id, 0)
        start = end - self._counts.get(shard_id, 0)
        chosen = self._chosen[slice(*np.searchsorted(self._chosen, [start, end]))]
        if not len(chosen):
            return {TABLE: tables.empty(TABLE)}
        return {TABLE: self.features.read_table(TABLE, [shard_id]).take(chosen - start)}

    def count(self, shard_tables: object) -> dict[str, int]:
        """Count nothing: no image is done."""
        return {"images": 0}


@dataclass(kw_only=True)
class MeasureInertia(LightShardJob):
    """The sum of squared distances of all superpixels to their nearest centroids, by shard.

    Attributes:
        fit: finished stage that holds centroids.
    """

    features: StageDir
    fit: StageDir
    table_names = ("kmeans_inertia",)
    counts_images = False

    def setup(self) -> None:
        """Load the centroids."""
        column = self.fit.read_table("centroids")["centroid"]
        self._centroids = np.array(column.to_pylist(), np.float32)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the inertia of one shard."""
        rows = read_features(self.features, shard_id)
        inertia = 0.0
        if len(rows):
            with threadpool_limits(1):  # the order of additions is that of one thread
                inertia = measure_inertia(rows, self._centroids)
        row = {"shard_id": shard_id, "num_superpixels": len(rows), "inertia": inertia}
        return {"kmeans_inertia": tables.from_rows("kmeans_inertia", [row])}

    def count(self, shard_tables: object) -> dict[str, int]:
        """Count nothing: no image is done."""
        return {"images": 0}
