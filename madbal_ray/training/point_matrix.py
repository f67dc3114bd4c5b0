"""Labelled points of a frozen backbone as a matrix [points x channels], and batches of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from madbal_ray import rng
from madbal_ray.config.training import PhaseConfig
from madbal_ray.engine.workers import TrainContext
from madbal_ray.errors import LabelError
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.models.network import SegmentationNetwork
from madbal_ray.pool.prepared import Pool
from madbal_ray.state.stage_dir import StageDir, total_of
from madbal_ray.training.batches import PLAIN_VIEW, Batches, TrainBatch, check_views
from madbal_ray.training.image_cache import GIBIBYTE
from madbal_ray.training.loss_prediction import (
    ClassLossThresholds,
    class_loss_thresholds,
    loss_targets,
)
from madbal_ray.training.point_loss import point_cross_entropy
from madbal_ray.transfer import to_device

CHUNK = 8192
"""Points that go through the network at once where nothing is learned from them."""

COLUMNS = ["image_id", "y", "x", "is_boundary", "features"]


@dataclass
class PointMatrix:
    """Points sorted by (image_id, y, x).

    Attributes:
        channels: of each tap; they lie one after another in a row.
        features: float16 [P, V * sum of channels], of the image and (V = 2) then of its mirror
            image; in memory, or a scratch file mapped into it.
        class_id: [P].
        is_boundary: delta [P].
        is_target: Y_L of Eq. 1, once recorded.
    """

    channels: tuple[int, ...]
    features: np.ndarray
    class_id: np.ndarray
    is_boundary: np.ndarray
    is_target: np.ndarray | None = None

    @property
    def is_mirrored(self) -> bool:
        """Return whether there are features of mirror images."""
        return self.features.shape[1] > sum(self.channels)

    def taps(self, rows: np.ndarray, mirror: np.ndarray | None = None) -> tuple[Tensor, ...]:
        """Return the taps of some points as images of one pixel, each [P, c_k, 1, 1].

        Args:
            mirror: bool [P], those that are taken from the mirror image; None: none.
        """
        width, picked = sum(self.channels), self.features[rows]
        if mirror is not None:
            picked = np.where(mirror[:, None], picked[:, width:], picked[:, :width])
        values = torch.from_numpy(np.ascontiguousarray(picked[:, :width])).float()
        return tuple(part[:, :, None, None] for part in values.split(self.channels, dim=1))


def read_point_matrix(
    pool: Pool,
    points: LabeledPoints,
    stages: Sequence[StageDir],
    channels: tuple[int, ...],
    *,
    memory_gib: float,
    mirrored: bool = False,
) -> PointMatrix:
    """Join labels with the features that were gathered at their pixels, shard by shard.

    Args:
        stages: stages `point_features` of all rounds.
        memory_gib: a larger matrix lies in a scratch file without a name.
        mirrored: the stages have features of mirror images, too.

    Raises:
        LabelError: no labelled pixel has features.
    """
    most = sum(total_of(stage, "points") for stage in stages)
    width = sum(channels) * (2 if mirrored else 1)
    features = _room((most, width), memory_gib)
    position = {image.image_id: index for index, image in enumerate(points.images)}
    labelled = _codes(points)
    found = np.zeros(most, np.int64)
    is_boundary = np.zeros(most, bool)
    filled = 0
    for shard_id in sorted({i for stage in stages for i in stage.shards_with("point_features")}):
        for stage in stages:
            table = stage.read_table("point_features", [shard_id], columns=COLUMNS)
            images = table["image_id"].combine_chunks().dictionary_encode()
            index_of = np.array([position.get(name, -1) for name in images.dictionary.to_pylist()])
            index = index_of[images.indices.to_numpy()] if len(index_of) else np.zeros(0, np.int64)
            code = _code(index, table["y"].to_numpy(), table["x"].to_numpy())
            place = np.searchsorted(labelled, code)
            is_labelled = (index >= 0) & (place < len(labelled))
            is_labelled[is_labelled] = labelled[place[is_labelled]] == code[is_labelled]
            rows = np.flatnonzero(is_labelled)
            values = table["features"].take(rows).to_pylist()
            end = filled + len(rows)
            if len(rows):
                joined = np.frombuffer(b"".join(values), np.float16)
                features[filled:end] = joined.reshape(len(rows), width)
            found[filled:end] = place[rows]
            is_boundary[filled:end] = table["is_boundary"].to_numpy()[rows]
            filled = end
    if not filled:
        raise LabelError("no labelled pixel to train on: every answer was void, skipped or unsure")
    order = np.argsort(found[:filled], kind="stable")
    return PointMatrix(
        channels=channels,
        features=_sorted(features, order, memory_gib),
        class_id=points.class_id[found[:filled][order]],
        is_boundary=is_boundary[:filled][order],
    )


def _code(index: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return one number for each (image, y, x), in that order."""
    return (index.astype(np.int64) << 40) | (y.astype(np.int64) << 20) | x.astype(np.int64)


