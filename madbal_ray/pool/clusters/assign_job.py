"""Clusters of superpixels: the nearest centroid of each, or a random one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.engine.contract import count_images
from madbal_ray.pool.clusters.assign_clusters import AssignClusters
from madbal_ray.pool.clusters.feature_rows import read_features
from madbal_ray.pool.reader import split_by_image
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass
class AssignPool:
    """The cluster of every superpixel."""

    output: StageDir
    features: StageDir
    centroids: StageDir
    is_light = True
    table_names = ("superpixel_clusters",)
    count = staticmethod(count_images)

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


def read_clusters(clusters: StageDir, shard_id: int) -> dict[str, np.ndarray]:
    """Return cluster ids in superpixel order by image_id of one shard."""
    table = clusters.read_table("superpixel_clusters", [shard_id])
    ids = table["cluster_id"].to_numpy()
    return {name: ids[rows] for name, rows in split_by_image(table).items()}


@dataclass
class AssignRandomClusters:
    """Random clusters, as many as K-means has: the ablation "Random dist-breakdown"."""

    output: StageDir
    clusters: StageDir
    num_clusters: int
    seed: int
    is_light = True
    table_names = ("superpixel_clusters",)
    count = staticmethod(count_images)

    def setup(self) -> None:
        """Load nothing."""

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
