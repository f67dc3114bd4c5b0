"""The other pixel scores, and candidates, against their literal writing."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.scoring.candidates import (
    class_balanced_candidates,
    random_of_top_candidates,
    top_candidates,
)
from madbal_ray.scoring.reduce import draw_on_device, random_top_pixels
from madbal_ray.scoring.registry import ScoreOptions, Views
from madbal_ray.seams import SCORES
from tests import references
from tests.scoring.test_pixel_scores import random_inputs

PLAIN = ScoreOptions()


def views(seed, **changes):
    inputs = random_inputs(seed) | changes
    return Views(**inputs)


def probabilities(logits, height, width):
    full = references.resize_all(logits, height, width)
    return np.stack(
        [[references.softmax(full[:, y, x]) for x in range(width)] for y in range(height)]
    )


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("entropy", lambda p: references.entropy(p)),
        ("margin", lambda p: 1 - (sorted(p)[-1] - sorted(p)[-2])),
        ("least_confidence", lambda p: 1 - max(p)),
        ("best_versus_second_best", lambda p: sorted(p)[-2] / sorted(p)[-1]),
    ],
)
def test_scores_equal_their_formula(name, formula):
    view = views(3)
    result = SCORES[name].function(view, PLAIN)
    height, width = view.is_boundary.shape[-2:]
    p = probabilities(view.logits[0].numpy(), height, width)
    expected = [[formula(p[y, x]) for x in range(width)] for y in range(height)]
    np.testing.assert_allclose(result.score[0], expected, atol=1e-5)
    assert np.array_equal(result.prediction[0], p.argmax(-1))


def test_bald_is_the_mutual_information_of_the_samples():
    generator = torch.Generator().manual_seed(0)
    samples = tuple(torch.randn(1, 4, 3, 3, generator=generator) for _ in range(5))
    view = Views(samples[0], torch.zeros(1, 3, 3, dtype=torch.bool), more_logits=samples)
    result = SCORES["bald"].function(view, PLAIN)
    for y in range(3):
        for x in range(3):
            each = [references.softmax(s[0, :, y, x].numpy()) for s in samples]
            mean = np.mean(each, axis=0)
            expected = references.entropy(mean) - np.mean([references.entropy(p) for p in each])
            assert float(result.score[0, y, x]) == pytest.approx(expected, abs=1e-5)
    same = Views(samples[0], view.is_boundary, more_logits=(samples[0],) * 3)
    assert SCORES["bald"].function(same, PLAIN).score.abs().max() < 1e-5


def beta_entropy(a, b):
    """Return the differential entropy of Beta(a, b)."""
    return float(scipy.stats.beta(a, b).entropy())


@pytest.mark.parametrize(("spread", "is_negative"), [(1.0, False), (0.02, True)])
def test_balanced_entropy_is_woos_formula_on_betas_of_the_samples_moments(spread, is_negative):
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(1, 4, 3, 3, generator=generator)
    samples = tuple(
        centre + spread * torch.randn(1, 4, 3, 3, generator=generator) for _ in range(5)
    )
    view = Views(samples[0], torch.zeros(1, 3, 3, dtype=torch.bool), more_logits=samples)
    result = SCORES["balent"].function(view, PLAIN)
    for y, x in np.ndindex(3, 3):
        each = np.array([references.softmax(s[0, :, y, x].numpy()) for s in samples], np.float64)
        mean, variance = each.mean(axis=0), each.var(axis=0, ddof=1)
        strength = mean * (1 - mean) / variance - 1
        first, second = mean * strength, (1 - mean) * strength
        inner = sum(m * beta_entropy(a + 1, b) for m, a, b in zip(mean, first, second, strict=True))
        uncertain = references.entropy(mean)
        balanced = (inner + uncertain) / (uncertain + math.log(2))
        assert (balanced < 0) == is_negative
        expected = balanced if is_negative else 1 / balanced
        assert float(result.score[0, y, x]) == pytest.approx(expected, rel=1e-3)
    certain = torch.tensor([40.0, 0.0, 0.0, 0.0])[None, :, None, None].expand(1, 4, 3, 3)
    same = Views(certain, view.is_boundary, more_logits=(certain,) * 3)
    assert torch.isfinite(SCORES["balent"].function(same, PLAIN).score).all()


def test_self_consistency_is_the_divergence_of_the_mirror_image():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, 4, 3, 3, generator=generator) for _ in range(2))
    view = Views(first, torch.zeros(1, 3, 3, dtype=torch.bool), more_logits=(second,))
    result = SCORES["self_consistency"].function(view, PLAIN).score
    p, q = (references.softmax(m[0, :, 1, 2].numpy()) for m in (first, second))
    assert float(result[0, 1, 2]) == pytest.approx(references.jensen_shannon(p, q), abs=1e-5)


def test_options_of_madbal_change_the_terms_they_name():
    view = views(1, error_logits=None)
    plain = SCORES["madbal"].function(view, PLAIN).score
    normalized = SCORES["madbal"].function(view, ScoreOptions(normalize_terms=True)).score
    entropy = SCORES["entropy"].function(view, PLAIN).score
    classes = view.logits.shape[1]
    divergence = plain - entropy
    torch.testing.assert_close(
        normalized, entropy / math.log(classes) + divergence / math.log(2), atol=1e-5, rtol=1e-5
    )
    margin = SCORES["margin"].function(view, PLAIN).score
    swapped = SCORES["madbal"].function(view, ScoreOptions(uncertainty="margin")).score
    torch.testing.assert_close(swapped, margin + divergence, atol=1e-5, rtol=1e-5)


def maps(seed, height=6, width=7, levels=4):
    rng = np.random.default_rng(seed)
    return {
        "score": torch.from_numpy(rng.integers(0, levels, (height, width)).astype(np.float32)),
        "prediction": torch.from_numpy(rng.integers(0, 3, (height, width))),
        "is_asked": torch.from_numpy(rng.random((height, width)) < 0.4),
    }


@given(st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_top_candidates_equal_a_sorted_list(seed, count):
    image = maps(seed)
    found = top_candidates(**image, count=count)
    score, asked = image["score"].numpy().ravel(), image["is_asked"].numpy().ravel()
    expected = sorted(np.flatnonzero(~asked), key=lambda p: (-score[p], p))[:count]
    assert found.position.tolist() == expected
    assert found.score.tolist() == score[expected].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.floats(0, 1))
def test_random_of_top_are_distinct_and_among_the_top(seed, count, share):
    image = maps(seed)
    found = random_of_top_candidates(
        **image, count=count, top_share=share, generator=np.random.default_rng(seed)
    )
    size = max(count, int(share * 42))
    top = top_candidates(**image, count=size).position.tolist()
    positions = found.position.tolist()
    assert len(set(positions)) == len(positions) == min(count, len(top))
    assert set(positions) <= set(top)


@given(st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_class_balanced_candidates_take_turns(seed, count):
    image = maps(seed)
    found = class_balanced_candidates(**image, count=count, generator=np.random.default_rng(seed))
    positions = found.position.tolist()
    unasked = set(np.flatnonzero(~image["is_asked"].numpy().ravel()).tolist())
    assert len(set(positions)) == len(positions) == min(count, len(unasked))
    assert set(positions) <= unasked
    classes = image["prediction"].numpy().ravel()
    available = np.bincount([classes[p] for p in unasked], minlength=3)
    taken = np.bincount(classes[positions], minlength=3) if positions else np.zeros(3)
    for c in range(3):  # nobody is more than one behind unless it has run out
        assert taken[c] >= min(taken.max() - 1, available[c])


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0, 1))
def test_random_top_pixels_of_a_cpu_are_those_of_a_device(seed, top, share):
    rng = np.random.default_rng(seed)
    maps = {
        "score": torch.from_numpy(rng.integers(-4, 5, (11, 9)).astype(np.float32)),
        "is_asked": torch.from_numpy(rng.random((11, 9)) < 0.3),
        "superpixel_ids": torch.from_numpy(rng.integers(0, 6, (11, 9))),
    }
    size = {"num_superpixels": 7, "top": top, "share": share}
    found = random_top_pixels(**maps, **size, generator=np.random.default_rng(seed))
    position, score = draw_on_device(**maps, **size, generator=np.random.default_rng(seed))
    y, x = found["top_y"], found["top_x"]
    np.testing.assert_array_equal(np.where(y < 0, -1, 9 * y + x), position)
    np.testing.assert_array_equal(found["top_score"], score)
    assert (x >= -1).all()
    assert y.dtype == position.dtype
    assert found["top_score"].dtype == score.dtype


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0, 1))
def test_random_top_pixels_come_from_each_superpixels_best(seed, top, share):
    rng = np.random.default_rng(seed)
    score = torch.from_numpy(rng.integers(0, 9, (6, 7)).astype(np.float32))
    asked = torch.from_numpy(rng.random((6, 7)) < 0.4)
    ids = torch.from_numpy(rng.integers(0, 4, (6, 7)))
    found = random_top_pixels(
        score=score,
        is_asked=asked,
        superpixel_ids=ids,
        num_superpixels=5,
        top=top,
        share=share,
        generator=rng,
    )
    for s in range(5):
        pixels = [tuple(p) for p in np.argwhere((ids.numpy() == s) & ~asked.numpy())]
        ranked = sorted(pixels, key=lambda p: (-float(score[p]), p))
        size = max(top, math.ceil(share * len(pixels)))
        rows = [(int(y), int(x)) for y, x in zip(found["top_y"][s], found["top_x"][s], strict=True)]
        chosen = [p for p in rows if p != (-1, -1)]
        assert len(chosen) == min(top, len(pixels))
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= set(ranked[:size])
        assert chosen == sorted(chosen, key=ranked.index)
        assert found["top_score"][s][: len(chosen)].tolist() == [float(score[p]) for p in chosen]
        assert (found["top_score"][s][len(chosen) :] == -np.inf).all()
