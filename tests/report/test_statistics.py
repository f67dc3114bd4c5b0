"""Statistics over seeds against literal references and known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from madbal_ray.report.statistics import (
    Interval,
    area_under_curve,
    clicks_to_reach,
    compare_with,
    holm,
    mean_interval,
    smallest_visible_difference,
    win_matrix,
)

UNIT = st.floats(0, 1)


def pairs(areas, baseline):
    return {name: (areas[name], areas[baseline]) for name in areas if name != baseline}


def literal_holm(p_values):
    """Reject the smallest p while p * (hypotheses left) is small, in order."""
    adjusted, running = {}, 0.0
    left = len(p_values)
    for index, p in sorted(enumerate(p_values), key=lambda pair: pair[1]):
        running = max(running, min(1.0, p * left))
        adjusted[index] = running
        left -= 1
    return [adjusted[index] for index in range(len(p_values))]


@given(st.lists(UNIT, min_size=1, max_size=8))
def test_holm_equals_the_steps(p_values):
    assert holm(p_values) == pytest.approx(literal_holm(p_values))


@given(st.lists(UNIT, min_size=1, max_size=6))
def test_interval_lies_around_the_mean(values):
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.high - interval.mean == pytest.approx(interval.mean - interval.low)
    assert interval.count == len(values)


def test_interval_of_three_seeds_by_hand():
    # mean 0.33, standard deviation sqrt((0.03² + 0.01² + 0.04²) / 2) = 0.036056; t = 4.302653
    interval = mean_interval([0.3, 0.32, 0.37])
    assert interval.mean == pytest.approx(0.33)
    assert interval.low == pytest.approx(0.33 - 4.302653 * 0.036056 / 3**0.5, abs=1e-5)
    assert interval.high == pytest.approx(0.33 + 4.302653 * 0.036056 / 3**0.5, abs=1e-5)


@pytest.mark.parametrize(("count", "of_bootstrap"), [(3, 0.753), (6, 0.86), (10, 0.907)])
def test_intervals_hold_the_true_mean_as_often_as_they_say(count, of_bootstrap):
    """Where percentiles of bootstrap means, which the docstring speaks of, hold it too seldom."""
    rng = np.random.default_rng(count)
    trials = rng.normal(0, 1, (4000, count))
    found = [mean_interval(trial.tolist()) for trial in trials]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.012)
    held = []
    for trial in trials[:1500]:
        means = trial[rng.integers(count, size=(1000, count))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        held.append(low <= 0 <= high)
    assert np.mean(held) == pytest.approx(of_bootstrap, abs=0.03)


def test_interval_of_one_seed_is_its_value():
    assert mean_interval([0.3]) == Interval(0.3, 0.3, 0.3, 1)


def test_interval_of_equal_of_missing_and_of_no_values():
    assert mean_interval([0.25, 0.25]) == Interval(0.25, 0.25, 0.25, 2)
    assert str(mean_interval([0.3, math.nan])) == "nan [nan, nan]"
    assert str(mean_interval([])) == "nan [nan, nan]"


def test_area_is_the_mean_height():
    assert area_under_curve([10, 20, 40], [0.1, 0.3, 0.3]) == pytest.approx((0.2 * 10 + 6) / 30)
    assert area_under_curve([10], [0.4]) == 0.4
    assert area_under_curve([5, 5], [0.2, 0.4]) == 0.4


@given(st.lists(UNIT, min_size=2, max_size=8))
def test_area_lies_between_the_lowest_and_the_highest_point(miou):
    area = area_under_curve(list(range(len(miou))), miou)
    assert min(miou) - 1e-9 <= area <= max(miou) + 1e-9


def test_clicks_to_reach():
    clicks, miou = [10, 20, 30], [0.2, 0.4, 0.3]
    assert clicks_to_reach(clicks, miou, 0.1) == 10
    assert clicks_to_reach(clicks, miou, 0.3) == pytest.approx(15)
    assert clicks_to_reach(clicks, miou, 0.5) is None


def test_below_six_seeds_there_is_no_p_value():
    rng = np.random.default_rng(0)
    areas = {name: dict(enumerate(rng.random(5))) for name in ("a", "b", "c")}
    assert [row.p_value for row in compare_with(pairs(areas, "a"), "a")] == [None, None]


def test_comparison_pairs_seeds_and_corrects():
    rng = np.random.default_rng(1)
    base = dict(enumerate(rng.normal(0.5, 0.05, 8)))
    areas = {
        "base": base,
        "better": {seed: base[seed] + 0.02 + rng.normal(0, 0.004) for seed in base},
        "same": {seed: base[seed] + rng.normal(0, 0.004) for seed in base if seed != 3},
    }
    better, same = compare_with(pairs(areas, "base"), "base")
    assert better.wins == 8
    assert better.difference.mean == pytest.approx(0.02, abs=0.005)
    differences = [areas["better"][seed] - base[seed] for seed in base]
    raw = stats.ttest_rel(list(areas["better"].values()), list(base.values())).pvalue
    assert better.p_value == pytest.approx(2 * raw)
    assert same.difference.count == 7
    assert same.p_value > 0.05
    assert abs(better.difference.mean) > smallest_visible_difference(np.array(differences))


def power_of_paired_t_test(difference, spread, count):
    """Chance of p < 0.05: a normal mean over a chi-square spread, integrated over the latter."""
    shift, freedom = difference / (spread / count**0.5), count - 1
    critical = stats.t.ppf(0.975, freedom)

    def density(variance):  # times its degrees of freedom
        limit = critical * (variance / freedom) ** 0.5
        found = stats.norm.cdf(shift - limit) + stats.norm.cdf(-shift - limit)
        return stats.chi2.pdf(variance, freedom) * found

    return integrate.quad(density, 0, np.inf, epsabs=1e-10)[0]


@pytest.mark.parametrize(
    ("count", "in_spreads"), [(2, 11.5499), (3, 3.2640), (5, 1.6820), (10, 0.9960)]
)
def test_smallest_visible_difference_has_the_power_it_says(count, in_spreads):
    """The numbers: `power_of_paired_t_test(…) = 0.8`, solved by bisection."""
    differences = np.linspace(-0.01, 0.03, count)
    spread = differences.std(ddof=1)
    visible = smallest_visible_difference(differences)
    assert visible / spread == pytest.approx(in_spreads, abs=1e-4)
    assert power_of_paired_t_test(visible, spread, count) == pytest.approx(0.8, abs=1e-6)


def test_smallest_visible_difference_of_one_seed_and_of_no_spread():
    assert smallest_visible_difference(np.array([0.1])) == math.inf
    assert smallest_visible_difference(np.array([0.25, 0.25, 0.25])) == 0


def test_trials_show_the_smallest_visible_difference_as_often_as_it_says():
    rng = np.random.default_rng(2)
    visible = 1.6820 * 0.01
    trials = rng.normal(visible, 0.01, (4000, 5))
    share = np.mean(stats.ttest_1samp(trials, 0.0, axis=1).pvalue < 0.05)
    assert share == pytest.approx(0.8, abs=0.02)  # its standard error is 0.0063


def test_win_matrix_counts_shared_seeds():
    wins = win_matrix({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.4, 1: 0.7, 2: 0.9}})
    assert wins.loc["a", "b"] == 1
    assert wins.loc["b", "a"] == 1
    assert wins.loc["a", "a"] == 0
