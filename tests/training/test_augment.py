"""What augmentation makes of its draws, and what pixels it gives, by hand."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.config.training import AugmentConfig
from madbal_ray.training.augment import (
    Augmentation,
    ColorChange,
    augment_images,
    draw_augmentation,
)
from madbal_ray.vision import geometry
from tests.fixed_generator import FixedGenerator

OFF = {"flip": False, "rotation_degrees": 0, "blur_probability": 0}
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def draw(share, *, size=(40, 60), crop=None, **options):
    config = AugmentConfig.model_validate(OFF | options)
    return draw_augmentation(config, FixedGenerator(share), size=size, crop=crop or size)


def affine(x_row, y_row):
    return np.array([x_row, y_row, [0, 0, 1]], float)


def pixels(images, augmentations, crop):
    """Augmented images on the 8-bit scale."""
    found = augment_images(images, augmentations, crop, torch.device("cpu"))
    return (found * STD + MEAN) * 255


def stay(blur_sigma=0.0, color=None):
    return Augmentation(np.eye(3), blur_sigma, color)


class TestDraws:
    @pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 0.999])
    def test_what_is_set_to_0_is_off(self, share):
        found = draw(share)
        np.testing.assert_array_equal(found.matrix, np.eye(3))
        assert found.blur_sigma == 0.0
        assert found.color is None

    def test_a_flip_happens_in_the_lower_half_of_draws(self):
        np.testing.assert_array_equal(draw(0.25, flip=True).matrix, affine([-1, 0, 59], [0, 1, 0]))
        np.testing.assert_array_equal(draw(0.75, flip=True).matrix, np.eye(3))

    def test_the_scale_is_log_uniform(self):
        half_way = draw(0.5, scale=(0.5, 2.0)).matrix
        np.testing.assert_allclose(half_way, np.eye(3), atol=1e-12)
        low = draw(0.0, scale=(0.5, 2.0)).matrix
        np.testing.assert_allclose(low, affine([0.5, 0, -0.25], [0, 0.5, -0.25]), atol=1e-12)

    @pytest.mark.parametrize(("share", "shift"), [(0.0, 0), (0.5, 0.5), (0.25, 0.25)])
    def test_a_crop_lies_anywhere_in_the_resized_image(self, share, shift):
        found = draw(share, scale=(2.0, 2.0)).matrix
        expected = affine([2, 0, 0.5 - 60 * shift], [0, 2, 0.5 - 40 * shift])
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_a_crop_of_its_own_size_is_cut_from_the_whole(self):
        found = draw(0.5, crop=(20, 50)).matrix
        np.testing.assert_array_equal(found, affine([1, 0, -5], [0, 1, -10]))

    def test_a_smaller_image_lies_anywhere_in_the_crop(self):
        found = draw(0.5, scale=(0.5, 0.5)).matrix
        np.testing.assert_allclose(found, affine([0.5, 0, 14.75], [0, 0.5, 9.75]), atol=1e-12)

    def test_the_factors_are_those_of_whole_pixels(self):
        found = draw(0.0, size=(5, 7), crop=(5, 7), scale=(1.5, 1.5)).matrix
        assert found[1, 1] == pytest.approx(8 / 5)  # 7.5 rows: 8
        assert found[0, 0] == pytest.approx(10 / 7)  # 10.5 columns: 10

    @pytest.mark.parametrize(("share", "degrees"), [(0.0, -10), (0.75, 5), (0.5, 0)])
    def test_degrees_lie_between_minus_and_plus(self, share, degrees):
        found = draw(share, rotation_degrees=10).matrix
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        np.testing.assert_allclose(found[:2, :2], [[cos, sin], [-sin, cos]], atol=1e-12)
        np.testing.assert_allclose(found @ [29.5, 19.5, 1], [29.5, 19.5, 1], atol=1e-9)

    def test_a_resized_image_turns_about_its_own_middle(self):
        found = draw(0.0, rotation_degrees=10, scale=(2.0, 2.0)).matrix
        np.testing.assert_allclose(found @ [29.5, 19.5, 1], [59.5, 39.5, 1], atol=1e-9)

    def test_an_image_is_flipped_before_it_is_turned(self):
        # 90 degrees with the clock: the corner goes right, then down
        found = draw(0.25, size=(3, 3), flip=True, rotation_degrees=180).matrix
        np.testing.assert_allclose(found @ [0, 0, 1], [2, 2, 1], atol=1e-12)

    def test_sigma_lies_between_a_tenth_and_one_and_a_half(self):
        assert draw(0.0, blur_probability=0.5).blur_sigma == pytest.approx(0.1)
        assert draw(0.25, blur_probability=0.5).blur_sigma == pytest.approx(0.45)
        assert draw(0.75, blur_probability=1.0).blur_sigma == pytest.approx(1.15)
        assert draw(0.75, blur_probability=0.5).blur_sigma == 0.0

    @pytest.mark.parametrize(("share", "factor", "hue"), [(0.75, 1.2, 0.05), (0.0, 0.6, -0.1)])
    def test_colours_change_by_the_jitter_and_hue_by_a_quarter(self, share, factor, hue):
        color = draw(share, color_jitter=0.4).color
        found = (color.brightness, color.contrast, color.saturation, color.hue)
        assert found == pytest.approx((factor, factor, factor, hue))
        assert not color.is_gray

    def test_grey_alone_changes_no_factor(self):
        assert draw(0.25, grayscale_probability=0.5).color == ColorChange(1.0, 1.0, 1.0, 0.0, True)
        assert draw(0.75, grayscale_probability=0.5).color == ColorChange(1.0, 1.0, 1.0, 0.0, False)


class TestPixels:
    def test_nothing_drawn_is_the_normalised_image(self):
        image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
        found = pixels([image], [stay()], (2, 3))[0]
        torch.testing.assert_close(
            found, torch.from_numpy(image).permute(2, 0, 1).float(), atol=1e-3, rtol=0
        )

    def test_outside_an_image_is_the_mean_colour(self):
        moved = Augmentation(geometry.translation(0, 1), 0.0)
        image = np.full((1, 1, 3), 200, np.uint8)
        found = augment_images([image], [moved], (1, 2), torch.device("cpu"))[0]
        assert found[:, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
        assert found[0, 0, 1] == pytest.approx((200 / 255 - 0.485) / 0.229, abs=1e-4)

    def test_images_of_different_sizes_keep_their_order(self):
        images = [np.full((2, width, 3), value, np.uint8) for width, value in ((2, 10), (4, 90))]
        found = pixels(images, [stay(), stay()], (2, 2))
        assert found[:, 0, 1, 1].tolist() == pytest.approx([10, 90], abs=1e-3)

    @pytest.mark.parametrize("sigma", [0.5, 1.5])
    def test_a_dot_is_blurred_to_a_gaussian_of_five_pixels(self, sigma):
        image = np.zeros((7, 7, 3), np.uint8)
        image[3, 3] = 255
        weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in (-2, -1, 0, 1, 2)]
        kernel = np.array(weights) / sum(weights)
        expected = np.zeros((7, 7))
        expected[1:6, 1:6] = 255 * np.outer(kernel, kernel)
        blurred, sharp = pixels([image, image], [stay(sigma), stay()], (7, 7))[:, 1]
        np.testing.assert_allclose(blurred, expected, atol=1e-2)
        np.testing.assert_allclose(sharp, image[..., 0], atol=1e-2)

    def test_a_blur_keeps_one_colour_up_to_the_edge(self):
        image = np.full((4, 4, 3), 200, np.uint8)
        found = pixels([image], [stay(1.2)], (4, 4))
        assert found.min() == pytest.approx(200, abs=1e-2)
        assert found.max() == pytest.approx(200, abs=1e-2)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"brightness": 1.2}, [[120, 60, 24], [24, 24, 24]]),
            ({"saturation": 0.0}, [[61, 61, 61], [20, 20, 20]]),
            ({"contrast": 0.0}, [[40, 40, 40], [40, 40, 40]]),  # mean of the greys 61 and 20
            ({"hue": 0.5}, [[20, 70, 100], [20, 20, 20]]),
            ({"is_gray": True}, [[61, 61, 61], [20, 20, 20]]),
            ({}, [[100, 50, 20], [20, 20, 20]]),
        ],
    )
    def test_each_colour_change_alone(self, change, expected):
        none = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "is_gray": False}
        image = np.array([[[100, 50, 20], [20, 20, 20]]], np.uint8)
        color = ColorChange(**none | change)
        found = pixels([image, image], [stay(color=color), stay()], (1, 2))
        np.testing.assert_allclose(found[0, :, 0].T, expected, atol=1.01)
        np.testing.assert_allclose(found[1, :, 0].T, image[0], atol=1e-2)
