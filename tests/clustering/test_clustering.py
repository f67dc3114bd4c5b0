"""K-means: what every backend promises."""

import inspect

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from madbal_ray.clustering import assign_clusters, fit_kmeans
from madbal_ray.errors import PoolError, ShapeError


def blobs(seed=0, per_cluster=60):
    rng = np.random.default_rng(seed)
    centers = np.array([[0, 0], [8, 0], [0, 8], [8, 8]], np.float32)
    truth = np.repeat(np.arange(4), per_cluster)
    return centers[truth] + rng.normal(0, 0.5, (len(truth), 2)).astype(np.float32), truth


def test_finds_separate_groups_and_is_the_same_twice():
    features, truth = blobs()
    centroids, inertia = fit_kmeans(features, num_clusters=4, num_init=2, seed=7)
    clusters = assign_clusters(features, centroids)
    assert adjusted_rand_score(truth, clusters) == 1.0
    assert inertia == pytest.approx(((features - centroids[clusters]) ** 2).sum(), rel=1e-4)
    again, _ = fit_kmeans(features, num_clusters=4, num_init=2, seed=7)
    assert np.array_equal(centroids, again)


def test_fewer_distinct_points_than_clusters_leave_clusters_empty():
    features = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    centroids, _ = fit_kmeans(features, num_clusters=4, num_init=1, seed=0)
    assert centroids.shape == (4, 2)
    assert len(set(assign_clusters(features, centroids).tolist())) == 2


def test_fewer_superpixels_than_clusters_are_refused():
    with pytest.raises(PoolError, match=r"3 superpixels cannot form .*num_clusters = 9"):
        fit_kmeans(np.zeros((3, 2), np.float32), num_clusters=9, num_init=1, seed=0)


def test_assignment_equals_a_loop_with_ties_to_the_lower_id():
    rng = np.random.default_rng(1)
    features = rng.integers(0, 3, (40, 3)).astype(np.float16)
    centroids = rng.integers(0, 3, (6, 3)).astype(np.float32)
    found = assign_clusters(features, centroids)
    for row, cluster in zip(features, found, strict=True):
        distances = [float(((row.astype(float) - c) ** 2).sum()) for c in centroids]
        assert cluster == distances.index(min(distances))
    with pytest.raises(ShapeError, match="dimensions"):
        inspect.unwrap(assign_clusters)(features, centroids[:, :2])
