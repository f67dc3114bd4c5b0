"""The compiled kernels for CPUs against the plain torch code."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from madbal_ray.compiled import compiled, exp32, log32
from madbal_ray.scoring.fused_cpu import fused_scores, in_parts
from madbal_ray.scoring.pixel_scores import LN2, pixel_scores, torch_pixel_scores
from madbal_ray.scoring.reduce import reduce_on_device, reduce_scores
from madbal_ray.state.ahead import map_ahead


@compiled()
def _apply(values, exps, logs):
    for i in range(len(values)):
        exps[i] = exp32(values[i])
        logs[i] = log32(abs(values[i]))


def test_exp_and_log_are_exact_to_float32():
    values = np.concatenate([np.linspace(1e-6, 86, 200_001), np.logspace(-37, 30, 50_001)])
    values = np.concatenate([values, -values]).astype(np.float32)
    exps, logs = np.empty_like(values), np.empty_like(values)
    _apply(values, exps, logs)
    inside = abs(values) < 87
    exact = np.exp(values[inside].astype(np.float64))
    np.testing.assert_allclose(exps[inside], exact, rtol=3e-7)
    assert (exps[values < -87] < 2e-38).all()
    exact = np.log(abs(values).astype(np.float64))
    np.testing.assert_allclose(logs, exact, rtol=3e-7, atol=1e-7)


def maps(seed, batch, classes, sizes, scale, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    (h, w), (hk, wk), (hw, ww), (height, width) = sizes
    return {
        "logits": random(batch, classes, h, w),
        "head_logits": tuple(random(batch, classes, hk, wk) for _ in range(3)),
        "maturity_weights": F.softmax(random(batch, 3, hw, ww).float(), dim=1).to(dtype),
        "error_logits": random(batch, 2, hk, wk),
        "is_boundary": torch.rand(batch, height, width, generator=generator) < 0.4,
    }


SIZE = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(
    st.integers(0, 2**31),
    st.integers(2, 12),
    st.tuples(SIZE, SIZE, SIZE, st.tuples(st.integers(1, 20), st.integers(1, 33))),
    st.sampled_from([0.1, 3.0, 60.0, 1e4]),
    st.sampled_from(["all", "no_heads", "no_errors", "nothing"]),
    st.booleans(),
    st.sampled_from(["entropy", "margin"]),
)
def test_equals_plain_torch(seed, classes, sizes, scale, absent, normalize, uncertainty):
    inputs = maps(seed, 2, classes, sizes, scale)
    if absent in ("no_heads", "nothing"):
        inputs |= {"head_logits": (), "maturity_weights": None}
    if absent in ("no_errors", "nothing"):
        inputs |= {"error_logits": None}
    options = {"normalize_terms": normalize, "uncertainty": uncertainty}
    fast, plain = pixel_scores(**inputs, **options), torch_pixel_scores(**inputs, **options)
    # logits of 1e4 are known to 1e-3 only: float32 interpolation, in either code
    tolerance = 1e-5 if scale <= 60 else 2e-2
    torch.testing.assert_close(fast.score, plain.score, rtol=tolerance, atol=tolerance)
    differ = fast.prediction != plain.prediction
    if differ.any():  # only where two classes are level to rounding
        height, width = inputs["is_boundary"].shape[-2:]
        full = F.interpolate(
            inputs["logits"], (height, width), mode="bilinear", align_corners=False
        )
        best = full.topk(2, dim=1).values
        assert ((best[:, 0] - best[:, 1])[differ] <= 1e-5 * max(1.0, scale)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(dtype):
    inputs = maps(3, 1, 5, ((4, 6), (4, 6), (2, 3), (16, 24)), 3.0, dtype)
    fast, plain = pixel_scores(**inputs), torch_pixel_scores(**inputs)
    torch.testing.assert_close(fast.score, plain.score, rtol=1e-5, atol=1e-6)
    assert torch.equal(fast.prediction, plain.prediction)


def test_the_number_of_threads_changes_nothing():
    inputs = maps(5, 2, 7, ((8, 8), (8, 8), (8, 8), (32, 40)), 3.0)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(pixel_scores(**inputs))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].score, found[1].score)
    assert torch.equal(found[0].prediction, found[1].prediction)


HISTORY = """
import torch
torch.set_num_threads(1)
from madbal_ray.config.training import ModelConfig
from madbal_ray.models.network import build_network
from madbal_ray.kernels import pixel_scores
model = ModelConfig(backbone="mobilenet_v2", head="lraspp")
network = build_network(model, 5, weights=None, seed=0, supports="full")
network.set_phase("eval")
image = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))

