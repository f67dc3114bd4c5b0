"""Points and pixels move together, exactly."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.config.section import LongSide
from madbal_ray.config.training import AugmentConfig
from madbal_ray.data.synthetic import draw_scene
from madbal_ray.errors import ShapeError
from madbal_ray.training.augment import augment_images, draw_augmentation
from madbal_ray.vision import geometry, grids
from madbal_ray.vision.boundary import boundary_map
from madbal_ray.vision.points import sample_points
from tests import references


def centre_of_mass(image):
    rows, columns = np.indices(image.shape)
    return (rows * image).sum() / image.sum(), (columns * image).sum() / image.sum()


def blob(height, width, y, x):
    """A smooth dot whose centre of mass is (y, x), far from the edges."""
    rows, columns = np.indices((height, width))
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 2.5**2)).astype(np.float32)


@pytest.mark.parametrize(
    "matrix",
    [
        geometry.horizontal_flip(50),
        geometry.rotation(10, 40, 50),
        geometry.rotation(-33, 40, 50),
        geometry.translation(3, -4),
        geometry.rotation(20, 40, 50) @ geometry.horizontal_flip(50),
    ],
)
def test_a_painted_dot_lands_where_its_point_does(matrix):
    image = torch.from_numpy(blob(40, 50, 21.0, 24.0))[None, None]
    moved = geometry.warp(image, [matrix], 40, 50)[0, 0].numpy()
    y, x = geometry.transform_points(matrix, np.array([21.0]), np.array([24.0]))
    assert centre_of_mass(moved) == pytest.approx((y[0], x[0]), abs=0.02)


@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0])
def test_scaling_follows_the_pixel_centre_rule(factor):
    height, width = round(40 * factor), round(50 * factor)
    image = torch.from_numpy(blob(40, 50, 21.0, 24.0))[None, None]
    moved = geometry.warp(image, [geometry.scaling(factor, factor)], height, width)[0, 0].numpy()
    y, x = geometry.transform_points(
        geometry.scaling(factor, factor), np.array([21.0]), np.array([24.0])
    )
    assert y[0] == pytest.approx((21.5) * factor - 0.5)
    assert centre_of_mass(moved) == pytest.approx((y[0], x[0]), abs=0.05)


def test_one_painted_pixel_survives_flip_exactly():
    image = torch.zeros(1, 1, 6, 7)
    image[0, 0, 2, 5] = 1.0
    moved = geometry.warp(image, [geometry.horizontal_flip(7)], 6, 7)
    assert torch.nonzero(moved[0, 0] > 0.999).tolist() == [[2, 1]]
    y, x = geometry.transform_points(geometry.horizontal_flip(7), np.array([2.0]), np.array([5.0]))
    assert (y[0], x[0]) == (2.0, 1.0)


def test_identity_changes_nothing():
    image = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(geometry.warp(image, [np.eye(3)], 9, 8), image, atol=1e-5, rtol=1e-5)


@given(st.integers(0, 10_000))
def test_augmented_points_stay_on_their_dot(seed):
    config = AugmentConfig(rotation_degrees=10, scale=(0.7, 1.6), blur_probability=0.5)
    drawn = draw_augmentation(config, np.random.default_rng(seed), size=(60, 80), crop=(48, 56))
    dot = np.repeat((255 * blob(60, 80, 30.0, 41.0)).astype(np.uint8)[..., None], 3, axis=2)
    moved = augment_images([dot], [drawn], (48, 56), torch.device("cpu"))[0, 0].numpy()
    moved = np.where(moved > 0, moved, 0)  # outside is 0, black is below
    y, x = geometry.transform_points(drawn.matrix, np.array([30.0]), np.array([41.0]))
    margin = 12
    if margin < y[0] < 48 - margin and margin < x[0] < 56 - margin:
        assert centre_of_mass(moved) == pytest.approx((y[0], x[0]), abs=0.1)


def test_points_outside_the_crop_are_dropped():
    y = np.array([-0.6, -0.5, 3.0, 7.5, 7.6])
    x = np.array([2.0, 2.0, 2.0, 2.0, 2.0])
    assert geometry.inside(y, x, 8, 5).tolist() == [False, True, True, True, False]


@given(st.integers(1, 200), st.integers(1, 200))
def test_nearest_pixel_is_the_one_that_holds_the_centre(old, new):
    points = np.arange(old)
    found = grids.nearest_pixel(points, old, new)
    position = grids.move_points(points.astype(float), old, new)
    assert ((found >= 0) & (found < new)).all()
    assert (np.abs(found - position) <= 0.5 + 1e-9).all()


def test_grid_shapes():
    assert grids.grid_shape("original", 333, 500) == (333, 500)
    assert grids.grid_shape((10, 20), 333, 500) == (10, 20)
    assert grids.grid_shape(LongSide(long_side=400), 333, 500) == (266, 400)
    assert grids.grid_shape(LongSide(long_side=400), 500, 333) == (400, 266)


@given(st.integers(0, 2**32 - 1))
def test_sampled_points_equal_a_literal_bilinear(seed):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    count = 7
    y, x = rng.uniform(-0.5, 11.5, count), rng.uniform(-0.5, 14.5, count)
    batch = rng.integers(0, 2, count)
    found = sample_points(
        torch.from_numpy(maps),
        point_batch=torch.from_numpy(batch),
        point_y=torch.from_numpy(y),
        point_x=torch.from_numpy(x),
        height=12,
        width=15,
    )
    for row in range(count):
        expected = [
            references.bilinear_at(maps[batch[row], c], y[row], x[row], 12, 15) for c in range(3)
        ]
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_points_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match="lengths 1, 2, 2"):
        inspect.unwrap(sample_points)(
            torch.zeros(1, 1, 2, 2),
            point_batch=torch.zeros(1, dtype=torch.int64),
            point_y=torch.zeros(2),
            point_x=torch.zeros(2),
            height=2,
            width=2,
        )


def test_boundary_follows_the_written_rule():
    image = draw_scene(1, "boundary", height=40, width=52)[0]
    found = boundary_map(image)
    gray = literal_gray_blur(image)
    padded = np.pad(gray, 1, mode="reflect")
    expected = np.zeros(gray.shape, bool)
    for y in range(gray.shape[0]):
        for x in range(gray.shape[1]):
            window = padded[y : y + 3, x : x + 3].astype(int)
            horizontal = (window[:, 2] - window[:, 0]) @ np.array([1, 2, 1])
            vertical = (window[2] - window[0]) @ np.array([1, 2, 1])
            expected[y, x] = 0.5 * abs(horizontal) + 0.5 * abs(vertical) >= 20
    assert (found == expected).mean() > 0.995  # OpenCV rounds the blur and the grey once each
    assert 0.05 < found.mean() < 0.8


def literal_gray_blur(image):
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    blurred = sum(
        kernel[dy, dx] * padded[dy : dy + image.shape[0], dx : dx + image.shape[1]]
        for dy in range(3)
        for dx in range(3)
    )
    return np.rint(np.floor(blurred + 0.5) @ np.array([0.299, 0.587, 0.114])).astype(int)
