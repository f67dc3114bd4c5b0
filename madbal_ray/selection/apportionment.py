"""Sharing whole units in proportion to weights, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence


def exact_weights(values: Sequence[float]) -> list[int]:
    """Return integers in exactly the proportion of the given floats.

    >>> exact_weights([0.5, 0.25, 0.0])
    [2, 1, 0]
    """
    ratios = [float(value).as_integer_ratio() for value in values]
    scale = max((denominator for _, denominator in ratios), default=1)
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def largest_remainder(weights: Sequence[int], units: int) -> list[int]:
    """Split `units` in proportion to `weights`; the sum is exact.

    Quotas are rounded down and the rest goes by largest remainder, ties to the lower
    position. At least one weight must be positive.

    >>> largest_remainder([1, 1, 1], 5)
    [2, 2, 1]
    """
    total = sum(weights)
    shares, remainders = [], []
    for weight in weights:
        share, remainder = divmod(weight * units, total)
        shares.append(share)
        remainders.append(remainder)
    left = units - sum(shares)
    if left:
        for position in sorted(range(len(shares)), key=lambda k: (-remainders[k], k))[:left]:
            shares[position] += 1
    return shares


def ceilings(weights: Sequence[int], units: int) -> list[int]:
    """Round every quota up; the sum may exceed `units`.

    >>> ceilings([1, 1, 1], 5)
    [2, 2, 2]
    """
    total = sum(weights)
    return [-(-weight * units // total) for weight in weights]


def give_back(units: list[int], weights: Sequence[int], excess: int) -> list[int]:
    """Take `excess` units back, one at a time, round-robin from the lowest positive weight up.

    Ties go to the higher position first; nobody falls below 0.
    """
    if excess > sum(units):
        raise ValueError(f"cannot take {excess} of {sum(units)} units back")
    givers = sorted((k for k, w in enumerate(weights) if w > 0), key=lambda k: (weights[k], -k))
    kept = list(units)
    while excess > 0:
        for position in givers:
            if excess and kept[position]:
                kept[position] -= 1
                excess -= 1
    return kept
