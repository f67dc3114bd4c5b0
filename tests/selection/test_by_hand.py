"""Eq. 5-8, laps, whole images and the initial pool with numbers worked out by hand."""

import math

import numpy as np
import pytest

from madbal_ray.selection.apportionment import (
    ceilings,
    exact_weights,
    give_back,
    largest_remainder,
)
from madbal_ray.selection.cluster_budget import allocate_cluster_budget, ceil_excess
from madbal_ray.selection.cluster_statistics import (
    cluster_statistics,
    score_clusters,
    score_superpixels,
)
from madbal_ray.selection.image_choice import core_set, top_images
from madbal_ray.selection.initial import draw_initial_pixels
from madbal_ray.selection.laps import share_lap, share_laps
from madbal_ray.selection.query import query_image
from madbal_ray.selection.whole_pool.cut import Cuts, Digits
from tests.fixed_generator import FixedGenerator

# cluster 0: classes 1, 1, 2, 1; cluster 1: class 0 and one with nothing unasked; cluster 2: none
MEANS = [1.0, 2.0, 3.0, 0.5, 4.0, 9.0]
CLASSES = [1, 1, 2, 1, 0, -1]
CLUSTERS = [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(("options", "gamma"), [({}, 1.0), ({"balance_exponent": 2.0}, 2.0)])
def test_shares_cluster_scores_and_superpixel_scores(options, gamma):
    statistics = cluster_statistics(
        mean_score=MEANS,
        dominant_class=CLASSES,
        cluster_id=CLUSTERS,
        num_clusters=3,
        num_classes=3,
    )
    assert statistics.count.tolist() == [[0, 3, 1], [1, 0, 0], [0, 0, 0]]
    in_units = np.array([[0, 3.5, 3.0], [4.0, 0, 0], [0, 0, 0]]) * 2**32
    assert statistics.score_sum.tolist() == in_units.astype(int).tolist()
    share, score = score_clusters(statistics, **options)
    assert share.tolist() == [[0, 0.75, 0.25], [1, 0, 0], [0, 0, 0]]
    common, rare = math.exp(-0.75 * gamma), math.exp(-0.25 * gamma)
    first = (1.0 * common + 2.0 * common + 3.0 * rare + 0.5 * common) / 4
    assert score.tolist() == pytest.approx([first, 4 * math.exp(-gamma), 0.0])
    of_superpixels = score_superpixels(
        mean_score=MEANS,
        dominant_class=CLASSES,
        cluster_id=CLUSTERS,
        cluster_class_share=share,
        **options,
    )
    assert of_superpixels.tolist() == pytest.approx(
        [common, 2 * common, 3 * rare, 0.5 * common, 4 * math.exp(-gamma), 0.0]
    )


def test_mean_scores_are_summed_to_the_nearest_unit():
    statistics = cluster_statistics(
        mean_score=[1.6 * 2.0**-32, 1.4 * 2.0**-32, 2.5 * 2.0**-32],
        dominant_class=[0, 0, 1],
        cluster_id=[0, 0, 0],
        num_clusters=1,
        num_classes=2,
    )
    assert statistics.score_sum.tolist() == [[2 + 1, 2]]


def test_weights_are_in_exact_proportion():
    assert exact_weights([0.75, 0.5, 3.0]) == [3, 2, 12]
    assert exact_weights([]) == []


@pytest.mark.parametrize(
    ("weights", "units", "expected"),
    [
        ([1, 2, 1], 2, [1, 1, 0]),  # quotas 1/2, 1, 1/2: the tie goes to the lower position
        ([3, 1, 3], 5, [2, 1, 2]),  # 15/7, 5/7, 15/7: the greatest remainder is in the middle
        ([5, 3, 1], 7, [4, 2, 1]),  # 35/9, 21/9, 7/9
        ([0, 4, 0], 3, [0, 3, 0]),
        ([1, 1], 0, [0, 0]),
    ],
)
def test_the_largest_remainder_gets_the_rest(weights, units, expected):
    assert largest_remainder(weights, units) == expected


def test_ceilings_round_every_quota_up():
    assert ceilings([1, 2, 1], 2) == [1, 1, 1]
    assert ceilings([0, 4, 1], 5) == [0, 4, 1]


@pytest.mark.parametrize(
    ("units", "weights", "excess", "expected"),
    [
        ([3, 3, 3], [2, 1, 3], 1, [3, 2, 3]),  # the lowest first
        ([3, 3, 3], [2, 1, 3], 5, [1, 1, 2]),  # then round, the lowest first again
        ([3, 3, 3], [2, 2, 2], 2, [3, 2, 2]),  # ties: the higher position first
        ([1, 3, 2], [1, 5, 3], 4, [0, 2, 0]),  # nobody below 0
        ([4, 1], [0, 1], 1, [4, 0]),  # who has no weight keeps
    ],
)
def test_units_are_given_back_round_robin(units, weights, excess, expected):
    assert give_back(units, weights, excess) == expected


def test_more_than_there_is_cannot_be_given_back():
    with pytest.raises(ValueError, match="cannot take 5 of 4"):
        give_back([3, 1], [1, 1], 5)


def test_budgets_of_equal_and_of_no_scores():
    def budget(score, pixels, **options):
        return allocate_cluster_budget(cluster_score=score, budget=pixels, **options).tolist()

    assert budget([0.5, 1.0, 0.5], 2) == [1, 1, 0]
    assert budget([0.5, 1.0, 0.5], 2, rounding="ceil") == [1, 1, 0]
    assert budget([0.4, 1.2, 0.0], 6, rounding="ceil") == [1, 5, 0]
    has_some = [False, True, True, True]
    assert budget([0, 0, 0, 0], 5, has_superpixels=has_some) == [0, 2, 2, 1]
    assert budget([0, 0, 0, 0], 5, has_superpixels=has_some, rounding="ceil") == [0, 2, 2, 1]
    assert budget([0, 0, 1, 0], 5, has_superpixels=has_some) == [0, 0, 5, 0]
    assert ceil_excess(cluster_score=[0.5, 1.0, 0.5], budget=2) == 1
    assert ceil_excess(cluster_score=[0.0, 0.0], budget=2) == 0


def lap(available, planned, units, weights):
    return share_lap(np.array(available), np.array(planned), units, weights).tolist()


def test_a_lap_gives_what_is_planned_then_shares_the_rest():
    assert lap([5, 5], [3, 1], 4, [1, 1]) == [3, 1]
    assert lap([1, 5, 5], [3, 0, 1], 4, [9, 1, 2]) == [1, 1, 2]  # 2 left: 2/3 and 4/3
    assert lap([1, 1, 0], [3, 0, 0], 3, [1, 1, 1]) == [1, 1, 0]  # no more there
    assert lap([0, 4, 4], [3, 0, 0], 3, [1, 0, 0]) == [0, 2, 1]  # no weights: equal
    assert lap([1, 2, 9], [0, 0, 0], 8, [1, 1, 1]) == [1, 2, 5]  # again to who has more


def test_a_second_lap_begins_when_every_superpixel_gave_one():
    available = np.array([[2, 1], [2, 1], [1, 0]])
    found = share_laps(available, np.array([5, 0]), [1, 3])
    assert found.tolist() == [[2, 1], [1, 1], [0, 0]]
    found = share_laps(available, np.array([1, 1]), [1, 3])
    assert found.tolist() == [[1, 1], [0, 0], [0, 0]]


def query(**changes):
    """Superpixels 7, 3, 5 and 9 of clusters 0, 0, 0 and 1, two pixels each but the last."""
    given = {
        "superpixel_id": [7, 3, 5, 9],
        "cluster_id": [0, 0, 0, 1],
        "score": [2.0, 2.0, 5.0, 1.0],
        "top_y": [[70, 71], [30, 31], [50, 51], [90, -1]],
        "top_x": [[0, 1], [2, 3], [4, 5], [6, -1]],
        "top_score": [[0.7, 0.6], [0.3, 0.2], [0.5, 0.4], [0.9, -np.inf]],
        "cluster_budget": [2, 0],
        "cluster_score": [1.0, 1.0],
    }
    return query_image(**given | changes)


def test_equal_scores_go_to_the_lower_superpixel_id():
    found = query()
    assert found.superpixel_id.tolist() == [5, 3]
    assert list(zip(found.y.tolist(), found.x.tolist(), strict=True)) == [(50, 4), (30, 2)]
    assert found.score.tolist() == pytest.approx([0.5, 0.3])
    assert found.row.tolist() == [2, 1]


def test_second_pixels_come_after_every_first():
    found = query(cluster_budget=[6, 0])
    assert found.superpixel_id.tolist() == [5, 3, 7, 9, 5, 3]
    assert found.lap.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.y.tolist() == [50, 30, 70, 90, 51, 31]
    assert found.cluster_id.tolist() == [0, 0, 0, 1, 0, 0]
    assert len(query(cluster_budget=[9, 9])) == 7


def test_what_a_cluster_lacks_goes_by_cluster_scores():
    found = query(cluster_id=[0, 0, 1, 2], cluster_budget=[0, 0, 3], cluster_score=[3.0, 1.0, 9.0])
    assert found.superpixel_id.tolist() == [3, 7, 9]  # 2 units: 3/2 and 1/2
    assert found.cluster_id.tolist() == [0, 0, 2]


def test_a_lap_is_told_by_falling_score_whatever_the_cluster():
    found = query(cluster_id=[0, 0, 1, 1], cluster_budget=[1, 1])
    assert found.superpixel_id.tolist() == [5, 3]
    assert found.cluster_id.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("take", "lowest", "inside", "left"),
    [(1, 9, 1, 1), (2, 5, 2, 1), (3, 5, 2, 2), (4, 2, 4, 1)],
)
def test_the_digit_that_the_last_pixel_falls_into(take, lowest, inside, left):
    """Of group 0, one score has the digit 9, two have 5 and four have 2."""
    digits = Digits(np.array([0, 0, 0, 1]), np.array([2, 5, 9, 7]), np.array([4, 2, 1, 6]))
    found = Cuts.start(np.array([take, 0]), np.array([7, 6])).narrow(digits, 16)
    assert (found.lowest[0], found.inside[0], found.left[0]) == (lowest << 16, inside, left)
    assert found.is_open.tolist() == [left != inside, False]


