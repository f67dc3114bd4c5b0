"""Answers for a whole image: its classes on the working grid, compact, in the labels table."""

from __future__ import annotations

import zlib

import numpy as np

from madbal_ray.arrays import Mask


def pack_class_map(classes: Mask) -> bytes:
    """Return the stored form of a mask of class ids and `IGNORE_INDEX`."""
    return zlib.compress(np.ascontiguousarray(classes, np.uint8).tobytes())


def unpack_class_map(data: bytes, height: int, width: int) -> Mask:
    """Return the mask that `pack_class_map` stored."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, width)
