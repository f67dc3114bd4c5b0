"""K-means on GPUs through cuML 26.10; the only module that imports it.

Rows stay in the host's memory and pass through the GPU in pieces, so the GPU's memory does
not limit their number. Not bit-reproducible: centroids are kept, never fitted again to get
the same ones. cuML imports where no GPU is; fitting is what fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from madbal_ray.errors import MadbalError, NumericalError, ResourceError
from madbal_ray.pool.clusters.backend import INSTALL_CUML, check_rows

RESIDENT_BYTES = 2 * 2**30
"""Rows of so many bytes are copied to the GPU once; more are streamed in pieces of this size."""

SEEDING_ROWS = 2**17
"""Rows that streamed fits draw their first centroids from; cuML's own 3 K rows are too few."""


def fit_kmeans(
    features: Float[np.ndarray, "N D"], *, num_clusters: int, num_init: int, seed: int
) -> tuple[Float32[np.ndarray, "K D"], float]:
    """Fit K centroids with k-means|| and Lloyd's algorithm on one GPU.

    Returns:
        centroids and inertia, as `madbal_ray.pool.clusters.sklearn.fit_kmeans`.

    Raises:
        PoolError: fewer superpixels than clusters.
        ResourceError: cuML cannot be imported, or has no GPU to work on.
        NumericalError: cuML's centroids are not finite.
    """
    check_rows(len(features), num_clusters)
    rows = np.ascontiguousarray(features, np.float32)
    with _cuml_errors_told():
        from cuml.cluster import KMeans  # pyright: ignore[reportMissingImports]

        options = _options(rows.shape[1], len(rows), num_clusters, num_init, seed)
        if rows.nbytes <= RESIDENT_BYTES:
            options["device_buffer_samples"] = 0
        return _result(KMeans(**options).fit(rows))


def fit_kmeans_together(
    shards: Sequence[Float32[np.ndarray, "_ D"]],
    *,
    total_rows: int,
    num_clusters: int,
    num_init: int,
    seed: int,
    handle: Any,
) -> Float32[np.ndarray, "K D"]:
    """Fit K centroids to the rows of all members of a group, one GPU each.

    All members must call this together with the same settings, or those that do wait.

    Args:
        shards: this member's rows, one shard or more; no shard is in two members.
        total_rows: of all members.
        handle: RAFT handle that carries the group's communicator.

    Returns:
        the same centroids in every member.

    Raises:
        PoolError: fewer superpixels than clusters in the whole group.
        ResourceError: cuML cannot be imported, or has no GPU to work on.
        NumericalError: cuML's centroids are not finite.
    """
    check_rows(total_rows, num_clusters)
    with _cuml_errors_told():
        from cuml.cluster.kmeans_mg import KMeansMG  # pyright: ignore[reportMissingImports]

        options = _options(shards[0].shape[1], total_rows, num_clusters, num_init, seed)
        return _result(KMeansMG(handle=handle, **options).fit(list(shards)))[0]


def _options(
    dimensions: int, total_rows: int, num_clusters: int, num_init: int, seed: int
) -> dict[str, Any]:
    return {
        "n_clusters": num_clusters,
        "init": "scalable-k-means++",
        "n_init": num_init,
        "random_state": seed % 2**32,
        "device_buffer_samples": max(1, RESIDENT_BYTES // (4 * dimensions)),
        "init_size": min(total_rows, max(SEEDING_ROWS, 3 * num_clusters)),
        "output_type": "numpy",
    }


def _result(model: Any) -> tuple[Float32[np.ndarray, "K D"], float]:
    centroids = np.ascontiguousarray(model.cluster_centers_, np.float32)
    if not np.isfinite(centroids).all():
        raise NumericalError(
            f"cuML left {int((~np.isfinite(centroids).all(axis=1)).sum())} of {len(centroids)} "
            "centroids not finite; look for such values in table `superpixel_features`, or set "
            "clustering.backend=sklearn"
        )
    return centroids, float(model.inertia_)


@contextmanager
def _cuml_errors_told() -> Iterator[None]:
    """Say what to do where cuML or its GPU is missing."""
    try:
        yield
    except ImportError as error:
        raise ResourceError(
            f"clustering on a GPU: cuML cannot be imported here ({error}); {INSTALL_CUML}, or set "
            "clustering.backend=sklearn"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MadbalError):
            raise
        raise ResourceError(
            f"clustering on a GPU: cuML failed here ({type(error).__name__}: {error}); it needs a "
            "CUDA 13 driver and a GPU with some memory free; mend that, or set "
            "clustering.backend=sklearn"
        ) from error
