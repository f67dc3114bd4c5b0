"""Queries that need no network: random pixels, whole images at the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.pool.clusters.assign_job import read_clusters
from madbal_ray.pool.reader import (
    ImageShardJob,
    PoolImage,
    map_ahead,
    read_images,
    read_label_maps,
)
from madbal_ray.selection.initial import draw_initial_pixels
from madbal_ray.selection.query_rows import check_exact, count_asked, image_query, query_rows
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass
class DrawRandomPixels(ImageShardJob):
    """Random pixels of every image: the initial pool, and strategy `random`.

    Attributes:
        labels: of earlier rounds; what they cover is not drawn again.
    """

    images: StageDir
    superpixels: StageDir
    clusters: StageDir
    labels: tuple[StageDir, ...]
    round_index: int
    count_per_image: int
    skip_void: bool
    seed: int
    is_light = True
    table_names = ("queries",)

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count images and queries."""
        return count_asked(shard_tables)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the random queries of one shard."""
        images = read_images(self.images, shard_id)
        label_maps = read_label_maps(self.superpixels, shard_id, images)
        clusters = read_clusters(self.clusters, shard_id)
        asked = AskedPixels(self.labels, shard_id, label_maps)
        parts = []
        for image, no_void in zip(images, self._not_void(images), strict=True):
            allowed = no_void & ~asked.map_of(image)
            y, x = draw_initial_pixels(
                is_allowed=allowed,
                count=self.count_per_image,
                generator=rng.stream(self.seed, "initial_pool", self.round_index, image.image_id),
            )
            check_exact(image.image_id, len(y), self.count_per_image, int(allowed.sum()))
            superpixel = label_maps[image.image_id][y, x].astype(np.int64)
            parts.append(
                query_rows(
                    self.round_index,
                    image.image_id,
                    "pixel",
                    y=y,
                    x=x,
                    superpixel_id=superpixel,
                    cluster_id=clusters[image.image_id][superpixel],
                    score=pa.nulls(len(y), pa.float32()),
                )
            )
        return {"queries": tables.concat("queries", parts)}

    def _not_void(self, images: Sequence[PoolImage]) -> Iterator[np.ndarray]:
        if not self.skip_void:
            return (np.ones((image.work_height, image.work_width), bool) for image in images)
        masks = map_ahead(
            self.reader.mask_on_working_grid, images, threads=self.threads, ahead=self.threads
        )
        return (mask != IGNORE_INDEX for mask in masks)


@dataclass
class AskWholeImages:
    """Every image as a whole: full supervision with the same trainer."""

    output: StageDir
    images: StageDir
    is_light = True
    table_names = ("queries",)
    count = staticmethod(count_asked)

    def setup(self) -> None:
        """Load nothing."""

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return one query per image."""
        parts = [image_query(0, i.image_id, None) for i in read_images(self.images, shard_id)]
        return {"queries": tables.concat("queries", parts)}
