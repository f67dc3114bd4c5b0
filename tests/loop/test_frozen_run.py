"""Whole runs on a frozen backbone: features kept or computed again, engines, lost caches."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import madbal_ray
from madbal_ray import api
from madbal_ray.config.file import load_config
from madbal_ray.data.registry import data_root, open_dataset
from madbal_ray.engine.stages import StopRequested
from madbal_ray.errors import ConfigError, IntegrityError
from madbal_ray.loop.verify import verify_run
from madbal_ray.models.backbones import frozen_backbone
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.features.stored_taps import read_features
from madbal_ray.pool.reader import ImageReader, pool_images, read_images
from madbal_ray.state import tables
from madbal_ray.state.storage import Folder
from madbal_ray.studies.cross_validation import CrossValidation
from madbal_ray.studies.report_runs import compare
from madbal_ray.vision.normalize import normalize_images
from madbal_ray.vision.points import sample_points
from tests.conftest import frozen_config

TABLES = ("superpixel_scores", "cluster_budgets", "queries", "labels", "metrics")


def run(folder, config, **more):
    return madbal_ray.run(config, run_dir=folder / "run", engine="local", **more)


def assert_same(first, second):
    for name in TABLES:
        assert first.table(name).equals(second.table(name)), name


def files_of_features(finished):
    folder = Path(str(finished.run_dir.find("backbone_features", None).folder))
    return sorted((folder / "backbone_features").glob("*.parquet"))


def test_features_of_every_image_are_kept_with_the_shapes_of_the_taps(frozen_run):
    kept = tables.concat(
        "backbone_features",
        [tables.decode("backbone_features", str(path)) for path in files_of_features(frozen_run)],
    ).to_pylist()
    assert len(kept) == 6 + 3
    shape = [12, 16, 24, 6, 8, 32, 3, 4, 96, 3, 4, 320]
    assert all(row["shape"] == shape for row in kept)
    size = 2 * (12 * 16 * 24 + 6 * 8 * 32 + 3 * 4 * 96 + 3 * 4 * 320)
    assert {len(row["taps"]) for row in kept} == {size}
    assert {len(row["boundary"]) for row in kept} == {48 * 64 // 8}


def test_points_are_gathered_once_and_only_new_ones(frozen_run):
    for index in range(2):
        asked = frozen_run.table("queries", index).select(["image_id", "y", "x"]).to_pylist()
        gathered = frozen_run.table("point_features", index)
        found = gathered.select(["image_id", "y", "x"]).to_pylist()
        assert sorted(map(str, found)) == sorted(map(str, asked))
        assert {len(row) for row in gathered["features"].to_pylist()} == {2 * (24 + 32 + 96 + 320)}


def test_features_that_are_computed_again_give_the_same_queries(frozen_run, tmp_path):
    config = frozen_config()
    config["pool"] = {"shard_images": 2, "features_cache": "never"}
    again = run(tmp_path, config)
    assert files_of_features(again) != []
    assert sum(tables.count_rows(str(path)) for path in files_of_features(again)) == 0
    for name in ("queries", "labels", "point_features"):
        assert again.table(name).equals(frozen_run.table(name)), name


@pytest.fixture(scope="module")
def mirrored_run(tmp_path_factory):
    """A run whose head learns from mirror images, too."""
    config = frozen_config()
    config["train"]["mirrored_points"] = True
    return run(tmp_path_factory.mktemp("mirrored"), config)


def test_the_mirror_image_of_a_point_has_the_features_of_the_mirrored_image(
    mirrored_run, frozen_run
):
    width = 24 + 32 + 96 + 320
    own = frozen_run.table("point_features", 0).to_pylist()
    rows = mirrored_run.table("point_features", 0).to_pylist()
    assert [row["features"][: 2 * width] for row in rows] == [row["features"] for row in own]

    run_dir = mirrored_run.run_dir
    image = read_images(run_dir.find("images", None), 0)[0]
    config = mirrored_run.config
    folder = run_dir.pool_folder(config)
    dataset = open_dataset(config.data, folder)
    reader = ImageReader.of(dataset, data_root(config.data, folder), config.data)
    picture = np.ascontiguousarray(reader.on_input_grid(image)[:, ::-1])
    backbone = frozen_backbone(config.model, None)
    with torch.inference_mode():
        taps = backbone(normalize_images(torch.from_numpy(picture[None])))
    row = next(row for row in rows if row["image_id"] == image.image_id)
    seen = [
        sample_points(
            tap.half(),
            point_batch=torch.tensor([0]),
            point_y=torch.tensor([float(row["y"])]),
            point_x=torch.tensor([63.0 - row["x"]]),
            height=48,
            width=64,
        )
        for tap in taps
    ]
    expected = torch.cat(seen, dim=1)[0].half().numpy()
    found = np.frombuffer(row["features"], np.float16)[width:]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(found - np.frombuffer(row["features"], np.float16)[:width]).max() > 0.01


def test_mirrored_features_are_of_the_pool_alone_and_may_be_computed_again(mirrored_run, tmp_path):
    stage = mirrored_run.run_dir.find("mirrored_features", None)
    assert stage.shards_with("backbone_features") == [0, 1, 2]
    config = frozen_config()
    config["train"]["mirrored_points"] = True
    config["pool"] = {"shard_images": 2, "features_cache": "never"}
    again = run(tmp_path, config)
    assert again.run_dir.find("mirrored_features", None) is None
    for name in ("queries", "labels", "point_features"):
        assert again.table(name).equals(mirrored_run.table(name)), name
    assert any("replayed" in line for line in verify_run(mirrored_run.run_dir))


def test_auto_keeps_what_fits(tmp_path):
    config = frozen_config()
    config["pool"] = {"shard_images": 2, "features_cache_gib": 1e-6}
    with pytest.raises(StopRequested):
        run(tmp_path, config, stop_after=("tap_statistics", None))
    stage = madbal_ray.open_run(tmp_path / "run").run_dir.find("backbone_features", None)
    assert stage.marker().settings["keeps"] is False


@pytest.mark.parametrize("harm", ["deleted", "cut"])
def test_a_cache_lost_in_the_middle_is_said_and_then_computed_anew(harm, frozen_run, tmp_path):
    config = frozen_config()
    with pytest.raises(StopRequested):
        run(tmp_path, config, stop_after=("labels", 0))
    harmed = files_of_features(madbal_ray.open_run(tmp_path / "run"))[0]
    if harm == "deleted":
        harmed.unlink()
    else:
        harmed.write_bytes(harmed.read_bytes()[: harmed.stat().st_size // 2])
    assert_same(run(tmp_path, config), frozen_run)


def test_a_cache_lost_while_a_run_goes_on_is_one_sentence(frozen_run, tmp_path, monkeypatch):
    from madbal_ray.training.point_features_job import GatherPoints

    config = frozen_config()
    with pytest.raises(StopRequested):
        run(tmp_path, config, stop_after=("labels", 0))
    harmed = files_of_features(madbal_ray.open_run(tmp_path / "run"))[0]
    set_up = GatherPoints.setup

    def lose(job):
        harmed.unlink()
        set_up(job)

    with monkeypatch.context() as patched:
        patched.setattr(GatherPoints, "setup", lose)
        with pytest.raises(IntegrityError, match="start the same command again: what is missing"):
            run(tmp_path, config)
    assert_same(run(tmp_path, config), frozen_run)


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_head_with_context_learns_on_frozen_features(cache, tmp_path):
    config = frozen_config(
        model={"train_backbone": False},
        train={"threads_per_worker": 1, "phase1": {"epochs": 1, "batch_size": 2},
               "phase2": {"epochs": 1, "batch_size": 2}},
    )  # fmt: skip
    config["pool"] = {"shard_images": 2, "features_cache": cache}
    finished = run(tmp_path, config)
    assert finished.table("queries", 1).num_rows == 6 * 5
    assert finished.run_dir.find("point_features", 0) is None


@pytest.mark.parametrize("unit", ["superpixel", "image"])
def test_regions_and_whole_images_are_sampled(unit, tmp_path):
    config = frozen_config(num_rounds=2 if unit == "superpixel" else 1)
    config["train"]["points_per_image"] = 7
    if unit == "superpixel":
        config["strategy"] = {"name": "class_balanced_superpixel"}
    else:
        config["budget"] = {"initial_pixels_per_image": "all", "pixels_per_image": 5}
    finished = run(tmp_path, config)
    for index in range(config["num_rounds"]):
        gathered = finished.table("point_features", index).to_pandas()
        counts = gathered.groupby("image_id").size()
        assert counts.max() <= 7
        assert (counts == 7).any() or unit == "superpixel"


@pytest.mark.ray
def test_on_ray_the_same_bytes(frozen_run, ray_session, tmp_path):
    config = frozen_config(resources={"scoring_workers": 2})
    other = madbal_ray.run(config, run_dir=tmp_path / "run", engine="ray")
    assert_same(other, frozen_run)
    assert other.table("point_features").equals(frozen_run.table("point_features"))
    assert other.table("tap_statistics").equals(frozen_run.table("tap_statistics"))


def test_a_finished_run_is_verified_reported_and_exported(frozen_run, tmp_path):
    lines = list(api.verify(str(frozen_run.run_dir)))
    assert "round 1: selection replayed from the stored scores" in lines
    assert lines[-1] == (
        "verified: 2 of 2 rounds; taken as stored: index, images, backbone_features, superpixels, "
        "superpixel_features, centroids, point_features, phase1, phase2, score"
    )


def test_a_report_knows_how_often_every_label_was_seen(frozen_run):
    (result,) = compare([frozen_run]).runs
    answered = [frozen_run.table("labels", index)["status"].to_pylist() for index in range(2)]
    assert [status.count("labelled") for status in answered] == [29, 29]
    assert result.facts.passes == 20 * 16 / 58


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"augment": {"flip": False}}}, r"train\.augment has no effect"),
        ({"train": {"crop": [32, 32]}}, r"train\.crop has no effect"),
        ({"train": {"precision": "bf16"}}, "must be the same"),
        ({"model": {"train_backbone": True}}, r"train\.phase1\.steps counts batches of points"),
        ({"model": {"train_backbone": True}}, r"train\.phase2\.batch_points has no effect"),
        (
            {"model": {"train_backbone": True}, "train": {"mirrored_points": True}},
            r"train\.mirrored_points needs head hypercolumn",
        ),
        (
            {"train": {"frozen_head": {"backbone_rate_factor": 0.1}}},
            r"train\.frozen_head\.backbone_rate_factor has no effect",
        ),
    ],
)
def test_what_does_not_go_with_a_frozen_backbone_is_refused(changes, message):
    config = frozen_config()
    for section, values in changes.items():
        config[section] = config[section] | values
    with pytest.raises(ConfigError, match=message):
        load_config(config)


def test_cross_validation_learns_from_the_folds_own_points(frozen_run, tmp_path):
    validation = CrossValidation(
        frozen_run, Folder(tmp_path), PublishedWeights("none", None), 2, "cpu", objective="miou"
    )
    result = validation.result({"train.phase2.loss_weights.center": 1.0}, 0)
    assert result.miou is not None
    assert 0 < result.num_pixels <= 15
    held_out = {name for name, fold in validation._fold_of.items() if fold == 0}
    fold = tmp_path / "fold-0"
    for path in fold.glob("round-*/point_features/*/point_features"):
        gathered = pq.read_table(path).to_pandas()
        assert not held_out & set(gathered["image_id"])
        assert (gathered.groupby("image_id").size() == 5).all()


def test_a_pool_of_others_is_scored_without_keeping_its_features(frozen_run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(images / f"{index}.png")
    api.score(images, checkpoint=str(frozen_run.run_dir), out=tmp_path / "out", engine="local")
    scored = madbal_ray.open_run(tmp_path / "out")
    assert set(scored.table("superpixel_scores", 0)["image_id"].to_pylist()) == {
        f"{index}.png" for index in range(3)
    }
    assert scored.run_dir.find("backbone_features", None) is None


def test_runs_that_measure_other_splits_share_the_pool_and_not_the_cache(frozen_run, tmp_path):
    config = frozen_config(evaluation={"splits": []})
    first = madbal_ray.run(config, run_dir=tmp_path / "without" / "run", engine="local")
    assert first.table("metrics").num_rows == 0
    pool = {"dir": str(tmp_path / "without" / "pool"), "shard_images": 2}
    assert_same(run(tmp_path, frozen_config(pool=pool)), frozen_run)


def test_a_cache_cut_while_it_is_open_is_one_sentence_and_mended_by_the_same_process(
    frozen_run, tmp_path
):
    config = frozen_config()
    with pytest.raises(StopRequested):
        run(tmp_path, config, stop_after=("point_features", 0))  # every shard of the pool is open
    for path in files_of_features(madbal_ray.open_run(tmp_path / "run")):
        with open(path, "r+b") as file:
            file.truncate(100)
    stage = madbal_ray.open_run(tmp_path / "run").run_dir.find("backbone_features", None)
    image = pool_images(frozen_run.table("images"))[0]
    with pytest.raises(IntegrityError, match="start the same command again"):
        read_features(stage, image)
    assert_same(run(tmp_path, config), frozen_run)
