"""Batches for a frozen backbone under a head that sees context: whole inputs, not augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.pool.reader import PoolImage
from madbal_ray.state.ahead import map_ahead
from madbal_ray.training.batches import PLAIN_VIEW, Batches, TrainBatch, check_views
from madbal_ray.vision.grids import move_points


@dataclass(kw_only=True)
class InputBatch(TrainBatch):
    """Inputs of one size, each with the points of its image."""

    pictures: list[NetworkInput]

    def inputs(self, device: torch.device) -> Tensor | tuple[Tensor, ...]:
        """Return the images, or their kept features."""
        return stack_inputs(self.pictures, device)


@runtime_checkable
class InputSource(Protocol):
    """What gives the inputs of images: `madbal_ray.pool.prepared.Pool`."""

    @property
    def threads(self) -> int:
        """Return the threads that read ahead."""
        ...

    def input_of(self, image: PoolImage) -> NetworkInput:
        """Return what the network takes of an image."""
        ...


@dataclass(kw_only=True)
class InputBatchMaker(Batches):
    """Batches of whole inputs."""

    points: LabeledPoints
    pool: InputSource

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
    ) -> Iterator[list[InputBatch]]:
        """Yield this worker's part of every batch."""
        check_views(views)
        cut = self.cut(phase, epoch, batch_size, rank=rank, world_size=world_size)
        order = cut.ravel().tolist()
        loaded = map_ahead(
            lambda index: self.pool.input_of(self.points.images[index]),
            order,
            threads=self.pool.threads,
            ahead=2 * cut.shape[1],
        )
        pairs = zip(order, loaded, strict=True)
        while window := list(islice(pairs, cut.shape[1])):
            yield [self._collate([i for i, _ in window], [one for _, one in window])]

    def _collate(self, indices: list[int], pictures: list[NetworkInput]) -> InputBatch:
        points, first = self.points, self.points.images[indices[0]]
        crop = (first.work_height, first.work_width)
        slices = [points.of_image(index) for index in indices]
        rows = np.concatenate([np.arange(one.start, one.stop) for one in slices])
        # Inputs of one size may have working grids of different ones: all points on the first's.
        y, x = (
            np.concatenate(
                [
                    move_points(values[one].astype(np.float64), old[axis], crop[axis])
                    for one, old in zip(slices, self._grids(indices), strict=True)
                ]
            )
            for axis, values in enumerate((points.y, points.x))
        )
        counts = [one.stop - one.start for one in slices]
        marks: dict[str, Any] = {
            name: None if values is None else torch.from_numpy(values[rows])
            for name, values in (
                ("is_target", points.is_target),
                ("is_boundary", points.is_boundary),
            )
        }
        return InputBatch(
            pictures=pictures,
            crop=crop,
            batch=torch.from_numpy(np.repeat(np.arange(len(indices)), counts)),
            y=torch.from_numpy(y.astype(np.float32)),
            x=torch.from_numpy(x.astype(np.float32)),
            class_id=torch.from_numpy(points.class_id[rows].astype(np.int64)),
            **marks,
        )

    def _grids(self, indices: list[int]) -> list[tuple[int, int]]:
        """Return the working grid of each image."""
        images = (self.points.images[index] for index in indices)
        return [(image.work_height, image.work_width) for image in images]
