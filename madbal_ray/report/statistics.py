"""Honest statistics over seeds: intervals, areas, paired tests, smallest visible difference."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from madbal_ray import rng

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
ENOUGH_SEEDS = 6
"""Below this many seeds a paired test says nothing; only intervals are shown."""

POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return mean and 95 % interval over seeds, of Student's t distribution.

    A percentile bootstrap is too narrow for few seeds: its 95 % hold the true mean in 90 % of
    trials of ten, 86 % of six and 75 % of three (tests/report/test_statistics.py).

    The interval of a single seed is its value: nothing is known of the spread. Of no value at
    all, and where one is NaN, all three are NaN.
    """
    array = np.asarray(values, np.float64)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2 or math.isnan(mean):
        return Interval(mean, mean, mean, len(array))
    half = _critical(len(array)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Interval(mean, mean - half, mean + half, len(array))


@functools.cache
def _critical(count: int) -> float:
    """Return how many standard errors a 95 % interval of a mean of `count` reaches each way."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))


def area_under_curve(clicks: Sequence[float], miou: Sequence[float]) -> float:
    """Return the mean mIoU over the budget: trapezoids, divided by the range of clicks.

    A curve of one point is its value.
    """
    x, y = np.asarray(clicks, np.float64), np.asarray(miou, np.float64)
    if len(x) < 2 or x[-1] == x[0]:
        return float(y[-1])
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def clicks_to_reach(clicks: Sequence[float], miou: Sequence[float], wanted: float) -> float | None:
    """Return the clicks at which a curve first reaches a value, linear between rounds.

    None where it never does.
    """
    for index, value in enumerate(miou):
        if value >= wanted:
            if index == 0:
                return float(clicks[0])
            before, x0, x1 = miou[index - 1], clicks[index - 1], clicks[index]
            return float(x0 + (wanted - before) / (value - before) * (x1 - x0))
    return None


def equivalent_clicks(
    clicks: Sequence[float],
    own: Mapping[int, Sequence[float]],
    baseline: Mapping[int, Sequence[float]],
) -> Interval:
    """Return the clicks at which the baseline's mean curve is as high as a member's at its end.

    With a 95 % interval by resampling the seeds that both have, its quantiles moved outwards as
    far as Student's t asks for so many (Hesterberg 2015, What Teachers Should Know about the
    Bootstrap, section 5.3); infinity where the baseline's curve does not come so far, minus
    infinity where it begins higher.

    Args:
        clicks: of all curves.
        own, baseline: seed -> mIoU at each of `clicks`.
    """
    seeds = sorted(own.keys() & baseline.keys())
    count = len(seeds)
    mine, theirs = (np.array([curves[seed] for seed in seeds]) for curves in (own, baseline))

    def equivalent(rows: np.ndarray) -> float:
        wanted = float(mine[rows, -1].mean())
        curve = theirs[rows].mean(axis=0).tolist()
        if wanted < curve[0]:
            return -math.inf
        found = clicks_to_reach(clicks, curve, wanted)
        return math.inf if found is None else found

    found = equivalent(np.arange(count))
    if count == 1:
        return Interval(found, found, found, 1)
    generator = rng.stream(0, "equivalent_clicks", count)
    draws = generator.integers(count, size=(NUM_RESAMPLES, count))
    # No interpolation: between a number and infinity there is nothing.
    tail = float(stats.norm.cdf(-_critical(count) * math.sqrt(count / (count - 1))))
    tails = [tail, 1 - tail]
    low, high = np.quantile([equivalent(rows) for rows in draws], tails, method="inverted_cdf")
    return Interval(found, float(low), float(high), count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    adjusted = np.zeros(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted.tolist()


@dataclass(frozen=True)
class Comparison:
    """One member against another, paired by seed.

    Attributes:
        difference: of the areas under the curve, with its interval.
        wins: seeds in which the first is better.
        p_value: Holm-adjusted, paired t-test; None below `ENOUGH_SEEDS` seeds.
        smallest_visible: difference that this many seeds would show in 80 % of trials.
    """

    first: str
    second: str
    difference: Interval
    wins: int
    p_value: float | None
    smallest_visible: float

    @property
    def is_clear(self) -> bool:
        """Tell whether chance hardly explains it: p < 5 %, without a p an interval without 0."""
        if self.p_value is not None:
            return self.p_value < 1 - CONFIDENCE
        low, high = self.difference.low, self.difference.high
        return self.difference.count > 1 and (low > 0 or high < 0)


def compare_with(
    pairs: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]], baseline: str
) -> list[Comparison]:
    """Compare members with the baseline on one value per seed.

    Args:
        pairs: member -> its values by seed, and the baseline's; only seeds of both count.
    """
    comparisons, p_values = [], []
    for member, (own, other) in pairs.items():
        seeds = sorted(own.keys() & other.keys())
        if not seeds:
            continue
        differences = np.array([own[seed] - other[seed] for seed in seeds])
        p_values.append(_paired_p_value(differences))
        comparisons.append(
            Comparison(
                member,
                baseline,
                mean_interval(differences.tolist()),
                int((differences > 0).sum()),
                None,
                smallest_visible_difference(differences),
            )
        )
    tested = [
        index
        for index, comparison in enumerate(comparisons)
        if comparison.difference.count >= ENOUGH_SEEDS
    ]
    for index, adjusted in zip(tested, holm([p_values[i] for i in tested]), strict=True):
        comparisons[index] = replace(comparisons[index], p_value=adjusted)
    return comparisons


def smallest_visible_difference(differences: np.ndarray) -> float:
    """Return the mean paired difference that a two-sided t-test finds with 80 % power.

    Args:
        differences: [seeds], of which only the spread counts; infinity for a single seed.
    """
    count = len(differences)
    if count < 2:
        return math.inf
    spread = float(differences.std(ddof=1))
    return _visible_shift(count) * spread / math.sqrt(count)


@functools.cache
def _visible_shift(count: int) -> float:
    """Return the true mean, in standard errors, that `count` pairs show with 80 % power.

    A t statistic around a true mean follows the noncentral t distribution, whose
    noncentrality is that mean in standard errors. A significant result on the wrong side
    does not count: it adds less than 1e-6 to the power.
    """
    freedom = count - 1
    critical = _critical(count)
    # A central t distribution, moved by the shift, asks for too little: 5 % at 3 seeds. Twice
    # its answer is more than enough for every number of seeds.
    approximate = critical + float(stats.t.ppf(POWER, freedom))

    def lack(shift: float) -> float:
        return POWER - float(stats.nct.sf(critical, freedom, shift))

    return float(optimize.root_scalar(lack, bracket=(0.0, 2 * approximate), xtol=1e-10).root)


def win_matrix(areas: Mapping[str, Mapping[int, float]]) -> pd.DataFrame:
    """Return, for each pair of members, in how many seeds the row beats the column."""
    names = list(areas)
    rows = {
        first: {
            second: sum(
                areas[first][seed] > areas[second][seed]
                for seed in areas[first].keys() & areas[second].keys()
            )
            for second in names
        }
        for first in names
    }
    return pd.DataFrame(rows).T.reindex(index=names, columns=names)


def _paired_p_value(differences: np.ndarray) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    count, spread = len(differences), float(differences.std(ddof=1))
    if spread == 0:
        return 0.0
    t = float(differences.mean()) / (spread / math.sqrt(count))
    return float(2 * stats.t.sf(abs(t), count - 1))
