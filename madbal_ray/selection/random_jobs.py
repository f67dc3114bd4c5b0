"""Queries that need no network: random pixels, whole images at the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, map_ahead
from madbal_ray.selection.initial import draw_initial_pixels
from madbal_ray.selection.query_rows import (
    QueryJob,
    check_exact,
    query_rows,
    whole_image_query,
)
from madbal_ray.state import tables
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class DrawRandomPixels(QueryJob):
    """Random pixels of every image: the initial pool, and strategy `random`.

    Attributes:
        labels: of earlier rounds; what they cover is not drawn again.
    """

    pool: Pool
    labels: tuple[StageDir, ...]
    round_index: int
    count_per_image: int
    skip_void: bool
    seed: int

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the random queries of one shard."""
        images = self.pool.images_of(shard_id)
        label_maps = self.pool.label_maps_of(shard_id)
        clusters = self.pool.clusters_of(shard_id)
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
            self.pool.reader.mask_on_working_grid,
            images,
            threads=self.pool.threads,
            ahead=self.pool.threads,
        )
        return (mask != IGNORE_INDEX for mask in masks)


@dataclass(kw_only=True)
class AskWholeImages(QueryJob):
    """Every image as a whole: full supervision with the same trainer."""

    pool: Pool

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return one query per image."""
        parts = [
            whole_image_query(0, image.image_id, None) for image in self.pool.images_of(shard_id)
        ]
        return {"queries": tables.concat("queries", parts)}
