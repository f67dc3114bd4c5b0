"""From the network's output to rows: delta, asked pixels, laps, streams; on six pixels."""

import math

import numpy as np
import pytest
import torch

from madbal_ray import rng
from madbal_ray.config.asking import StrategyConfig
from madbal_ray.errors import NumericalError
from madbal_ray.models.network import NetworkOutput
from madbal_ray.scoring import score_images as module
from madbal_ray.scoring.candidates import Candidates
from madbal_ray.scoring.pixel_scores import PixelScores
from madbal_ray.scoring.plan import ClassPowerOptions, ScoringPlan
from madbal_ray.scoring.registry import ScoreSpec
from madbal_ray.scoring.score_images import ScoreImages
from tests.hand_made import ByHand, colours_are_logits

CPU = torch.device("cpu")
TWO = np.array([[0, 0, 1], [0, 1, 1]], np.uint16)
"""A label map of two superpixels."""
SCORE = torch.tensor([[0.5, 0.25, 1.0], [0.75, 0.125, 2.0]])
PREDICTION = torch.tensor([[2, 1, 0], [1, 0, 1]])


def plan(rows="superpixels", *, rule="top", budget=1, regions=False, score="entropy", **options):
    return ScoringPlan(
        pixel_score=score,
        rows=rows,
        candidate_rule=rule,
        num_classes=3,
        budget=budget,
        asks_regions=regions,
        options=StrategyConfig(**options),
        seed=5,
        round_index=2,
    )


def given(score=SCORE, prediction=PREDICTION, **spec):
    """Return a pixel score whose maps are given; the k-th image has k more."""

    def function(views, options):
        count = len(views.logits)
        more = torch.arange(count, dtype=torch.float32)[:, None, None]
        return PixelScores(score[None] + more, prediction[None].repeat(count, 1, 1))

    return ScoreSpec(function, **spec)


def stage_of(scoring_plan, spec=None, say=colours_are_logits):
    network = ByHand(say)
    stage = ScoreImages(network, scoring_plan, use_bf16=False, device=CPU)
    if spec is not None:
        stage.spec = spec
    return stage, network


