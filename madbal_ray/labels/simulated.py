"""The simulated oracle: answers read off the ground truth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, Integer

from madbal_ray.arrays import IGNORE_INDEX, Mask


def answer_pixels(
    *, mask: Mask, y: Integer[np.ndarray, "Q"], x: Integer[np.ndarray, "Q"]
) -> tuple[Int64[np.ndarray, "Q"], Bool[np.ndarray, "Q"]]:
    """Return the class ids at pixels of a mask, and which of them are void.

    Args:
        mask: class ids on the grid of `y`, `x`; void is `IGNORE_INDEX`.

    Returns:
        class_id (meaningless where void) and is_void.
    """
    class_id = mask[y, x].astype(np.int64)
    return class_id, class_id == IGNORE_INDEX