def once():
    with torch.inference_mode():
        output = network(image, supports=True)
        return output.logits, pixel_scores(
            logits=output.logits,
            head_logits=output.head_logits,
            maturity_weights=output.maturity_weights,
            error_logits=output.error_logits,
            is_boundary=torch.zeros(2, 96, 128, dtype=torch.bool),
        ).score

first, later = once(), once()
assert torch.get_num_threads() == 1, torch.get_num_threads()
assert all(torch.equal(a, b) for a, b in zip(first, later)), "results depend on history"
"""


def test_the_first_image_of_a_process_is_scored_like_any_other():
    """Numba's OpenMP layer once changed torch's threads behind its back."""
    subprocess.run([sys.executable, "-c", HISTORY], check=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    inputs = maps(6, 1, 4, ((4, 4), (4, 4), (4, 4), (8, 8)), 1.0)
    inputs["logits"][0, 1, 2, 2] = bad
    assert not torch.isfinite(pixel_scores(**inputs).score).all()


def test_a_sum_that_overflows_is_finite_all_the_same():
    inputs = maps(6, 1, 4, ((4, 4), (4, 4), (4, 4), (8, 8)), 1.0)
    inputs["logits"][:, 0] = 3e38
    fast, plain = pixel_scores(**inputs), torch_pixel_scores(**inputs)
    assert torch.equal(fast.score, plain.score)


@pytest.mark.parametrize("layout", ["channels last", "a view", "one value for all"])
def test_maps_are_read_where_they_lie(layout):
    inputs = maps(9, 2, 6, ((5, 7), (5, 7), (3, 4), (21, 150)), 3.0)
    expected = torch_pixel_scores(**inputs)
    logits = inputs["logits"]
    if layout == "channels last":
        inputs["logits"] = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "a view":
        wide = torch.full((2, 8, 9, 14), torch.nan)
        wide[:, 1:7, 2:7, ::2] = logits
        inputs["logits"] = wide[:, 1:7, 2:7, ::2]
    else:
        inputs["logits"] = logits[:1, :, :1, :1].expand(2, 6, 5, 7)
        expected = torch_pixel_scores(**inputs)
    found = pixel_scores(**inputs)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.prediction, expected.prediction)


@pytest.mark.parametrize("spread", [20.0, 55.0, 70.0, 200.0])
def test_logits_far_apart_in_neighbouring_cells(spread):
    """What a geometric sequence between two rows must not lose: the classes in the middle."""
    logits = torch.zeros(1, 4, 3, 3)
    logits[0, 0, 0] = logits[0, 1, 1] = logits[0, 2, 2] = spread
    logits[0, 3] = 0.45 * spread
    inputs = {
        "logits": logits,
        "head_logits": (logits.roll(1, 1), logits.roll(2, 1)),
        "maturity_weights": torch.full((1, 2, 3, 3), 0.5),
        "error_logits": None,
        "is_boundary": torch.zeros(1, 70, 40, dtype=torch.bool),
    }
    found, expected = pixel_scores(**inputs), torch_pixel_scores(**inputs)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-5, atol=2e-5)
    assert (found.prediction != expected.prediction).float().mean() < 0.01  # level to rounding


@pytest.mark.parametrize("rows", [(7, 15), (30, 61), (50, 101)])
@pytest.mark.parametrize("spread", [57.9, 58.1, 59.9, 64.0])
def test_the_widest_spread_with_the_longest_step(spread, rows):
    """Rows just over half a cell apart; a sequence begins as far below as exp32 reaches."""
    old, new = rows
    logits = torch.zeros(1, 2, old, 2)
    logits[0, 0, ::2] = logits[0, 1, 1::2] = spread
    inputs = {
        "logits": logits,
        "head_logits": (),
        "maturity_weights": None,
        "error_logits": None,
        "is_boundary": torch.zeros(1, new, 2, dtype=torch.bool),
    }
    found, expected = pixel_scores(**inputs), torch_pixel_scores(**inputs)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=5e-5)


def test_bounds_at_the_extremes():
    classes, size = 3, (2, 2)
    one_hot = torch.full((1, classes, *size), -200.0)
    one_hot[:, 0] = 200.0
    other = one_hot.roll(1, dims=1)
    score, _ = fused_scores(
        logits=one_hot,
        head_logits=(other, other, other),
        maturity_weights=torch.full((1, 3, *size), 1 / 3),
        error_logits=None,
        is_boundary=torch.zeros(1, 5, 5, dtype=torch.bool),
        entropy_factor=1.0,
        disagreement_factor=1.0,
        use_margin=False,
    )
    assert score.max() <= LN2 + 1e-6
    torch.testing.assert_close(score, torch.full_like(score, LN2), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1))
def test_reduction_equals_segment_operations_byte_for_byte(seed, superpixels, top, asked):
    generator = torch.Generator().manual_seed(seed)
    shape = (7, 11)
    inputs = {
        "score": torch.rand(shape, generator=generator).mul(4).round(decimals=1),
        "prediction": torch.randint(0, 4, shape, generator=generator),
        "is_asked": torch.rand(shape, generator=generator) < asked,
        "superpixel_ids": torch.randint(0, superpixels, shape, generator=generator).int(),
        "num_superpixels": superpixels,
        "num_classes": 4,
        "top": top,
    }
    fast, plain = reduce_scores(**inputs), reduce_on_device(**inputs)
    for name, value in vars(fast).items():
        other = getattr(plain, name)
        assert value.dtype == other.dtype, name
        assert torch.equal(value, other), name


@pytest.mark.parametrize(("threads", "count"), [(1, 5), (2, 5), (3, 5), (8, 3)])
def test_work_is_shared_out_whole_and_once(threads, count):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    parts = []
    try:
        in_parts(lambda start, stop: parts.append((start, stop)), count)
    finally:
        torch.set_num_threads(before)
    assert len(parts) == min(threads, count)
    assert sorted(i for start, stop in parts for i in range(start, stop)) == list(range(count))


def test_many_callers_at_once_have_each_their_own_result():
    sizes = ((4, 6), (8, 12), (2, 3), (64, 96))
    images = [maps(seed, 2, 5, sizes, 3.0) for seed in range(12)]
    alone = [pixel_scores(**one) for one in images]
    together = map_ahead(lambda one: pixel_scores(**one), images, threads=4, ahead=4)
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found.score, expected.score)
        assert torch.equal(found.prediction, expected.prediction)


def test_rows_whose_logits_are_all_higher_are_scored_alike():
    inputs = maps(5, 1, 4, ((4, 6), (4, 6), (4, 6), (32, 48)), 2.0)
    lifted = inputs | {"logits": inputs["logits"].clone()}
    lifted["logits"][:, :, 1] += 200.0  # more than an exponential of float32 could hold
    score, expected = pixel_scores(**lifted).score, torch_pixel_scores(**lifted).score
    torch.testing.assert_close(score, expected, rtol=1e-3, atol=1e-3)