def call(stage, *, names=("a",), asked=(), maps=None, boundary=None, clusters=((4, 7),)):
    is_asked = np.zeros((2, 3), bool)
    for y, x in asked:
        is_asked[y, x] = True
    maps = maps or [TWO] * len(names)
    return stage(
        image_id=list(names),
        inputs=[np.zeros((*one.shape, 3), np.uint8) for one in maps],
        boundary=boundary or [np.zeros(one.shape, bool) for one in maps],
        label_map=maps,
        cluster_id=[np.array(one) for one in clusters] * (len(names) // len(clusters)),
        is_asked=[is_asked if one.shape == (2, 3) else np.zeros(one.shape, bool) for one in maps],
    )


def test_boundary_pixels_are_weighed_by_the_boundary_channel_and_center_pixels_by_the_other():
    boundary_logit, center_logit = 0.7, -1.2

    def say(pixels):
        count, height, width, _ = pixels.shape
        errors = torch.tensor([boundary_logit, center_logit])[None, :, None, None]
        return NetworkOutput(
            logits=torch.zeros(count, 3, height, width),
            pooled=torch.zeros(count, 1),
            error_logits=errors.repeat(count, 1, 1, 1),
        )

    is_boundary = np.zeros((4, 6), bool)
    is_boundary[:, 1:5] = True
    label_map = np.array([[0, 1, 1, 1, 1, 0]] * 4, np.uint16)
    stage, network = stage_of(plan(score="madbal"), say=say)
    found = call(stage, maps=[label_map], boundary=[is_boundary])
    center, boundary = (
        math.log(3) * math.exp(1 / (1 + math.exp(-logit)))
        for logit in (center_logit, boundary_logit)
    )
    assert found["mean_score"].tolist() == pytest.approx([center, boundary], rel=1e-5)
    assert network.asked_for_supports == [True]


def test_a_score_of_the_main_head_alone_does_not_run_the_supports():
    stage, network = stage_of(plan(score="entropy"))
    call(stage)
    assert network.asked_for_supports == [False]


def test_options_of_the_strategy_reach_the_score():
    seen = []
    spec = ScoreSpec(
        lambda views, options: seen.append(options) or given().function(views, options)
    )
    stage, _ = stage_of(plan(normalize_terms=True, uncertainty="margin"), spec)
    call(stage)
    assert (seen[0].normalize_terms, seen[0].uncertainty) == (True, "margin")


def test_asked_pixels_take_no_part_in_a_superpixels_row():
    stage, _ = stage_of(plan(budget=5), given())
    found = call(stage, asked=[(0, 0)])
    assert found["image_id"] == ["a", "a"]
    assert found["superpixel_id"].tolist() == [0, 1]
    assert found["cluster_id"].tolist() == [4, 7]
    assert found["num_pixels"].tolist() == [2, 3]
    assert found["mean_score"].tolist() == [0.5, 3.125 / 3]
    assert found["dominant_class"].tolist() == [1, 0]
    assert found["top_y"].tolist() == [[1, 0, -1], [1, 0, 1]]
    assert found["top_x"].tolist() == [[0, 1, -1], [2, 2, 1]]
    assert found["top_score"].tolist() == [[0.75, 0.25, -np.inf], [2.0, 1.0, 0.125]]


@pytest.mark.parametrize(("budget", "laps"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (9, 3)])
def test_as_many_best_pixels_are_kept_as_laps_may_take(budget, laps):
    stage, _ = stage_of(plan(budget=budget), given())
    found = call(stage, asked=[(0, 0)])  # 2 and 3 pixels are left
    assert found["top_y"].shape == (2, laps)


def test_laps_are_counted_on_unasked_pixels():
    stage, _ = stage_of(plan(budget=4), given())
    found = call(stage, asked=[(0, 0), (0, 1)])  # 1 and 3 are left: the second gives all of its own
    assert found["top_y"].shape == (2, 3)


def test_one_pixel_of_a_superpixel_is_kept_that_is_asked_as_a_whole():
    stage, _ = stage_of(plan(budget=5, regions=True), given())
    assert call(stage)["top_y"].shape == (2, 1)


def test_a_superpixel_without_unasked_pixels_has_an_empty_row():
    stage, _ = stage_of(plan(), given())
    found = call(stage, asked=[(0, 0), (0, 1), (1, 0)])
    assert found["num_pixels"].tolist() == [0, 3]
    assert found["mean_score"].tolist()[0] == 0.0
    assert found["dominant_class"].tolist() == [-1, 0]
    assert found["top_y"].tolist() == [[-1], [1]]


def test_images_of_a_batch_keep_their_own_scores_and_rows_of_unequal_length():
    stage, _ = stage_of(plan(budget=6), given())
    one = np.zeros((2, 3), np.uint16)
    found = call(stage, names=("a", "b"), maps=[TWO, one], clusters=((4, 7), (2,)))
    assert found["image_id"] == ["a", "a", "b"]
    assert found["cluster_id"].tolist() == [4, 7, 2]
    assert found["mean_score"].tolist() == [0.5, 3.125 / 3, 10.625 / 6]
    assert [list(row) for row in found["top_score"]] == [
        [0.75, 0.5, 0.25],
        [2.0, 1.0, 0.125],
        [3.0, 2.0, 1.75, 1.5, 1.25, 1.125],
    ]


def first_number(*key):
    return int(rng.stream(5, *key).integers(0, 2**62))


def test_random_pixels_of_a_superpixel_are_keyed_by_round_and_image(monkeypatch):
    calls = []

    def stub(*, generator, share, top, is_asked, **maps):
        calls.append((int(generator.integers(0, 2**62)), share, top, is_asked.sum().item()))
        return dict.fromkeys(("top_y", "top_x", "top_score"), np.zeros((2, top)))

    monkeypatch.setattr(module, "random_top_pixels", stub)
    stage, _ = stage_of(plan(budget=4, pixel_share=0.5), given())
    call(stage, names=("a", "b"), asked=[(0, 0)])
    assert calls == [(first_number("pixel_share", 2, name), 0.5, 2, 1) for name in "ab"]


def test_candidates_are_the_best_unasked_pixels_with_where_they_lie():
    stage, _ = stage_of(plan("candidates", budget=3), given())
    found = call(stage, asked=[(1, 2)])
    assert found["y"].tolist() == [0, 1, 0]
    assert found["x"].tolist() == [2, 0, 0]
    assert found["superpixel_id"].tolist() == [1, 0, 0]
    assert found["cluster_id"].tolist() == [7, 4, 4]
    assert found["score"].tolist() == [1.0, 0.75, 0.5]
    assert found["predicted_class"].tolist() == [0, 1, 2]
    assert found["rank"].tolist() == [0, 1, 2]
    assert found["image_id"] == ["a"] * 3


@pytest.mark.parametrize("rule", ["random_of_top", "class_balanced"])
def test_drawn_candidates_are_keyed_by_round_and_image(monkeypatch, rule):
    calls = []

    def stub(*, generator, count, is_asked, top_share=None, **maps):
        calls.append((int(generator.integers(0, 2**62)), count, is_asked.sum().item(), top_share))
        return Candidates(torch.tensor([5]), torch.tensor([0.5]), torch.tensor([1]))

    monkeypatch.setattr(module, f"{rule}_candidates", stub)
    stage, _ = stage_of(plan("candidates", rule=rule, budget=3, top_share=0.25), given())
    found = call(stage, names=("a", "b"), asked=[(0, 0)])
    assert calls == [(first_number("candidates", 2, name), 3, 1, 0.25) for name in "ab"]
    assert (found["y"].tolist(), found["x"].tolist()) == ([1, 1], [2, 2])


def test_a_draw_by_power_has_the_options_of_its_strategy(monkeypatch):
    calls = []

    def stub(*, generator, power, radius, **maps):
        calls.append((int(generator.integers(0, 2**62)), power, radius))
        return Candidates(torch.tensor([5]), torch.tensor([0.5]), torch.tensor([1]))

    monkeypatch.setattr(module, "power_candidates", stub)
    own = {"power": 2.5, "exclusion_radius": 3}
    for options in (own, {}):
        stage, _ = stage_of(plan("candidates", rule="power", options=options), given())
        call(stage, names=("a",))
    number = first_number("candidates", 2, "a")
    assert calls == [(number, 2.5, 3), (number, 4.0, 8)]


def test_a_draw_by_class_has_probabilities_superpixels_and_the_power_of_its_round(monkeypatch):
    calls = []

    def stub(
        *, score, log_probabilities, prediction, is_asked, superpixel_ids, generator, **options
    ):
        assert score.tolist() == SCORE.tolist()
        calls.append(
            (
                log_probabilities.exp().sum(dim=0).tolist(), is_asked.sum().item(),
                superpixel_ids.tolist(), int(generator.integers(0, 2**62)), options,
            )
        )  # fmt: skip
        return Candidates(torch.tensor([5]), torch.tensor([0.5]), torch.tensor([1]))

    monkeypatch.setattr(module, "class_power_candidates", stub)
    own = {"class_share": 0.5, "last_power": 16.0, "ramp_rounds": 3, "pixel_share": 1.0}
    stage, _ = stage_of(plan("candidates", rule="class_power", budget=3, options=own), given())
    found = call(stage, names=("a",), asked=[(0, 0)])
    ((total, asked, ids, number, options),) = calls
    assert total == [[pytest.approx(1.0)] * 3] * 2
    assert (asked, ids, number) == (1, TWO.tolist(), first_number("candidates", 2, "a"))
    # round 2 is half of the way from 1 (round 1) to 16 (round 3)
    assert options == {
        "class_share": 0.5, "power": pytest.approx(4.0), "pixel_share": 1.0, "count": 3
    }  # fmt: skip
    assert (found["y"].tolist(), found["x"].tolist()) == ([1], [2])


def test_the_power_of_class_power_stays_where_it_has_arrived():
    powers = [ClassPowerOptions().power(r) for r in (0, 1, 2, 3, 4, 5, 9)]
    assert powers == pytest.approx([1, 1, 100**0.25, 10, 100**0.75, 100, 100])


def test_a_whole_image_has_its_mean_score_and_its_features():
    def say(pixels):
        count = len(pixels)
        pooled = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[:count]
        return NetworkOutput(torch.zeros(count, 3, 2, 3), pooled)

    stage, _ = stage_of(plan("images"), given(), say)
    found = call(stage, names=("a", "b"))
    assert found["image_id"] == ["a", "b"]
    assert found["score"].tolist() == [4.625 / 6, 10.625 / 6]
    assert found["feature"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_names_the_image(value):
    def function(views, options):
        score = SCORE[None].repeat(3, 1, 1)
        score[1, 1, 2] = value
        return PixelScores(score, PREDICTION[None].repeat(3, 1, 1))

    stage, _ = stage_of(plan(), ScoreSpec(function))
    with pytest.raises(NumericalError, match=r"output for b is NaN or infinite \(1 of 3 images"):
        call(stage, names=("a", "b", "c"))


def test_dropout_passes_are_seeded_by_round_and_image_and_end_in_eval_mode():
    seeds, views_seen = [], []

    def say(pixels):
        seeds.append(torch.initial_seed())
        if len(seeds) > 1:
            assert len(pixels) == 1  # each image alone: another one beside it changes nothing
        return NetworkOutput(torch.full((len(pixels), 3, 2, 3), float(len(seeds))), pixels)

    def function(views, options):
        views_seen.append(views)
        return given().function(views, options)

    before = torch.initial_seed()
    stage, network = stage_of(plan(mc_samples=3), ScoreSpec(function, passes="dropout"), say)
    call(stage, names=("a", "b"))
    of_a, of_b = (rng.derive_seed(5, "mc_dropout", 2, name) for name in ("a", "b"))
    assert seeds == [before, *[of_a] * 3, *[of_b] * 3]
    assert torch.initial_seed() == before
    assert network.phases == ["dropout", "eval"]
    of_images = [one.flatten(1).mean(dim=1).tolist() for one in views_seen[0].more_logits]
    assert of_images == [[2.0, 5.0], [3.0, 6.0], [4.0, 7.0]]
    assert float(views_seen[0].logits.mean()) == 1.0


def test_dropout_is_off_again_after_a_pass_that_does_not_fit():
    calls = []

    def say(pixels):
        calls.append(len(pixels))
        if len(calls) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return NetworkOutput(torch.zeros(len(pixels), 3, 2, 3), pixels)

    stage, network = stage_of(plan(mc_samples=3), given(passes="dropout"), say)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        call(stage)
    assert network.phases == ["dropout", "eval"]


def test_the_mirrored_pass_is_mirrored_back():
    views_seen = []

    def function(views, options):
        views_seen.append(views)
        return given().function(views, options)

    def say(pixels):  # the logits tell the column of each pixel as the network sees it
        column = torch.arange(3.0).expand(len(pixels), 3, 2, 3).clone()
        return NetworkOutput(column + pixels[:, None, :, :, 0], pixels)

    stage, network = stage_of(plan(), ScoreSpec(function, passes="flip"), say)
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[:, 0] = 30
    stage(
        image_id=["a"],
        inputs=[picture],
        boundary=[np.zeros((2, 3), bool)],
        label_map=[TWO],
        cluster_id=[np.array([4, 7])],
        is_asked=[np.zeros((2, 3), bool)],
    )
    assert network.shown[1][0, 0, :, 0].tolist() == [0, 0, 30]
    (mirrored,) = views_seen[0].more_logits
    assert mirrored[0, 0, 0].tolist() == [32.0, 1.0, 0.0]


@pytest.mark.parametrize(("passes", "expected"), [("single", 3), ("flip", 3), ("dropout", 1)])
def test_dropout_has_one_caller_since_its_numbers_come_from_the_process(passes, expected):
    stage, _ = stage_of(plan(), given(passes=passes))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with stage.threads() as threads:
            assert threads == expected
            assert torch.get_num_threads() == {3: 1, 1: 3}[expected]
    finally:
        torch.set_num_threads(before)
