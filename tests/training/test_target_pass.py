"""Between the phases: losses, tau, targets and delta of every labelled pixel, by hand."""

import math

import numpy as np
import pytest

from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.training.target_pass import record_points
from tests.hand_made import (
    ByHand,
    FromArrays,
    Worker,
    colours_are_logits,
    pool_image,
    write_pool,
)

SIZE = (4, 6)
NAMES = ("a", "b", "c")
EDGE_AT = {"a": 3, "b": 1, "c": 5}
"""First white column of each image on the working grid; the columns beside it are boundary."""

POINTS = {
    "a": [(0, 0, 0), (1, 2, 1), (3, 5, 0)],
    "b": [(0, 5, 0), (2, 1, 1)],
    "c": [(1, 0, 1), (3, 4, 0)],
}
"""(y, x, class); class 2 has no labels."""


def colours(name):
    """Return an input image whose every pixel has logits of its own."""
    shift = NAMES.index(name)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([4 * y + shift, 3 * x, 2 * y + x + 5 * shift], axis=2).astype(np.uint8)


def works():
    pictures = {}
    for name in NAMES:
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[:, EDGE_AT[name] :] = 255
        pictures[name] = picture
    return pictures


def record(folder, context):
    every = [point for name in NAMES for point in POINTS[name]]
    points = LabeledPoints(
        images=[pool_image(name, grid=SIZE, work=SIZE) for name in NAMES],
        start=np.array([0, 3, 5, 7]),
        y=np.array([p[0] for p in every], np.int16),
        x=np.array([p[1] for p in every], np.int16),
        class_id=np.array([p[2] for p in every], np.uint8),
    )
    network = ByHand(colours_are_logits)
    reader = FromArrays(inputs={name: colours(name) for name in NAMES}, works=works())
    pool = write_pool(folder, {0: points.images}, reader=reader)
    thresholds = record_points(network, points, pool, context, use_bf16=False)
    return network, points, thresholds


def literal_losses():
    losses = []
    for name in NAMES:
        for y, x, class_id in POINTS[name]:
            logits = [float(value) / 10 for value in colours(name)[y, x]]
            losses.append(math.log(sum(math.exp(v) for v in logits)) - logits[class_id])
    return losses


def test_losses_are_the_cross_entropies_of_each_image_alone_in_eval_mode(tmp_path):
    context = Worker()
    network, _, _ = record(tmp_path, context)
    assert network.phases == ["eval"]
    assert network.asked_for_supports == [False] * 3
    for name, shown in zip(NAMES, network.shown, strict=True):
        assert np.array_equal(shown[0].numpy(), colours(name))
    found = [loss for _, losses, _ in context.gathered[0] for loss in losses.tolist()]
    assert found == pytest.approx(literal_losses(), rel=1e-5)


def test_tau_is_the_mean_by_class_and_targets_are_at_least_it(tmp_path):
    _, points, thresholds = record(tmp_path, Worker())
    losses, classes = literal_losses(), points.class_id.tolist()
    for class_id in (0, 1):
        members = [v for v, c in zip(losses, classes, strict=True) if c == class_id]
        assert thresholds.num_labels[class_id] == len(members)
        tau = sum(members) / len(members)
        assert thresholds.threshold[class_id] == pytest.approx(tau, rel=1e-5)
        for index, c in enumerate(classes):
            if c == class_id:
                assert bool(points.is_target[index]) == (losses[index] >= tau)
    assert thresholds.num_labels[2] == 0
    assert math.isnan(thresholds.threshold[2])
    assert 0 < points.is_target.sum() < len(losses)


def test_delta_is_read_off_the_image_on_the_working_grid(tmp_path):
    _, points, _ = record(tmp_path, Worker())
    expected = [abs(x - EDGE_AT[name] + 0.5) < 2 for name in NAMES for _, x, _ in POINTS[name]]
    assert expected == [False, True, False, False, True, False, True]
    assert points.is_boundary.tolist() == expected


def test_delta_is_that_of_the_points_row(tmp_path):
    """Rows 2 to 5 of 8 lie at the boundary, which runs across above row 4."""
    rows = [1, 2, 5, 6]
    picture = np.zeros((8, 6, 3), np.uint8)
    picture[4:] = 255
    points = LabeledPoints(
        images=[pool_image("a", grid=(8, 6), work=(8, 6))],
        start=np.array([0, 4]),
        y=np.array(rows, np.int16),
        x=np.full(4, 3, np.int16),
        class_id=np.zeros(4, np.uint8),
    )
    reader = FromArrays(inputs={"a": picture}, works={"a": picture})
    pool = write_pool(tmp_path, {0: points.images}, reader=reader)
    record_points(ByHand(colours_are_logits), points, pool, Worker(), use_bf16=False)
    assert points.is_boundary.tolist() == [False, True, True, False]


def test_two_workers_give_what_one_gives_in_the_same_order(tmp_path):
    _, alone, tau = record(tmp_path, Worker())
    second = Worker(rank=1, world_size=2)
    network, _, _ = record(tmp_path, second)
    assert len(network.shown) == 1
    assert np.array_equal(network.shown[0][0].numpy(), colours("b"))
    _, both, tau_of_both = record(tmp_path, Worker(rank=0, world_size=2, others=second.gathered))
    assert both.is_target.tolist() == alone.is_target.tolist()
    assert both.is_boundary.tolist() == alone.is_boundary.tolist()
    assert np.array_equal(tau_of_both.threshold, tau.threshold, equal_nan=True)