def _codes(points: LabeledPoints) -> np.ndarray:
    counts = np.diff(points.start)
    return _code(np.repeat(np.arange(len(counts)), counts), points.y, points.x)


def _room(shape: tuple[int, int], memory_gib: float) -> np.ndarray:
    """Return a float16 array, in memory where it fits."""
    if 2 * shape[0] * shape[1] <= memory_gib * GIBIBYTE:
        return np.empty(shape, np.float16)
    return np.memmap(tempfile.TemporaryFile(), np.float16, "w+", shape=shape)


def _sorted(features: np.ndarray, order: np.ndarray, memory_gib: float) -> np.ndarray:
    """Return rows in another order."""
    result = _room((len(order), features.shape[1]), memory_gib)
    for start in range(0, len(order), CHUNK):
        result[start : start + CHUNK] = features[order[start : start + CHUNK]]
    return result


@dataclass(kw_only=True)
class PointBatch(TrainBatch):
    """Points whose features are images of one pixel."""

    taps: tuple[Tensor, ...]

    def inputs(self, device: torch.device) -> tuple[Tensor, ...]:
        """Return the taps."""
        return tuple(to_device(tap, device) for tap in self.taps)


@dataclass(kw_only=True)
class PointBatchMaker(Batches):
    """Batches of points."""

    keeps_items: ClassVar[bool] = False
    matrix: PointMatrix

    @property
    def class_ids(self) -> np.ndarray:
        """Return the class of every labelled pixel."""
        return self.matrix.class_id

    @property
    def num_items(self) -> int:
        """Return the points."""
        return self.num_points

    def batch_size(self, settings: PhaseConfig) -> int:
        """Return the points of a batch, over all workers."""
        return settings.batch_points

    def num_steps(self, settings: PhaseConfig) -> int:
        """Return the batches of a phase."""
        return super().num_steps(settings) if settings.steps is None else settings.steps

    def epoch(
        self,
        phase: str,
        epoch: int,
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        views: Sequence[str] = (PLAIN_VIEW,),
    ) -> Iterator[list[PointBatch]]:
        """Yield this worker's part of every batch."""
        check_views(views)
        mirror = None
        if self.matrix.is_mirrored:
            generator = rng.stream(self.seed, "mirror", self.round_index, phase, epoch)
            mirror = generator.random(self.num_points) < 0.5
        for rows in self.cut(phase, epoch, batch_size, rank=rank, world_size=world_size):
            yield [self.batch_of(rows, None if mirror is None else mirror[rows])]

    def batch_of(self, rows: np.ndarray, mirror: np.ndarray | None = None) -> PointBatch:
        """Return some points as a batch, those of `mirror` as their mirror images show them."""
        matrix = self.matrix
        corner = torch.zeros(len(rows))
        return PointBatch(
            taps=matrix.taps(rows, mirror),
            crop=(1, 1),
            batch=torch.arange(len(rows)),
            y=corner,
            x=corner,
            class_id=torch.from_numpy(matrix.class_id[rows].astype(np.int64)),
            is_target=None
            if matrix.is_target is None
            else torch.from_numpy(matrix.is_target[rows]),
            is_boundary=torch.from_numpy(matrix.is_boundary[rows]),
        )


def record_matrix(
    network: SegmentationNetwork,
    maker: PointBatchMaker,
    context: TrainContext,
    *,
    num_classes: int,
    use_bf16: bool,
) -> ClassLossThresholds:
    """Fill in `matrix.is_target` as rank 0 measures it; return tau of every class.

    Source: MADBAL Eq. 1; method 2. As `madbal_ray.training.target_pass.record_points`.
    """
    network.set_phase("eval")
    matrix = maker.matrix
    loss = context.decide(lambda: _losses(network, maker, context.device, use_bf16=use_bf16))
    thresholds = class_loss_thresholds(loss=loss, class_id=matrix.class_id, num_classes=num_classes)
    matrix.is_target = loss_targets(loss=loss, class_id=matrix.class_id, thresholds=thresholds)
    return thresholds


def _losses(
    network: SegmentationNetwork, maker: PointBatchMaker, device: torch.device, *, use_bf16: bool
) -> np.ndarray:
    """Return the cross-entropy of every point, float32 [P]."""
    num_points, losses = maker.num_points, []
    for start in range(0, num_points, CHUNK):
        batch = maker.batch_of(np.arange(start, min(start + CHUNK, num_points)))
        with torch.inference_mode():
            with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
                logits = network(batch.inputs(device), supports=False).logits
            loss = point_cross_entropy(
                logits=logits,
                point_batch=to_device(batch.batch, device),
                point_y=to_device(batch.y, device),
                point_x=to_device(batch.x, device),
                point_class=to_device(batch.class_id, device),
                height=1,
                width=1,
            )
        losses.append(loss.cpu().numpy())
    return np.concatenate(losses)
