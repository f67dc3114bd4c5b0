"""`strategy.pixel_share`: a random pixel of each superpixel's best, compiled and in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.kernels import grid_superpixels
from benchmarks.measure import Row, milliseconds, side_by_side
from madbal_ray.scoring.reduce import draw_on_device, random_top_pixels

HEIGHT, WIDTH, SIDE = 360, 480, 16


def drawn_pixels(device: str) -> Iterator[Row]:
    """The draw of one image; on a GPU there is the torch code alone, so nothing to compare."""
    if device != "cpu":
        return
    generator = torch.Generator().manual_seed(0)
    ids = grid_superpixels(HEIGHT, WIDTH, SIDE)
    maps: dict[str, Any] = {
        "score": torch.rand(HEIGHT, WIDTH, generator=generator),
        "is_asked": torch.rand(HEIGHT, WIDTH, generator=generator) < 1e-4,
        "superpixel_ids": torch.from_numpy(ids),
        "num_superpixels": int(ids.max()) + 1,
        "top": 1,
        "share": 0.25,
    }

    def ours() -> dict[str, np.ndarray]:
        return random_top_pixels(**maps, generator=np.random.default_rng(0))

    def vectorised() -> tuple[np.ndarray, np.ndarray]:
        return draw_on_device(**maps, generator=np.random.default_rng(0))

    np.testing.assert_array_equal(ours()["top_score"], vectorised()[1])
    fast, slow = side_by_side(ours, vectorised, device=device, repeats=9)
    yield Row(
        f"a random pixel of the top quarter, {HEIGHT} x {WIDTH}, squares of {SIDE} x {SIDE}",
        milliseconds(fast),
        "",
        f"{slow / fast:.1f} x faster than three sorts in torch",
        compiled=milliseconds(slow),
    )
