"""The same picture twice, in the pool and where it is measured, flatters every number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from jaxtyping import UInt8

from madbal_ray.arrays import RGBImage

SIDE = 32
MOST_BITS = 4
"""Bits of a hash in which two copies differ at most; JPEG at another quality changes 0 to 2."""

BANDS = MOST_BITS + 1
"""Of 64 bits: two hashes that differ in `MOST_BITS` agree in one of them at least."""

MOST_DIFFERENCE = 6.0
"""Mean difference of grey values (0..255) of two copies' thumbnails."""


@dataclass(frozen=True)
class Look:
    """What an image looks like: 64 bits of its low frequencies, and a small grey copy."""

    bits: int
    thumbnail: UInt8[np.ndarray, "32 32"]


def look_at(image: RGBImage) -> Look:
    """Return a perceptual hash and a thumbnail.

    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions; the
    DCT variant, as OpenCV has it.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    hashed = cv2.img_hash.pHash(np.ascontiguousarray(image))
    return Look(int.from_bytes(hashed.tobytes(), "big"), thumbnail)


def across_splits(
    looks: Sequence[tuple[str, str, Look]],
) -> Iterator[tuple[str, str]]:
    """Yield pairs of image ids of different splits that show the same.

    Args:
        looks: (image_id, split, look) of each image.
    """
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    width = 64 // BANDS + 1
    for index, (_, _, look) in enumerate(looks):
        for band in range(BANDS):
            buckets[band, look.bits >> band * width & (1 << width) - 1].append(index)
    pairs = {
        pair
        for members in buckets.values()
        for pair in combinations(members, 2)
        if looks[pair[0]][1] != looks[pair[1]][1]
    }
    for first, second in sorted(pairs):
        (a, _, one), (b, _, other) = looks[first], looks[second]
        if (one.bits ^ other.bits).bit_count() > MOST_BITS:
            continue
        difference = np.abs(one.thumbnail.astype(np.int16) - other.thumbnail)
        if difference.mean() <= MOST_DIFFERENCE:
            yield a, b
