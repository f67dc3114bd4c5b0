"""SEEDS, patches and colours."""

import cv2
import numpy as np
import pytest

from madbal_ray.config.pool import FeaturesConfig, SuperpixelsConfig
from madbal_ray.data.synthetic import draw_scene
from madbal_ray.errors import PoolError
from madbal_ray.models.weights import PublishedWeights
from madbal_ray.pool.label_map import pack_label_map, unpack_label_map
from madbal_ray.pool.superpixels.color import color_features
from madbal_ray.pool.superpixels.embed_job import EmbedPool
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.pool.superpixels.seeds import closest_level, segment_seeds
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.pool.superpixels.segment_job import SegmentPool
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder


@pytest.fixture(scope="module")
def scene():
    return draw_scene(0, "test", height=96, width=128)[0]


def test_ids_are_dense_and_the_same_twice(scene):
    label_map = segment_seeds(scene, num_superpixels=48)
    assert label_map.dtype == np.uint16
    assert set(np.unique(label_map)) == set(range(label_map.max() + 1))
    assert np.array_equal(label_map, segment_seeds(scene, num_superpixels=48))


@pytest.mark.parametrize(
    ("height", "width", "asked", "found", "level"),
    # counts of OpenCV 4.12 and 5.0, by level: method 4
    [(360, 480, 675, 520, 2), (180, 240, 168, 130, 2), (256, 512, 512, 512, 4)],
)
def test_level_comes_closest_and_ties_take_more_levels(height, width, asked, found, level):
    assert closest_level(height, width, asked, 4) == level
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert segment_seeds(image, num_superpixels=asked).max() + 1 == found


def test_too_many_superpixels_are_refused_before_any_work():
    stage = SegmentImages(SuperpixelsConfig(pixels=4))
    with pytest.raises(PoolError, match="at most 65535"):
        stage.segment(np.zeros((600, 600, 3), np.uint8))


def test_label_map_survives_storage(scene):
    label_map = segment_seeds(scene, num_superpixels=48)
    assert np.array_equal(unpack_label_map(pack_label_map(label_map), 96, 128), label_map)


@pytest.mark.parametrize("method", ["seeds", "slic"])
def test_the_stage_packs_what_it_segments_and_counts_it(scene, method):
    stage = SegmentImages(SuperpixelsConfig(pixels=256, method=method))
    label_map = stage.segment(scene)
    row = stage(scene)
    assert set(row) == {"num_superpixels", "label_map"}
    assert row["num_superpixels"] == len(np.unique(label_map))
    assert np.array_equal(unpack_label_map(row["label_map"], 96, 128), label_map)


def test_patches_equal_a_loop_with_opencv(scene):
    label_map = segment_seeds(scene, num_superpixels=48)
    count = int(label_map.max()) + 1
    patches = crop_patches(scene, label_map, num_superpixels=count, size=16)
    for superpixel in range(count):
        mask = label_map == superpixel
        rows, columns = np.nonzero(mask)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        crop = scene[box].astype(np.float32)
        crop[~mask[box]] = crop[mask[box]].mean(axis=0)
        expected = cv2.resize(crop, (16, 16), interpolation=cv2.INTER_CUBIC).clip(0, 255)
        np.testing.assert_allclose(patches[superpixel], expected, atol=1e-2)


def test_color_features_equal_a_loop(scene):
    label_map = segment_seeds(scene, num_superpixels=48)
    count = int(label_map.max()) + 1
    features = color_features(scene, label_map, num_superpixels=count)
    lab = cv2.cvtColor(scene.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
    for superpixel in range(count):
        pixels = lab[label_map == superpixel]
        expected = [*pixels.mean(axis=0), *pixels.std(axis=0)]
        np.testing.assert_allclose(features[superpixel], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("extractor", "is_done", "needs"),
    [("mobilenet_v2", False, True), ("mobilenet_v2", True, False), ("color", False, False)],
)
def test_superpixels_are_cut_where_a_gpu_is_when_a_network_looks_at_them_meanwhile(
    tmp_path, extractor, is_done, needs
):
    stages = {
        name: StageDir.plan(Folder(tmp_path), name, {}, {})
        for name in ("images", "superpixels", "superpixel_features")
    }
    given = {"reader": None, "threads": 1, "images": stages["images"]}
    embed = EmbedPool(
        output=stages["superpixel_features"],
        superpixels=stages["superpixels"],
        config=FeaturesConfig(extractor=extractor),
        weights=PublishedWeights("none", None),
        device="cuda",
        **given,
    )
    if is_done:
        embed.output.commit([], {})
    job = SegmentPool(
        output=stages["superpixels"], config=SuperpixelsConfig(), embed=embed, **given
    )
    assert job.uses_device is needs
