"""SEEDS superpixels (Van den Bergh et al. 2012) through OpenCV."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from madbal_ray.arrays import LabelMap, RGBImage
from madbal_ray.pool.label_map import without_gaps

NUM_BINS = 10
PRIOR = 3
NUM_ITERATIONS = 10
HUE_RANGE = 360.0
"""OpenCV's float HSV holds hue in degrees; SEEDS bins floats in 0..1."""
MIN_SIDE = 16
MIN_BLOCKS = 2
"""Rows and columns of superpixels below which OpenCV reads outside the image or never ends."""
FEWEST = 10
"""OpenCV raises a smaller number of superpixels to this."""


def is_safe(height: int, width: int, num_superpixels: int) -> bool:
    """Tell whether OpenCV can split an image of this size: some thin ones end the process.

    Its grid has isqrt(n h / w) rows and rows * w / h columns, as many as that is whole.
    """
    rows = int(np.sqrt(np.float32(max(FEWEST, num_superpixels)) * height / width))
    return min(height, width) >= MIN_SIDE and min(rows, rows * width // height) >= MIN_BLOCKS


def segment_seeds(image: RGBImage, *, num_superpixels: int, max_levels: int = 4) -> LabelMap:
    """Split an image into about `num_superpixels` superpixels.

    Histogram-equalised brightness, HSV float32, prior 3, 10 bins, double step, 10
    iterations. OpenCV finds counts of its own; the number of levels, at most `max_levels`,
    whose count comes closest is taken (ties: more levels). Ids are 0..S-1 without gaps; S is
    the number found. An image that is not `is_safe` ends the process.

    Source: paper section 4; parameters as in the reference code.
    """
    height, width = image.shape[:2]
    hsv = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2HSV)
    hsv[..., 0] /= HUE_RANGE
    value = np.rint(hsv[..., 2] * 255.0).astype(np.uint8)
    hsv[..., 2] = cv2.equalizeHist(value).astype(np.float32) / 255.0
    level = closest_level(height, width, num_superpixels, max_levels)
    seeds = _create(height, width, num_superpixels, level)
    seeds.iterate(hsv, NUM_ITERATIONS)
    return without_gaps(seeds.getLabels())


@functools.lru_cache(maxsize=1024)
def closest_level(height: int, width: int, num_superpixels: int, max_levels: int) -> int:
    """Return the number of levels with which SEEDS finds closest to the superpixels asked."""

    def distance(level: int) -> tuple[int, int]:
        number = _create(height, width, num_superpixels, level).getNumberOfSuperpixels()
        return abs(number - num_superpixels), -level

    return min(range(1, max_levels + 1), key=distance)


def _create(
    height: int, width: int, num_superpixels: int, level: int
) -> cv2.ximgproc.SuperpixelSEEDS:
    return cv2.ximgproc.createSuperpixelSEEDS(
        width, height, 3, num_superpixels, level, PRIOR, NUM_BINS, True
    )
