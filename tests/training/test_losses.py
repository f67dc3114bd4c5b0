"""Point losses, targets and measures against their literal writing (Eq. 1-3)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from madbal_ray.arrays import IGNORE_INDEX
from madbal_ray.config.training import ModelConfig, PhaseConfig
from madbal_ray.evaluation.metrics import confusion_matrix, summarize_confusion
from madbal_ray.models.network import build_network
from madbal_ray.training.loss_prediction import (
    class_loss_thresholds,
    loss_prediction_loss,
    loss_targets,
)
from madbal_ray.training.optimizer import build_optimizer, rate_factor, scale_rates
from madbal_ray.training.point_loss import point_cross_entropy


def random_points(seed, *, count, height, width, classes=4):
    rng = np.random.default_rng(seed)
    return {
        "point_batch": torch.from_numpy(rng.integers(0, 2, count)),
        "point_y": torch.from_numpy(rng.integers(0, height, count)),
        "point_x": torch.from_numpy(rng.integers(0, width, count)),
        "point_class": torch.from_numpy(rng.integers(0, classes, count)),
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([(4, 5), (12, 15), (9, 31)]))
def test_equals_upsampling_then_indexing_with_its_gradient(seed, count, size):
    generator = torch.Generator().manual_seed(seed % 2**31)
    logits = torch.randn(2, 4, 4, 5, generator=generator, requires_grad=True)
    points = random_points(seed, count=count, height=size[0], width=size[1])
    found = point_cross_entropy(logits=logits, **points, height=size[0], width=size[1])
    found.sum().backward()
    gradient = logits.grad.clone()
    logits.grad = None
    full = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    values = full[points["point_batch"], :, points["point_y"], points["point_x"]]
    expected = F.cross_entropy(values, points["point_class"], reduction="none")
    expected.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, logits.grad, atol=1e-5, rtol=1e-4)


def test_no_points_contribute_zero():
    logits = torch.randn(2, 4, 4, 5, requires_grad=True)
    loss = point_cross_entropy(
        logits=logits, **random_points(0, count=0, height=4, width=5), height=4, width=5
    )
    assert loss.shape == (0,)
    loss.sum().backward()
    assert (logits.grad == 0).all()


def test_half_precision_logits_give_float32_losses():
    logits = torch.randn(2, 4, 4, 5).to(torch.bfloat16)
    loss = point_cross_entropy(
        logits=logits, **random_points(0, count=9, height=8, width=9), height=8, width=9
    )
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_thresholds_are_class_means_and_targets_use_at_least(seed, count):
    rng = np.random.default_rng(seed)
    loss = rng.integers(0, 4, count).astype(np.float32) / 2
    class_id = rng.integers(0, 3, count)
    thresholds = class_loss_thresholds(loss=loss, class_id=class_id, num_classes=4)
    for c in range(4):
        members = [float(v) for v, k in zip(loss, class_id, strict=True) if k == c]
        if members:
            assert thresholds.threshold[c] == pytest.approx(sum(members) / len(members))
        else:
            assert math.isnan(thresholds.threshold[c])
        assert thresholds.num_labels[c] == len(members)
    targets = loss_targets(loss=loss, class_id=class_id, thresholds=thresholds)
    for index in range(count):
        assert targets[index] == (float(loss[index]) >= thresholds.threshold[class_id[index]])


def test_one_label_of_a_class_is_its_own_threshold():
    thresholds = class_loss_thresholds(
        loss=np.array([0.3], np.float32), class_id=np.array([0]), num_classes=2
    )
    found = loss_targets(
        loss=np.array([0.3], np.float32), class_id=np.array([0]), thresholds=thresholds
    )
    assert found.tolist() == [True]


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_loss_prediction_loss_equals_the_literal_sums(seed, count):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 5, (count, 2)).astype(np.float32)).requires_grad_()
    target = torch.from_numpy(rng.random(count) < 0.5)
    is_boundary = torch.from_numpy(rng.random(count) < 0.5)
    num_boundary = int(is_boundary.sum())
    boundary, center = loss_prediction_loss(
        error_logits=logits,
        target=target,
        is_boundary=is_boundary,
        num_boundary=num_boundary,
        num_center=count - num_boundary,
    )
    for channel, found, member in ((0, boundary, is_boundary), (1, center, ~is_boundary)):
        losses = []
        for row in range(count):
            if member[row]:
                value = float(logits[row, channel].detach())
                signed = value if target[row] else -value
                losses.append(max(-signed, 0) + math.log1p(math.exp(-abs(value))))
        expected = sum(losses) / len(losses) if losses else 0.0
        assert float(found.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    (boundary + center).backward()
    assert torch.isfinite(logits.grad).all()


@given(st.integers(0, 2**32 - 1))
def test_confusion_and_iou_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, IGNORE_INDEX], (2, 5, 6))
    prediction = rng.integers(0, 2, (2, 5, 6))
    found = confusion_matrix(
        truth=torch.from_numpy(truth), prediction=torch.from_numpy(prediction), num_classes=4
    ).numpy()
    expected = np.zeros((4, 4), int)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != IGNORE_INDEX:
            expected[t, p] += 1
    assert np.array_equal(found, expected)
    measured = summarize_confusion(found)
    ious = []
    for c in range(4):
        union = expected[c].sum() + expected[:, c].sum() - expected[c, c]
        if union:
            ious.append(expected[c, c] / union)
            assert measured.class_iou[c] == pytest.approx(ious[-1])
        else:
            assert math.isnan(measured.class_iou[c])
    assert measured.miou == pytest.approx(np.mean(ious))
    assert measured.pixel_accuracy == pytest.approx(np.trace(expected) / expected.sum())


def test_nothing_to_measure_is_nan_not_zero():
    measured = summarize_confusion(np.zeros((3, 3), np.int64))
    assert math.isnan(measured.miou)
    assert math.isnan(measured.pixel_accuracy)


def test_poly_falls_linearly_to_zero():
    config = PhaseConfig(epochs=5, poly_power=1.0)
    factors = [rate_factor(config, step, 2) for step in range(11)]
    np.testing.assert_allclose(factors, np.linspace(1, 0, 11))


def test_steps_fall_to_a_tenth():
    config = PhaseConfig(epochs=5, schedule="steps", step_epochs=(2, 4))
    assert [rate_factor(config, step, 3) for step in (0, 5, 6, 11, 12)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_backbone_may_learn_more_slowly(name):
    network = build_network(ModelConfig(), 3, weights=None, seed=0)
    network.set_phase("phase1")
    config = PhaseConfig(optimizer=name, learning_rate=0.1, backbone_rate_factor=0.1)
    optimizer = build_optimizer(network, config)
    scale_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.05])
    counts = [len(group["params"]) for group in optimizer.param_groups]
    assert counts[0] == len(list(network.backbone.parameters()))
    assert sum(counts) == len([p for p in network.parameters() if p.requires_grad])
    network.set_phase("phase2")
    assert len(build_optimizer(network, config).param_groups) == 1
