"""Pool stage `backbone_features`: the frozen backbone over every image, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from madbal_ray.config.training import ModelConfig
from madbal_ray.models.backbones import frozen_backbone
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.features.stored_taps import TABLE, feature_row
from madbal_ray.pool.reader import ImageShardJob, cut_batches, read_images
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.grids import mirror_images
from madbal_ray.vision.normalize import normalize_images


@dataclass(kw_only=True)
class EmbedImages(ImageShardJob):
    """Taps and delta of every image of a shard, and what adds up to the taps' statistics.

    Attributes:
        keeps: the taps are written; False: only what adds up.
        is_mirrored: taps of the images mirrored left to right; delta stays the image's.
    """

    images: StageDir
    model: ModelConfig
    weights: PublishedWeights
    use_bf16: bool
    batch_size: int
    num_threads: int
    keeps: bool
    is_mirrored: bool = False
    device: str
    uses_device = True
    table_names = (TABLE, "tap_sums")

    def setup(self) -> None:
        """Load the backbone."""
        torch.set_num_threads(self.num_threads)
        self._device = torch.device(self.device)
        self._backbone = frozen_backbone(self.model, self.weights.load()).to(self._device)

    def count(self, shard_tables: Mapping[str, pa.Table]) -> dict[str, int]:
        """Count the shard's images, kept or not."""
        counted = shard_tables["tap_sums"]["num_images"].to_pylist()
        return {"images": counted[0] if counted else 0}

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Embed one shard."""
        images = read_images(self.images, shard_id)
        decoded = map_ahead(
            self.reader.on_both_grids, images, threads=self.threads, ahead=2 * self.batch_size
        )
        pairs = zip(images, decoded, strict=True)
        rows: list[dict[str, Any]] = []
        sums: list[_Sums] = []
        for batch in cut_batches(pairs, self.batch_size, shape_of=lambda pair: pair[1][0].shape):
            pictures = np.stack([of_grids[0] for _, of_grids in batch])
            taps = self._taps(mirror_images(pictures) if self.is_mirrored else pictures)
            sums = sums or [_Sums.of(tap.shape[3]) for tap in taps]
            for total, tap in zip(sums, taps, strict=True):
                total.add(tap)
            if self.keeps:
                rows += [
                    feature_row(
                        image.image_id, [tap[index] for tap in taps], boundary_map(of_grids[1])
                    )
                    for index, (image, of_grids) in enumerate(batch)
                ]
        return {
            TABLE: tables.from_rows(TABLE, rows),
            "tap_sums": tables.from_rows(
                "tap_sums",
                [
                    {"shard_id": shard_id, "num_images": len(images), "tap": index, **vars(total)}
                    for index, total in enumerate(sums)
                ],
            ),
        }

    def _taps(self, pictures: np.ndarray) -> list[np.ndarray]:
        """Return the taps of a batch as float16, channels last."""
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self.use_bf16),
        ):
            taps = self._backbone(normalize_images(torch.from_numpy(pictures).to(self._device)))
        return [tap.half().permute(0, 2, 3, 1).contiguous().cpu().numpy() for tap in taps]


@dataclass
class _Sums:
    """What adds up to a tap's mean and deviation, in float64."""

    count: int
    total: np.ndarray
    total_square: np.ndarray

    @staticmethod
    def of(channels: int) -> _Sums:
        return _Sums(0, np.zeros(channels), np.zeros(channels))

    def add(self, tap: np.ndarray) -> None:
        cells = tap.reshape(-1, tap.shape[-1]).astype(np.float64)
        self.count += len(cells)
        self.total += cells.sum(axis=0)
        self.total_square += np.square(cells).sum(axis=0)
