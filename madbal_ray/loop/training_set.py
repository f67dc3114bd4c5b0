"""Labelled images and their points: loading, caching, batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from madbal_ray import rng
from madbal_ray.arrays import RGBImage
from madbal_ray.config import TrainConfig
from madbal_ray.errors import LabelError
from madbal_ray.labels.ledger import latest_revisions
from madbal_ray.loop.pool_reader import (
    ImageReader,
    PoolImage,
    map_ahead,
    pool_images,
    split_by_image,
)
from madbal_ray.stage_dir import StageDir
from madbal_ray.training.augment import Augmentation, draw_augmentation
from madbal_ray.vision.geometry import inside, transform_points
from madbal_ray.vision.grids import move_points

GIBIBYTE = 2**30


@dataclass
class LabeledPoints:
    """Labelled pixels, sorted by (image_id, y, x); about 20 bytes each.

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


def read_labeled_points(
    images: StageDir, shard_ids: Sequence[int], labels: Sequence[StageDir]
) -> LabeledPoints:
    """Read all labelled (not void, not skipped) pixels of the pool.

    Raises:
        LabelError: there is none.
    """
    known = {image.image_id: image for image in pool_images(images.read_table("images", shard_ids))}
    columns = ["image_id", "y", "x", "class_id", "status", "revision"]
    parts = [one.read_table("labels", shard_ids, columns=columns) for one in labels]
    table = latest_revisions(pa.concat_tables(parts))
    table = table.filter(pa.array(table["status"].to_numpy() == "labelled"))
    if not table.num_rows:
        raise LabelError("no labelled pixel to train on: every answer was void or skipped")
    table = table.sort_by([("image_id", "ascending"), ("y", "ascending"), ("x", "ascending")])
    rows_of = split_by_image(table)
    return LabeledPoints(
        images=[known[name] for name in rows_of],
        start=np.array([*(rows.start for rows in rows_of.values()), table.num_rows]),
        y=table["y"].to_numpy().copy(),
        x=table["x"].to_numpy().copy(),
        class_id=table["class_id"].to_numpy().copy(),
    )


class ImageCache:
    """Decoded training images on the input grid, up to a limit of memory."""

    def __init__(self, reader: ImageReader, limit_gib: float) -> None:
        self.reader = reader
        self.left = int(limit_gib * GIBIBYTE)
        self.kept: dict[str, RGBImage] = {}
        self.lock = threading.Lock()

    def get(self, image: PoolImage) -> RGBImage:
        """Return an image on the input grid."""
        found = self.kept.get(image.image_id)
        if found is not None:
            return found
        decoded = self.reader.on_input_grid(image)
        with self.lock:
            if decoded.nbytes <= self.left and image.image_id not in self.kept:
                self.kept[image.image_id] = decoded
                self.left -= decoded.nbytes
        return decoded


@dataclass
class TrainBatch:
    """One worker's part of a batch, before augmentation of the pixels.

    Attributes:
        images: decoded images, uint8 [h, w, 3]; sizes may differ when they are cropped.
        batch, y, x: points on the crop, possibly fractional.
        is_target, is_boundary: phase II only.
    """

    images: list[RGBImage]
    augmentations: list[Augmentation]
    crop: tuple[int, int]
    batch: Tensor
    y: Tensor
    x: Tensor
    class_id: Tensor
    is_target: Tensor | None
    is_boundary: Tensor | None


@dataclass
class BatchMaker:
    """Cuts epochs into batches; the same epoch gives the same batches on every engine."""

    points: LabeledPoints
    cache: ImageCache
    config: TrainConfig
    seed: int
    round_index: int
    threads: int

    def num_batches(self, batch_size: int) -> int:
        """Return the batches of an epoch; the last is filled up from the epoch's start."""
        return -(-len(self.points.images) // batch_size)

    def epoch(
        self, phase: str, epoch: int, batch_size: int, *, rank: int, world_size: int
    ) -> Iterator[TrainBatch]:
        """Yield this worker's part of every batch of an epoch."""
        count = len(self.points.images)
        order = rng.stream(self.seed, "shuffle", self.round_index, phase, epoch).permutation(count)
        total = self.num_batches(batch_size) * batch_size
        filled = np.resize(order, total).reshape(-1, world_size, batch_size // world_size)
        members = [int(index) for row in filled[:, rank] for index in row]

        def load(index: int) -> tuple[int, RGBImage, Augmentation]:
            image = self.points.images[index]
            picture = self.cache.get(image)
            generator = rng.stream(
                self.seed, "augment", self.round_index, phase, epoch, image.image_id
            )
            height, width = picture.shape[:2]
            crop = self.config.crop or (height, width)
            return (
                index,
                picture,
                draw_augmentation(self.config.augment, generator, size=(height, width), crop=crop),
            )

        size = batch_size // world_size
        window: list[Any] = []
        for item in map_ahead(load, members, threads=self.threads, ahead=2 * size):
            window.append(item)
            if len(window) == size:
                yield self._collate(window)
                window = []

    def _collate(self, items: list[tuple[int, RGBImage, Augmentation]]) -> TrainBatch:
        crop = self.config.crop or items[0][1].shape[:2]
        parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("batch", "y", "x", "class_id", "is_target", "is_boundary")
        }
        for position, (index, picture, augmentation) in enumerate(items):
            image, rows = self.points.images[index], self.points.of_image(index)
            y = move_points(
                self.points.y[rows].astype(np.float64), image.work_height, picture.shape[0]
            )
            x = move_points(
                self.points.x[rows].astype(np.float64), image.work_width, picture.shape[1]
            )
            y, x = transform_points(augmentation.matrix, y, x)
            kept = inside(y, x, *crop)
            parts["batch"].append(np.full(int(kept.sum()), position))
            parts["y"].append(y[kept].astype(np.float32))
            parts["x"].append(x[kept].astype(np.float32))
            parts["class_id"].append(self.points.class_id[rows][kept].astype(np.int64))
            for name in ("is_target", "is_boundary"):
                values = getattr(self.points, name)
                if values is not None:
                    parts[name].append(values[rows][kept])
        columns: dict[str, Any] = {
            name: torch.from_numpy(np.concatenate(arrays)) if arrays else None
            for name, arrays in parts.items()
        }
        return TrainBatch(
            images=[picture for _, picture, _ in items],
            augmentations=[augmentation for _, _, augmentation in items],
            crop=(int(crop[0]), int(crop[1])),
            **columns,
        )
