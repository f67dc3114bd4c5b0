"""Features -> clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from madbal_ray.pool.clusters.nearest import assign_clusters


class AssignClusters:
    """Give every superpixel the id of its nearest centroid."""

    def __init__(self, centroids: np.ndarray) -> None:
        self.centroids = centroids

    def __call__(
        self, *, image_id: Sequence[str], superpixel_id: np.ndarray, feature: np.ndarray
    ) -> dict[str, Any]:
        """Return the columns of table `superpixel_clusters`."""
        return {
            "image_id": image_id,
            "superpixel_id": superpixel_id,
            "cluster_id": assign_clusters(feature, self.centroids),
        }
