"""K-means on CPUs through scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from madbal_ray.errors import PoolError

BACKEND = "sklearn"


def fit_kmeans(
    features: Float[np.ndarray, "N D"], *, num_clusters: int, num_init: int, seed: int
) -> tuple[Float32[np.ndarray, "K D"], float]:
    """Fit K centroids with k-means++ and Lloyd's algorithm.

    One thread, so that the result does not depend on the machine's number of cores.

    Returns:
        centroids and inertia (sum of squared distances). Fewer distinct features than
        clusters leave clusters empty; they keep a centroid and get no superpixels.

    Raises:
        PoolError: fewer superpixels than clusters.
    """
    if len(features) < num_clusters:
        raise PoolError(
            f"{len(features)} superpixels cannot form clustering.num_clusters = {num_clusters} "
            "clusters; lower it, lower superpixels.pixels, or add images"
        )
    options: dict[str, Any] = {"n_init": num_init, "random_state": seed % 2**32}
    model = KMeans(num_clusters, algorithm="lloyd", **options)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than K
        model.fit(np.ascontiguousarray(features, np.float32))
    return model.cluster_centers_.astype(np.float32), float(np.float64(model.inertia_))
