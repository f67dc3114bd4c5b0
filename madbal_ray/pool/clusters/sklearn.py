"""K-means on CPUs through scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from madbal_ray.pool.clusters.backend import check_rows


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
    check_rows(len(features), num_clusters)
    options: dict[str, Any] = {"n_init": num_init, "random_state": seed % 2**32}
    model = KMeans(num_clusters, algorithm="lloyd", **options)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than K
        model.fit(np.ascontiguousarray(features, np.float32))
    return model.cluster_centers_.astype(np.float32), float(np.float64(model.inertia_))


def refine_in_batches(
    centroids: Float32[np.ndarray, "K D"], batches: Iterable[Float[np.ndarray, "_ _"]]
) -> Float32[np.ndarray, "K D"]:
    """Move each centroid to the running mean of the rows it is nearest to (mini-batch K-means).

    One thread and no random step: equal batches in equal order give equal bytes. A centroid
    that is nearest to no row stays where it is.

    Args:
        batches: rows [B, D], in random order; the first batch holds at least K of them.

    Raises:
        PoolError: the first batch is smaller.
    """
    options: dict[str, Any] = {
        "init": centroids.astype(np.float64),
        "n_init": 1,
        "compute_labels": False,
        "reassignment_ratio": 0.0,  # else rarely met centroids jump to random rows to the end
        "random_state": 0,
    }
    model = MiniBatchKMeans(len(centroids), **options)
    with threadpool_limits(1):
        for number, batch in enumerate(batches):
            if not number:
                check_rows(len(batch), len(centroids))
            model.partial_fit(batch.astype(np.float64))  # sklearn counts rows in the same type
    return np.asarray(model.cluster_centers_, np.float32)
