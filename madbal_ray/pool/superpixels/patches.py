"""Superpixels as square patches: what K-means sees of them (paper section 4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from madbal_ray.arrays import LabelMap, RGBImage
from madbal_ray.compiled import compiled

CUBIC_A = -0.75
"""OpenCV's cubic kernel; a patch equals cv2.resize(..., INTER_CUBIC) of the filled crop."""


def crop_patches(
    image: RGBImage, label_map: LabelMap, *, num_superpixels: int, size: int
) -> Float32[np.ndarray, "S size size 3"]:
    """Cut every superpixel out: tight rectangle, rest filled with its mean colour, resized.

    Compiled: one pass over the image for boxes and means, one over the patches.

    Args:
        label_map: ids 0..S-1, each with at least one pixel.
        size: side of the patch in pixels.

    Returns:
        RGB patches on the scale of the image (cubic overshoot is clipped to 0..255).
    """
    boxes = np.empty((num_superpixels, 4), np.int64)
    mean = np.empty((num_superpixels, 3), np.float32)
    _measure(image, label_map, boxes, mean)
    rows, row_weights = _cubic_taps(boxes[:, 0], boxes[:, 1], size)
    columns, column_weights = _cubic_taps(boxes[:, 2], boxes[:, 3], size)
    patches = np.empty((num_superpixels, size, size, 3), np.float32)
    _resize(image, label_map, mean, rows, row_weights, columns, column_weights, patches)
    return patches


def _boxes_and_means(image, label_map, boxes, mean):
    """Write first and last row, first and last column, and the mean colour of each id."""
    height, width = label_map.shape
    sums = np.zeros((boxes.shape[0], 4), np.int64)
    boxes[:, 0] = height
    boxes[:, 1] = -1
    boxes[:, 2] = width
    boxes[:, 3] = -1
    for y in range(height):
        for x in range(width):
            s = label_map[y, x]
            boxes[s, 0] = min(boxes[s, 0], y)
            boxes[s, 1] = max(boxes[s, 1], y)
            boxes[s, 2] = min(boxes[s, 2], x)
            boxes[s, 3] = max(boxes[s, 3], x)
            sums[s, 3] += 1
            for channel in range(3):
                sums[s, channel] += image[y, x, channel]
    for s in range(boxes.shape[0]):
        for channel in range(3):
            mean[s, channel] = sums[s, channel] / sums[s, 3]


_measure = compiled()(_boxes_and_means)


def _resize_patches(
    image, label_map, mean, rows, row_weights, columns, column_weights, patches
):  # fmt: skip
    size = patches.shape[1]
    for s in range(patches.shape[0]):
        for i in range(size):
            for j in range(size):
                red = np.float32(0.0)
                green = np.float32(0.0)
                blue = np.float32(0.0)
                for row_tap in range(4):
                    y = rows[s, i, row_tap]
                    for column_tap in range(4):
                        x = columns[s, j, column_tap]
                        weight = row_weights[s, i, row_tap] * column_weights[s, j, column_tap]
                        if label_map[y, x] == s:
                            red += weight * np.float32(image[y, x, 0])
                            green += weight * np.float32(image[y, x, 1])
                            blue += weight * np.float32(image[y, x, 2])
                        else:
                            red += weight * mean[s, 0]
                            green += weight * mean[s, 1]
                            blue += weight * mean[s, 2]
                patches[s, i, j, 0] = min(max(red, np.float32(0.0)), np.float32(255.0))
                patches[s, i, j, 1] = min(max(green, np.float32(0.0)), np.float32(255.0))
                patches[s, i, j, 2] = min(max(blue, np.float32(0.0)), np.float32(255.0))


_resize = compiled()(_resize_patches)


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
