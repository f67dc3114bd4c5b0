"""Clusters of superpixels: the nearest centroid of each, or a random one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.engine.contract import LightShardJob
from madbal_ray.pool.clusters.assign_clusters import AssignClusters
from madbal_ray.pool.clusters.feature_rows import read_features
from madbal_ray.pool.reader import split_by_image
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class AssignPool(LightShardJob):
    """The cluster of every superpixel."""

    features: StageDir
    centroids: StageDir
    table_names = ("superpixel_clusters",)

    def setup(self) -> None:
        """Load the centroids."""
        column = self.centroids.read_table("centroids")["centroid"]
        self._stage = AssignClusters(np.array(column.to_pylist(), np.float32))

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the clusters of one shard."""
        table = self.features.read_table(
            "superpixel_features", [shard_id], columns=["image_id", "superpixel_id"]
        )
        if not table.num_rows:  # every image of the shard is quarantined
            return {"superpixel_clusters": tables.empty("superpixel_clusters")}
        columns = {
            "image_id": table["image_id"].to_pylist(),
            "superpixel_id": table["superpixel_id"].to_numpy(),
            **self._stage(read_features(self.features, shard_id)),
        }
        return {"superpixel_clusters": tables.from_columns("superpixel_clusters", columns)}


@dataclass(kw_only=True)
class AssignRandomClusters(LightShardJob):
    """Random clusters, as many as K-means has: the ablation "Random dist-breakdown"."""

    clusters: StageDir
    num_clusters: int
    seed: int
    table_names = ("superpixel_clusters",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return a random cluster for every superpixel of one shard."""
        table = self.clusters.read_table("superpixel_clusters", [shard_id])
        drawn = np.zeros(table.num_rows, np.int32)
        for image_id, rows in split_by_image(table).items():
            generator = rng.stream(self.seed, "random_clusters", image_id)
            drawn[rows] = generator.integers(0, self.num_clusters, rows.stop - rows.start)
        index = table.schema.get_field_index("cluster_id")
        return {
            "superpixel_clusters": table.set_column(
                index, table.schema.field("cluster_id"), pa.array(drawn)
            )
        }
