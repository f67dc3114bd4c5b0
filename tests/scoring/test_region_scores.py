"""Scores of regions: information over clicks, votes under attention, by hand."""

import math

import pytest
import torch

from madbal_ray.scoring.region_scores import attended, information_by_clicks, vote_entropy
from madbal_ray.scoring.registry import ScoreOptions, Views
from madbal_ray.seams import SCORES

LN2 = math.log(2)


def test_where_one_class_is_seen_information_is_shared_by_four_clicks():
    information = torch.full((1, 24, 40), 0.8)
    found = information_by_clicks(information, torch.zeros(1, 24, 40, dtype=torch.int64))
    assert torch.allclose(found, torch.full((1, 24, 40), 0.2))  # a window is 3 x 3: 24 // 8


def test_contours_in_the_window_cost_clicks_and_others_none():
    information = torch.ones(2, 24, 24)
    prediction = torch.zeros(2, 24, 24, dtype=torch.int64)
    prediction[0, :, 12:] = 1  # contour: column 11, since its right neighbour is of another class
    prediction[1, 12:, :] = 1  # row 11, since its lower neighbour is
    found = information_by_clicks(information, prediction)
    three = 1 / (4 + 3 / 10)  # three of a window's nine pixels are contour
    for map_, at in ((found[0], lambda i: found[0, 5, i]), (found[1], lambda i: found[1, i, 5])):
        assert map_.shape == (24, 24)
        assert float(at(9)) == pytest.approx(1 / 4)
        for i in (10, 11, 12):
            assert float(at(i)) == pytest.approx(three)
        assert float(at(13)) == pytest.approx(1 / 4)


def test_information_is_that_of_the_window_and_an_edge_is_no_disadvantage():
    information = torch.zeros(1, 24, 24)
    information[0, 10, 10] = 0.9
    information[0, 0, 0] = 0.4
    found = information_by_clicks(information, torch.zeros(1, 24, 24, dtype=torch.int64))[0]
    assert float(found[9, 11]) == pytest.approx(0.9 / 9 / 4)
    assert float(found[8, 10]) == 0.0
    assert float(found[0, 0]) == pytest.approx(0.4 / 4 / 4)  # of the window four pixels are left
    assert float(found[1, 1]) == pytest.approx(0.4 / 9 / 4)


def test_a_window_has_a_centre_and_an_eighth_of_the_shorter_side():
    information = torch.zeros(1, 40, 64)
    information[0, 20, 20] = 1.0
    found = information_by_clicks(information, torch.zeros(1, 40, 64, dtype=torch.int64))[0]
    seen = found.nonzero()
    assert (seen.min(dim=0).values.tolist(), seen.max(dim=0).values.tolist()) == (
        [18, 18],
        [22, 22],
    )
    tiny = information_by_clicks(torch.ones(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64))
    assert torch.allclose(tiny, torch.full((1, 2, 3), 0.25))


def votes(*classes):
    """Return logits of a pass that is for one class, whatever by how much."""
    return [torch.eye(3)[c][None, :, None, None] * (1 + c) for c in classes]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ((1, 1, 1), 0.0),
        ((0, 2), LN2),
        ((0, 1, 2), math.log(3)),
        ((0, 0, 0, 1), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)),
    ],
)
def test_the_entropy_of_votes_counts_classes_and_not_probabilities(classes, expected):
    found = vote_entropy(votes(*classes), 2, 3)
    assert found.shape == (1, 2, 3)
    assert torch.allclose(found, torch.full((1, 2, 3), expected), atol=1e-6)


def test_attention_spreads_a_value_as_a_gaussian_does_and_keeps_the_sum():
    values = torch.zeros(1, 64, 96)
    values[0, 30, 40] = 1.0
    found = attended(values)[0]
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)
    deviation = 64 / 32
    assert float(found[30, 42] / found[30, 40]) == pytest.approx(
        math.exp(-0.5 * (2 / deviation) ** 2), rel=1e-4
    )
    assert float(found[32, 40]) == pytest.approx(float(found[30, 42]), rel=1e-5)
    assert float(found[30, 46]) > 0.0 == float(found[30, 47])  # three deviations
    constant = torch.full((2, 5, 7), 0.3)
    assert torch.allclose(attended(constant), constant)
    assert torch.allclose(attended(torch.ones(1, 1, 1)), torch.ones(1, 1, 1))


def test_an_images_scores_do_not_depend_on_its_batch():
    generator = torch.Generator().manual_seed(0)
    information = torch.rand(3, 48, 64, generator=generator)
    prediction = torch.randint(0, 3, (3, 48, 64), generator=generator)
    together = information_by_clicks(information, prediction), attended(information)
    alone = information_by_clicks(information[1:2], prediction[1:2]), attended(information[1:2])
    assert all(torch.equal(all_[1:2], one) for all_, one in zip(together, alone, strict=True))


def test_the_scores_of_cereals_and_cpral():
    plain = torch.tensor([0.6, 0.3, 0.1]).log()[None, :, None, None]
    view = Views(plain, torch.zeros(1, 1, 1, dtype=torch.bool), more_logits=tuple(votes(0, 2)))
    cereals = SCORES["information_by_clicks"].function(view, ScoreOptions())
    cpral = SCORES["attended_votes"].function(view, ScoreOptions())
    assert float(cereals.score) == pytest.approx(0.8979457 / 4, abs=1e-6)
    assert float(cpral.score) == pytest.approx(LN2, abs=1e-6)
    assert cereals.prediction.item() == cpral.prediction.item() == 0
