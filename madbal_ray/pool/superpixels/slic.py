"""SLIC superpixels (Achanta et al. 2012), compiled.

OpenCV's SLIC ends the process on images of one column; both it and scikit-image's take longer,
and the latter finds borders worse (docs/performance.md). Distances and means are whole numbers,
so that the order of a sum and the width of a vector change nothing.
"""

from __future__ import annotations

import cv2
import numpy as np

from madbal_ray.arrays import MAX_SUPERPIXELS, LabelMap, RGBImage
from madbal_ray.compiled import compiled
from madbal_ray.errors import PoolError

COMPACTNESS = 10.0
"""Units of Lab, 0..255 a channel, that count like the distance between two starts."""
NUM_ITERATIONS = 5
SMALLEST_SHARE = 4
"""A piece with less than the mean size divided by this is given to a neighbour."""
SCALE = 1024
"""Of squared distances, which are whole numbers."""


def segment_slic(image: RGBImage, *, num_superpixels: int, max_levels: int = 0) -> LabelMap:
    """Split an image into about `num_superpixels` connected superpixels; ids 0..S-1 without gaps.

    K-means in Lab (after a 3 x 3 blur) and place, each centre reaching as far as the distance
    between two starts on a grid; then pieces cut off from their superpixel are numbered anew
    or, where small, given to a neighbour.

    Args:
        max_levels: of SEEDS; SLIC has none.

    Raises:
        PoolError: more superpixels than a label map can number.

    Source: Achanta et al. 2012, algorithm 1, without moving the starts to low gradients.
    """
    height, width = image.shape[:2]
    lab = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (3, 3), 0)
    planes = np.ascontiguousarray(lab.transpose(2, 0, 1)).astype(np.int32)
    spacing = (height * width / num_superpixels) ** 0.5
    rows, columns = max(1, round(height / spacing)), max(1, round(width / spacing))
    y, x = (
        (2 * np.arange(count) + 1) * side // (2 * count)
        for count, side in ((rows, height), (columns, width))
    )
    labels = (
        (np.arange(height) * rows // height * columns)[:, None]
        + (np.arange(width) * columns // width)[None]
    ).astype(np.int32)
    centers = np.zeros((rows * columns, 5), np.int32)
    centers[:, 0], centers[:, 1] = np.repeat(y, columns), np.tile(x, rows)
    centers[:, 2:] = planes[:, centers[:, 0], centers[:, 1]].T
    reach = int(np.ceil(spacing))
    weight = round(SCALE * (COMPACTNESS / spacing) ** 2)
    distance = np.empty((height, width), np.int32)
    for _ in range(NUM_ITERATIONS):
        distance.fill(np.iinfo(np.int32).max)
        _assign(planes, centers, reach, weight, distance, labels)
        _move(planes, labels, centers)
    connected = np.full((height, width), -1, np.int32)
    smallest = height * width // (rows * columns) // SMALLEST_SHARE
    count = _connect(labels, smallest, connected, np.empty((height * width, 2), np.int32))
    if count > MAX_SUPERPIXELS:
        raise PoolError(
            f"SLIC found {count} superpixels in an image of {height} x {width}; at most "
            f"{MAX_SUPERPIXELS} fit a label map: raise superpixels.pixels"
        )
    return connected.astype(np.uint16)


def _assign_pixels(planes, centers, reach, weight, distance, labels):
    """Give every pixel to the nearest centre whose window it lies in; else it stays."""
    height, width = labels.shape
    for k in range(centers.shape[0]):
        y, x, light, green_red, blue_yellow = centers[k]
        left, right = max(0, x - reach), min(width, x + reach + 1)
        for i in range(max(0, y - reach), min(height, y + reach + 1)):
            lights, reds = planes[0, i, left:right], planes[1, i, left:right]
            yellows = planes[2, i, left:right]
            nearest, owner = distance[i, left:right], labels[i, left:right]
            of_row = np.int32(weight * (i - y) * (i - y))
            for j in range(right - left):
                a = lights[j] - np.int32(light)
                b = reds[j] - np.int32(green_red)
                c = yellows[j] - np.int32(blue_yellow)
                d = np.int32(j + left - x)
                found = np.int32(
                    np.int32(SCALE) * (a * a + b * b + c * c) + of_row + np.int32(weight) * (d * d)
                )
                is_nearer = found < nearest[j]
                nearest[j] = found if is_nearer else nearest[j]
                owner[j] = np.int32(k) if is_nearer else owner[j]


_assign = compiled()(_assign_pixels)


def _move_centers(planes, labels, centers):
    """Move every centre to the rounded mean of its pixels; one without pixels stays."""
    height, width = labels.shape
    sums = np.zeros((centers.shape[0], 6), np.int64)
    for i in range(height):
        for j in range(width):
            total = sums[labels[i, j]]
            total[0] += i
            total[1] += j
            total[2] += planes[0, i, j]
            total[3] += planes[1, i, j]
            total[4] += planes[2, i, j]
            total[5] += 1
    for k in range(centers.shape[0]):
        count = sums[k, 5]
        if count > 0:
            for column in range(5):
                centers[k, column] = (2 * sums[k, column] + count) // (2 * count)


_move = compiled()(_move_centers)


def _connect_pieces(labels, smallest, connected, stack):
    """Number 4-connected pieces in reading order; small ones take the number beside them.

    Args:
        connected: -1 everywhere; the numbers are written into it.
        stack: room for all pixels.

    Returns:
        How many numbers there are.
    """
    height, width = labels.shape
    count = 0
    for i in range(height):
        for j in range(width):
            if connected[i, j] >= 0:
                continue
            beside = -1
            if j > 0:
                beside = connected[i, j - 1]
            elif i > 0:
                beside = connected[i - 1, j]
            stack[0, 0], stack[0, 1] = i, j
            connected[i, j] = count
            done, size = 0, 1
            while done < size:
                y, x = stack[done, 0], stack[done, 1]
                done += 1
                for step in range(4):
                    v = y + (step == 0) - (step == 1)
                    u = x + (step == 2) - (step == 3)
                    is_inside = 0 <= v < height and 0 <= u < width
                    if is_inside and connected[v, u] < 0 and labels[v, u] == labels[i, j]:
                        connected[v, u] = count
                        stack[size, 0], stack[size, 1] = v, u
                        size += 1
            if size < smallest and beside >= 0:
                for index in range(size):
                    connected[stack[index, 0], stack[index, 1]] = beside
            else:
                count += 1
    return count


_connect = compiled()(_connect_pieces)
