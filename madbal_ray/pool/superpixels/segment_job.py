"""Superpixels of a pool, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from madbal_ray.config.pool import SuperpixelsConfig
from madbal_ray.pool.reader import ImageShardJob, PoolImage, read_images
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class SegmentPool(ImageShardJob):
    """Superpixels of every image."""

    images: StageDir
    config: SuperpixelsConfig
    table_names = ("superpixels",)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the label maps of one shard."""
        stage = SegmentImages(self.config)

        def segment(image: PoolImage) -> dict[str, Any]:
            return {"image_id": image.image_id, **stage(self.reader.on_working_grid(image))}

        images = read_images(self.images, shard_id)
        rows = list(map_ahead(segment, images, threads=self.threads, ahead=self.threads))
        return {"superpixels": tables.from_rows("superpixels", rows)}
