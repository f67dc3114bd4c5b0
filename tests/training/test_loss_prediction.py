"""tau, Y_L and Eq. 2 with numbers worked out by hand; random ones: test_losses.py."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.training.loss_prediction import (
    ClassLossThresholds,
    class_loss_thresholds,
    loss_prediction_loss,
    loss_targets,
)
from madbal_ray.training.point_loss import point_cross_entropy

LN3 = math.log(3)


def test_a_threshold_is_the_mean_loss_of_its_class():
    found = class_loss_thresholds(
        loss=np.array([1.0, 8.0, 2.0, 6.0], np.float32),
        class_id=np.array([0, 2, 0, 0]),
        num_classes=4,
    )
    assert found.num_labels.tolist() == [3, 0, 1, 0]
    assert found.threshold[[0, 2]].tolist() == [3.0, 8.0]
    assert np.isnan(found.threshold[[1, 3]]).all()


def test_losses_are_added_in_double_precision():
    loss = np.array([2.0**24, 1.0, 1.0], np.float32)  # in float32, 2**24 + 1 is 2**24
    found = class_loss_thresholds(loss=loss, class_id=np.zeros(3, np.int64), num_classes=1)
    assert found.threshold[0] == (2.0**24 + 2) / 3


def test_a_loss_equal_to_its_threshold_is_high():
    thresholds = ClassLossThresholds(np.array([1.0, 2.0]), np.array([3, 3]))
    found = loss_targets(
        loss=np.array([1.0, 0.75, 1.5, 2.0, 2.5], np.float32),
        class_id=np.array([0, 0, 1, 1, 1]),
        thresholds=thresholds,
    )
    assert found.tolist() == [True, False, False, True, True]


def losses(is_boundary, *, num_boundary, num_center, logits=((LN3, -50.0), (50.0, -LN3))):
    found = loss_prediction_loss(
        error_logits=torch.tensor(logits).reshape(-1, 2),
        target=torch.ones(len(logits), dtype=torch.bool),
        is_boundary=torch.tensor(is_boundary, dtype=torch.bool),
        num_boundary=num_boundary,
        num_center=num_center,
    )
    return [float(one) for one in found]


def test_boundary_points_read_channel_0_and_center_points_channel_1():
    # -ln sigmoid(ln 3) = ln 4/3, -ln sigmoid(-ln 3) = ln 4
    found = losses([True, False], num_boundary=1, num_center=1)
    assert found == pytest.approx([math.log(4 / 3), math.log(4)])
    crossed = losses([False, True], num_boundary=1, num_center=1)
    assert crossed == pytest.approx([0.0, 50.0], abs=1e-6)


def test_sums_are_divided_by_the_points_of_the_whole_batch():
    found = losses([True, False], num_boundary=5, num_center=8)
    assert found == pytest.approx([math.log(4 / 3) / 5, math.log(4) / 8])


def test_a_target_of_0_costs_what_the_logit_claims():
    boundary, center = loss_prediction_loss(
        error_logits=torch.tensor([[LN3, 0.0]]),
        target=torch.tensor([False]),
        is_boundary=torch.tensor([True]),
        num_boundary=1,
        num_center=0,
    )
    assert float(boundary) == pytest.approx(math.log(4))
    assert float(center) == 0.0


def test_an_empty_set_contributes_0():
    assert losses([True, True], num_boundary=2, num_center=0)[1] == 0.0
    assert losses([False, False], num_boundary=0, num_center=2)[0] == 0.0
    assert losses([], num_boundary=0, num_center=0, logits=()) == [0.0, 0.0]


def test_cross_entropy_of_a_point_is_minus_the_log_of_its_class():
    pixels = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]], [[0.25, 0.25, 0.5]] * 2])
    found = point_cross_entropy(
        logits=pixels.log().permute(2, 0, 1)[None],
        point_batch=torch.tensor([0, 0, 0, 0]),
        point_y=torch.tensor([0, 0, 0, 1]),
        point_x=torch.tensor([0, 0, 1, 0]),
        point_class=torch.tensor([0, 2, 1, 2]),
        height=2,
        width=2,
    )
    expected = [math.log(2), math.log(4), -math.log(0.75), math.log(2)]
    assert found.tolist() == pytest.approx(expected)
