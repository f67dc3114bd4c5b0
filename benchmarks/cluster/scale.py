"""The size of the pool that figures are for."""

from __future__ import annotations

from madbal_ray.config.pool import PoolConfig

IMAGES, SUPERPIXELS, CLUSTERS, CLASSES = 10_000_000, 500, 40, 19
SHARD_IMAGES = PoolConfig().images_in_shard(IMAGES)
SHARDS = -(-IMAGES // SHARD_IMAGES)

Figures = dict[str, float]
