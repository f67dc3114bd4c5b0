"""Superpixels and what they look like are written from one decoded image, each stage on its own."""

from collections import Counter
from pathlib import Path

import pytest

import madbal_ray
from madbal_ray.pool import inspect_job
from madbal_ray.pool.reader import ImageReader
from madbal_ray.state.storage import Folder
from tests.conftest import tiny_config


@pytest.fixture
def decoded(monkeypatch):
    """Count how often images are decoded, at the inspection and after it."""
    counts = Counter()
    original, image_size = ImageReader.original, inspect_job.image_size

    def count_original(self, image):
        counts[image.image_id] += 1
        return original(self, image)

    def count_inspected(data, **options):
        counts["inspected"] += 1
        return image_size(data, **options)

    monkeypatch.setattr(ImageReader, "original", count_original)
    monkeypatch.setattr(inspect_job, "image_size", count_inspected)
    return counts


def prepare(folder, name="run", after="superpixel_clusters", **changes):
    """Return a run that stopped once its pool was prepared so far."""
    config = tiny_config(
        data__synthetic={"num_train": 6, "num_val": 1, "height": 48, "width": 64},
        pool={"shard_images": 2, "dir": str(folder / "pool")},
        **changes,
    )
    with pytest.raises(Exception, match=f"stopped after {after}"):
        madbal_ray.run(config, run_dir=folder / name, engine="local", stop_after=(after, None))
    return madbal_ray.open_run(folder / name)


def test_an_image_is_decoded_at_its_inspection_and_once_more(tmp_path, decoded):
    prepare(tmp_path)
    assert decoded.pop("inspected") == 6 + 1
    assert sorted(decoded.values()) == [1] * 6


def test_files_written_ahead_are_those_of_the_stage_itself(tmp_path, decoded):
    features = prepare(tmp_path).stage("superpixel_features")
    digest = features.digest()
    folder = Path(str(features.folder))
    (folder / "_DONE.json").unlink()
    (folder / "superpixel_features/00001.parquet").unlink()
    decoded.clear()
    again = prepare(tmp_path, "again").stage("superpixel_features")
    assert again.digest() == digest
    assert sorted(decoded.values()) == [1, 1]  # the images of that shard


def test_a_shard_whose_superpixels_are_lost_loses_its_features_with_them(tmp_path, decoded):
    run = prepare(tmp_path)
    superpixels, features = run.stage("superpixels"), run.stage("superpixel_features")
    digest = features.digest()
    folder = Path(str(superpixels.folder))
    (folder / "_DONE.json").unlink()
    (folder / "superpixels/00002.parquet").unlink()
    written = Path(str(features.folder)) / "superpixel_features/00002.parquet"
    marker = Path(str(features.folder)) / "_DONE.json"
    before = max(path.stat().st_mtime_ns for path in (written, marker))
    decoded.clear()
    again = prepare(tmp_path, "again").stage("superpixel_features")
    assert written.stat().st_mtime_ns > before
    assert marker.stat().st_mtime_ns > before
    assert again.digest() == digest
    assert sorted(decoded.values()) == [1, 1]


def test_a_stop_after_superpixels_leaves_the_features_for_the_next_start(tmp_path, decoded):
    superpixels = prepare(tmp_path, after="superpixels").stage("superpixels")
    decoded.clear()
    run = prepare(tmp_path)
    again, features = run.stage("superpixels"), run.stage("superpixel_features")
    assert again == superpixels
    assert features.marker().summary["shards"]["0"] == {"images": 2}
    assert not decoded


def test_other_features_of_the_same_superpixels_are_a_pass_of_their_own(tmp_path, decoded):
    run = prepare(tmp_path)
    superpixels, features = run.stage("superpixels"), run.stage("superpixel_features")
    decoded.clear()
    run = prepare(tmp_path, "other", features__batch_size=7)
    again, others = run.stage("superpixels"), run.stage("superpixel_features")
    assert again == superpixels
    assert others.key != features.key
    assert others.read_table("superpixel_features") == features.read_table("superpixel_features")
    assert sorted(decoded.values()) == [1] * 6
    assert Folder(str(features.folder)).exists("_DONE.json")


def test_other_superpixels_have_other_features(tmp_path):
    features = prepare(tmp_path).stage("superpixel_features")
    run = prepare(tmp_path, "other", superpixels__pixels=128)
    others = run.stage("superpixel_features")
    assert others.key != features.key
    superpixels = run.stage("superpixels").read_table("superpixels")
    assert others.read_table("superpixel_features").num_rows == sum(
        superpixels["num_superpixels"].to_pylist()
    )
