"""Clusters of superpixels: centroids from the whole pool, then every superpixel's cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from madbal_ray import rng, tables
from madbal_ray.clustering import fit_kmeans
from madbal_ray.config import ClusteringConfig
from madbal_ray.loop.engine import count_images
from madbal_ray.loop.pool_reader import split_by_image
from madbal_ray.stage_dir import FileRecord, StageDir, table_path
from madbal_ray.stages.assign_clusters import AssignClusters


@dataclass
class FitKMeans:
    """Centroids from all superpixels, or a seeded sample where there are too many."""

    output: StageDir
    features: StageDir
    shard_ids: list[int]
    config: ClusteringConfig

    def run(self) -> None:
        """Fit and commit; rows, sample size and inertia stand in the marker."""
        paths = self.features.marker().paths
        counts = [paths[table_path("superpixel_features", i)].rows for i in self.shard_ids]
        total = sum(counts)
        chosen = self._sample(total)
        parts, start = [], 0
        for shard_id, count in zip(self.shard_ids, counts, strict=True):
            rows = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + count)]
            if len(rows):
                parts.append(read_features(self.features, shard_id)[rows - start])
            start += count
        features = np.concatenate(parts) if parts else np.zeros((0, 1), np.float16)
        centroids, inertia = fit_kmeans(
            features,
            num_clusters=self.config.num_clusters,
            num_init=self.config.num_init,
            seed=self.config.seed,
        )
        record = self._write(centroids)
        self.output.commit(
            [record],
            {"backend": "sklearn", "rows": total, "fitted_rows": len(chosen), "inertia": inertia},
        )

    def _sample(self, total: int) -> np.ndarray:
        if total <= self.config.max_fit_rows:
            return np.arange(total)
        generator = rng.stream(self.config.seed, "kmeans_sample")
        return np.sort(generator.choice(total, self.config.max_fit_rows, replace=False))

    def _write(self, centroids: np.ndarray) -> FileRecord:
        columns = {"cluster_id": np.arange(len(centroids)), "centroid": centroids}
        return self.output.write_table("centroids", 0, tables.from_columns("centroids", columns))


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
        columns = self._stage(
            image_id=table["image_id"].to_pylist(),
            superpixel_id=table["superpixel_id"].to_numpy(),
            feature=read_features(self.features, shard_id),
        )
        return {"superpixel_clusters": tables.from_columns("superpixel_clusters", columns)}


def read_features(features: StageDir, shard_id: int) -> np.ndarray:
    """Return the features of one shard, float16 [rows, D]."""
    column = features.read_table("superpixel_features", [shard_id], columns=["feature"])["feature"]
    combined = cast(pa.ListArray, column.combine_chunks())
    if not len(combined):
        return np.zeros((0, 1), np.float16)
    return combined.flatten().to_numpy(zero_copy_only=False).reshape(len(combined), -1)


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
