"""All labels of a pool as points: answers of any unit, expanded to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from madbal_ray.arrays import IGNORE_INDEX, LabelMap
from madbal_ray.errors import LabelError
from madbal_ray.labels.class_map import unpack_class_map
from madbal_ray.labels.ledger import latest_revisions
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage, pool_images, split_by_image
from madbal_ray.state.stage_dir import StageDir

COLUMNS = [
    "round",
    "image_id",
    "y",
    "x",
    "unit",
    "superpixel_id",
    "class_id",
    "class_map",
    "status",
    "revision",
]
SHORT_GRID = 32_767


@dataclass
class LabeledPoints:
    """Labelled pixels, sorted by (image_id, y, x); 5 bytes each, 7 in phase II.

    Attributes:
        start: [images + 1], the points of image i are start[i]:start[i + 1].
        y, x: working grid.
        is_target: Y_L of Eq. 1, once recorded.
        is_boundary: delta, once recorded.
    """

    images: list[PoolImage]
    start: np.ndarray
    y: np.ndarray
    x: np.ndarray
    class_id: np.ndarray
    is_target: np.ndarray | None = None
    is_boundary: np.ndarray | None = None

    def of_image(self, index: int) -> slice:
        """Return the points of one image."""
        return slice(int(self.start[index]), int(self.start[index + 1]))


def read_labeled_points(pool: Pool, labels: Sequence[StageDir]) -> LabeledPoints:
    """Read all labelled (not void, not skipped) pixels of the pool.

    Shards in which nothing was asked are not opened.

    Raises:
        LabelError: there is none.
    """
    labelled = {i for stage in labels for i in stage.shards_with("labels")}
    shard_ids = sorted(labelled.intersection(pool.shard_ids))
    parts = [stage.read_table("labels", shard_ids, columns=COLUMNS) for stage in labels]
    table = latest_revisions(pa.concat_tables(parts))
    if set(table["unit"].unique().to_pylist()) <= {"pixel"}:
        points = _from_pixels(pool, shard_ids, table)
    else:
        points = _from_regions(pool, shard_ids, table)
    if not len(points.y):
        raise LabelError("no labelled pixel to train on: every answer was void, skipped or unsure")
    return points


def _from_pixels(pool: Pool, shard_ids: Sequence[int], table: pa.Table) -> LabeledPoints:
    rows = pool.images.read_table("images", shard_ids)
    known = {image.image_id: image for image in pool_images(rows)}
    table = table.filter(pa.array(table["status"].to_numpy() == "labelled"))
    table = table.sort_by([("image_id", "ascending"), ("y", "ascending"), ("x", "ascending")])
    rows_of = split_by_image(table)
    return LabeledPoints(
        images=[known[name] for name in rows_of],
        start=np.array([*(rows.start for rows in rows_of.values()), table.num_rows]),
        y=_short(table["y"].to_numpy()),
        x=_short(table["x"].to_numpy()),
        class_id=table["class_id"].to_numpy().astype(np.uint8),
    )


def _from_regions(pool: Pool, shard_ids: Sequence[int], table: pa.Table) -> LabeledPoints:
    """Expand superpixels and whole images; what was asked earlier keeps its own answer."""
    table = table.sort_by([("image_id", "ascending"), ("round", "ascending")])
    rows_of = split_by_image(table)
    answers = table.to_pandas()
    kept, ys, xs, classes = [], [], [], []
    for shard_id in shard_ids:
        in_shard = pool.images_of(shard_id)
        label_maps = pool.label_maps_of(shard_id)
        for image in in_shard:
            if image.image_id not in rows_of:
                continue
            rows = answers.iloc[rows_of[image.image_id]].to_dict("records")
            class_map = _expand(image, label_maps[image.image_id], rows)
            y, x = np.nonzero(class_map != IGNORE_INDEX)
            if len(y):
                kept.append(image)
                ys.append(_short(y))
                xs.append(_short(x))
                classes.append(class_map[y, x])
    order = sorted(range(len(kept)), key=lambda i: kept[i].image_id)
    counts = [len(ys[i]) for i in order]
    empty = np.zeros(0, np.int16)
    return LabeledPoints(
        images=[kept[i] for i in order],
        start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        y=np.concatenate([ys[i] for i in order]) if order else empty,
        x=np.concatenate([xs[i] for i in order]) if order else empty,
        class_id=np.concatenate([classes[i] for i in order]) if order else empty,
    )


def _expand(image: PoolImage, label_map: LabelMap, rows: list[dict]) -> np.ndarray:
    """Return the classes of an image's asked pixels, `IGNORE_INDEX` elsewhere."""
    class_map = np.full((image.work_height, image.work_width), IGNORE_INDEX, np.uint8)
    asked = np.zeros(class_map.shape, bool)
    for row in rows:
        if row["unit"] == "pixel":
            where = np.zeros_like(asked)
            where[row["y"], row["x"]] = True
        elif row["unit"] == "superpixel":
            where = (label_map == row["superpixel_id"]) & ~asked
        else:
            where = ~asked
        asked |= where
        if row["status"] != "labelled":
            continue
        if row["unit"] == "image":
            class_map[where] = unpack_class_map(row["class_map"], *class_map.shape)[where]
        else:
            class_map[where] = int(row["class_id"])
    return class_map


def _short(indices: np.ndarray) -> np.ndarray:
    if len(indices) and indices.max() > SHORT_GRID:
        return indices.astype(np.int32)
    return indices.astype(np.int16)
