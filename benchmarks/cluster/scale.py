"""The size of the pool that figures are for."""

from __future__ import annotations

from madbal_ray.config.pool import PoolConfig

IMAGES, SUPERPIXELS, CLUSTERS, CLASSES = 10_000_000, 500, 40, 19
SHARD_IMAGES = PoolConfig().images_in_shard(IMAGES)
SHARDS = -(-IMAGES // SHARD_IMAGES)

Figures = dict[str, float]

FOLDER = "MADBAL_STAND_IN"
"""Environment variable: the folder that workers note the work of `stand_in`'s device in."""

SECONDS = "MADBAL_STAND_IN_SECONDS"
"""Environment variable: seconds that an image takes on it."""
