"""The initial pool: pixels at random (paper section 4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from madbal_ray.arrays import BoolMap


def draw_initial_pixels(
    *, is_allowed: BoolMap, count: int, generator: np.random.Generator
) -> tuple[Int64[np.ndarray, "Q"], Int64[np.ndarray, "Q"]]:
    """Draw `count` different allowed pixels of one image, all equally likely.

    Args:
        is_allowed: False where a pixel may not be asked.
        generator: the stream of (seed, round 0, image_id).

    Returns:
        y, x on the working grid; fewer than `count` where fewer are allowed.
    """
    allowed = np.flatnonzero(is_allowed)
    chosen = generator.choice(allowed, size=min(count, len(allowed)), replace=False)
    y, x = np.divmod(chosen.astype(np.int64), is_allowed.shape[1])
    return y, x
