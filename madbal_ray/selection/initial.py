"""The initial pool: pixels at random (paper section 4), or spread over clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from madbal_ray.arrays import BoolMap, LabelMap
from madbal_ray.selection.laps import laps_needed


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


@dataclass(frozen=True)
class Chances:
    """Superpixels of one image that have an allowed pixel, each with a lot and random pixels.

    Attributes:
        superpixel: ids, ascending.
        num_pixels: allowed ones.
        chance: the lot, in (0, 1]; the highest ones of a pool are a random draw from it.
        y, x: different allowed pixels in random order, -1 where a superpixel has no more.
    """

    superpixel: Int64[np.ndarray, "S"]
    num_pixels: Int64[np.ndarray, "S"]
    chance: Float64[np.ndarray, "S"]
    y: Int64[np.ndarray, "S L"]
    x: Int64[np.ndarray, "S L"]


def draw_chances(
    *,
    label_map: LabelMap,
    is_allowed: BoolMap,
    count: int,
    by_size: bool,
    generator: np.random.Generator,
) -> Chances:
    """Give every superpixel of an image a lot, and draw pixels of it in random order.

    Args:
        is_allowed: False where a pixel may not be asked.
        count: pixels that the image must be able to give, if it has so many.
        by_size: a superpixel's chance grows with its allowed pixels (lots u^(1/n), Efraimidis and
            Spirakis 2006): the first of a draw is that of a pixel, further ones are without its
            superpixel; False: all superpixels alike.
        generator: the stream of the image.

    Returns:
        `laps_needed` pixels of each superpixel, so that laps over all of them give `count`.
    """
    shuffled = generator.permutation(np.flatnonzero(is_allowed))
    owner = label_map.ravel()[shuffled]
    order = np.argsort(owner, kind="stable")
    superpixel, start, number = np.unique(owner[order], return_index=True, return_counts=True)
    lot = 1.0 - generator.random(len(superpixel))  # in (0, 1], so that every lot is above zero
    if by_size:
        lot **= 1.0 / number
    place = np.arange(laps_needed(number, count))
    is_there = place < number[:, None]
    pixel = shuffled[order][np.where(is_there, start[:, None] + place, 0)]
    y, x = np.divmod(pixel, is_allowed.shape[1])
    return Chances(
        superpixel.astype(np.int64),
        number.astype(np.int64),
        lot,
        np.where(is_there, y, -1),
        np.where(is_there, x, -1),
    )
