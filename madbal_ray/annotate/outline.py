"""The outline of a region as line segments between pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from madbal_ray.arrays import BoolMap

Segment = tuple[float, float, float, float]
"""x, y of both ends; 0, 0 is the image's corner, so that pixel (y, x) reaches to (x + 1, y + 1)."""


def outline(region: BoolMap, *, height: int, width: int) -> list[Segment]:
    """Return the borders of a region of the working grid, on an image of another size."""
    down, right = height / region.shape[0], width / region.shape[1]
    padded = np.pad(region, 1)
    upright = (padded[1:-1, 1:] != padded[1:-1, :-1]).T  # [w + 1, h]: right of pixel x - 1
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]  # [h + 1, w]: below pixel y - 1
    return [
        *((x * right, start * down, x * right, end * down) for x, start, end in _runs(upright)),
        *((start * right, y * down, end * right, y * down) for y, start, end in _runs(level)),
    ]


def _runs(lines: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield line, start and end (not included) of every run of True in each line."""
    steps = np.diff(np.pad(lines.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    for (line, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True):
        yield line, start, end
