"""Where a pixel of one grid lies on another, exactly.

Pixel (y, x) of an h x w grid sits at ((y + 1/2) / h, (x + 1/2) / w). Points are pixel
indices, possibly fractional; a whole number is a pixel's centre.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

from madbal_ray.config.section import GridSize, LongSide


def grid_shape(size: GridSize, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of a grid for an image of the given original size."""
    if size == "original":
        return height, width
    if isinstance(size, LongSide):
        factor = size.long_side / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))
    return int(size[0]), int(size[1])


def mirror_images(images: UInt8[np.ndarray, "*_ W 3"]) -> UInt8[np.ndarray, "*_ W 3"]:
    """Flip pictures left and right: column x is column W - 1 - x now."""
    return np.ascontiguousarray(images[..., ::-1, :])


def move_points(points: Any, old_size: int, new_size: int) -> Any:
    """Map pixel indices along one axis from a grid of `old_size` to one of `new_size`.

    Fractional: p' = (p + 1/2) * new / old - 1/2.

    >>> move_points(0.0, 2, 4)
    0.5
    """
    return (points + 0.5) * (new_size / old_size) - 0.5


def nearest_pixel(points: Any, old_size: int, new_size: int) -> Any:
    """Return the pixel of the new grid that holds the centre of a pixel of the old one.

    Integers in, integers out, in whole-number arithmetic.

    >>> [nearest_pixel(y, 3, 6) for y in range(3)]
    [1, 3, 5]
    """
    return (2 * points + 1) * new_size // (2 * old_size)
