"""Training batches: images, their points, and how both are augmented."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from madbal_ray import rng
from madbal_ray.arrays import RGBImage
from madbal_ray.config.training import PhaseConfig, TrainConfig
from madbal_ray.errors import ConfigError
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.state.ahead import map_ahead
from madbal_ray.training.augment import Augmentation, augment_images, draw_augmentation
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.vision.geometry import inside, transform_points
from madbal_ray.vision.grids import move_points

PLAIN_VIEW = "augmented"
"""The view that every objective has; its stream of augmentations is the image's own."""

SHARING = 2
"""Revision of how several workers share batches; those of a lone one do not depend on it."""


@dataclass(kw_only=True)
class TrainBatch(abc.ABC):
    """One worker's part of a batch: what the network sees, and the labelled points on it.

    Attributes:
        crop: height and width of the grid that the points lie on.
        batch, y, x: which input a point belongs to, and where it lies, possibly fractional.
        is_target, is_boundary: phase II only.
    """

    crop: tuple[int, int]
    batch: Tensor
    y: Tensor
    x: Tensor
    class_id: Tensor
    is_target: Tensor | None
    is_boundary: Tensor | None

    @abc.abstractmethod
    def inputs(self, device: torch.device) -> Tensor | tuple[Tensor, ...]:
        """Return what the network takes."""


@dataclass(kw_only=True)
class ImageBatch(TrainBatch):
    """Images, before augmentation of their pixels.

    Attributes:
        images: decoded images, uint8 [h, w, 3]; sizes may differ when they are cropped.
    """

    images: list[RGBImage]
    augmentations: list[Augmentation]

    def inputs(self, device: torch.device) -> Tensor:
        """Return the augmented, normalised crops."""
        return augment_images(self.images, self.augmentations, self.crop, device)


@dataclass(frozen=True)
class _Loaded:
    """A decoded image of a batch, with an augmentation for each view."""

    index: int
    picture: RGBImage
    augmentations: list[Augmentation]


def check_views(views: Sequence[str]) -> None:
    """Refuse an objective that needs augmented views where nothing is augmented.

    Raises:
        ConfigError: there is more than the plain view.
    """
    if tuple(views) != (PLAIN_VIEW,):
        raise ConfigError(
            f"the objective needs the views {', '.join(views)} of every image, and a frozen "
            "backbone's features are those of one: set model.train_backbone: true"
        )


@dataclass(kw_only=True)
class Batches(abc.ABC):
    """Cuts epochs into batches; the same epoch gives the same batches on every engine.

    The items of a batch are images, or points where a head learns from them.

    Attributes:
        keeps_items: each of several workers has items of its own, a run of neighbours, the same
            in every epoch: what it decoded once it finds again, and a node's workers read the
            same shards. Else a batch is the one that a lone worker sees, cut.
    """

    keeps_items: ClassVar[bool] = True
    seed: int
    round_index: int

    @property
    @abc.abstractmethod
    def class_ids(self) -> np.ndarray:
        """Return the class of every labelled pixel."""

    @property
    def num_points(self) -> int:
        """Return the labelled pixels."""
        return len(self.class_ids)

    @property
    @abc.abstractmethod
    def num_items(self) -> int:
        """Return the items of an epoch."""

    @abc.abstractmethod
    def epoch(
        self,
        phase: str,
        epoch: int,
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        views: Sequence[str] = (PLAIN_VIEW,),
    ) -> Iterator[Sequence[TrainBatch]]:
        """Yield this worker's part of every batch of an epoch, once for each view.

        Args:
            views: the same items under augmentations of their own.

        Raises:
            ConfigError: there are several views, and nothing is augmented.
        """

    def batch_size(self, settings: PhaseConfig) -> int:
        """Return the items of a batch, over all workers."""
        return settings.batch_size

    def num_batches(self, batch_size: int) -> int:
        """Return the batches of an epoch."""
        return -(-self.num_items // batch_size)

    def num_steps(self, settings: PhaseConfig) -> int:
        """Return the batches of a phase."""
        return settings.epochs * self.num_batches(self.batch_size(settings))

    def cut(
        self, phase: str, epoch: int, batch_size: int, *, rank: int, world_size: int
    ) -> np.ndarray:
        """Return the items of this worker's batches, [batches, its share of batch_size].

        Every item comes once in an epoch, in an order of the epoch's own; a last batch is filled
        up from its start. Shares differ by one at most.
        """
        generator = rng.stream(self.seed, "shuffle", self.round_index, phase, epoch)
        order, batches = generator.permutation(self.num_items), self.num_batches(batch_size)
        first, end = (batch_size * n // world_size for n in (rank, rank + 1))
        if not self.keeps_items:
            return np.resize(order, (batches, batch_size))[:, first:end]
        # A worker's share of the items is its share of a batch.
        lowest, limit = (-(-n * self.num_items // batch_size) for n in (first, end))
        mine = order[(lowest <= order) & (order < limit)]
        if not len(mine):  # fewer items than workers
            mine = order
        return np.resize(mine, (batches, end - first))


def _counted(batch: list[int]) -> Iterator[tuple[int, int]]:
    """Yield each item of a batch and how often the batch has held it before.

    A batch of more items than there are holds some twice: as copies that are augmented alike they
    would teach nothing more, and leave nothing to normalise over.
    """
    seen: Counter[int] = Counter()
    for item in batch:
        yield item, seen[item]
        seen[item] += 1


@dataclass(kw_only=True)
class BatchMaker(Batches):
    """Batches of augmented images."""

    points: LabeledPoints
    cache: ImageCache
    config: TrainConfig
    threads: int

    @property
    def class_ids(self) -> np.ndarray:
        """Return the class of every labelled pixel."""
        return self.points.class_id

    @property
    def num_items(self) -> int:
        """Return the labelled images."""
        return len(self.points.images)

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
        """Yield this worker's part of every batch, once for each view."""
        cut = self.cut(phase, epoch, batch_size, rank=rank, world_size=world_size)

        def load(place: tuple[int, int]) -> _Loaded:
            index, copy = place
            image = self.points.images[index]
            picture = self.cache.get(image)
            height, width = picture.shape[:2]
            crop = self.config.crop or (height, width)
            drawn = []
            for view in views:
                more = () if view == PLAIN_VIEW else (view,)
                more += (f"copy {copy}",) if copy else ()
                generator = rng.stream(
                    self.seed, "augment", self.round_index, phase, epoch, image.image_id, *more
                )
                drawn.append(
                    draw_augmentation(
                        self.config.augment, generator, size=(height, width), crop=crop
                    )
                )
            return _Loaded(index, picture, drawn)

        size = cut.shape[1]
        places = chain.from_iterable(map(_counted, cut.tolist()))
        loaded = map_ahead(load, places, threads=self.threads, ahead=2 * size)
        while window := list(islice(loaded, size)):
            yield [self._collate(window, view) for view in range(len(views))]

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
        return ImageBatch(
            images=[item.picture for item in items],
            augmentations=[item.augmentations[view] for item in items],
            crop=(int(crop[0]), int(crop[1])),
            **columns,
        )
