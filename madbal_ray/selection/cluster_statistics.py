"""Counts and sums from which Eq. 5-7 follow, exact under any sharding.

exp(-P_k(c)) depends only on (cluster k, class c). So the counts [K, C] and the sums of
mean scores [K, C], both integers, give every share and cluster score, and merge by +.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import ArrayLike

from madbal_ray.errors import NumericalError, ShapeError

SCORE_SCALE = 2.0**32
"""`score_sum` counts in units of 2**-32 nats."""


@dataclass(frozen=True)
class ClusterStatistics:
    """Superpixels by cluster and dominant class.

    Attributes:
        count: int64 [K, C], superpixels of cluster k whose dominant class is c.
        score_sum: [K, C], sum of round(mean_score * 2**32) over the same superpixels: int64 of
            a shard; Python's integers once merged, since 2**31 superpixels of a nat each in one
            cell are more than int64 holds.
    """

    count: Int64[np.ndarray, "K C"]
    score_sum: Shaped[np.ndarray, "K C"]

    def __add__(self, other: ClusterStatistics) -> ClusterStatistics:
        """Merge two parts of a pool.

        Raises:
            ShapeError: K or C differ.
        """
        if self.count.shape != other.count.shape:
            raise ShapeError(
                f"cluster statistics of shapes {self.count.shape} and {other.count.shape} "
                "cannot be merged"
            )
        score_sum = self.score_sum.astype(object) + other.score_sum.astype(object)
        return ClusterStatistics(self.count + other.count, score_sum)

    @staticmethod
    def zeros(num_clusters: int, num_classes: int) -> ClusterStatistics:
        """Return the statistics of no superpixels."""
        shape = (num_clusters, num_classes)
        return ClusterStatistics(np.zeros(shape, np.int64), np.zeros(shape, np.int64))


def cluster_statistics(
    *,
    mean_score: ArrayLike,
    dominant_class: ArrayLike,
    cluster_id: ArrayLike,
    num_clusters: int,
    num_classes: int,
) -> ClusterStatistics:
    """Count superpixels and sum their mean scores by cluster and dominant class.

    Args:
        mean_score: [S] mean u(x) over unasked pixels, numpy.
        dominant_class: [S] 0..C-1, or -1 where no pixel is unasked: dropped.
        cluster_id: [S] 0..K-1.

    Raises:
        ShapeError: lengths differ or an id is out of range.
        NumericalError: a mean score is NaN or infinite.

    Source: MADBAL Eq. 5 and 6.
    """
    mean, dominant, cluster = _columns(mean_score, dominant_class, cluster_id)
    kept = dominant >= 0
    mean, dominant, cluster = mean[kept], dominant[kept], cluster[kept]
    if len(mean) and not np.isfinite(mean).all():
        raise NumericalError(f"{int((~np.isfinite(mean)).sum())} mean scores are not finite")
    if len(mean) and (
        dominant.max() >= num_classes or cluster.min() < 0 or cluster.max() >= num_clusters
    ):
        raise ShapeError(
            f"dominant_class up to {dominant.max()} of {num_classes} classes, cluster_id from "
            f"{cluster.min()} to {cluster.max()} of {num_clusters} clusters"
        )
    size = num_clusters * num_classes
    cell = cluster * num_classes + dominant
    count = np.bincount(cell, minlength=size).astype(np.int64)
    score_sum = np.zeros(size, np.int64)
    np.add.at(score_sum, cell, np.rint(mean * SCORE_SCALE).astype(np.int64))
    shape = (num_clusters, num_classes)
    return ClusterStatistics(count.reshape(shape), score_sum.reshape(shape))


def score_clusters(
    statistics: ClusterStatistics, *, balance_exponent: float = 1.0
) -> tuple[Float64[np.ndarray, "K C"], Float64[np.ndarray, "K"]]:
    """Return P_k(c) (Eq. 5) and u(cl_k) (Eq. 6, 7).

    An empty cluster has share row 0 and score 0.

    Args:
        statistics: of the whole pool.
        balance_exponent: gamma of exp(-gamma P); 1 is the paper's.

    Returns:
        cluster_class_share: float64 [K, C], rows sum to 1 (or are 0).
        cluster_score: float64 [K], mean over the cluster of mean u(x) * exp(-P_k(Do(s))).

    Source: MADBAL Eq. 5-7.
    """
    count = statistics.count.astype(np.float64)
    num_superpixels = count.sum(axis=1, keepdims=True)
    divisor = np.maximum(num_superpixels, 1.0)
    share = count / divisor
    score_sum = (statistics.score_sum / SCORE_SCALE).astype(np.float64)
    weighted = np.exp(-balance_exponent * share) * score_sum
    return share, weighted.sum(axis=1) / divisor[:, 0]


def score_superpixels(
    *,
    mean_score: ArrayLike,
    dominant_class: ArrayLike,
    cluster_id: ArrayLike,
    cluster_class_share: ArrayLike,
    balance_exponent: float = 1.0,
) -> Float64[np.ndarray, "S"]:
    """Return u(s) = mean u(x) * exp(-P_k(Do(s))) (Eq. 6), float64 [S].

    A superpixel without unasked pixels (dominant class -1) has score 0. The factor exp(-P) is
    rounded to float32, so that processors that differ in its last bit give one score.

    Args:
        mean_score: [S] mean u(x) over unasked pixels, numpy.
        dominant_class: [S] 0..C-1, or -1.
        cluster_id: [S] 0..K-1.
        cluster_class_share: [K, C] P_k(c).
        balance_exponent: gamma of exp(-gamma P); 1 is the paper's.

    Raises:
        ShapeError: lengths differ.

    Source: MADBAL Eq. 6.
    """
    mean, dominant, cluster = _columns(mean_score, dominant_class, cluster_id)
    # Nodes with other processors may have another last bit of exp, and all must rank alike: the
    # factors are those of float32, whose rounding takes it away.
    share = np.asarray(cluster_class_share, np.float64)
    factor = np.exp(-balance_exponent * share).astype(np.float32).astype(np.float64)
    return np.where(dominant >= 0, mean * factor[cluster, np.maximum(dominant, 0)], 0.0)


def _columns(
    mean_score: ArrayLike, dominant_class: ArrayLike, cluster_id: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean = np.asarray(mean_score, np.float64)
    dominant = np.asarray(dominant_class, np.int64)
    cluster = np.asarray(cluster_id, np.int64)
    if not mean.shape == dominant.shape == cluster.shape or mean.ndim != 1:
        raise ShapeError(
            f"mean_score {mean.shape}, dominant_class {dominant.shape}, cluster_id "
            f"{cluster.shape}: expected one entry per superpixel in each"
        )
    return mean, dominant, cluster
