"""Nearest centroids and their running means with numbers worked out by hand."""

import numpy as np
import pytest

from madbal_ray.pool.clusters import sklearn
from madbal_ray.pool.clusters.nearest import assign_clusters, measure_inertia
from madbal_ray.pool.clusters.sklearn import refine_in_batches


def test_the_nearest_centroid_is_taken_and_ties_go_to_the_lower_id():
    centroids = np.array([[4, 0], [0, 0], [0, 2], [0, 2]], np.float32)
    features = np.array([[3, 0], [0, 3], [2, 0], [0, 1], [1, 1]], np.float16)
    assert assign_clusters(features, centroids).tolist() == [0, 2, 0, 1, 1]
    assert measure_inertia(features, centroids) == 1 + 1 + 4 + 1 + 2


def test_centroids_move_to_the_running_mean_of_their_rows():
    rng = np.random.default_rng(0)
    batches = [rng.integers(-8, 9, (size, 2)).astype(np.float16) for size in (6, 4, 5)]
    centroids = np.array([[-4, 0], [4, 0], [0, 5]], np.float32)
    expected, counts = centroids.astype(float), [0, 0, 0]
    for batch in batches:
        nearest = [int(((row - expected) ** 2).sum(axis=1).argmin()) for row in batch.astype(float)]
        for k in range(3):
            rows = [
                row for row, found in zip(batch.astype(float), nearest, strict=True) if found == k
            ]
            if rows:
                total = counts[k] * expected[k] + sum(rows)
                counts[k] += len(rows)
                expected[k] = total / counts[k]
    assert min(counts) > 0
    np.testing.assert_allclose(refine_in_batches(centroids, batches), expected, rtol=1e-6)


def test_a_fit_is_lloyds_with_its_seed_and_restarts(monkeypatch):
    made = {}

    class Recorder(sklearn.KMeans):
        def __init__(self, n_clusters, **options):
            made.update(options)
            super().__init__(n_clusters, **options)

    monkeypatch.setattr(sklearn, "KMeans", Recorder)
    rows = np.array([[0], [1], [10], [12]], np.float16)
    centroids, inertia = sklearn.fit_kmeans(rows, num_clusters=2, num_init=3, seed=2**32 + 5)
    assert made == {"algorithm": "lloyd", "n_init": 3, "random_state": 5}
    assert sorted(centroids[:, 0].tolist()) == [0.5, 11.0]
    assert inertia == pytest.approx(0.5 + 2.0)
