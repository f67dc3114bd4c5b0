"""Features of a pool's superpixels, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from madbal_ray.arrays import LabelMap, RGBImage
from madbal_ray.config.pool import FeaturesConfig
from madbal_ray.engine.contract import written_row
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.reader import ImageShardJob, PoolImage, read_images, read_label_maps
from madbal_ray.pool.superpixels.embed_superpixels import EmbedSuperpixels
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir

TABLE = "superpixel_features"


@dataclass(kw_only=True)
class EmbedPool(ImageShardJob):
    """Features of every superpixel."""

    images: StageDir
    superpixels: StageDir
    config: FeaturesConfig
    weights: PublishedWeights
    device: str
    table_names = (TABLE,)

    @property
    def uses_device(self) -> bool:
        """Tell whether the extractor is a network."""
        return self.config.extractor != "color"

    def setup(self) -> None:
        """Load the extractor; one thread, since the workers are the parallelism."""
        torch.set_num_threads(1)
        self._stage = EmbedSuperpixels(
            self.config, weights=self.weights.load(), device=torch.device(self.device)
        )

    def run(self, shard_id: int) -> dict[str, pa.Table]:
        """Return the features of one shard."""
        images = read_images(self.images, shard_id)
        label_maps = read_label_maps(self.superpixels, shard_id, images)
        work_images = map_ahead(
            self.reader.on_working_grid, images, threads=self.threads, ahead=2 * self.threads
        )
        image_tables = [
            self.embed_image(image, work_image, label_maps[image.image_id])
            for image, work_image in zip(images, work_images, strict=True)
        ]
        return {TABLE: tables.concat(TABLE, image_tables)}

    def embed_image(self, image: PoolImage, work_image: RGBImage, label_map: LabelMap) -> pa.Table:
        """Return the features of one image; from several threads at once if need be."""
        columns = self._stage(work_image, label_map)
        columns["image_id"] = [image.image_id] * len(columns["superpixel_id"])
        return tables.from_columns(TABLE, columns)

    def write(self, image_tables: Sequence[pa.Table], shard_id: int) -> dict[str, Any]:
        """Write a shard that was computed elsewhere; return its manifest row."""
        table = tables.concat(TABLE, image_tables)
        record = self.output.write_table(TABLE, shard_id, table)
        return written_row(shard_id, [record], self.count({TABLE: table}))
