"""Boundaries, grids, normalisation and points with numbers worked out by hand."""

import numpy as np
import pytest
import torch

from madbal_ray.config.section import LongSide
from madbal_ray.vision import grids
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.normalize import normalize_images
from madbal_ray.vision.points import sample_points


def step(left, right):
    """Six columns of one colour, then of another: blurred to 0, 0, 1/4, 3/4, 1, 1 of the step."""
    return np.array([left] * 3 + [right] * 3, np.uint8)[None].repeat(5, axis=0)


@pytest.mark.parametrize(
    ("height_of_step", "expected"),
    [
        (40, [0, 1, 1, 1, 1, 0]),  # half of Sobel: 20 beside the edge, 60 on it
        (36, [0, 0, 1, 1, 0, 0]),  # 18 and 54
        (12, [0, 0, 0, 0, 0, 0]),  # 6 and 18
    ],
)
def test_half_the_gradient_is_a_boundary_from_20_on(height_of_step, expected):
    image = step([50] * 3, [50 + height_of_step] * 3)
    assert boundary_map(image).astype(int).tolist() == [expected] * 5
    falling = step([50 + height_of_step] * 3, [50] * 3)
    assert boundary_map(falling).astype(int).tolist() == [expected] * 5
    upright = np.ascontiguousarray(image.transpose(1, 0, 2))
    assert boundary_map(upright).T.astype(int).tolist() == [expected] * 5


@pytest.mark.parametrize(
    ("slope_y", "slope_x", "is_boundary"),
    # Sobel of a ramp is 8 times its slope; rows and columns count half each
    [(3, 2, True), (-3, 2, True), (2, 3, True), (3, 1, False), (2, 2, False), (0, 5, True)],
)
def test_rows_and_columns_are_added(slope_y, slope_x, is_boundary):
    rows, columns = np.indices((7, 7))
    ramp = (100 + slope_y * rows + slope_x * columns).astype(np.uint8)
    inner = boundary_map(ramp[..., None].repeat(3, axis=2))[2:-2, 2:-2]
    assert (inner == is_boundary).all()


@pytest.mark.parametrize(
    ("slope", "brightness", "is_boundary"),
    [(4, 16, False), (2, 64, True)],  # 8 * slope + 6/16 of the dot: 38 and 40, half of them 19, 20
)
def test_19_is_no_boundary_and_20_is_one(slope, brightness, is_boundary):
    ramp = (50 + slope * np.indices((9, 9))[0]).astype(np.uint8)
    ramp[4, 4] += brightness
    found = boundary_map(ramp[..., None].repeat(3, axis=2))
    assert found[4, 2] == is_boundary
    assert found[4, 3]  # 12/16 of the dot
    assert not found[2:7, 1].any()


def test_red_weighs_more_than_blue():
    black = [0, 0, 0]
    assert boundary_map(step(black, [136, 0, 0]))[2].astype(int).tolist() == [0, 1, 1, 1, 1, 0]
    assert boundary_map(step(black, [0, 0, 136]))[2].astype(int).tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [(6, 2, [0, 0, 0, 1, 1, 1]), (3, 2, [0, 1, 1]), (2, 6, [1, 4]), (4, 4, [0, 1, 2, 3])],
)
def test_a_centre_lies_in_the_pixel_below_it(old, new, expected):
    assert grids.nearest_pixel(np.arange(old), old, new).tolist() == expected


def test_points_move_by_their_centres():
    assert grids.move_points(1.0, 4, 2) == 0.25
    assert grids.move_points(1.0, 2, 4) == 2.5
    assert grids.move_points(-0.5, 3, 7) == -0.5


def test_the_shorter_side_is_rounded_and_never_0():
    assert grids.grid_shape(LongSide(long_side=100), 500, 338) == (100, 68)
    assert grids.grid_shape(LongSide(long_side=100), 338, 500) == (68, 100)
    assert grids.grid_shape(LongSide(long_side=100), 1, 400) == (1, 100)
    assert grids.grid_shape(LongSide(long_side=100), 400, 1) == (100, 1)


def test_white_and_black_are_normalised_by_imagenets_constants():
    pixels = torch.tensor([[[[255, 255, 255], [0, 0, 0]]]], dtype=torch.uint8)
    found = normalize_images(pixels)
    assert found.shape == (1, 3, 1, 2)
    white = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    black = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert found[0, :, 0, 0].tolist() == pytest.approx(white, abs=1e-5)
    assert found[0, :, 0, 1].tolist() == pytest.approx(black, abs=1e-5)


def test_a_point_takes_the_nearer_pixels_for_more():
    maps = torch.tensor([[[[0.0, 10.0], [100.0, 110.0]]], [[[7.0, 7.0], [7.0, 7.0]]]])
    found = sample_points(
        maps,
        point_batch=torch.tensor([0, 0, 0, 0, 1]),
        point_y=torch.tensor([0.0, 1.0, 3.0, -0.5, 2.0]),
        point_x=torch.tensor([0.0, 2.0, 1.0, 3.5, 2.0]),
        height=4,
        width=4,
    )
    # (y, x) on 4 x 4 is (y/2 - 1/4, x/2 - 1/4) on 2 x 2, held inside
    assert found[:, 0].tolist() == pytest.approx([0.0, 32.5, 102.5, 10.0, 7.0])
