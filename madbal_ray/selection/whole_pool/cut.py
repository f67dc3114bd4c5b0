"""The best pixels of a whole pool by thresholds, never by a sort of the pool.

The bits of a non-negative float64 are ordered as the number is. So the n-th best score of
a cluster is found digit by digit, 16 bits at a time: shards count their scores by digit,
the counts are added up, the digit that the n-th best falls into is known, and only scores
that share it are looked at again. Four passes at most, and what is held depends on the
number of clusters, not on the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from madbal_ray.errors import NumericalError

DIGIT_BITS = 16
SHIFTS = (48, 32, 16, 0)
"""Of the digit that each pass looks at."""

NOTHING = np.iinfo(np.int64).max
"""`lowest` of a group that gives nothing; no score has these bits."""


@dataclass(frozen=True)
class Digits:
    """Scores of a pool or a part of it, counted by group and digit; sorted, each pair once."""

    group: Int64[np.ndarray, "E"]
    digit: Int64[np.ndarray, "E"]
    count: Int64[np.ndarray, "E"]

    @staticmethod
    def join(parts: list[Digits]) -> Digits:
        """Add up parts of a pool."""
        group, digit, count = (
            np.concatenate([getattr(part, name) for part in parts]) if parts else _NONE
            for name in ("group", "digit", "count")
        )
        keys, where = np.unique((group << DIGIT_BITS) | digit, return_inverse=True)
        total = np.zeros(len(keys), np.int64)
        np.add.at(total, where, count)
        return Digits(keys >> DIGIT_BITS, keys & ((1 << DIGIT_BITS) - 1), total)


_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Cuts:
    """Where each group is cut so far.

    Attributes:
        take: entries to be taken.
        lowest: bits of the least score that may be taken.
        inside: entries whose bits lie in [lowest, lowest + 2**shift).
        left: how many of those are to be taken; all that lie above are.
    """

    take: Int64[np.ndarray, "G"]
    lowest: Int64[np.ndarray, "G"]
    inside: Int64[np.ndarray, "G"]
    left: Int64[np.ndarray, "G"]

    @property
    def is_open(self) -> np.ndarray:
        """Return which groups need another pass: some of `inside` are taken and some not."""
        return self.left != self.inside

    @staticmethod
    def start(take: Int64[np.ndarray, "G"], available: Int64[np.ndarray, "G"]) -> Cuts:
        """Return the cuts before any digit is known."""
        empty = take == 0
        return Cuts(
            take,
            np.where(empty, NOTHING, 0),
            np.where(empty, 0, available),
            take.copy(),
        )

    def narrow(self, digits: Digits, shift: int) -> Cuts:
        """Return the cuts with one digit more."""
        lowest, inside, left = self.lowest.copy(), self.inside.copy(), self.left.copy()
        for group in np.flatnonzero(self.is_open):
            rows = slice(*np.searchsorted(digits.group, [group, group + 1]))
            digit, count = digits.digit[rows][::-1], digits.count[rows][::-1]
            reached = np.cumsum(count)
            place = int(np.searchsorted(reached, left[group]))
            left[group] -= reached[place] - count[place]
            inside[group] = count[place]
            lowest[group] += digit[place] << shift
        return Cuts(self.take, lowest, inside, left)


def score_bits(score: Float[np.ndarray, "E"]) -> Int64[np.ndarray, "E"]:
    """Return whole numbers ordered as the scores are.

    Raises:
        NumericalError: a score is negative, NaN or infinite.
    """
    value = score.astype(np.float64) + 0.0  # -0.0 becomes 0.0
    bad = ~(np.isfinite(value) & (value >= 0))
    if bad.any():
        raise NumericalError(f"a superpixel has score {value[bad][0]}; expected finite and >= 0")
    return value.view(np.int64)


def count_digits(
    group: Int64[np.ndarray, "E"], bits: Int64[np.ndarray, "E"], cuts: Cuts | None, shift: int
) -> Digits:
    """Count entries by group and digit, those whose higher digits are the cut's.

    Args:
        cuts: None in the first pass, when all entries count.
        shift: of the digit.
    """
    offset = bits if cuts is None else bits - cuts.lowest[group]
    digit = offset >> shift
    counted = (digit >= 0) & (digit < 1 << DIGIT_BITS)
    if cuts is not None:
        counted &= cuts.is_open[group]
    group, digit = group[counted], digit[counted]
    return Digits.join([Digits(group, digit, np.ones(len(group), np.int64))])
