"""Label maps: numbering and the stored form."""

from __future__ import annotations

import zlib

import numpy as np

from madbal_ray.arrays import LabelMap


def pack_label_map(label_map: LabelMap) -> bytes:
    """Return the stored form of a label map."""
    return zlib.compress(label_map.astype("<u2").tobytes(), level=1)


def unpack_label_map(data: bytes, height: int, width: int) -> LabelMap:
    """Return the label map that `pack_label_map` stored."""
    return np.frombuffer(zlib.decompress(data), "<u2").reshape(height, width)


def without_gaps(label_map: np.ndarray) -> LabelMap:
    """Renumber labels to 0..S-1, keeping their order, so that every superpixel has pixels."""
    used = np.bincount(label_map.ravel()) > 0
    return (np.cumsum(used) - 1)[label_map].astype(np.uint16)
