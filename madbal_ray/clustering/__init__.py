"""K-means over what superpixels look like (paper section 4)."""

from madbal_ray.clustering.assign import assign_clusters, measure_inertia
from madbal_ray.clustering.backend import check_rows, choose_backend
from madbal_ray.clustering.sklearn import fit_kmeans, refine_in_batches

__all__ = [
    "assign_clusters",
    "check_rows",
    "choose_backend",
    "fit_kmeans",
    "measure_inertia",
    "refine_in_batches",
]
