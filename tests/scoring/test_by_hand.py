"""Pixel scores and candidates with numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.scoring.candidates import (
    class_balanced_candidates,
    power_candidates,
    random_of_top_candidates,
    top_candidates,
)
from madbal_ray.scoring.pixel_scores import (
    entropy,
    jensen_shannon_divergence,
    pixel_scores,
    predicted_error,
    torch_pixel_scores,
)
from madbal_ray.scoring.registry import ScoreOptions, Views
from madbal_ray.seams import SCORES
from tests.fixed_generator import FixedGenerator

LN2, LN3 = math.log(2), math.log(3)
ENTROPY = 1.0296530  # of 0.5, 0.3, 0.2: -(0.5 ln 0.5 + 0.3 ln 0.3 + 0.2 ln 0.2)
OPPOSED = 0.3680642  # JS of (0.9, 0.1) and (0.1, 0.9): ln 2 - 0.3250830


def logits(*pixels):
    """One row of pixels from their class probabilities: [1, C, 1, W]."""
    return torch.tensor(pixels).log().T[None, :, None]


def boundary(*pixels):
    return torch.tensor(pixels, dtype=torch.bool)[None, None]


class TestRegistry:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("entropy", 0.8979457),  # -(0.6 ln 0.6 + 0.3 ln 0.3 + 0.1 ln 0.1)
            ("margin", 0.7),
            ("least_confidence", 0.4),
            ("best_versus_second_best", 0.5),
        ],
    )
    def test_scores_of_one_pass(self, name, expected):
        views = Views(logits([0.6, 0.3, 0.1], [0.1, 0.3, 0.6]), boundary(True, False))
        found = SCORES[name].function(views, ScoreOptions())
        assert found.score[0, 0].tolist() == pytest.approx([expected] * 2, abs=1e-5)
        assert found.prediction[0, 0].tolist() == [0, 2]

    @pytest.mark.parametrize(
        ("name", "more", "expected"),
        [
            ("bald", ([0.9, 0.1], [0.1, 0.9]), OPPOSED),
            ("bald", ([0.9, 0.1], [0.9, 0.1]), 0.0),
            # mean 0.7: 0.6108643 - (0.3250830 + 0.6931472) / 2
            ("bald", ([0.9, 0.1], [0.5, 0.5]), 0.1017492),
            # mean 19/30: 0.6571578 - 0.3250830
            ("bald", ([0.9, 0.1], [0.9, 0.1], [0.1, 0.9]), 0.3320748),
            ("self_consistency", ([0.9, 0.1],), OPPOSED),
            ("self_consistency", ([0.1, 0.9],), 0.0),
        ],
    )
    def test_scores_of_several_passes(self, name, more, expected):
        passes = tuple(logits(one) for one in more)
        views = Views(logits([0.1, 0.9]), boundary(False), more_logits=passes)
        found = SCORES[name].function(views, ScoreOptions())
        assert float(found.score[0, 0, 0]) == pytest.approx(expected, abs=1e-5)
        assert found.prediction.item() == 1  # of the plain pass

    def test_each_score_declares_its_passes(self):
        assert {name: spec.passes for name, spec in SCORES.items() if spec.passes != "single"} == {
            "bald": "dropout",
            "balent": "dropout",
            "self_consistency": "flip",
            "attended_votes": "dropout",
        }
        with_supports = [name for name, spec in SCORES.items() if spec.uses_supports]
        assert with_supports == ["madbal", "difficulty_entropy"]

    @pytest.mark.parametrize(("on_boundary", "error"), [(True, 0.75), (False, 0.25)])
    def test_difficulty_weighs_entropy_by_the_predicted_error(self, on_boundary, error):
        views = Views(
            logits([0.1, 0.9]),
            boundary(on_boundary),
            error_logits=torch.tensor([LN3, -LN3])[None, :, None, None],
        )
        found = SCORES["difficulty_entropy"].function(views, ScoreOptions())
        assert float(found.score[0, 0, 0]) == pytest.approx(0.3250830 * error, rel=1e-5)
        assert found.prediction.item() == 1

    def test_the_score_of_madbal_is_given_all_that_the_network_said(self):
        views = Views(
            logits([0.1, 0.9]),
            boundary(True),
            head_logits=(logits([0.9, 0.1]),),
            maturity_weights=torch.full((1, 1, 1, 1), 0.5),
            error_logits=torch.tensor([LN3, -LN3])[None, :, None, None],
        )
        expected = {
            ScoreOptions(): 0.3250830 + 0.5 * OPPOSED,
            ScoreOptions(normalize_terms=True): (0.3250830 + 0.5 * OPPOSED) / LN2,
            ScoreOptions(uncertainty="margin"): 0.2 + 0.5 * OPPOSED,
        }
        for options, terms in expected.items():
            found = SCORES["madbal"].function(views, options).score
            assert float(found[0, 0, 0]) == pytest.approx(terms * math.exp(0.75), rel=1e-5)


@pytest.mark.parametrize("function", [pixel_scores, torch_pixel_scores])
class TestEquation4:
    def score(self, function, **changes):
        given = {
            "logits": logits([0.5, 0.3, 0.2]),
            "head_logits": (),
            "maturity_weights": None,
            "error_logits": None,
            "is_boundary": boundary(True),
        }
        return function(**given | changes).score[0, 0].tolist()

    def test_each_head_counts_by_its_own_weight(self, function):
        heads = tuple(logits(p) for p in ([1 / 3] * 3, [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]))
        weights = torch.tensor([0.2, 0.7, 0.1])[None, :, None, None]
        found = self.score(function, head_logits=heads, maturity_weights=weights)
        expected = (
            ENTROPY
            + 0.2 * js([0.5, 0.3, 0.2], [1 / 3] * 3)
            + 0.1 * js([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
        )
        assert found == pytest.approx([expected], rel=1e-5)

    def test_a_boundary_pixel_reads_channel_0_and_a_center_pixel_channel_1(self, function):
        found = self.score(
            function,
            logits=logits([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]),
            error_logits=torch.tensor([LN3, -LN3])[None, :, None, None].expand(1, 2, 1, 2),
            is_boundary=boundary(True, False),
        )
        expected = [ENTROPY * math.exp(0.75), ENTROPY * math.exp(0.25)]
        assert found == pytest.approx(expected, rel=1e-5)

    def test_terms_are_normalised_by_their_greatest_value(self, function):
        uniform = {"logits": logits([1 / 3] * 3), "normalize_terms": True}
        assert self.score(function, **uniform) == pytest.approx([1.0], rel=1e-5)
        certain = [1 - 2e-7, 1e-7, 1e-7]
        opposed = self.score(
            function,
            logits=logits(certain),
            head_logits=(logits(certain[::-1]),),
            maturity_weights=torch.ones(1, 1, 1, 1),
            normalize_terms=True,
        )
        assert opposed == pytest.approx([1.0], abs=1e-4)

    def test_a_margin_stands_in_the_place_of_entropy(self, function):
        assert self.score(function, uncertainty="margin") == pytest.approx([0.8], rel=1e-5)
        found = self.score(function, uncertainty="margin", normalize_terms=True)
        assert found == pytest.approx([0.8], rel=1e-5)

    def test_maps_are_brought_to_the_working_grid_before_softmax(self, function):
        found = self.score(
            function,
            logits=torch.tensor([[0.0, 4 * LN3], [0.0, 0.0]])[None, :, None],
            is_boundary=boundary(False, False, False, False),
        )
        # logits 0, ln 3, 3 ln 3, 4 ln 3: probabilities 1/2, 3/4, 27/28, 81/82
        expected = [binary_entropy(p) for p in (1 / 2, 3 / 4, 27 / 28, 81 / 82)]
        assert found == pytest.approx(expected, rel=1e-4)


def binary_entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def js(p, q):
    def h(values):
        return -sum(v * math.log(v) for v in values)

    return h([(a + b) / 2 for a, b in zip(p, q, strict=True)]) - (h(p) + h(q)) / 2


def test_the_terms_of_equation_4():
    first, second = logits([0.9, 0.1], [0.5, 0.5]), logits([0.1, 0.9], [0.5, 0.5])
    assert entropy(first)[0, 0].tolist() == pytest.approx([0.3250830, LN2], abs=1e-6)
    found = jensen_shannon_divergence(first, second)[0, 0].tolist()
    assert found == pytest.approx([OPPOSED, 0.0], abs=1e-6)
    errors = torch.tensor([[LN3, LN3], [-LN3, -LN3]])[None, :, None]
    assert predicted_error(errors, boundary(True, False))[0, 0].tolist() == pytest.approx(
        [0.75, 0.25]
    )


SCORE = torch.tensor([[1.0, 5.0, 3.0], [5.0, 4.0, 2.0]])
PREDICTION = torch.tensor([[0, 0, 2], [1, 0, 2]])
ASKED = torch.tensor([[False, False, True], [False, False, False]])
IMAGE = {"score": SCORE, "prediction": PREDICTION, "is_asked": ASKED}


class TestCandidates:
    def test_the_highest_unasked_first_and_ties_by_position(self):
        found = top_candidates(**IMAGE, count=4)
        assert found.position.tolist() == [1, 3, 4, 5]
        assert found.score.tolist() == [5, 5, 4, 2]
        assert found.predicted_class.tolist() == [0, 1, 0, 2]
        assert top_candidates(**IMAGE, count=9).position.tolist() == [1, 3, 4, 5, 0]

    @pytest.mark.parametrize(
        ("count", "top_share", "drawn_from"),
        [
            (1, 0.5, 3),
            (1, 0.6, 3),
            (1, 0.66, 3),
            (1, 0.67, 4),
            (4, 0.5, 4),
            (2, 0.0, 2),
            (2, 1.0, 5),
        ],
    )
    def test_pixels_are_drawn_from_the_floor_of_a_share_of_the_whole_image(
        self, count, top_share, drawn_from
    ):
        generator = FixedGenerator()
        found = random_of_top_candidates(
            **IMAGE, count=count, top_share=top_share, generator=generator
        )
        assert generator.populations == [drawn_from]  # of 6 pixels, 5 of them unasked
        assert found.position.tolist() == [1, 3, 4, 5][:count]

    def test_predicted_classes_take_turns(self):
        """Class 0 has the pixels 0, 1 and 4, class 1 has 3, class 2 has 5."""
        found = class_balanced_candidates(**IMAGE, count=5, generator=FixedGenerator())
        assert found.position.tolist() == [0, 3, 5, 1, 4]
        assert found.predicted_class.tolist() == [0, 1, 2, 0, 0]
        found = class_balanced_candidates(**IMAGE, count=2, generator=FixedGenerator())
        assert found.position.tolist() == [0, 3]

    @pytest.mark.parametrize(
        ("share", "expected"),
        [
            (0.0, [1, 3, 5, 0, 4]),  # of class 0, pixel 1 has the highest score; then the others
            (0.65, [1, 3, 5, 0, 4]),  # floor(1.95) pixels
            (0.67, [1, 3, 5, 4, 0]),  # 1 and 4 in the order of the draw
            (1.0, [0, 3, 5, 1, 4]),
        ],
    )
    def test_of_each_class_the_doubtful_pixels_are_drawn_first(self, share, expected):
        found = class_balanced_candidates(
            **IMAGE, count=5, generator=FixedGenerator(), top_share=share
        )
        assert found.position.tolist() == expected

    def test_the_order_of_classes_and_of_their_pixels_is_drawn(self):
        class Backwards(FixedGenerator):
            def permutation(self, length):
                return np.arange(length)[::-1].copy()

        found = class_balanced_candidates(**IMAGE, count=5, generator=Backwards())
        assert found.position.tolist() == [5, 3, 4, 1, 0]

    @pytest.mark.parametrize(
        ("power", "radius", "noise_at_5", "expected"),
        [
            (1.0, 0, 0.0, [1, 3, 4, 5, 0]),
            # ln 5 - ln 2 = 0.916: more noise puts pixel 5 first, a higher power takes it back
            (2.0, 0, 1.9, [5, 1, 3, 4, 0]),
            (2.5, 0, 1.9, [1, 3, 5, 4, 0]),
            (0.0, 0, 1.9, [5, 0, 1, 3, 4]),
            # around 1 lies all, so it starts anew; around 3 lie 0 and 4
            (1.0, 1, 0.0, [1, 3, 5, 4, 0]),
        ],
    )
    def test_the_highest_power_times_log_score_plus_noise(
        self, power, radius, noise_at_5, expected
    ):
        class Noise(FixedGenerator):
            def gumbel(self, size):
                assert size == (2, 3)
                return np.array([[0.0, 0.0, 9.0], [0.0, 0.0, noise_at_5]])

        found = power_candidates(**IMAGE, count=9, power=power, radius=radius, generator=Noise())
        assert found.position.tolist() == expected
        assert found.score.tolist() == [SCORE.flatten()[place] for place in expected]
        one = power_candidates(**IMAGE, count=1, power=power, radius=radius, generator=Noise())
        assert one.position.tolist() == expected[:1]

    def test_chances_are_proportional_to_the_power_of_the_score(self):
        """1, 2 and 0 squared: the second pixel comes first in 4 of 5 draws, the third never."""
        generator = np.random.default_rng(7)
        image = {
            "score": torch.tensor([[1.0, 2.0, 0.0]]),
            "prediction": torch.zeros(1, 3, dtype=torch.int64),
            "is_asked": torch.zeros(1, 3, dtype=torch.bool),
        }
        drawn = [
            power_candidates(**image, count=3, power=2.0, radius=0, generator=generator).position
            for _ in range(2000)
        ]
        assert {int(places[2]) for places in drawn} == {2}
        share = np.mean([int(places[0]) == 1 for places in drawn])
        assert share == pytest.approx(0.8, abs=0.03)
