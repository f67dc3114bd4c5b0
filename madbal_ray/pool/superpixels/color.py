"""The network-free feature of a superpixel: mean and spread of its colours."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from madbal_ray.arrays import LabelMap, RGBImage


def color_features(
    image: RGBImage, label_map: LabelMap, *, num_superpixels: int
) -> Float32[np.ndarray, "S 6"]:
    """Return mean and standard deviation of L*, a*, b* (each divided by 100) by superpixel."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB) / 100.0
    ids = label_map.ravel()
    count = np.bincount(ids, minlength=num_superpixels)
    columns = []
    for channel in range(3):
        values = lab[..., channel].ravel().astype(np.float64)
        mean = np.bincount(ids, weights=values, minlength=num_superpixels) / count
        square = np.bincount(ids, weights=values**2, minlength=num_superpixels) / count
        columns.append((mean, np.sqrt(np.maximum(square - mean**2, 0.0))))
    means, spreads = zip(*columns, strict=True)
    return np.stack([*means, *spreads], axis=1).astype(np.float32)
