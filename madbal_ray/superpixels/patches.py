"""Superpixels as square patches: what K-means sees of them (paper section 4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from madbal_ray.arrays import LabelMap, RGBImage

CUBIC_A = -0.75
"""OpenCV's cubic kernel; a patch equals cv2.resize(..., INTER_CUBIC) of the filled crop."""


def crop_patches(
    image: RGBImage, label_map: LabelMap, *, num_superpixels: int, size: int
) -> Float32[np.ndarray, "S size size 3"]:
    """Cut every superpixel out: tight rectangle, rest filled with its mean colour, resized.

    One gather for all superpixels instead of a loop over them.

    Args:
        label_map: ids 0..S-1, each with at least one pixel.
        size: side of the patch in pixels.

    Returns:
        RGB patches on the scale of the image (cubic overshoot is clipped to 0..255).
    """
    top, bottom, left, right = bounding_boxes(label_map, num_superpixels)
    rows, row_weights = _cubic_taps(top, bottom, size)
    columns, column_weights = _cubic_taps(left, right, size)
    pixels = image.astype(np.float32)
    mean = mean_colors(image, label_map, num_superpixels).astype(np.float32)
    ids = np.arange(num_superpixels)[:, None, None]
    patches = np.zeros((num_superpixels, size, size, 3), np.float32)
    for row_tap in range(4):
        across = np.zeros_like(patches)
        y = rows[:, :, None, row_tap]
        for column_tap in range(4):
            x = columns[:, None, :, column_tap]
            inside = label_map[y, x] == ids
            value = np.where(inside[..., None], pixels[y, x], mean[:, None, None, :])
            across += column_weights[:, None, :, column_tap, None] * value
        patches += row_weights[:, :, None, row_tap, None] * across
    return np.clip(patches, 0.0, 255.0, out=patches)


def bounding_boxes(
    label_map: LabelMap, num_superpixels: int
) -> tuple[
    Int64[np.ndarray, "S"], Int64[np.ndarray, "S"], Int64[np.ndarray, "S"], Int64[np.ndarray, "S"]
]:
    """Return first and last row, first and last column of every superpixel."""
    ids = label_map.ravel().astype(np.int64)
    y, x = np.divmod(np.arange(ids.size), label_map.shape[1])
    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], np.arange(num_superpixels))
    columns = x[order]
    rows = y[order]
    ends = np.append(starts[1:], ids.size) - 1
    return (
        rows[starts],  # stable order keeps rows rising within a superpixel
        rows[ends],
        np.minimum.reduceat(columns, starts),
        np.maximum.reduceat(columns, starts),
    )


def mean_colors(image: RGBImage, label_map: LabelMap, num_superpixels: int) -> np.ndarray:
    """Return the mean colour of every superpixel, float64 [S, 3]."""
    ids = label_map.ravel()
    count = np.bincount(ids, minlength=num_superpixels)
    sums = [
        np.bincount(ids, weights=image[..., channel].ravel(), minlength=num_superpixels)
        for channel in range(3)
    ]
    return np.stack(sums, axis=1) / count[:, None]


def _cubic_taps(
    first: np.ndarray, last: np.ndarray, size: int
) -> tuple[Int64[np.ndarray, "S size 4"], Float32[np.ndarray, "S size 4"]]:
    """Return source indices (clamped to the box) and weights of a cubic resize of each box."""
    extent = (last - first + 1)[:, None]
    position = (np.arange(size)[None, :] + 0.5) * (extent / size) - 0.5
    base = np.floor(position)
    t = (position - base)[..., None]
    distance = np.abs(t - np.array([-1.0, 0.0, 1.0, 2.0]))
    near = ((CUBIC_A + 2) * distance - (CUBIC_A + 3)) * distance**2 + 1
    far = ((CUBIC_A * distance - 5 * CUBIC_A) * distance + 8 * CUBIC_A) * distance - 4 * CUBIC_A
    weights = np.where(distance <= 1, near, far).astype(np.float32)
    taps = base.astype(np.int64)[..., None] + np.array([-1, 0, 1, 2])
    taps = np.clip(taps, 0, extent[..., None] - 1) + first[:, None, None]
    return taps, weights
