"""Both engines, any number of workers: the same tables."""

import shutil
from pathlib import Path

import pytest

import madbal_ray
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, ResourceError
from madbal_ray.state import tables
from tests.conftest import tiny_config

POOL = [
    "images",
    "superpixels",
    "superpixel_features",
    "centroids",
    "superpixel_clusters",
    "quarantine",
]
ROUND = [
    "superpixel_scores",
    "cluster_statistics",
    "cluster_budgets",
    "queries",
    "labels",
    "class_loss_thresholds",
    "confusion",
    "metrics",
]


@pytest.fixture(scope="module")
def ray_run(ray_session, tmp_path_factory):
    """The tiny run on Ray: every stage in actors."""
    folder = tmp_path_factory.mktemp("ray")
    config = tiny_config(resources={"scoring_workers": 2})
    return madbal_ray.run(config, run_dir=folder / "run", engine="ray")


@pytest.mark.ray
@pytest.mark.parametrize("name", POOL + ROUND)
def test_local_and_ray_give_equal_tables(name, ray_run, tiny_run):
    assert ray_run.table(name).equals(tiny_run.table(name))


def markers(folder):
    """Return the markers below a folder by their path."""
    found = Path(str(folder)).rglob("_DONE.json")
    return {"/".join(path.parts[-4:]): path.read_text() for path in found}


@pytest.mark.ray
def test_local_and_ray_write_the_same_bytes(ray_run, tiny_run):
    written = [markers(Path(str(run.run_dir)).parent) for run in (ray_run, tiny_run)]
    assert written[0] == written[1]


@pytest.mark.ray
def test_a_sample_for_kmeans_is_the_same_in_one_process_and_in_three_actors(ray_session, tmp_path):
    written = []
    for engine in ("local", "ray"):
        config = tiny_config(
            clustering={"num_clusters": 3, "num_init": 1, "max_fit_rows": 20},
            resources={"scoring_workers": 3},
        )
        with pytest.raises(StopRequested):
            madbal_ray.run(
                config,
                run_dir=tmp_path / engine / "run",
                engine=engine,
                stop_after=("superpixel_clusters", None),
            )
        written.append(markers(tmp_path / engine))
    assert {name.split("/")[1] for name in written[0]} > {"kmeans_sample", "kmeans_inertia"}
    assert written[0] == written[1]


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 3])
def test_queries_do_not_depend_on_the_number_of_scoring_workers(
    workers, ray_session, tiny_run, tmp_path
):
    source = Path(str(tiny_run.run_dir)).parent
    shutil.copytree(source, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "run" / "rounds" / "001")
    config = tiny_config(resources={"scoring_workers": workers})
    with pytest.raises(StopRequested):
        madbal_ray.run(
            config, run_dir=tmp_path / "copy" / "run", engine="ray", stop_after=("select", 1)
        )
    again = madbal_ray.open_run(tmp_path / "copy" / "run")
    for name in ("superpixel_scores", "cluster_budgets", "queries"):
        assert again.table(name, 1).equals(tiny_run.table(name, 1)), name


@pytest.mark.ray
def test_a_gpu_that_is_not_there_is_said_at_once(ray_session, tmp_path):
    config = tiny_config(resources={"device": "cuda"})
    with pytest.raises(ResourceError, match="the Ray cluster has no GPU"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="ray")
    with pytest.raises(ResourceError, match="torch sees no GPU"):
        madbal_ray.run(config, run_dir=tmp_path / "run2", engine="local")


def test_the_local_engine_refuses_several_training_workers(tmp_path):
    config = tiny_config(train__num_workers=2)
    with pytest.raises(ConfigError, match=r"train\.num_workers = 2: the local engine has one"):
        madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")


def test_queries_do_not_depend_on_sharding(tiny_run, tmp_path):
    """Shards of 6 images instead of 2: the same scores, budgets and queries."""
    config = tiny_config(pool__shard_images=6)
    other = madbal_ray.run(config, run_dir=tmp_path / "run", engine="local")
    for name in ("superpixel_scores", "cluster_budgets", "queries", "labels", "metrics"):
        columns = [c for c in tables.schema(name).names if c != "shard_id"]
        assert other.table(name).select(columns).equals(tiny_run.table(name).select(columns)), name


def test_a_run_repeats_itself_and_another_seed_does_not(tiny_run, tmp_path):
    again = madbal_ray.run(tiny_config(), run_dir=tmp_path / "a" / "run", engine="local")
    assert again.table("queries").equals(tiny_run.table("queries"))
    other = madbal_ray.run(tiny_config(seed=1), run_dir=tmp_path / "b" / "run", engine="local")
    assert not other.table("queries").equals(tiny_run.table("queries"))
