"""Lots for what a pool is to be drawn from: images of round 0, superpixels of a draw over it.

Lots are written as the scores of table `superpixel_scores`, so that
`madbal_ray.selection.whole_pool` draws exactly as many over any number of shards as it takes
best superpixels: the highest lots of each cluster are a random choice among its superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.engine.contract import Computed, LightShardJob, TableJob
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.pool.prepared import Pool
from madbal_ray.selection.apportionment import largest_remainder
from madbal_ray.selection.initial import draw_chances
from madbal_ray.selection.random_jobs import asked_images, not_void
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir

TABLE = "superpixel_scores"


@dataclass(kw_only=True)
class DrawImageChances(LightShardJob):
    """A lot for every image, under the cluster of one of its superpixels, drawn at random.

    Attributes:
        by_cluster: False: all images under cluster 0, so that they are drawn alike.
    """

    pool: Pool
    by_cluster: bool
    seed: int
    table_names = (TABLE,)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return one row per image of a shard."""
        images = self.pool.images_of(shard_id)
        clusters = self.pool.clusters_of(shard_id) if self.by_cluster else {}
        generators = [rng.stream(self.seed, "initial_images", image.image_id) for image in images]
        lots = np.array([1.0 - generator.random() for generator in generators])
        superpixel = np.zeros(len(images), np.int64)
        cluster = np.zeros(len(images), np.int64)
        if self.by_cluster:
            for index, image in enumerate(images):
                of_image = clusters[image.image_id]
                superpixel[index] = generators[index].integers(len(of_image))
                cluster[index] = of_image[superpixel[index]]
        nothing = np.zeros((len(images), 1), np.int64)
        return {
            TABLE: _rows(
                image_id=[image.image_id for image in images],
                superpixel=superpixel,
                cluster=cluster,
                num_pixels=np.ones(len(images), np.int64),
                lot=lots,
                y=nothing,
                x=nothing,
            )
        }


@dataclass(kw_only=True)
class DrawPixelChances(LightShardJob):
    """A lot for every superpixel, and random pixels of it that were not asked yet.

    Attributes:
        labels: of earlier rounds; what they cover is not drawn again.
        only: stage `first_images`: images that are drawn from; None: all.
        per_image: pixels that an image must be able to give.
        by_cluster: superpixels under their clusters, all of one chance; False: all under
            cluster 0, and chances grow with size.
    """

    pool: Pool
    labels: tuple[StageDir, ...]
    only: StageDir | None
    round_index: int
    per_image: int
    by_cluster: bool
    skip_void: bool
    seed: int
    table_names = (TABLE,)

    @property
    def reads_images(self) -> bool:
        """Tell whether masks say where nothing is asked."""
        return self.skip_void

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return one row per superpixel of a shard."""
        images = asked_images(self.pool, shard_id, self.only)
        label_maps = self.pool.label_maps_of(shard_id)
        clusters = self.pool.clusters_of(shard_id) if self.by_cluster else {}
        asked = AskedPixels(self.labels, shard_id, label_maps)
        parts = []
        allowed = not_void(self.pool, images, self.skip_void)
        for image, no_void in zip(images, allowed, strict=True):
            drawn = draw_chances(
                label_map=label_maps[image.image_id],
                is_allowed=no_void & ~asked.map_of(image),
                count=self.per_image,
                by_size=not self.by_cluster,
                generator=rng.stream(self.seed, "chances", self.round_index, image.image_id),
            )
            cluster = np.zeros(len(drawn.superpixel), np.int64)
            if self.by_cluster:
                cluster = clusters[image.image_id][drawn.superpixel].astype(np.int64)
            parts.append(
                _rows(
                    image_id=[image.image_id] * len(drawn.superpixel),
                    superpixel=drawn.superpixel,
                    cluster=cluster,
                    num_pixels=drawn.num_pixels,
                    lot=drawn.chance,
                    y=drawn.y,
                    x=drawn.x,
                )
            )
        return {TABLE: tables.concat(TABLE, parts)}


def _rows(
    *,
    image_id: list[str],
    superpixel: np.ndarray,
    cluster: np.ndarray,
    num_pixels: np.ndarray,
    lot: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
) -> pa.Table:
    return tables.from_columns(
        TABLE,
        {
            "image_id": image_id,
            "superpixel_id": superpixel,
            "cluster_id": cluster,
            "num_pixels": num_pixels,
            "mean_score": lot,
            "dominant_class": np.zeros(len(lot), np.int64),
            "top_y": y,
            "top_x": x,
            "top_score": np.where(y >= 0, 0.0, -np.inf).astype(np.float32),
        },
    )


@dataclass(kw_only=True)
class ShareEqually(TableJob):
    """The same budget for every cluster; what one cannot give goes to the others alike.

    Attributes:
        total: images or pixels to share out.
    """

    round_index: int
    num_clusters: int
    total: int

    def compute(self) -> Computed:
        """Return table `cluster_budgets`, in which no cluster has a score."""
        zeros = np.zeros(self.num_clusters)
        columns = {
            "round": np.full(self.num_clusters, self.round_index),
            "cluster_id": np.arange(self.num_clusters),
            "num_superpixels": np.ones(self.num_clusters, np.int64),
            "score": zeros,
            "share": np.full(self.num_clusters, 1.0 / self.num_clusters),
            "budget": np.array(largest_remainder([1] * self.num_clusters, self.total)),
            "class_share": zeros[:, None],
        }
        return Computed(
            {("cluster_budgets", 0): tables.from_columns("cluster_budgets", columns)}, {}
        )
