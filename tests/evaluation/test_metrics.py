"""Confusion and IoU with numbers worked out by hand; random ones: training/test_losses.py."""

import numpy as np
import pytest
import torch

from madbal_ray.evaluation.metrics import confusion_matrix, summarize_confusion

VOID = 255


def test_rows_are_the_truth_and_void_truth_is_left_out():
    truth = torch.tensor([[0, 0, 1], [3, VOID, 1]])
    prediction = torch.tensor([[0, 1, 1], [0, 2, 0]])
    found = confusion_matrix(truth=truth, prediction=prediction, num_classes=4)
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_only_void_is_a_matrix_of_zeros():
    truth = torch.full((2, 2), VOID)
    found = confusion_matrix(truth=truth, prediction=torch.zeros_like(truth), num_classes=2)
    assert found.tolist() == [[0, 0], [0, 0]]


def test_a_class_absent_from_truth_and_prediction_is_left_out_of_the_mean():
    confusion = np.array([[3, 1, 0, 2], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = summarize_confusion(confusion)
    # class 0: 3 of 6; class 1: 2 of 3; class 2: nowhere; class 3: predicted twice, never right
    assert found.class_iou[[0, 1, 3]].tolist() == pytest.approx([1 / 2, 2 / 3, 0])
    assert np.isnan(found.class_iou[2])
    assert found.miou == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found.pixel_accuracy == pytest.approx(5 / 8)
