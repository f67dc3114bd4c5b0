"""Shares, scores and budgets of clusters (paper Eq. 5-8)."""

from madbal_ray.allocation.budget import allocate_cluster_budget, ceil_excess
from madbal_ray.allocation.statistics import (
    ClusterStatistics,
    cluster_statistics,
    score_clusters,
    score_superpixels,
)

__all__ = [
    "ClusterStatistics",
    "allocate_cluster_budget",
    "ceil_excess",
    "cluster_statistics",
    "score_clusters",
    "score_superpixels",
]
