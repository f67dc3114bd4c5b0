"""Affine maps with numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.vision import geometry


def move(matrix, y, x):
    found = geometry.transform_points(matrix, np.array([float(y)]), np.array([float(x)]))
    return tuple(float(value[0]) for value in found)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 3), (4, 3), (1, 1)])
@pytest.mark.parametrize("degrees", [-170, -10, 10, 90])
def test_a_rotation_leaves_the_middle_of_the_pixel_centres_where_it_is(height, width, degrees):
    y, x = (height - 1) / 2, (width - 1) / 2
    assert move(geometry.rotation(degrees, height, width), y, x) == pytest.approx((y, x))


@pytest.mark.parametrize(
    ("degrees", "size", "old", "new"),
    [
        (90, (5, 3), (2, 2), (1, 1)),  # odd sides: right of the middle goes above it
        (90, (4, 6), (1.5, 4.5), (-0.5, 2.5)),  # even sides: the middle lies between pixels
        (-90, (4, 6), (1.5, 4.5), (3.5, 2.5)),
        (180, (4, 6), (0, 0), (3, 5)),
        (180, (5, 3), (0, 0), (4, 2)),
        (30, (5, 5), (2, 4), (1, 2 + math.sqrt(3))),
    ],
)
def test_a_rotation_turns_against_the_clock(degrees, size, old, new):
    assert move(geometry.rotation(degrees, *size), *old) == pytest.approx(new)


def test_a_painted_pixel_left_of_the_middle_turns_below_it():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 0] = 1.0
    moved = geometry.warp(image, [geometry.rotation(90, 3, 3)], 3, 3)[0, 0]
    expected = torch.zeros(3, 3)
    expected[2, 1] = 1.0
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", [6, 7])
def test_a_flip_counts_from_the_last_column(width):
    flip = geometry.horizontal_flip(width)
    assert move(flip, 2, 0) == (2.0, width - 1.0)
    assert move(flip, 2, 5) == (2.0, width - 6.0)


@pytest.mark.parametrize(
    ("old", "new"), [((0, 0), (0.5, -0.25)), ((3, 1), (6.5, 0.25)), ((-0.5, -0.5), (-0.5, -0.5))]
)
def test_a_resize_by_2_and_a_half_scales_pixel_centres(old, new):
    assert move(geometry.scaling(2.0, 0.5), *old) == new


def test_a_translation_adds_rows_to_y_and_columns_to_x():
    assert move(geometry.translation(3, -4), 1, 2) == (4.0, -2.0)


def test_a_warp_samples_between_pixel_centres_and_is_0_outside():
    row = torch.tensor([[[[0.0, 1.0]]]])
    moved = geometry.warp(row, [geometry.scaling(1.0, 2.0)], 1, 4)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 0.75]))
    shifted = geometry.warp(row + 1, [geometry.translation(0, 1)], 1, 3)
    torch.testing.assert_close(shifted[0, 0, 0], torch.tensor([0.0, 1.0, 2.0]))


def test_each_image_moves_by_its_own_matrix():
    rows = torch.tensor([[[[1.0, 2.0, 3.0]]], [[[1.0, 2.0, 3.0]]]])
    moved = geometry.warp(rows, [np.eye(3), geometry.horizontal_flip(3)], 1, 3)
    torch.testing.assert_close(moved[:, 0, 0], torch.tensor([[1.0, 2, 3], [3, 2, 1]]))


def test_the_outer_halves_of_pixels_lie_inside():
    y = np.array([-0.5, 1.5, 0, 0, 0, 0, -0.6, 1.6])
    x = np.array([0, 0, -0.5, 2.5, -0.6, 2.6, 0, 0])
    expected = [True, True, True, True, False, False, False, False]
    assert geometry.inside(y, x, 2, 3).tolist() == expected
