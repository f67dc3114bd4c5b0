"""Features of a pool's superpixels, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import torch

from madbal_ray.config.pool import FeaturesConfig
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.reader import ImageShardJob, read_images, read_label_maps
from madbal_ray.pool.superpixels.embed_superpixels import EmbedSuperpixels
from madbal_ray.state import tables
from madbal_ray.state.ahead import map_ahead
from madbal_ray.state.stage_dir import StageDir


@dataclass(kw_only=True)
class EmbedPool(ImageShardJob):
    """Features of every superpixel."""

    images: StageDir
    superpixels: StageDir
    config: FeaturesConfig
    weights: PublishedWeights
    device: str
    table_names = ("superpixel_features",)

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
        image_tables = []
        work_images = map_ahead(
            self.reader.on_working_grid, images, threads=self.threads, ahead=2 * self.threads
        )
        for image, work_image in zip(images, work_images, strict=True):
            columns = self._stage(work_image, label_maps[image.image_id])
            columns["image_id"] = [image.image_id] * len(columns["superpixel_id"])
            image_tables.append(tables.from_columns("superpixel_features", columns))
        return {"superpixel_features": tables.concat("superpixel_features", image_tables)}
