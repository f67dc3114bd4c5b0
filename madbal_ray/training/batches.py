"""Training batches: images, their points, and how both are augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from madbal_ray import rng
from madbal_ray.arrays import RGBImage
from madbal_ray.config.training import TrainConfig
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.pool.reader import map_ahead
from madbal_ray.training.augment import Augmentation, draw_augmentation
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.vision.geometry import inside, transform_points
from madbal_ray.vision.grids import move_points

PLAIN_VIEW = "augmented"
"""The view that every objective has; its stream of augmentations is the image's own."""


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


@dataclass(frozen=True)
class _Loaded:
    """A decoded image of a batch, with an augmentation for each view."""

    index: int
    picture: RGBImage
    augmentations: list[Augmentation]


@dataclass(kw_only=True)
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
        self,
        phase: str,
        epoch: int,
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        views: Sequence[str] = (PLAIN_VIEW,),
    ) -> Iterator[list[TrainBatch]]:
        """Yield this worker's part of every batch of an epoch, once for each view.

        Args:
            views: the same images under augmentations of their own.
        """
        count = len(self.points.images)
        order = rng.stream(self.seed, "shuffle", self.round_index, phase, epoch).permutation(count)
        total = self.num_batches(batch_size) * batch_size
        filled = np.resize(order, total).reshape(-1, world_size, batch_size // world_size)
        members = [int(index) for row in filled[:, rank] for index in row]

        def load(index: int) -> _Loaded:
            image = self.points.images[index]
            picture = self.cache.get(image)
            height, width = picture.shape[:2]
            crop = self.config.crop or (height, width)
            drawn = []
            for view in views:
                more = () if view == PLAIN_VIEW else (view,)
                generator = rng.stream(
                    self.seed, "augment", self.round_index, phase, epoch, image.image_id, *more
                )
                drawn.append(
                    draw_augmentation(
                        self.config.augment, generator, size=(height, width), crop=crop
                    )
                )
            return _Loaded(index, picture, drawn)

        size = batch_size // world_size
        window: list[_Loaded] = []
        for item in map_ahead(load, members, threads=self.threads, ahead=2 * size):
            window.append(item)
            if len(window) == size:
                yield [self._collate(window, view) for view in range(len(views))]
                window = []

    def _collate(self, items: list[_Loaded], view: int) -> TrainBatch:
        crop = self.config.crop or items[0].picture.shape[:2]
        parts: dict[str, list[np.ndarray]] = {
            name: [] for name in ("batch", "y", "x", "class_id", "is_target", "is_boundary")
        }
        for position, item in enumerate(items):
            index, picture, augmentation = item.index, item.picture, item.augmentations[view]
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
            images=[item.picture for item in items],
            augmentations=[item.augmentations[view] for item in items],
            crop=(int(crop[0]), int(crop[1])),
            **columns,
        )
