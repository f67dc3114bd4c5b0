"""How far people agree on the same pixels. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from madbal_ray.labels.settle import OPINIONS, Vote

VOID = "(void)"
"""Category of an answer without class; no class is named so in a comparison of its own."""

Opinions = Mapping[str, str]
"""What was said of one pixel: annotator -> category."""


def opinions(votes: Iterable[Vote]) -> dict[str, str]:
    """Return annotator -> category; who skipped, was unsure or took it back is left out."""
    return {
        vote.annotator: VOID if vote.class_name is None else vote.class_name
        for vote in votes
        if vote.status in OPINIONS
    }


def cohens_kappa(pixels: Sequence[Opinions], first: str, second: str) -> tuple[int, float | None]:
    """Return how many pixels both answered, and Cohen's κ on them (-1..1).

    κ = (p_o - p_e) / (1 - p_e), p_o the share of equal answers, p_e what equal answers would be
    by chance. None: both always gave one same category, or no pixel is shared.

    Source: Cohen, A coefficient of agreement for nominal scales, 1960.

    >>> cohens_kappa([{"a": "x", "b": "x"}, {"a": "y", "b": "y"}], "a", "b")
    (2, 1.0)
    """
    pairs = [(said[first], said[second]) for said in pixels if first in said and second in said]
    if not pairs:
        return 0, None
    count = len(pairs)
    observed = sum(one == other for one, other in pairs) / count
    left, right = (Counter(side) for side in zip(*pairs, strict=True))
    expected = sum(left[name] * right[name] for name in left) / count**2
    return count, None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorffs_alpha(pixels: Iterable[Opinions]) -> float | None:
    """Return Krippendorff's α for nominal data; any number of annotators, any gaps.

    α = 1 - D_o / D_e over pairs of answers to the same pixel. None: no pixel was answered twice,
    or only one category was ever given.

    Source: Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section D.

    >>> krippendorffs_alpha([{"a": "x", "b": "x"}, {"a": "y", "b": "y"}, {"a": "y"}])
    1.0
    """
    totals: Counter[str] = Counter()
    unequal = 0.0
    for said in pixels:
        if len(said) < 2:
            continue
        counts = Counter(said.values())
        totals.update(counts)
        given = len(said)
        unequal += sum(n * (given - n) for n in counts.values()) / (given - 1)
    count = sum(totals.values())
    by_chance = sum(n * (count - n) for n in totals.values())
    return 1 - (count - 1) * unequal / by_chance if by_chance else None


def every_kappa(pixels: Sequence[Opinions]) -> dict[tuple[str, str], tuple[int, float | None]]:
    """Return Cohen's κ of all pairs of annotators who share a pixel."""
    names = sorted({name for said in pixels for name in said})
    found = {pair: cohens_kappa(pixels, *pair) for pair in combinations(names, 2)}
    return {pair: value for pair, value in found.items() if value[0]}
