"""Laps: how many an image needs, and how many superpixels each cluster gives in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer

from madbal_ray.selection.apportionment import largest_remainder


def share_lap(
    available: Int64[np.ndarray, "K"],
    planned: Int64[np.ndarray, "K"],
    units: int,
    weights: Sequence[int],
) -> Int64[np.ndarray, "K"]:
    """Return how many superpixels each cluster gives in one lap, at most `units` together.

    Cluster k gives min(planned_k, available_k). What is left goes, by largest remainder, to
    clusters that have more, until it is spent or none has.

    Args:
        available: superpixels that have a pixel to give in this lap.
        planned: B_k in the first lap, zeros later.
        units: pixels still to be asked for; at least the sum of `planned`.
        weights: whole numbers in proportion to u(cl_k); all zero: equal.
    """
    take = np.minimum(planned, available)
    left = units - int(take.sum())
    while left > 0 and (take < available).any():
        is_open = (take < available).tolist()
        shares = [w if o else 0 for w, o in zip(weights, is_open, strict=True)]
        if not any(shares):
            shares = [int(o) for o in is_open]
        take = np.minimum(take + np.array(largest_remainder(shares, left)), available)
        left = units - int(take.sum())
    return take


def share_laps(
    available: Int64[np.ndarray, "L K"],
    planned: Int64[np.ndarray, "K"],
    weights: Sequence[int],
) -> Int64[np.ndarray, "L K"]:
    """Return what each cluster gives in each lap, until sum(planned) is spent.

    A second pixel of a superpixel is asked for only when every superpixel gave one.
    """
    take = np.zeros_like(available)
    left = int(planned.sum())
    for lap, in_lap in enumerate(available):
        if left <= 0:
            break
        take[lap] = share_lap(
            in_lap, planned if lap == 0 else np.zeros_like(planned), left, weights
        )
        left -= int(take[lap].sum())
    return take


def laps_needed(num_pixels: Integer[np.ndarray, "S"], budget: int) -> int:
    """Return the smallest m with sum_s min(m, num_pixels_s) >= min(budget, sum num_pixels).

    So many best pixels of each superpixel are enough for `madbal_ray.query.query_image`,
    since a second pixel is taken only after every superpixel gave one.
    """
    wanted = min(budget, int(num_pixels.sum()))
    laps = 1
    while int(np.minimum(num_pixels, laps).sum()) < wanted:
        laps += 1
    return laps
