"""What every way to fit K-means promises; GPU ones need `pytest -m gpu` and cuML."""

import functools
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from madbal_ray.distributed.gpu_group import GpuActor
from madbal_ray.errors import PoolError
from madbal_ray.pool.clusters import cuml
from madbal_ray.pool.clusters.nearest import assign_clusters, measure_inertia
from madbal_ray.pool.clusters.sklearn import fit_kmeans, refine_in_batches

REPEATS = {"sklearn", "sklearn_batches"}
"""Ways that give the same bytes twice; cuML's atomic additions do not."""


def refined(features, *, num_clusters, num_init, seed):
    """A quarter of the rows fitted, then all of them in batches of 64 that are no whole number."""
    order = np.random.default_rng(seed).permutation(len(features))
    sample = features[np.sort(order[: max(len(features) // 4, num_clusters)])]
    centroids, _ = fit_kmeans(sample, num_clusters=num_clusters, num_init=num_init, seed=seed)
    batches = [features[order[start : start + 64]] for start in range(0, len(order), 64)]
    centroids = refine_in_batches(centroids, batches)
    return centroids, measure_inertia(features, centroids)


def streamed(monkeypatch, features, **settings):
    """cuML with room for 50 rows on the device."""
    monkeypatch.setattr(cuml, "RESIDENT_BYTES", 50 * 4 * features.shape[1])
    return cuml.fit_kmeans(features, **settings)


def together(features, **settings):
    """A group of one with a communicator, its rows in three parts."""
    actor = GpuActor()
    actor.join(0, 1, actor.make_id())
    rows = np.ascontiguousarray(features, np.float32)
    handle = actor.member.handle
    centroids = cuml.fit_kmeans_together(
        np.array_split(rows, 3), total_rows=len(rows), handle=handle, **settings
    )
    return centroids, measure_inertia(rows, centroids)


@pytest.fixture(
    params=["sklearn", "sklearn_batches"]
    + [pytest.param(f"cuml{way}", marks=pytest.mark.gpu) for way in ("", "_streamed", "_group")]
)
def way(request, monkeypatch):
    """Name and function of a way to fit."""
    if request.param.startswith("cuml"):
        if find_spec("cuml") is None:
            pytest.skip("cuML is not installed (pip install 'madbal_ray[gpu]')")
        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
    functions = {
        "sklearn": fit_kmeans,
        "sklearn_batches": refined,
        "cuml": cuml.fit_kmeans,
        "cuml_streamed": functools.partial(streamed, monkeypatch),
        "cuml_group": together,
    }
    return request.param, functions[request.param]


def blobs(seed=0, per_cluster=300):
    rng = np.random.default_rng(seed)
    centers = np.array([[0, 0, 0], [8, 0, 0], [0, 8, 0], [8, 8, 4]], np.float32)
    truth = np.repeat(np.arange(4), per_cluster)
    return centers[truth] + rng.normal(0, 0.5, (len(truth), 3)).astype(np.float32), truth


def test_separate_groups_are_found(way):
    features, truth = blobs()
    centroids, inertia = way[1](features, num_clusters=4, num_init=2, seed=7)
    assert centroids.shape == (4, 3)
    assert centroids.dtype == np.float32
    clusters = assign_clusters(features, centroids)
    assert adjusted_rand_score(truth, clusters) == 1.0
    assert inertia == pytest.approx(((features - centroids[clusters]) ** 2).sum(), rel=1e-3)


def test_overlapping_groups_cost_little_more_than_the_best_of_many_fits(way):
    rng = np.random.default_rng(3)
    centers = rng.normal(0, 1.2, (12, 8))
    features = (centers[rng.integers(0, 12, 4000)] + rng.normal(0, 1, (4000, 8))).astype(np.float16)
    best = KMeans(12, n_init=20, random_state=0).fit(features.astype(np.float32))
    centroids, inertia = way[1](features, num_clusters=12, num_init=4, seed=0)
    assert inertia < 1.03 * best.inertia_
    assert inertia == pytest.approx(measure_inertia(features, centroids), rel=1e-3)


def test_a_seed_repeats_its_bytes_where_that_is_promised(way):
    name, fit = way
    features, _ = blobs()
    first, again = (fit(features, num_clusters=6, num_init=1, seed=5) for _ in range(2))
    if name in REPEATS:
        assert first[0].tobytes() == again[0].tobytes()
        assert first[1] == again[1]
        other, _ = fit(features, num_clusters=6, num_init=1, seed=6)
        assert other.tobytes() != first[0].tobytes()
    else:
        assert again[1] == pytest.approx(first[1], rel=0.05)


def test_fewer_distinct_points_than_clusters_leave_clusters_empty(way):
    features = np.repeat(np.eye(2, dtype=np.float32), 40, axis=0)
    centroids, inertia = way[1](features, num_clusters=4, num_init=1, seed=0)
    assert centroids.shape == (4, 2)
    assert np.isfinite(centroids).all()
    assert len(set(assign_clusters(features, centroids).tolist())) == 2
    assert inertia == pytest.approx(0.0, abs=1e-4)


def test_fewer_superpixels_than_clusters_are_refused(way):
    with pytest.raises(PoolError, match=r"3 superpixels cannot form .*num_clusters = 9"):
        way[1](np.zeros((3, 2), np.float32), num_clusters=9, num_init=1, seed=0)


def test_centroids_that_no_row_is_near_stay_where_they_are():
    centroids = np.array([[0, 0], [100, 100]], np.float32)
    rows = np.random.default_rng(0).normal(0, 1, (500, 2)).astype(np.float16)
    found = refine_in_batches(centroids, [rows[:300], rows[300:]])
    np.testing.assert_array_equal(found[1], centroids[1])
    np.testing.assert_allclose(found[0], rows.astype(np.float64).mean(axis=0), rtol=1e-5)
