"""Superpixels of a pool, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from madbal_ray.config.pool import SuperpixelsConfig
from madbal_ray.pool.reader import ImageShardJob, PoolImage, read_images
from madbal_ray.pool.superpixels.embed_job import EmbedPool
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class SegmentPool(ImageShardJob):
    """Superpixels of every image, and what they look like while the image is decoded.

    Attributes:
        embed: the stage that comes next; its files are written before ours, so that a shard of
            superpixels never lies there without them, and noted in its manifest.
    """

    images: StageDir
    config: SuperpixelsConfig
    embed: EmbedPool
    table_names = ("superpixels",)

    @property
    def uses_device(self) -> bool:
        """Tell whether what comes next is still to be done, by a network."""
        return self.embed.uses_device and not self.embed.output.is_done

    def setup(self) -> None:
        """Load the extractor of what comes next, unless that is finished (`verify --deep`)."""
        self._embeds = not self.embed.output.is_done
        self._beside: dict[int, dict[str, Any]] = {}
        if self._embeds:
            self.embed.setup()

    @property
    def beside_output(self) -> StageDir:
        """Return the stage that comes next."""
        return self.embed.output

    def beside(self, shard_id: int) -> dict[str, Any] | None:
        """Return the next stage's manifest row of a shard."""
        return self._beside.pop(shard_id, None)

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the label maps of one shard; write the features of its superpixels."""
        stage = SegmentImages(self.config)

        def segment(image: PoolImage) -> tuple[dict[str, Any], pa.Table | None]:
            work_image = self.reader.on_working_grid(image)
            label_map = stage.segment(work_image)
            row = {"image_id": image.image_id, **stage.row(label_map)}
            if not self._embeds:
                return row, None
            return row, self.embed.embed_image(image, work_image, label_map)

        images = read_images(self.images, shard_id)
        done = list(map_ahead(segment, images, threads=self.threads, ahead=self.threads))
        if self._embeds:
            parts = [table for _, table in done if table is not None]
            self._beside[shard_id] = self.embed.write(parts, shard_id)
        return {"superpixels": tables.from_rows("superpixels", [row for row, _ in done])}
