"""The best pixels of a whole pool by thresholds, never by a sort of the pool.

offer   a pixel that an image puts forward, with the score u(s) of its superpixel
lap     the offer's place among its superpixel's: 0 its best pixel, 1 its second best, ...
group   the offers of one lap and cluster over the whole pool; so many of each are to be taken
digit   16 of the 64 bits of a score, as a whole number; a score has four, the highest first
cut     the score at which a group is divided: offers above it are taken, those below are not
tie     an offer whose score equals its group's cut to the last bit

The bits of a non-negative float64, read as a whole number, are ordered as the float64 are. So
the cut of a group, its n-th best score, is found digit by digit. In each pass the shards count
their offers by group and digit, and the counts are added up. They tell into which digit the
n-th best offer falls, and the next pass counts only offers that share it. After four passes at
most the cuts are known. What is held in memory grows with the number of groups, not with the
pool. Where a group is to take only some of its ties, the lower image_id goes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from madbal_ray.errors import NumericalError

DIGIT_BITS = 16
SHIFTS = (48, 32, 16, 0)
"""How many bits lie below the digit that each pass counts."""

NOTHING = np.iinfo(np.int64).max
"""`Cuts.lowest` of a group that takes nothing; the bits of every score are a lower number."""


@dataclass(frozen=True)
class Digits:
    """Offers of a pool or of a part of it, counted by group and digit.

    Entries are sorted by group, then digit; each pair occurs once.
    """

    group: Int64[np.ndarray, "E"]
    digit: Int64[np.ndarray, "E"]
    count: Int64[np.ndarray, "E"]

    @staticmethod
    def join(parts: list[Digits]) -> Digits:
        """Add up the counts of some parts of a pool."""
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
    """What is known of every group's cut after a pass.

    Attributes:
        take: how many offers are to be taken.
        lowest: the digits of the cut known so far, and zeros in place of the others: the
            least score (as bits) that may still be taken.
        inside: how many offers share these digits, that is, have bits in
            [lowest, lowest + 2**shift) with the shift of the last pass that the group needed.
        left: how many of those inside are to be taken; all offers above them are.
    """

    take: Int64[np.ndarray, "G"]
    lowest: Int64[np.ndarray, "G"]
    inside: Int64[np.ndarray, "G"]
    left: Int64[np.ndarray, "G"]

    @property
    def is_open(self) -> np.ndarray:
        """Return which groups need another pass: they take some of `inside`, but not all."""
        return self.left != self.inside

    @staticmethod
    def start(take: Int64[np.ndarray, "G"], available: Int64[np.ndarray, "G"]) -> Cuts:
        """Return the cuts before any digit is known: all offers are inside.

        Args:
            available: how many offers there are.
        """
        empty = take == 0
        return Cuts(
            take,
            np.where(empty, NOTHING, 0),
            np.where(empty, 0, available),
            take.copy(),
        )

    def narrow(self, digits: Digits, shift: int) -> Cuts:
        """Return the cuts with one digit more.

        Args:
            digits: of this pass, over the whole pool.
            shift: bits below the digit that it counted.
        """
        lowest, inside, left = self.lowest.copy(), self.inside.copy(), self.left.copy()
        for group in np.flatnonzero(self.is_open):
            rows = slice(*np.searchsorted(digits.group, [group, group + 1]))
            digit, count = digits.digit[rows][::-1], digits.count[rows][::-1]  # highest first
            reached = np.cumsum(count)
            place = int(np.searchsorted(reached, left[group]))  # where the last one to take lies
            left[group] -= reached[place] - count[place]  # higher digits are taken whole
            inside[group] = count[place]
            lowest[group] += digit[place] << shift
        return Cuts(self.take, lowest, inside, left)


def score_bits(score: Float[np.ndarray, "E"]) -> Int64[np.ndarray, "E"]:
    """Return whole numbers ordered as the scores are.

    Raises:
        NumericalError: a score is negative, NaN or infinite.
    """
    value = score.astype(np.float64) + 0.0  # turns -0.0, whose bits would be negative, into 0.0
    bad = ~(np.isfinite(value) & (value >= 0))
    if bad.any():
        raise NumericalError(f"a superpixel has score {value[bad][0]}; expected finite and >= 0")
    return value.view(np.int64)


def count_digits(
    group: Int64[np.ndarray, "E"], bits: Int64[np.ndarray, "E"], cuts: Cuts | None, shift: int
) -> Digits:
    """Count a shard's offers by group and digit, as far as their group's cut is open.

    Only offers inside the cut count: those that share all digits of it known so far.

    Args:
        group: of each offer.
        bits: of each offer's score.
        cuts: of the pass before; None in the first pass, in which every offer counts.
        shift: bits below the digit to count.
    """
    offset = bits if cuts is None else bits - cuts.lowest[group]
    digit = offset >> shift
    counted = (digit >= 0) & (digit < 1 << DIGIT_BITS)
    if cuts is not None:
        counted &= cuts.is_open[group]
    group, digit = group[counted], digit[counted]
    return Digits.join([Digits(group, digit, np.ones(len(group), np.int64))])
