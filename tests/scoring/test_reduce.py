"""Superpixel reduction against loops over superpixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.errors import ShapeError
from madbal_ray.scoring.reduce import random_top_pixels, reduce_scores
from madbal_ray.selection.laps import laps_needed
from tests import references
from tests.cuda import never_waiting


def check(score, prediction, is_asked, ids, num_superpixels, num_classes, top):
    result = reduce_scores(
        score=torch.from_numpy(score),
        prediction=torch.from_numpy(prediction),
        is_asked=torch.from_numpy(is_asked),
        superpixel_ids=torch.from_numpy(ids),
        num_superpixels=num_superpixels,
        num_classes=num_classes,
        top=top,
    )
    expected = references.reduce_scores(
        score, prediction, is_asked, ids, num_superpixels, num_classes, top
    )
    for s, row in enumerate(expected):
        assert result.num_pixels[s] == row["num_pixels"]
        assert float(result.mean_score[s]) == pytest.approx(row["mean_score"], rel=1e-9, abs=1e-12)
        assert result.dominant_class[s] == row["dominant_class"]
        assert result.top_y[s].tolist() == row["top_y"]
        assert result.top_x[s].tolist() == row["top_x"]
        assert result.top_score[s].tolist() == row["top_score"]
    return result


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    num_superpixels=st.integers(1, 8),
    num_classes=st.integers(1, 5),
    top=st.integers(1, 4),
    asked=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    levels=st.sampled_from([1, 2, 1000]),
)
def test_equals_the_loop(seed, height, width, num_superpixels, num_classes, top, asked, levels):
    rng = np.random.default_rng(seed)
    shape = (height, width)
    score = (rng.integers(0, levels, shape) / levels * 9).astype(np.float32)  # many ties
    check(
        score,
        rng.integers(0, num_classes, shape),
        rng.random(shape) < asked,
        rng.integers(0, num_superpixels, shape),
        num_superpixels,
        num_classes,
        top,
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_mean_holds_over_the_whole_range_of_float32(scale):
    rng = np.random.default_rng(0)
    score = (rng.random((40, 40)) * scale).astype(np.float32)
    ids = np.zeros((40, 40), np.int64)
    check(score, ids, np.zeros((40, 40), bool), ids, 1, 1, 1)


def test_nothing_unasked_gives_zero_zero_minus_one():
    result = check(
        np.ones((2, 3), np.float32),
        np.zeros((2, 3), int),
        np.ones((2, 3), bool),
        np.zeros((2, 3), int),
        2,
        3,
        2,
    )
    assert result.num_pixels.tolist() == [0, 0]
    assert result.mean_score.tolist() == [0.0, 0.0]
    assert result.dominant_class.tolist() == [-1, -1]
    assert result.top_score.tolist() == [[-np.inf] * 2] * 2


def test_sum_does_not_depend_on_the_order_of_pixels():
    rng = np.random.default_rng(1)
    score = torch.from_numpy((rng.random((64, 64)) * 9).astype(np.float32))
    ids = torch.from_numpy(rng.integers(0, 5, (64, 64)))
    options = dict(num_superpixels=5, num_classes=2, top=1)
    nothing = torch.zeros(64, 64, dtype=torch.bool)
    classes = torch.zeros(64, 64, dtype=torch.int64)
    straight = reduce_scores(
        score=score, prediction=classes, is_asked=nothing, superpixel_ids=ids, **options
    )
    turned = reduce_scores(
        score=score.flip(0, 1),
        prediction=classes,
        is_asked=nothing,
        superpixel_ids=ids.flip(0, 1),
        **options,
    )
    assert torch.equal(straight.mean_score, turned.mean_score)


def test_wrong_shapes_and_top_are_refused():
    score = torch.zeros(2, 2)
    ids = torch.zeros(2, 2, dtype=torch.int64)
    asked = torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match="top = 0"):
        reduce_scores(
            score=score,
            prediction=ids,
            is_asked=asked,
            superpixel_ids=ids,
            num_superpixels=1,
            num_classes=1,
            top=0,
        )


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 40))
def test_laps_are_enough_and_no_more(counts, budget):
    counts = np.array(counts)
    laps = laps_needed(counts, budget)
    wanted = min(budget, counts.sum())
    assert np.minimum(counts, laps).sum() >= wanted
    assert laps == 1 or np.minimum(counts, laps - 1).sum() < wanted


def large_maps(device):
    generator = torch.Generator().manual_seed(0)
    shape = (96, 128)
    grid = torch.arange(96)[:, None] // 16 * 8 + torch.arange(128) // 16
    return {
        "score": torch.rand(shape, generator=generator).mul(4).round(decimals=2).to(device),
        "is_asked": (torch.rand(shape, generator=generator) < 0.2).to(device),
        "superpixel_ids": grid.int().to(device),
        "num_superpixels": 48,
        "top": 3,
    }, torch.randint(0, 5, shape, generator=generator).to(device)


def test_the_host_never_waits_for_the_device():
    """On `meta` tensors there are no values to wait for: an operation that needs one fails."""
    maps, prediction = large_maps("meta")
    result = reduce_scores(**maps, prediction=prediction, num_classes=5)
    assert result.num_pixels.shape == (48,)
    assert result.top_score.shape == (48, 3)


@pytest.mark.gpu
def test_the_same_bytes_on_a_gpu():
    maps, prediction = large_maps("cuda")
    reduce_scores(**maps, prediction=prediction, num_classes=5)
    with never_waiting():
        found = reduce_scores(**maps, prediction=prediction, num_classes=5)
    maps, prediction = large_maps("cpu")
    expected = reduce_scores(**maps, prediction=prediction, num_classes=5)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name).cpu(), value), name


@pytest.mark.gpu
def test_the_same_random_pixels_on_a_gpu():
    found, expected = (
        random_top_pixels(**large_maps(device)[0], share=0.3, generator=np.random.default_rng(0))
        for device in ("cuda", "cpu")
    )
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
