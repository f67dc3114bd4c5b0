"""SLIC against a slow obvious loop, by hand, and on images of every small size."""

import cv2
import numpy as np
import pytest

from madbal_ray.data.synthetic import draw_scene
from madbal_ray.errors import PoolError
from madbal_ray.pool.superpixels import slic
from madbal_ray.pool.superpixels.slic import segment_slic


@pytest.fixture(scope="module")
def scene():
    return draw_scene(0, "test", height=48, width=72)[0]


def slow_slic(image, *, rows, columns, spacing, iterations=5):
    """K-means of (y, x, L, a, b) as the paper writes it, centres rounded."""
    height, width = image.shape[:2]
    lab = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (3, 3), 0)
    grid = np.mgrid[:height, :width]
    pixels = np.dstack([*grid, lab]).astype(np.int64)
    labels = grid[0] * rows // height * columns + grid[1] * columns // width
    starts = [
        (int((i + 0.5) * height / rows), int((j + 0.5) * width / columns))
        for i in range(rows)
        for j in range(columns)
    ]
    centers = np.array([pixels[start] for start in starts])
    reach = int(np.ceil(spacing))
    weight = round(1024 * (10 / spacing) ** 2)
    for _ in range(iterations):
        nearest = np.full((height, width), np.inf)
        for k, center in enumerate(centers):
            apart = (pixels - center) ** 2
            found = 1024 * apart[..., 2:].sum(axis=2) + weight * apart[..., :2].sum(axis=2)
            is_nearer = (apart[..., :2] <= reach**2).all(axis=2) & (found < nearest)
            nearest[is_nearer], labels[is_nearer] = found[is_nearer], k
        for k in range(len(centers)):
            if (labels == k).any():
                centers[k] = np.floor(pixels[labels == k].mean(axis=0) + 0.5)
    return labels


def pieces_of(labels):
    """Return how many 4-connected pieces every label has."""
    return [
        cv2.connectedComponents((labels == k).astype(np.uint8), connectivity=4)[0] - 1
        for k in range(int(labels.max()) + 1)
    ]


def test_it_is_k_means_of_colour_and_place(scene, monkeypatch):
    kept = {}

    def keep(labels, smallest, connected, stack):
        kept["labels"], kept["smallest"] = labels.copy(), smallest
        connected[:] = 0
        return 1

    monkeypatch.setattr(slic, "_connect", keep)
    segment_slic(scene, num_superpixels=54)
    assert np.array_equal(kept["labels"], slow_slic(scene, rows=6, columns=9, spacing=8.0))
    assert kept["smallest"] == 16  # a quarter of the mean of 64 pixels


def test_superpixels_follow_a_border_that_lies_off_the_grid():
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 5:] = 255
    labels = segment_slic(image, num_superpixels=2)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[0] * 5 + [1] * 11] * 8


def test_superpixels_are_connected_numbered_without_gaps_and_about_as_many_as_asked(scene):
    labels = segment_slic(scene, num_superpixels=54)
    assert pieces_of(labels) == [1] * (int(labels.max()) + 1)
    assert 46 <= labels.max() + 1 <= 68
    assert np.array_equal(labels, segment_slic(scene, num_superpixels=54))


def test_small_pieces_go_to_the_piece_before_them_and_large_ones_are_numbered():
    labels = [[0, 0, 1, 0, 0], [2, 0, 1, 0, 0], [0, 0, 1, 3, 0], [0, 1, 1, 0, 0]]
    connected = np.full((4, 5), -1, np.int32)
    room = np.empty((20, 2), np.int32)
    count = slic._connect(np.array(labels, np.int32), 5, connected, room)
    # in reading order: 0 (6 pixels), 1 (5), the right 0 (7); 2 and 3 (one pixel each) are given to
    # what lies left of them or, at the left edge, above
    assert count == 3
    found = [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [0, 0, 1, 1, 2], [0, 1, 1, 2, 2]]
    assert connected.tolist() == found


@pytest.mark.parametrize("num_superpixels", [1, 3, 40])
def test_images_of_every_small_size_are_split(num_superpixels):
    generator = np.random.default_rng(0)
    for height in range(1, 12):
        for width in (1, 2, 3, 5, 11, 60):
            image = generator.integers(0, 256, (height, width, 3), np.uint8)
            labels = segment_slic(image, num_superpixels=num_superpixels)
            assert labels.shape == (height, width)
            assert pieces_of(labels) == [1] * (int(labels.max()) + 1)


def test_more_superpixels_than_a_label_map_can_number_are_refused(monkeypatch):
    image = np.zeros((16, 16, 3), np.uint8)
    monkeypatch.setattr(slic, "MAX_SUPERPIXELS", 4)
    assert segment_slic(image, num_superpixels=4).max() == 3
    monkeypatch.setattr(slic, "MAX_SUPERPIXELS", 3)
    with pytest.raises(PoolError, match="4 superpixels in an image of 16 x 16; at most 3 fit"):
        segment_slic(image, num_superpixels=4)
