"""Centroids of a pool: whole, from a sample, from a sample refined with all rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import madbal_ray
from madbal_ray import rng
from madbal_ray.config.file import load_config
from madbal_ray.config.pool import ClusteringConfig
from madbal_ray.engine.contract import GpuJob, Member
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, PoolError, ResourceError
from madbal_ray.pool.clusters.feature_rows import FeatureRows
from madbal_ray.pool.clusters.find_centroids import find_centroids
from madbal_ray.pool.clusters.fit_job import FitKMeans
from madbal_ray.pool.clusters.nearest import assign_clusters, measure_inertia
from madbal_ray.pool.clusters.sklearn import fit_kmeans
from madbal_ray.state import tables
from madbal_ray.state.run_dir import RunDir
from madbal_ray.state.stage_dir import StageDir, digests
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config
from tests.plain_runner import PlainRunner

SHARD_ROWS = (700, 0, 1500, 300, 2500)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """5000 features of 6 dimensions in five shards; the second shard has none."""
    drawn = np.random.default_rng(0)
    centers = drawn.normal(0, 1.5, (10, 6))
    folder = Folder(str(tmp_path_factory.mktemp("features")))
    stage = StageDir.plan(folder, "superpixel_features", {}, {})
    records = []
    for shard_id, count in enumerate(SHARD_ROWS):
        rows = centers[drawn.integers(0, 10, count)] + drawn.normal(0, 1, (count, 6))
        columns = {
            "image_id": [f"{shard_id}.png"] * count,
            "superpixel_id": np.arange(count),
            "feature": rows.astype(np.float16),
        }
        table = tables.from_columns("superpixel_features", columns)
        records.append(stage.write_table("superpixel_features", shard_id, table))
    stage.commit(records, {})
    return stage


def job(features, folder, *, backend="sklearn", **options):
    config = ClusteringConfig(num_clusters=10, **options)
    output = StageDir.plan(
        Folder(str(folder)), "centroids", config.result_settings(), digests(features)
    )
    return FitKMeans(
        output=output,
        features=features,
        shard_ids=list(range(len(SHARD_ROWS))),
        config=config,
        backend=backend,
    )


def fitted(features, folder, *, order=1, **options):
    one = job(features, folder, **options)
    pool = Folder(str(folder))
    find_centroids(one.config, pool, PlainRunner(order), one.output, features, one.shard_ids, "cpu")
    column = one.output.read_table("centroids")["centroid"]
    return np.array(column.to_pylist(), np.float32), one.output.marker()


def whole(features):
    return np.concatenate(list(FeatureRows(features, list(range(len(SHARD_ROWS)))).shards()))


def test_every_way_says_in_the_marker_what_ran_and_the_inertia_over_all_rows(features, tmp_path):
    rows = whole(features)
    ways = {
        "whole": {},
        "sample": {"max_fit_rows": 400},
        "mini_batches": {"max_fit_rows": 400, "fit_on": "all"},
    }
    inertia = {}
    for way, options in ways.items():
        centroids, marker = fitted(features, tmp_path, **options)
        summary = marker.summary
        assert (summary["backend"], summary["way"], summary["rows"]) == ("sklearn", way, 5000)
        assert summary["fitted_rows"] == (400 if way == "sample" else 5000)
        assert summary["passes_in_batches"] == (way == "mini_batches")
        assert summary["inertia"] == pytest.approx(measure_inertia(rows, centroids), rel=1e-5)
        assert len(set(assign_clusters(rows, centroids).tolist())) == 10
        inertia[way] = summary["inertia"]
    assert inertia["mini_batches"] < inertia["sample"]
    assert inertia["mini_batches"] < 1.02 * inertia["whole"]


@pytest.mark.parametrize("fit_on", ["sample", "all"])
def test_the_same_settings_give_the_same_bytes(fit_on, features, tmp_path):
    options = {"max_fit_rows": 400, "fit_on": fit_on}
    first, again = (fitted(features, tmp_path / name, **options)[1] for name in "ab")
    assert first.to_json() == again.to_json()
    other = fitted(features, tmp_path / "c", seed=1, **options)[1]
    assert other.files[0].sha256 != first.files[0].sha256


def test_a_second_fit_cannot_change_what_a_marker_promises(features, tmp_path):
    """As where two runs prepare one pool on GPUs, which do not repeat their bytes."""
    _, marker = fitted(features, tmp_path)
    late = job(features, tmp_path)
    fit = late.run_member(Member())
    fit.centroids = fit.centroids + np.float32(1e-6)
    late.finish([fit])
    assert late.output.marker() == marker
    assert late.output.verify_files() is None
    assert late.output.read_table("centroids").num_rows == 10


def test_a_sample_is_what_one_draw_over_all_rows_gives_in_whatever_order_shards_come(
    features, tmp_path
):
    """Centroids are those that one process found, which read all features, to the byte."""
    drawn = np.sort(rng.stream(0, "kmeans_sample").choice(5000, 400, replace=False))
    rows = whole(features)[drawn].astype(np.float32)
    expected, _ = fit_kmeans(rows, num_clusters=10, num_init=4, seed=0)
    forward = fitted(features, tmp_path / "forward", max_fit_rows=400)
    np.testing.assert_array_equal(forward[0], expected)
    backward = fitted(features, tmp_path / "backward", order=-1, max_fit_rows=400)
    assert backward[1].to_json() == forward[1].to_json()
    (sample,) = (tmp_path / "forward" / "kmeans_sample").iterdir()
    counts = json.loads((sample / "_DONE.json").read_text())["files"]
    of_shards = np.bincount(np.searchsorted(np.cumsum(SHARD_ROWS), drawn, "right"), minlength=5)
    assert [one["rows"] for one in counts] == of_shards.tolist()


def test_no_process_reads_all_features_where_a_sample_is_fitted(features, tmp_path, monkeypatch):
    """Jobs by shard open a shard each; the fit and the sum open none."""
    opened = []
    plain = StageDir.read_table

    def read(self, name, shard_ids=None, columns=None):
        if self.stage == "superpixel_features":
            opened.append(shard_ids)
        return plain(self, name, shard_ids, columns)

    monkeypatch.setattr(StageDir, "read_table", read)
    fitted(features, tmp_path, max_fit_rows=400)
    assert sorted(map(tuple, opened)) == [(0,), (0,), (1,), (2,), (2,), (3,), (3,), (4,), (4,)]


def test_a_fit_that_was_given_no_sample_does_not_take_all_rows_in_its_place(features, tmp_path):
    with pytest.raises(ValueError, match="a sample is fitted, and it was not given"):
        job(features, tmp_path, max_fit_rows=400).run()


def test_a_run_points_to_its_centroids_and_not_to_what_led_there(tmp_path):
    config = tiny_config(clustering={"num_clusters": 3, "num_init": 1, "max_fit_rows": 20})
    stop = ("superpixel_clusters", None)
    with pytest.raises(StopRequested):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local", stop_after=stop)
    led = {"kmeans_sample", "kmeans_fit", "kmeans_inertia"}
    assert led < {path.name for path in (tmp_path / "pool").iterdir()}
    pointers = {name for name, _ in RunDir(tmp_path / "run").pointers()}
    assert "centroids" in pointers
    assert not led & pointers
    assert list(madbal_ray.api.verify(tmp_path / "run"))[-1].startswith("verified")


def test_batches_bring_every_row_once_a_pass_in_an_order_of_the_seed(features):
    rows = FeatureRows(features, list(range(len(SHARD_ROWS))))
    assert rows.counts == {0: 700, 2: 1500, 3: 300, 4: 2500}
    batches = list(rows.batches(512, 2, seed=0))
    assert [len(batch) for batch in batches] == [512] * 19 + [10000 - 19 * 512]
    seen = np.concatenate(batches)
    ordered = [np.sort(part.view("u2").astype("u8"), axis=0) for part in (whole(features), seen)]
    np.testing.assert_array_equal(np.repeat(ordered[0], 2, axis=0), ordered[1])
    assert not np.array_equal(seen[:5000], whole(features))
    assert not np.array_equal(seen[:5000], seen[5000:])
    again = np.concatenate(list(rows.batches(512, 2, seed=0)))
    np.testing.assert_array_equal(seen, again)
    assert not np.array_equal(seen, np.concatenate(list(rows.batches(512, 2, seed=1))))


def test_parts_of_a_group_hold_every_row_once(features):
    rows = FeatureRows(features, list(range(len(SHARD_ROWS))))
    parts = [part for rank in range(3) for part in rows.part(rank, 3)]
    assert sorted(map(len, parts)) == [300, 700, 1500, 2500]
    assert {part.dtype for part in parts} == {np.dtype(np.float32)}
    total = np.concatenate(parts).astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(total, whole(features).astype(np.float64).sum(axis=0))


def test_gpus_are_wanted_where_they_help(features, tmp_path):
    large = {"max_fit_rows": 400}
    assert job(features, tmp_path, **large, fit_on="all").num_gpus == 0
    assert job(features, tmp_path, backend="cuml").num_gpus == 1
    assert job(features, tmp_path, backend="cuml", fit_on="all").num_gpus == 1
    assert job(features, tmp_path, backend="cuml", **large).num_gpus == 1
    assert job(features, tmp_path, backend="cuml", **large, fit_on="all").num_gpus == 4
    assert isinstance(job(features, tmp_path), GpuJob)


def test_fewer_superpixels_than_clusters_are_refused_before_anything_is_read(features, tmp_path):
    config = ClusteringConfig(num_clusters=6000)
    output = StageDir.plan(Folder(str(tmp_path)), "centroids", {}, {})
    with pytest.raises(PoolError, match="5000 superpixels cannot form"):
        FitKMeans(
            output=output,
            features=features,
            shard_ids=list(range(len(SHARD_ROWS))),
            config=config,
            backend="cuml",
        ).run()


def test_a_sample_smaller_than_the_clusters_is_a_finding():
    with pytest.raises(ConfigError, match=r"max_fit_rows = 8 is less than .*num_clusters = 9"):
        load_config({"clustering": {"max_fit_rows": 8}})


def test_cuml_on_a_cpu_is_refused_before_the_pool_is_segmented(tmp_path):
    config = tiny_config(clustering__backend="cuml", resources={"device": "cpu"})
    with pytest.raises(ResourceError, match=r"clustering\.backend = cuml needs a CUDA device"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    assert not (tmp_path / "pool" / "superpixels").exists()


def test_a_pool_that_was_clustered_on_a_gpu_is_used_as_it_is_on_a_cpu(tmp_path, tiny_run):
    """Keys hold the configured backend, markers what ran; nothing is fitted again."""
    shutil.copytree(Path(str(tiny_run.run_dir)).parent / "pool", tmp_path / "pool")
    config = tiny_config(clustering__backend="cuml", resources={"device": "cpu"})
    features = tiny_run.run_dir.find("superpixel_features")
    settings = load_config(config).clustering.result_settings()
    pool = Folder(str(tmp_path / "pool"))
    elsewhere = StageDir.plan(pool, "centroids", settings, digests(features))
    moved = np.array(tiny_run.table("centroids")["centroid"].to_pylist(), np.float32) + 1
    table = tables.from_columns("centroids", {"cluster_id": np.arange(3), "centroid": moved})
    elsewhere.commit([elsewhere.write_table("centroids", 0, table)], {"backend": "cuml"})
    stop = ("superpixel_clusters", None)
    with pytest.raises(StopRequested):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local", stop_after=stop)
    found = RunDir(tmp_path / "run").find("centroids")
    assert found.marker().summary == {"backend": "cuml"}
    assert found.read_table("centroids").equals(table)
