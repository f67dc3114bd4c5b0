"""Affine maps of images and points, together and exact.

Points are pixel indices, possibly fractional; a whole number is a pixel's centre.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from madbal_ray.transfer import to_device

Matrix = Float64[np.ndarray, "3 3"]
"""Affine map of (x, y, 1) in pixel indices."""


def scaling(factor_y: float, factor_x: float) -> Matrix:
    """Resize: p' = s (p + 1/2) - 1/2."""
    return np.array(
        [[factor_x, 0, (factor_x - 1) / 2], [0, factor_y, (factor_y - 1) / 2], [0, 0, 1]],
        np.float64,
    )


def horizontal_flip(width: int) -> Matrix:
    """Flip left and right: x' = W - 1 - x."""
    return np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float, height: int, width: int) -> Matrix:
    """Rotate about ((H - 1)/2, (W - 1)/2), counter-clockwise as seen on the screen."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    return np.array(
        [
            [cos, sin, center_x - cos * center_x - sin * center_y],
            [-sin, cos, center_y + sin * center_x - cos * center_y],
            [0, 0, 1],
        ],
        np.float64,
    )


def translation(shift_y: float, shift_x: float) -> Matrix:
    """Move: p' = p + shift."""
    return np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]], np.float64)


def transform_points(
    matrix: Matrix, y: Float[np.ndarray, "P"], x: Float[np.ndarray, "P"]
) -> tuple[Float64[np.ndarray, "P"], Float64[np.ndarray, "P"]]:
    """Return the images (y', x') of points under an affine map."""
    new_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    new_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    return new_y, new_x


def inside(
    y: Float[np.ndarray, "P"], x: Float[np.ndarray, "P"], height: int, width: int
) -> np.ndarray:
    """Tell which points lie on an H x W grid, its pixels' outer halves included."""
    return (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)


def warp(
    images: Float[Tensor, "B channels h w"], matrices: list[Matrix], height: int, width: int
) -> Float[Tensor, "B channels H W"]:
    """Move images by affine maps (source index -> target index), bilinear, 0 outside.

    The same matrices move points with `transform_points`, so that both stay together.
    """
    old_height, old_width = images.shape[-2:]
    to_index_new = _from_normalized(height, width)
    to_normalized_old = np.linalg.inv(_from_normalized(old_height, old_width))
    theta = np.stack(
        [(to_normalized_old @ np.linalg.inv(matrix) @ to_index_new)[:2] for matrix in matrices]
    )
    grid = F.affine_grid(
        to_device(theta.astype(np.float32), images.device),
        [len(matrices), images.shape[1], height, width],
        align_corners=False,
    )
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _from_normalized(height: int, width: int) -> Matrix:
    """Return the map from torch's -1..1 coordinates (align_corners=False) to indices."""
    return np.array(
        [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]], np.float64
    )
