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
from madbal_ray.pool.reader import PoolImage
from madbal_ray.selection.initial import draw_initial_pixels
from madbal_ray.selection.query_rows import (
    QueryJob,
    check_exact,
    query_rows,
    whole_image_query,
)
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class DrawRandomPixels(QueryJob):
    """Random pixels of every image: the initial pool, and strategy `random`.

    Attributes:
        labels: of earlier rounds; what they cover is not drawn again.
        only: stage `first_images`: images that are asked; None: all.
    """

    pool: Pool
    labels: tuple[StageDir, ...]
    only: StageDir | None = None
    round_index: int
    count_per_image: int
    skip_void: bool
    seed: int

    @property
    def reads_images(self) -> bool:
        """Tell whether masks say where nothing is asked."""
        return self.skip_void

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the random queries of one shard."""
        images = asked_images(self.pool, shard_id, self.only)
        label_maps = self.pool.label_maps_of(shard_id)
        clusters = self.pool.clusters_of(shard_id)
        asked = AskedPixels(self.labels, shard_id, label_maps)
        parts = []
        for image, no_void in zip(images, not_void(self.pool, images, self.skip_void), strict=True):
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


def asked_images(pool: Pool, shard_id: int, only: StageDir | None) -> list[PoolImage]:
    """Return the images of a shard; those that stage `first_images` names, where it is given."""
    images = pool.images_of(shard_id)
    if only is None:
        return images
    names = only.read_table("queries", [shard_id], columns=["image_id"])["image_id"]
    chosen = set(names.to_pylist())
    return [image for image in images if image.image_id in chosen]


def not_void(pool: Pool, images: Sequence[PoolImage], skip_void: bool) -> Iterator[np.ndarray]:
    """Yield which pixels of each image may be asked: all, or those that its mask knows."""
    if not skip_void:
        return (np.ones((image.work_height, image.work_width), bool) for image in images)
    masks = map_ahead(
        pool.reader.mask_on_working_grid, images, threads=pool.threads, ahead=pool.threads
    )
    return (mask != IGNORE_INDEX for mask in masks)


@dataclass(kw_only=True)
class AskWholeImages(QueryJob):
    """Every image as a whole: full supervision with the same trainer.

    Attributes:
        only: stage `first_images`: images that are asked; None: all.
    """

    pool: Pool
    only: StageDir | None = None

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return one query per image."""
        parts = [
            whole_image_query(0, image.image_id, None)
            for image in asked_images(self.pool, shard_id, self.only)
        ]
        return {"queries": tables.concat("queries", parts)}
