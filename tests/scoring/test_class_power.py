"""Class-stratified power sampling: means, turns, shares and noise on eight pixels."""

import numpy as np
import pytest
import torch

from madbal_ray.scoring.class_power import class_power_candidates
from tests.fixed_generator import FixedGenerator

IDS = torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3]])
# Doubt is highest in superpixel 1, then 0, 2, 3; class 1 is likeliest in 2, class 2 in 3.
P = torch.tensor(
    [
        [[0.7, 0.6, 0.5, 0.4], [0.1, 0.1, 0.01, 0.005]],
        [[0.2, 0.3, 0.3, 0.3], [0.8, 0.7, 0.01, 0.005]],
        [[0.1, 0.1, 0.2, 0.3], [0.1, 0.2, 0.98, 0.99]],
    ]
)


class Quiet(FixedGenerator):
    """Without noise, unless it is given for a draw."""

    def __init__(self, noise=()):
        super().__init__()
        self.noise = list(noise)

    def gumbel(self, size):
        assert size == 4
        return np.array(self.noise.pop(0)) if self.noise else np.zeros(size)


def draw(count, *, asked=(), share=0.66, power=1.0, pixel_share=0.5, noise=()):
    is_asked = torch.zeros(2, 4, dtype=torch.bool)
    for y, x in asked:
        is_asked[y, x] = True
    found = class_power_candidates(
        score=-(P * P.log()).sum(dim=0),
        log_probabilities=P.log(),
        prediction=P.argmax(dim=0),
        is_asked=is_asked,
        superpixel_ids=IDS,
        count=count,
        class_share=share,
        power=power,
        pixel_share=pixel_share,
        generator=Quiet(noise),
    )
    assert found.predicted_class.tolist() == P.argmax(dim=0).flatten()[found.position].tolist()
    h = -(P * P.log()).sum(dim=0).flatten()
    np.testing.assert_allclose(found.score, h[found.position], rtol=1e-5)
    return found.position.tolist()


def by_formula(class_id=None):
    """Return log s or log s_c of each superpixel."""
    h = -(P * P.log()).sum(dim=0)
    values = h if class_id is None else h * P[class_id]
    return [float(values[s == IDS].mean().log()) for s in range(4)]


def test_without_a_share_of_classes_superpixels_come_by_their_mean_entropy():
    assert np.argsort(by_formula())[::-1].tolist() == [1, 0, 2, 3]
    # the more doubtful pixel of each; then, once each has given one, the other
    assert draw(8, share=0.0) == [3, 1, 5, 6, 2, 0, 4, 7]
    assert draw(3, share=0.0) == [3, 1, 5]


def test_classes_take_turns_by_entropy_times_probability():
    best = [int(np.argmax(by_formula(c))) for c in range(3)]
    assert best == [0, 2, 1]  # class 2 is likelier in 3, where there is little doubt
    assert draw(3, share=1.0) == [1, 5, 3]
    assert draw(3, share=0.66) == [1, 5, 3]  # round(1.98) turns: 0, 1; then by entropy
    # round(0.5 * 4) turns: classes 0 and 1; then by entropy
    assert draw(4, share=0.5) == [1, 5, 3, 6]
    # a fourth turn is class 0's again; what it chose is taken, so its next best
    assert draw(4, share=1.0) == [1, 5, 3, 6]


def test_asked_pixels_enter_no_mean_and_are_not_asked():
    assert draw(8, share=0.0, asked=[(0, 2), (0, 3), (1, 1)]) == [1, 4, 6, 0, 7]
    assert draw(2, share=1.0, asked=[(0, 0), (0, 1)]) == [3, 5]
    # 1.09 of one pixel is more than 0.80 and 0.90 of two: a mean, not a sum
    assert draw(1, share=0.0, asked=[(0, 2)]) == [3]


def test_noise_is_divided_by_the_power():
    gap = by_formula()[1] - by_formula()[3]
    noise = [[0, 0, 0, 1.5 * gap]]
    assert draw(1, share=0.0, power=1.0, noise=noise) == [6]
    assert draw(1, share=0.0, power=2.0, noise=noise) == [3]


@pytest.mark.parametrize(("pixel_share", "first"), [(0.25, 3), (0.75, 3), (1.0, 2)])
def test_a_random_pixel_of_the_share_of_highest_entropy(pixel_share, first):
    """The draw takes the first of those that may come; there is one, or there are two."""
    assert draw(1, share=0.0, pixel_share=pixel_share) == [first]
