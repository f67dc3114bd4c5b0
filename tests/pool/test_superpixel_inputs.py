"""What SEEDS and the features of superpixels are given, and label maps, by hand."""

import zlib
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from madbal_ray.config.pool import FeaturesConfig, SuperpixelsConfig
from madbal_ray.pool.label_map import pack_label_map, unpack_label_map, without_gaps
from madbal_ray.pool.superpixels import embed_superpixels
from madbal_ray.pool.superpixels.color import color_features
from madbal_ray.pool.superpixels.patches import crop_patches
from madbal_ray.pool.superpixels.seeds import segment_seeds
from madbal_ray.pool.superpixels.segment_images import SegmentImages
from madbal_ray.seams import SUPERPIXELS

COLORS = [[[255, 0, 0], [0, 128, 0]], [[0, 0, 64], [0, 0, 0]], [[0, 0, 64], [0, 0, 0]]]


@pytest.fixture
def opencv(monkeypatch):
    """SEEDS that finds 12, 10, 6 and 3 superpixels at 1 to 4 levels."""
    made = []

    def create(*arguments):
        one = MagicMock(spec=cv2.ximgproc.SuperpixelSEEDS)
        one.getNumberOfSuperpixels.return_value = {1: 12, 2: 10, 3: 6, 4: 3}[arguments[4]]
        one.getLabels.return_value = np.array([[5, 5], [2, 9], [2, 9]], np.int32)
        made.append((arguments, one))
        return one

    monkeypatch.setattr(cv2.ximgproc, "createSuperpixelSEEDS", create)
    return made


def test_seeds_runs_with_the_reference_codes_parameters(opencv):
    labels = segment_seeds(np.array(COLORS, np.uint8), num_superpixels=8)
    arguments, seeds = opencv[-1]
    # width, height, channels, superpixels, levels, prior, bins, double step: 10 and 6 are as
    # close to 8, and more levels win
    assert arguments == (2, 3, 3, 8, 3, 3, 10, True)
    assert seeds.iterate.call_args.args[1] == 10
    assert labels.tolist() == [[1, 1], [0, 2], [0, 2]]


def test_no_more_levels_are_tried_than_allowed(opencv):
    segment_seeds(np.array(COLORS, np.uint8), num_superpixels=7, max_levels=2)
    assert [arguments[4] for arguments, _ in opencv] == [1, 2, 2]


def test_seeds_sees_hue_in_0_to_1_and_equalised_brightness(opencv):
    segment_seeds(np.array(COLORS, np.uint8), num_superpixels=9)
    hsv = opencv[-1][1].iterate.call_args.args[0]
    assert hsv.dtype == np.float32
    assert hsv[..., 0].ravel().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0, 2 / 3, 0], abs=1e-6)
    assert hsv[..., 1].ravel().tolist() == pytest.approx([1, 1, 1, 0, 1, 0])
    # brightness 255, 128, 64, 0 (64 and 0 twice): of the 4 pixels above the darkest, 2 reach
    # 64, 3 reach 128, 4 reach 255
    values = np.array([255, 191, 128, 0, 128, 0]) / 255
    assert hsv[..., 2].ravel().tolist() == pytest.approx(values.tolist(), abs=1e-6)


@pytest.mark.parametrize(("size", "wanted"), [((40, 51), 7), ((10, 10), 1)])
@pytest.mark.parametrize("method", ["seeds", "slic"])
def test_as_many_superpixels_as_squares_fit(monkeypatch, method, size, wanted):
    given = []

    def fake(image, **options):
        given.append(options)
        return np.zeros(image.shape[:2], np.uint16)

    is_thin = min(size) < 16  # which SLIC splits, whatever was asked for
    monkeypatch.setitem(SUPERPIXELS._things, "slic" if is_thin else method, fake)
    stage = SegmentImages(SuperpixelsConfig(method=method, pixels=256, seeds_levels=3))
    row = stage(np.zeros((*size, 3), np.uint8))
    assert given == [{"num_superpixels": wanted, "max_levels": 3}]
    assert row["num_superpixels"] == 1


def test_labels_keep_their_order_without_gaps():
    found = without_gaps(np.array([[7, 7, 2], [2, 9, 0]]))
    assert found.dtype == np.uint16
    assert found.tolist() == [[2, 2, 1], [1, 3, 0]]


def test_a_stored_label_map_is_little_endian_by_rows():
    packed = pack_label_map(np.array([[1, 512, 3], [0, 65_534, 4]], np.uint16))
    assert zlib.decompress(packed) == b"\x01\0\0\x02\x03\0\0\0\xfe\xff\x04\0"
    assert unpack_label_map(packed, 2, 3).tolist() == [[1, 512, 3], [0, 65_534, 4]]


def test_colour_features_are_mean_and_spread_of_lab():
    white, black, red = [255] * 3, [0] * 3, [255, 0, 0]
    image = np.array([[white, black, red], [white, black, red]], np.uint8)
    labels = np.array([[0, 0, 1], [0, 0, 1]], np.uint16)
    found = color_features(image, labels, num_superpixels=2)
    np.testing.assert_allclose(found[0], [0.5, 0, 0, 0.5, 0, 0], atol=1e-3)
    np.testing.assert_allclose(found[1], [0.5324, 0.8009, 0.6720, 0, 0, 0], atol=1e-3)


def test_a_patch_is_filled_with_the_mean_of_its_own_pixels():
    image = np.zeros((3, 4, 3), np.uint8)
    image[1:, 1:3] = [[[10, 1, 0], [20, 2, 0]], [[60, 3, 0], [200, 200, 200]]]
    labels = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1]], np.uint16)
    found = crop_patches(image, labels, num_superpixels=2, size=2)[0]
    # a box of 2 x 2 pixels, so nothing is interpolated
    np.testing.assert_allclose(found, [[[10, 1, 0], [20, 2, 0]], [[60, 3, 0], [30, 2, 0]]])


def test_a_patch_is_resized_cubically_and_clipped():
    image = np.repeat(np.array([[0, 0, 255, 255]], np.uint8)[..., None], 3, axis=2)
    found = crop_patches(image, np.zeros((1, 4), np.uint16), num_superpixels=1, size=8)
    # the cubic kernel with a = -3/4 is 0.26171875 at 3/4 and -0.03515625 at 7/4; beside the
    # step it undershoots 0 and overshoots 255
    beside = 255 * (0.26171875 - 0.03515625)
    expected = [0, 0, 0, beside, 255 - beside, 255, 255, 255]
    np.testing.assert_allclose(found[0, 3, :, 0], expected, atol=1e-3)


def test_an_extractor_sees_rounded_normalised_patches(monkeypatch):
    sizes = []

    class Mean(nn.Module):
        def forward(self, patches):
            sizes.append(len(patches))
            return patches.mean(dim=(2, 3), keepdim=True)

    monkeypatch.setattr(embed_superpixels, "build_extractor", lambda name, weights: Mean())
    config = FeaturesConfig(extractor="mobilenet_v2", batch_size=2)
    stage = embed_superpixels.EmbedSuperpixels(config, weights=None, device=torch.device("cpu"))
    image = np.array([[[0] * 3, [255] * 3, [51, 102, 153]]], np.uint8)
    found = stage(image, np.array([[0, 1, 2]], np.uint16))
    assert sizes == [2, 1]
    assert found["superpixel_id"].tolist() == [0, 1, 2]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (image[0] / 255 - mean) / std
    np.testing.assert_allclose(found["feature"], expected, atol=2e-3)
