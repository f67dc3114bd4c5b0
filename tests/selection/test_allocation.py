"""Shares, scores and budgets of clusters against their literal writing (Eq. 5-8)."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.errors import NumericalError, ShapeError
from madbal_ray.selection.cluster_budget import allocate_cluster_budget, ceil_excess
from madbal_ray.selection.cluster_statistics import (
    ClusterStatistics,
    cluster_statistics,
    score_clusters,
    score_superpixels,
)
from tests import references

scores = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 1e-9), st.floats(0, 10), st.sampled_from([1.0, 2.0])),
    min_size=1,
    max_size=12,
)


def random_superpixels(seed, *, count, clusters, classes):
    rng = np.random.default_rng(seed)
    return {
        "mean_score": rng.random(count) * 9,
        "dominant_class": rng.integers(-1, classes, count),
        "cluster_id": rng.integers(0, clusters, count),
    }


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 6), st.integers(1, 5))
def test_shares_and_scores_equal_the_literal_formulas(seed, count, clusters, classes):
    superpixels = random_superpixels(seed, count=count, clusters=clusters, classes=classes)
    statistics = cluster_statistics(**superpixels, num_clusters=clusters, num_classes=classes)
    share, score = score_clusters(statistics)
    expected_share, expected_score = references.cluster_scores(
        superpixels["mean_score"],
        superpixels["dominant_class"],
        superpixels["cluster_id"],
        clusters,
        classes,
    )
    np.testing.assert_allclose(share, expected_share, rtol=1e-12)
    np.testing.assert_allclose(score, expected_score, rtol=1e-8, atol=1e-9)
    by_superpixel = score_superpixels(**superpixels, cluster_class_share=share)
    for value, mean, dominant, cluster in zip(by_superpixel, *superpixels.values(), strict=True):
        wanted = mean * np.exp(-expected_share[cluster, dominant]) if dominant >= 0 else 0
        assert value == pytest.approx(wanted, rel=1e-7)  # a factor of float32


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 80), min_size=0, max_size=4))
def test_statistics_merge_exactly_under_any_sharding(seed, cuts):
    superpixels = random_superpixels(seed, count=80, clusters=4, classes=3)
    sizes = dict(num_clusters=4, num_classes=3)
    whole = cluster_statistics(**superpixels, **sizes)
    merged = ClusterStatistics.zeros(4, 3)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 80], strict=True):
        part = {name: column[start:stop] for name, column in superpixels.items()}
        merged = merged + cluster_statistics(**part, **sizes)
    assert np.array_equal(merged.count, whole.count)
    assert np.array_equal(merged.score_sum, whole.score_sum)


def test_sums_of_a_pool_of_any_size():
    """Ten thousand shards of a million superpixels, of 0.5 and 3 nats each: 2**32 nats and more."""
    million = np.full((1, 2), 10**6, np.int64)
    shard = ClusterStatistics(million, np.array([[10**6 << 31, 3 * 10**6 << 32]]))
    pool = ClusterStatistics.zeros(1, 2)
    for _ in range(10_000):
        pool = pool + shard
    assert pool.score_sum.tolist() == [[10**10 << 31, 3 * 10**10 << 32]]
    share, score = score_clusters(pool, balance_exponent=0)
    assert share.tolist() == [[0.5, 0.5]]
    assert score.tolist() == [1.75]


def test_the_last_bit_of_exp_does_not_change_a_score(monkeypatch):
    """Nodes with other processors have another one, and rank superpixels of one pool."""
    superpixels = random_superpixels(5, count=80, clusters=4, classes=3)
    share = np.random.default_rng(0).random((4, 3))
    usual = score_superpixels(**superpixels, cluster_class_share=share)
    exp = np.exp
    for end in (-np.inf, np.inf):
        monkeypatch.setattr(np, "exp", lambda x, end=end: np.nextafter(exp(x), end))
        found = score_superpixels(**superpixels, cluster_class_share=share)
        assert found.tolist() == usual.tolist()


def test_bad_scores_are_errors():
    with pytest.raises(NumericalError, match="not finite"):
        cluster_statistics(
            mean_score=[np.nan], dominant_class=[0], cluster_id=[0], num_clusters=1, num_classes=1
        )
    with pytest.raises(ShapeError, match="cluster_id"):
        cluster_statistics(
            mean_score=[1.0], dominant_class=[0], cluster_id=[3], num_clusters=2, num_classes=1
        )


@given(scores, st.integers(0, 500))
def test_largest_remainder_is_exact_and_equals_the_literal_method(score, budget):
    result = allocate_cluster_budget(cluster_score=score, budget=budget)
    assert result.dtype == np.int64
    assert result.sum() == budget
    assert (result >= 0).all()
    weights = score if any(score) else [1] * len(score)
    assert result.tolist() == references.largest_remainder(weights, budget)


@given(scores, st.integers(0, 500))
def test_ceil_gives_back_to_the_budget_and_equals_the_literal_method(score, budget):
    result = allocate_cluster_budget(cluster_score=score, budget=budget, rounding="ceil")
    assert result.sum() == budget
    assert (result >= 0).all()
    weights = score if any(score) else [1] * len(score)
    assert result.tolist() == references.ceil_budget(weights, budget)


def test_documented_cases():
    assert allocate_cluster_budget(cluster_score=[1, 1, 1], budget=20).tolist() == [7, 7, 6]
    assert allocate_cluster_budget(cluster_score=[0, 0, 0], budget=4).tolist() == [2, 1, 1]
    empty_first = allocate_cluster_budget(
        cluster_score=[0, 0, 0], budget=5, has_superpixels=[False, True, True]
    )
    assert empty_first.tolist() == [0, 3, 2]
    # ceilings 1 + 7 + 13 = 21: the lowest gives back first
    ceil = allocate_cluster_budget(cluster_score=[0.1, 1.0, 2.0], budget=20, rounding="ceil")
    assert ceil.tolist() == [0, 7, 13]
    assert ceil_excess(cluster_score=[0.1, 1.0, 2.0], budget=20) == 1
    # equal scores: the higher id gives back first
    assert allocate_cluster_budget(
        cluster_score=[1, 1, 1], budget=20, rounding="ceil"
    ).tolist() == [7, 7, 6]


@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-1.0]])
def test_scores_must_be_finite_and_not_negative(bad):
    with pytest.raises(NumericalError, match="cluster 0 has score"):
        allocate_cluster_budget(cluster_score=bad, budget=3)


def test_nowhere_to_go_is_an_error():
    with pytest.raises(ShapeError, match="nowhere to go"):
        allocate_cluster_budget(cluster_score=[0.0], budget=3, has_superpixels=[False])


@pytest.mark.parametrize("rounding", ["largest_remainder", "ceil"])
@pytest.mark.parametrize("budget", [7.5, -1, -0.5])
def test_a_budget_is_a_whole_number(budget, rounding):
    untyped = inspect.unwrap(allocate_cluster_budget)  # as users call it
    with pytest.raises(ShapeError, match=f"budget = {budget}; expected a whole number of pixels"):
        untyped(cluster_score=[1.0, 2.0], budget=budget, rounding=rounding)
    assert untyped(cluster_score=[1.0, 2.0], budget=6.0).tolist() == [2, 4]
