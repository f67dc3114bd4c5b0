"""u(x) against its literal writing, and its bounds on extreme inputs (Eq. 4)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.errors import ShapeError
from madbal_ray.scoring.pixel_scores import jensen_shannon_divergence, pixel_scores
from tests import references


def random_inputs(seed, *, batch=2, classes=5, scale=3.0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return torch.from_numpy(rng.normal(0, scale, shape).astype(np.float32))

    return {
        "logits": draw(batch, classes, 4, 5),
        "head_logits": (
            draw(batch, classes, 8, 10),
            draw(batch, classes, 6, 7),
            draw(batch, classes, 4, 5),
        ),
        "maturity_weights": torch.softmax(draw(batch, 3, 3, 4), 1),
        "error_logits": draw(batch, 2, 8, 10),
        "is_boundary": torch.from_numpy(rng.random((batch, 9, 11)) < 0.4),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absent", [(), ("head_logits",), ("maturity_weights",), ("error_logits",)])
def test_equals_the_literal_formula(seed, absent):
    inputs = random_inputs(seed, scale=[1.0, 3.0, 30.0][seed])
    for name in absent:
        inputs[name] = () if name == "head_logits" else None
    result = pixel_scores(**inputs)
    assert result.score.dtype == torch.float32
    for image in range(2):
        heads = [head[image].numpy() for head in inputs["head_logits"]]
        weights, errors = inputs["maturity_weights"], inputs["error_logits"]
        score, prediction = references.pixel_scores(
            inputs["logits"][image].numpy(),
            heads,
            None if weights is None else weights[image].numpy(),
            None if errors is None else errors[image].numpy(),
            inputs["is_boundary"][image].numpy(),
        )
        np.testing.assert_allclose(result.score[image], score, rtol=2e-5, atol=2e-6)
        assert (result.prediction[image].numpy() == prediction).mean() > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["one_hot", "uniform", "opposite", "huge"])
def test_is_finite_and_bounded_on_extreme_inputs(dtype, kind):
    classes = 19
    logits = torch.zeros(1, classes, 2, 2)
    head = torch.zeros(1, classes, 2, 2)
    if kind == "one_hot":
        logits[:, 0], head[:, 0] = 1e4, 1e4
    elif kind == "opposite":
        logits[:, 0], head[:, 1] = 6e4, 6e4
    elif kind == "huge":
        logits[:], head[:, 3] = 6e4, -6e4
    result = pixel_scores(
        logits=logits.to(dtype),
        head_logits=(head.to(dtype),) * 3,
        maturity_weights=torch.full((1, 3, 2, 2), 1 / 3),
        error_logits=torch.full((1, 2, 2, 2), 1e4).to(dtype),
        is_boundary=torch.ones(1, 4, 4, dtype=torch.bool),
    )
    assert torch.isfinite(result.score).all()
    assert (result.score >= 0).all()
    assert (result.score <= (math.log(classes) + math.log(2)) * math.e * (1 + 1e-6)).all()
    if kind == "opposite":
        np.testing.assert_allclose(result.score, math.log(2) * math.e, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.floats(0.01, 300))
def test_divergence_is_bounded_and_symmetric(seed, classes, scale):
    rng = np.random.default_rng(seed)
    p, q = (
        torch.log_softmax(
            torch.from_numpy(rng.normal(0, scale, (1, classes, 3, 3)).astype(np.float32)), 1
        )
        for _ in range(2)
    )
    divergence = jensen_shannon_divergence(p, q)
    assert (divergence >= 0).all()
    assert (divergence <= math.log(2)).all()
    torch.testing.assert_close(divergence, jensen_shannon_divergence(q, p), rtol=1e-5, atol=1e-6)
    assert jensen_shannon_divergence(p, p).abs().max() <= 2e-6


def test_predicted_class_ties_go_to_the_lower_id():
    result = pixel_scores(
        logits=torch.tensor([0.0, 2.0, 2.0])[None, :, None, None].expand(1, 3, 1, 1),
        head_logits=(),
        maturity_weights=None,
        error_logits=None,
        is_boundary=torch.zeros(1, 2, 2, dtype=torch.bool),
    )
    assert (result.prediction == 1).all()


def test_wrong_shapes_are_named():
    inputs = random_inputs(0)
    inputs["maturity_weights"] = inputs["maturity_weights"][:, :2]
    with pytest.raises(ShapeError, match=r"maturity_weights.*\(2, 2, 3, 4\).*\[2, 3, h, w\]"):
        pixel_scores(**inputs)
    inputs = random_inputs(0)
    inputs["head_logits"] = (inputs["head_logits"][0][:, :4],)
    with pytest.raises(ShapeError, match="head_logits"):
        pixel_scores(**inputs)
