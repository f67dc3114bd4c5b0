"""Honest statistics over seeds: intervals, areas, paired tests, smallest visible difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from madbal_ray import rng

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95
ENOUGH_SEEDS = 6
"""Below this many seeds a paired test says nothing; only intervals are shown."""

POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """Return mean and 95 % percentile bootstrap interval over seeds; the draw is seeded."""
    array = np.asarray(values, np.float64)
    generator = rng.stream(0, "bootstrap", len(array))
    picks = generator.integers(0, len(array), (NUM_RESAMPLES, len(array)))
    means = array[picks].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(array.mean()), float(low), float(high), len(array))


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


def compare_with(
    pairs: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]], baseline: str
) -> list[Comparison]:
    """Compare members with the baseline on one value per seed.

    Args:
        pairs: member -> its values by seed, and the baseline's; only seeds of both count.
    """
    found, p_values = [], []
    for member, (own, other) in pairs.items():
        seeds = sorted(own.keys() & other.keys())
        if not seeds:
            continue
        differences = np.array([own[seed] - other[seed] for seed in seeds])
        p_values.append(_paired_p_value(differences))
        found.append(
            Comparison(
                member,
                baseline,
                bootstrap_interval(differences.tolist()),
                int((differences > 0).sum()),
                None,
                smallest_visible_difference(differences),
            )
        )
    tested = [i for i, one in enumerate(found) if one.difference.count >= ENOUGH_SEEDS]
    for index, adjusted in zip(tested, holm([p_values[i] for i in tested]), strict=True):
        one = found[index]
        found[index] = Comparison(
            one.first, one.second, one.difference, one.wins, adjusted, one.smallest_visible
        )
    return found


def smallest_visible_difference(differences: np.ndarray) -> float:
    """Return the mean paired difference that a two-sided t-test finds with 80 % power."""
    count = len(differences)
    if count < 2:
        return math.inf
    spread = float(differences.std(ddof=1))
    quantiles = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) + stats.t.ppf(POWER, count - 1)
    return float(quantiles * spread / math.sqrt(count))


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
    if differences.std() == 0:
        return 0.0
    return float(np.asarray(stats.ttest_1samp(differences, 0.0))[1])
