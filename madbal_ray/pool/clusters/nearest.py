"""The nearest centroid of each feature."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int32

from madbal_ray.errors import ShapeError


def assign_clusters(
    features: Float[np.ndarray, "S D"], centroids: Float[np.ndarray, "K D"]
) -> Int32[np.ndarray, "S"]:
    """Return the id of the nearest centroid (Euclidean); ties go to the lower id.

    Raises:
        ShapeError: features and centroids differ in dimension.
    """
    if features.shape[1] != centroids.shape[1]:
        raise ShapeError(
            f"features have {features.shape[1]} dimensions, centroids {centroids.shape[1]}"
        )
    points = features.astype(np.float64)
    centers = centroids.astype(np.float64)
    distance = (centers**2).sum(axis=1) - 2.0 * points @ centers.T
    return distance.argmin(axis=1).astype(np.int32)


def measure_inertia(
    features: Float[np.ndarray, "S D"], centroids: Float[np.ndarray, "K D"]
) -> float:
    """Return the sum of squared distances to the nearest centroids.

    Raises:
        ShapeError: features and centroids differ in dimension.
    """
    clusters = assign_clusters(features, centroids)
    difference = features.astype(np.float64) - centroids.astype(np.float64)[clusters]
    return float((difference**2).sum())
