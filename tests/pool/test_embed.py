"""Superpixel features of every extractor."""

import numpy as np
import pytest
import torch
from torchvision import models as tv

from madbal_ray.config.pool import FeaturesConfig
from madbal_ray.data.synthetic import draw_scene
from madbal_ray.errors import ConfigError
from madbal_ray.pool.superpixels.embed_superpixels import (
    PATCH_SIZE,
    EmbedSuperpixels,
    build_extractor,
)
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.pool.superpixels.seeds import segment_seeds
from madbal_ray.vision.normalize import normalize_images

WIDTHS = {"color": 6, "mobilenet_v2": 1280, "vgg16": 512}


@pytest.fixture(scope="module")
def scene():
    image = draw_scene(0, "embed", height=48, width=64)[0]
    return image, segment_seeds(image, num_superpixels=12)


@pytest.mark.parametrize("extractor", list(WIDTHS))
def test_one_half_precision_row_per_superpixel_the_same_twice(extractor, scene):
    image, label_map = scene
    config = FeaturesConfig(extractor=extractor, batch_size=5)

    def embed():
        stage = EmbedSuperpixels(config, weights=None, device=torch.device("cpu"))
        return stage(image, label_map)

    columns = embed()
    assert set(columns) == {"superpixel_id", "feature"}
    count = int(label_map.max()) + 1
    assert columns["feature"].shape == (count, WIDTHS[extractor])
    assert columns["feature"].dtype == np.float16
    assert np.isfinite(columns["feature"]).all()
    assert columns["superpixel_id"].tolist() == list(range(count))
    assert np.array_equal(columns["feature"], embed()["feature"])
    assert len(np.unique(columns["feature"].round(3), axis=0)) > count // 2


def test_vgg16_is_the_papers_512_without_the_last_pooling(scene):
    image, label_map = scene
    torch.manual_seed(3)
    source = tv.vgg16()
    weights = {k: v for k, v in source.state_dict().items() if k.startswith("features.")}
    network = build_extractor("vgg16", weights)
    patches = crop_patches(
        image, label_map, num_superpixels=int(label_map.max()) + 1, size=PATCH_SIZE
    )
    batch = normalize_images(torch.from_numpy(np.rint(patches).astype(np.uint8)))
    with torch.inference_mode():
        found = network(batch)
        expected = source.features[:-1].eval()(batch)
    assert found.shape[1:] == (512, 1, 1)
    assert torch.equal(found, expected)


def test_weights_of_another_network_are_refused():
    weights = tv.mobilenet_v2().state_dict()
    with pytest.raises(ConfigError, match=r"features\.weights do not fit vgg16"):
        build_extractor("vgg16", weights)


def test_features_written_while_images_are_segmented_are_noted_in_their_own_stage(tiny_run):
    stage = tiny_run.run_dir.find("superpixel_features", None)
    noted = {row["shard_id"]: row for row in stage.read_manifest()}
    assert sorted(noted) == [0, 1, 2]
    for shard_id, row in noted.items():
        table = stage.read_table("superpixel_features", [shard_id])
        assert [one["rows"] for one in row["files"]] == [table.num_rows]
        assert row["counts"]["images"] == 2
        assert row["seconds"] == 0.0  # it was not run for itself
