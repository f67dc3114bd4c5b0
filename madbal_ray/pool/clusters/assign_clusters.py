"""Features -> clusters."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int32

from madbal_ray.pool.clusters.nearest import assign_clusters


class AssignClusters:
    """Give every superpixel the id of its nearest centroid."""

    def __init__(self, centroids: Float[np.ndarray, "K D"]) -> None:
        self.centroids = centroids

    def __call__(self, features: Float[np.ndarray, "S D"]) -> dict[str, Int32[np.ndarray, "S"]]:
        """Return column `cluster_id` of table `superpixel_clusters`.

        Raises:
            ShapeError: features and centroids differ in dimension.
        """
        return {"cluster_id": assign_clusters(features, self.centroids)}
