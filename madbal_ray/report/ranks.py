"""Mean ranks of members over blocks (seeds, data sets), and which of them differ.

Source: Demsar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets: Friedman's
test, Nemenyi's critical difference.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST_MEMBERS = 3
FEWEST_BLOCKS = 6
"""Below this many the critical difference is nearly the whole range of ranks."""


@dataclass(frozen=True)
class Ranks:
    """Ranks over blocks.

    Attributes:
        mean: member -> mean rank, 1 is best, in order of rank.
        num_blocks: seeds, or seeds of several data sets.
        p_value: of Friedman's test that all members are alike.
        critical_difference: of two mean ranks, at 5 % over all pairs (Nemenyi).
    """

    mean: Mapping[str, float]
    num_blocks: int
    p_value: float
    critical_difference: float

    def alike(self, name: str) -> tuple[str, ...]:
        """Return a member and those of worse rank that cannot be told from it, in order."""
        return tuple(
            other
            for other, rank in self.mean.items()
            if 0 <= rank - self.mean[name] <= self.critical_difference
        )

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Return the largest runs of members that cannot be told apart, best first."""
        found: list[tuple[str, ...]] = []
        for name in self.mean:
            inside = self.alike(name)
            if len(inside) > 1 and (not found or inside[-1] != found[-1][-1]):
                found.append(inside)
        return found


def mean_ranks(blocks: Mapping[Hashable, Mapping[str, float]]) -> Ranks | None:
    """Rank members by their values, block by block.

    Args:
        blocks: block -> member -> value, higher is better; members that a block lacks are left
            out of all.

    Returns:
        None where fewer than `FEWEST_MEMBERS` members or `FEWEST_BLOCKS` blocks are left.
    """
    shared = set.intersection(*(set(one) for one in blocks.values())) if blocks else set()
    names = [name for one in blocks.values() for name in one if name in shared]
    names = list(dict.fromkeys(names))
    if len(names) < FEWEST_MEMBERS or len(blocks) < FEWEST_BLOCKS:
        return None
    values = np.array([[one[name] for name in names] for one in blocks.values()])
    ranks = stats.rankdata(-values, axis=1)
    mean = dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))
    count, num_blocks = len(names), len(blocks)
    width = float(stats.studentized_range.ppf(0.95, count, np.inf)) / math.sqrt(2)
    is_alike = (ranks == ranks[:, :1]).all()
    return Ranks(
        dict(sorted(mean.items(), key=lambda item: item[1])),
        num_blocks,
        1.0 if is_alike else float(stats.friedmanchisquare(*values.T).pvalue),
        width * math.sqrt(count * (count + 1) / (6 * num_blocks)),
    )
