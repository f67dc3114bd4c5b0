"""K-means over what superpixels look like (paper section 4)."""

from madbal_ray.clustering.assign import assign_clusters
from madbal_ray.clustering.sklearn import fit_kmeans

__all__ = ["assign_clusters", "fit_kmeans"]