def test_the_highest_scores_of_unasked_images():
    score = np.array([3.0, 7.0, 7.0, 9.0])
    asked = np.array([False, False, False, True])
    assert top_images(score, asked, 2).tolist() == [1, 2]


def spread(points, asked, count):
    features = np.array(points, np.float32)[:, None]
    is_asked = np.isin(np.arange(len(points)), asked)
    return core_set(lambda: (features[:2], features[2:]), is_asked, count).tolist()


def test_k_center_takes_the_farthest_from_all_asked_and_chosen():
    assert spread([0, 1, 10, 4, 11], [0], 3) == [4, 3, 0 + 1]
    assert spread([0, 9, 10, 4, 6], [2], 2) == [0, 3]  # 4 and 6 are both 4 away from a center
    assert spread([5, 0, 1, 11, 5], [], 2) == [0, 3]  # mean 4.4: two are nearest, the first
    assert spread([0, 5], [0, 1], 3) == []
    assert spread([3, 3, 3], [0], 2) == [1, 2]  # no farther than the asked one, which stays out


def test_the_initial_pool_never_draws_what_is_not_allowed():
    allowed = np.zeros((3, 4), bool)
    allowed[0, 3] = allowed[1, 0] = allowed[2, 2] = True
    generator = FixedGenerator()
    y, x = draw_initial_pixels(is_allowed=allowed, count=2, generator=generator)
    assert generator.populations[0].tolist() == [3, 4, 10]
    assert (y.tolist(), x.tolist()) == ([0, 1], [3, 0])
    y, x = draw_initial_pixels(is_allowed=allowed, count=9, generator=generator)
    assert (y.tolist(), x.tolist()) == ([0, 1, 2], [3, 0, 2])
    for seed in range(20):
        y, x = draw_initial_pixels(
            is_allowed=allowed, count=3, generator=np.random.default_rng(seed)
        )
        assert sorted(zip(y.tolist(), x.tolist(), strict=True)) == [(0, 3), (1, 0), (2, 2)]
