"""Stage `point_features`: a frozen backbone's taps at the pixels that a round asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from madbal_ray import rng
from madbal_ray.arrays import BoolMap
from madbal_ray.config.training import ModelConfig
from madbal_ray.engine.contract import count_images
from madbal_ray.labels.asked_pixels import AskedPixels
from madbal_ray.models.backbones import frozen_backbone
from madbal_ray.models.inputs import stack_inputs
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.features.stored_taps import NetworkInput
from madbal_ray.pool.prepared import Pool
from madbal_ray.pool.reader import PoolImage
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.points import sample_points

TABLE = "point_features"


@dataclass(kw_only=True)
class GatherPoints:
    """Features of the pixels that were asked in one round and not before.

    Where regions or whole images were asked, a sample of their pixels stands for them.

    Attributes:
        labels: label stages up to this round; the last one is this round's.
        most: pixels of an image that are taken.
        mirrored: features of the same pixels in the mirror image follow.
    """

    output: StageDir
    pool: Pool
    labels: tuple[StageDir, ...]
    model: ModelConfig
    weights: PublishedWeights
    use_bf16: bool
    num_threads: int
    round_index: int
    most: int
    mirrored: bool
    seed: int
    device: str
    is_light = False
    uses_device = True
    counts_images = True
    table_names = (TABLE,)

    def setup(self) -> None:
        """Load the backbone where features are not kept."""
        torch.set_num_threads(self.num_threads)
        self._device = torch.device(self.device)
        self._backbone = None
        if self.pool.features is None:
            self._backbone = frozen_backbone(self.model, self.weights.load()).to(self._device)

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count the shard's images and points."""
        return {**count_images(shard_tables), "points": shard_tables[TABLE].num_rows}

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Gather the points of one shard."""
        images = self.pool.images_of(shard_id)
        label_maps = self.pool.label_maps_of(shard_id)
        before = AskedPixels(self.labels[:-1], shard_id, label_maps)
        after = AskedPixels(self.labels, shard_id, label_maps)
        points = {
            image.image_id: self._draw(image, after.map_of(image) & ~before.map_of(image))
            for image in images
        }
        asked = [image for image in images if len(points[image.image_id][0])]
        loaded = map_ahead(
            self._load,
            asked,
            threads=self.pool.threads,
            ahead=2 * self.pool.threads,
        )
        parts = []
        for image, (views, boundary) in zip(asked, loaded, strict=True):
            y, x = points[image.image_id]
            places = (x, boundary.shape[1] - 1 - x)
            features = np.concatenate(
                [
                    self._features(inputs, y, place, boundary.shape)
                    for inputs, place in zip(views, places, strict=False)
                ],
                axis=1,
            )
            columns: dict[str, Any] = {
                "round": np.full(len(y), self.round_index),
                "image_id": [image.image_id] * len(y),
                "y": y,
                "x": x,
                "is_boundary": boundary[y, x],
                "features": [row.tobytes() for row in features],
            }
            parts.append(tables.from_columns(TABLE, columns))
        return {TABLE: tables.concat(TABLE, parts)}

    def _load(self, image: PoolImage) -> tuple[tuple[NetworkInput, ...], BoolMap]:
        """Return the image and, where it is wanted, its mirror image; delta."""
        inputs, boundary = self.pool.input_and_boundary(image)
        if not self.mirrored:
            return (inputs,), boundary
        return (inputs, self.pool.mirrored_input(image, inputs)), boundary

    def _draw(self, image: PoolImage, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.nonzero(is_new)
        if len(y) > self.most:
            generator = rng.stream(self.seed, "points", self.round_index, image.image_id)
            kept = np.sort(generator.choice(len(y), self.most, replace=False))
            y, x = y[kept], x[kept]
        return y, x

    def _features(
        self, inputs: NetworkInput, y: np.ndarray, x: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Return the taps at points, float16 [P, sum of channels]."""
        with torch.inference_mode():
            taps = stack_inputs([inputs], self._device)
            if self._backbone is not None:
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self.use_bf16):
                    # rounded as they would be if they were kept
                    taps = tuple(tap.half() for tap in self._backbone(taps))
            where = {
                "point_batch": torch.zeros(len(y), dtype=torch.int64, device=self._device),
                "point_y": torch.from_numpy(y).float().to(self._device),
                "point_x": torch.from_numpy(x).float().to(self._device),
            }
            height, width = shape
            values = [sample_points(tap, **where, height=height, width=width) for tap in taps]
            return torch.cat(values, dim=1).half().cpu().numpy()
