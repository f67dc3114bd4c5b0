"""Assignment, inertia, and which backend is chosen; what fits promise: contracts/test_kmeans.py."""

import inspect
from importlib.util import find_spec

import numpy as np
import pytest

from madbal_ray.errors import ResourceError, ShapeError
from madbal_ray.pool.clusters import cuml
from madbal_ray.pool.clusters.assign_clusters import AssignClusters
from madbal_ray.pool.clusters.backend import choose_backend
from madbal_ray.pool.clusters.nearest import assign_clusters, measure_inertia

has_cuml = find_spec("cuml") is not None
needs_no_cuml = pytest.mark.skipif(has_cuml, reason="cuML is installed here")


def test_assignment_equals_a_loop_with_ties_to_the_lower_id():
    rng = np.random.default_rng(1)
    features = rng.integers(0, 3, (40, 3)).astype(np.float16)
    centroids = rng.integers(0, 3, (6, 3)).astype(np.float32)
    found = assign_clusters(features, centroids)
    total = 0.0
    for row, cluster in zip(features, found, strict=True):
        distances = [float(((row.astype(float) - c) ** 2).sum()) for c in centroids]
        assert cluster == distances.index(min(distances))
        total += min(distances)
    assert measure_inertia(features, centroids) == pytest.approx(total)
    with pytest.raises(ShapeError, match="dimensions"):
        inspect.unwrap(assign_clusters)(features, centroids[:, :2])


def test_the_stage_names_the_nearest_centroid():
    centroids = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]], np.float32)
    features = np.array([[1.0, 0.0], [3.0, 1.0], [0.0, 1.0], [-1.0, 9.0]], np.float16)
    columns = AssignClusters(centroids)(features)  # the third is as near to 0 as to 2
    assert {name: column.tolist() for name, column in columns.items()} == {
        "cluster_id": [0, 1, 0, 2]
    }


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_sklearn_runs_where_it_is_asked_for(device):
    assert choose_backend("sklearn", device) == ("sklearn", "as configured")


def test_auto_takes_sklearn_without_a_gpu_and_says_why():
    assert choose_backend("auto", "cpu") == ("sklearn", "auto: no CUDA device in use")


def test_cuml_without_a_gpu_is_refused():
    with pytest.raises(ResourceError, match=r"needs a CUDA device.*clustering\.backend=sklearn"):
        choose_backend("cuml", "cpu")


@needs_no_cuml
def test_without_cuml_auto_takes_sklearn_and_cuml_says_what_to_install():
    name, reason = choose_backend("auto", "cuda")
    assert name == "sklearn"
    assert "pip install 'madbal_ray[gpu]'" in reason
    with pytest.raises(ResourceError, match=r"not installed here; pip install 'madbal_ray\[gpu\]'"):
        choose_backend("cuml", "cuda")


@needs_no_cuml
def test_a_worker_without_cuml_says_so():
    with pytest.raises(ResourceError, match="cannot be imported here"):
        cuml.fit_kmeans(np.eye(4, dtype=np.float32), num_clusters=2, num_init=1, seed=0)


@pytest.mark.skipif(not has_cuml, reason="cuML is not installed")
def test_cuml_without_a_driver_says_what_to_do():
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(ResourceError, match="needs a CUDA 13 driver"):
        cuml.fit_kmeans(np.eye(4, dtype=np.float32), num_clusters=2, num_init=1, seed=0)
