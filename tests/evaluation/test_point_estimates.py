"""Accuracy and IoU from points: values by hand, coverage of the intervals on a known confusion."""

import tracemalloc

import numpy as np
import pytest

from madbal_ray.evaluation import point_estimates
from madbal_ray.evaluation.point_estimates import (
    Estimate,
    estimate_from_points,
    points_for,
    points_needed,
)

CONFUSION = np.array([[400, 30, 10], [20, 250, 20], [10, 10, 50]])
"""Pixels of the whole split by true and predicted class: accuracy 0.875, mIoU 0.709."""


def estimated(truth, predicted, image, *, num_classes=3, seed=0):
    points = (np.asarray(values, np.int64) for values in (image, truth, predicted))
    generator = np.random.default_rng(seed)
    return estimate_from_points(*points, num_classes=num_classes, generator=generator)


def test_values_are_those_of_the_points_confusion():
    found = estimated([0, 0, 0, 1], [0, 0, 1, 1], [5, 5, 9, 9], num_classes=4)
    assert found.confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.pixel_accuracy.value == 0.75
    assert [one.value for one in found.class_iou[:2]] == pytest.approx([2 / 3, 1 / 2])
    assert np.isnan([one.value for one in found.class_iou[2:]]).all()
    assert np.isnan(found.class_iou[3].low)
    assert found.miou.value == pytest.approx(7 / 12)


def test_no_points_say_nothing():
    found = estimated([], [], [], num_classes=2)
    assert found.confusion.tolist() == [[0, 0], [0, 0]]
    for one in (found.pixel_accuracy, found.miou, *found.class_iou):
        assert np.isnan([one.value, one.low, one.high]).all()
    assert len(found.class_iou) == 2


def test_an_interval_is_moved_back_by_twice_what_resampling_shifts():
    """0.3 to 0.6 around 0.45, while the sample says 0.5: 0.3075 and 0.5925, up by 0.1."""
    found = point_estimates._interval(0.5, np.linspace(0.3, 0.6, 601))
    assert (found.low, found.high) == pytest.approx((0.4075, 0.6925))
    found = point_estimates._interval(0.95, np.linspace(0.7, 1.0, 601))
    assert (found.low, found.high) == pytest.approx((0.9075, 1.0))  # 1.1925 is no share
    found = point_estimates._interval(0.2, np.linspace(0.3, 0.6, 601))
    assert found.low <= 0.2 <= found.high


def test_points_of_one_image_are_drawn_together():
    """One image right, one wrong, 50 points each: the interval knows two images, not 100 points."""
    found = estimated([0] * 100, [0] * 50 + [1] * 50, [0] * 50 + [1] * 50)
    assert (found.pixel_accuracy.low, found.pixel_accuracy.high) == pytest.approx((0, 1), abs=0.01)
    apart = estimated([0] * 100, [0] * 50 + [1] * 50, range(100))
    assert apart.pixel_accuracy.low == pytest.approx(0.40, abs=0.02)
    assert apart.pixel_accuracy.high == pytest.approx(0.60, abs=0.02)


def test_points_that_are_all_right_or_of_one_image_give_no_interval():
    """Nothing differs between resamples, which says nothing about chance: no [1, 1]."""
    right = estimated([0, 1, 2] * 20, [0, 1, 2] * 20, range(60))
    of_one = estimated([0, 1] * 9, [0] * 18, [7] * 18, num_classes=2)
    for found, accuracy, miou in ((right, 1.0, 1.0), (of_one, 0.5, 0.25)):
        for estimate in (found.pixel_accuracy, found.miou, *found.class_iou):
            assert np.isnan([estimate.low, estimate.high]).all()
            assert points_for(estimate, 60, 0.02) is None
        assert (found.pixel_accuracy.value, found.miou.value) == (accuracy, miou)


def test_memory_does_not_grow_with_images_times_classes_squared():
    tracemalloc.start()
    estimated(range(500), range(500), range(500), num_classes=500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20  # 500 confusion matrices alone are 1 GB


def test_intervals_cover_the_truth_in_at_least_90_of_100_samples():
    """1,000 points of 200 images each time; the truth is that of the confusion they come from."""
    share = (CONFUSION / CONFUSION.sum()).ravel()
    hit, union = np.diag(CONFUSION), CONFUSION.sum(0) + CONFUSION.sum(1) - np.diag(CONFUSION)
    accuracy, iou = hit.sum() / CONFUSION.sum(), hit / union
    covered = {"accuracy": 0, "miou": 0, "rarest": 0}
    widths = []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        cells = generator.choice(9, size=1000, p=share)
        found = estimated(*np.divmod(cells, 3), generator.integers(0, 200, 1000), seed=seed)
        known = {"accuracy": accuracy, "miou": iou.mean(), "rarest": iou[2]}
        given = {"accuracy": found.pixel_accuracy, "miou": found.miou, "rarest": found.class_iou[2]}
        for name, value in known.items():
            covered[name] += given[name].low <= value <= given[name].high
        widths.append(found.pixel_accuracy.half_width)
    assert all(90 <= count <= 99 for count in covered.values()), covered
    assert np.mean(widths) == pytest.approx(
        1.96 * np.sqrt(accuracy * (1 - accuracy) / 1000), rel=0.1
    )


def test_how_many_points_are_needed():
    assert points_needed(0.02) == 2401
    assert points_needed(0.02, share=0.9) == 865
    assert points_for(Estimate(0.6, 0.56, 0.63), 500, 0.02) == 2000
    assert points_for(Estimate(0.6, float("nan"), float("nan")), 500, 0.02) is None
