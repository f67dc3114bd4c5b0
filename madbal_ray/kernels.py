"""The nine kernels of a round, on one page; each is a pure function on arrays (or their record).

pixel_scores         u(x) of every pixel (Eq. 4)
reduce_scores        pixel maps of one image -> its superpixels
cluster_statistics   superpixels of a shard -> counts and sums by cluster and class
ClusterStatistics    those, mergeable exactly
score_clusters       P_k(c) and u(cl_k) (Eq. 5, 7)
score_superpixels    u(s) (Eq. 6)
allocate_cluster_budget   pixels of each cluster (Eq. 8)
query_image          pixels to ask for in one image
point_cross_entropy  cross-entropy at labelled points
"""

from madbal_ray.scoring.pixel_scores import pixel_scores
from madbal_ray.scoring.reduce import reduce_scores
from madbal_ray.selection.cluster_budget import allocate_cluster_budget
from madbal_ray.selection.cluster_statistics import (
    ClusterStatistics,
    cluster_statistics,
    score_clusters,
    score_superpixels,
)
from madbal_ray.selection.query import query_image
from madbal_ray.training.point_loss import point_cross_entropy

__all__ = [
    "ClusterStatistics",
    "allocate_cluster_budget",
    "cluster_statistics",
    "pixel_scores",
    "point_cross_entropy",
    "query_image",
    "reduce_scores",
    "score_clusters",
    "score_superpixels",
]
