"""Superpixels of a pool, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from madbal_ray.config.pool import SuperpixelsConfig
from madbal_ray.pool.reader import (
    ImageShardJob,
    map_ahead,
    read_images,
)
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.state import tables
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

        def segment(image: Any) -> dict[str, Any]:
            work_image = self.reader.on_working_grid(image)
            return stage(image_id=[image.image_id], work_image=[work_image])

        parts = [
            tables.from_columns("superpixels", columns)
            for columns in map_ahead(
                segment,
                read_images(self.images, shard_id),
                threads=self.threads,
                ahead=self.threads,
            )
        ]
        return {"superpixels": tables.concat("superpixels", parts)}
