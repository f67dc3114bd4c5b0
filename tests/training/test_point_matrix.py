"""Labels joined with the features of their pixels, batches of points, tau: by hand."""

import math

import numpy as np
import pytest
import torch

from madbal_ray.config.training import Phase2Config, PhaseConfig
from madbal_ray.errors import ConfigError, LabelError
from madbal_ray.labels.labeled_points import read_labeled_points
from madbal_ray.models.network import NetworkOutput
from madbal_ray.training.phase import num_epochs
from madbal_ray.training.point_matrix import (
    PointBatchMaker,
    PointMatrix,
    read_point_matrix,
    record_matrix,
)
from tests.hand_made import ByHand, Worker, pool_image, write_labels, write_pool, write_stage

CHANNELS = (1, 2)


def feature_rows(round_index, points):
    """Rows of `point_features`: the features are 10 y + x, and that plus a half and negated."""
    return [
        {
            "round": round_index,
            "image_id": name,
            "y": y,
            "x": x,
            "is_boundary": (y + x) % 2 == 1,
            "features": np.array([10 * y + x, 10 * y + x + 0.5, -x], np.float16).tobytes(),
        }
        for name, y, x in points
    ]


@pytest.fixture
def pool(tmp_path):
    shards = {0: [pool_image("a"), pool_image("c")], 1: [pool_image("b")]}
    return write_pool(tmp_path / "pool", shards)


def labels_of(tmp_path, points, round_index):
    shards = {0: [], 1: []}
    for name, y, x, class_id, status in points:
        row = {"image_id": name, "y": y, "x": x, "class_id": class_id, "status": status}
        shards[1 if name == "b" else 0].append(row)
    return write_labels(tmp_path / f"labels{round_index}", shards, round_index=round_index)


def features_of(tmp_path, points, round_index):
    shards = {
        0: feature_rows(round_index, [p for p in points if p[0] != "b"]),
        1: feature_rows(round_index, [p for p in points if p[0] == "b"]),
    }
    summary = {"shards": {str(i): {"points": len(rows)} for i, rows in shards.items()}}
    return write_stage(
        tmp_path / f"features{round_index}", "point_features", shards, summary=summary
    )


@pytest.mark.parametrize("memory_gib", [1.0, 0.0])
def test_every_labelled_pixel_has_its_own_features_in_order(pool, tmp_path, memory_gib):
    first = [("c", 1, 2, 0, "labelled"), ("a", 0, 1, 2, "labelled"), ("b", 1, 1, 1, "labelled")]
    first.append(("a", 1, 0, 0, "labelled"))
    second = [("a", 0, 0, 1, "labelled"), ("b", 0, 2, None, "void")]
    labels = (labels_of(tmp_path, first, 0), labels_of(tmp_path, second, 1))
    stages = (
        features_of(tmp_path, [p[:3] for p in first], 0),
        features_of(tmp_path, [p[:3] for p in second], 1),
    )
    points = read_labeled_points(pool, labels)
    matrix = read_point_matrix(pool, points, stages, CHANNELS, memory_gib=memory_gib)
    # by (image_id, y, x): a(0,0), a(0,1), a(1,0), b(1,1), c(1,2); the void pixel is left out
    assert matrix.class_id.tolist() == [1, 2, 0, 1, 0]
    assert matrix.features[:, 0].tolist() == [0, 1, 10, 11, 12]
    assert matrix.is_boundary.tolist() == [False, True, True, False, True]
    assert isinstance(matrix.features, np.memmap) == (memory_gib == 0.0)
    taps = matrix.taps(np.array([4, 1]))
    assert [tap.shape for tap in taps] == [(2, 1, 1, 1), (2, 2, 1, 1)]
    assert taps[1][:, :, 0, 0].tolist() == [[12.5, -2.0], [1.5, -1.0]]


def test_pixels_without_features_are_left_out_and_none_at_all_is_an_error(pool, tmp_path):
    labels = (labels_of(tmp_path, [("a", 0, 1, 2, "labelled"), ("a", 1, 1, 1, "labelled")], 0),)
    points = read_labeled_points(pool, labels)
    stages = (features_of(tmp_path, [("a", 1, 1)], 0),)
    matrix = read_point_matrix(pool, points, stages, CHANNELS, memory_gib=1.0)
    assert matrix.class_id.tolist() == [1]
    nothing = (features_of(tmp_path / "other", [("b", 0, 0)], 0),)
    with pytest.raises(LabelError, match="no labelled pixel"):
        read_point_matrix(pool, points, nothing, CHANNELS, memory_gib=1.0)


def maker(count=5):
    matrix = PointMatrix(
        channels=CHANNELS,
        features=np.arange(3 * count, dtype=np.float16).reshape(count, 3),
        class_id=np.arange(count, dtype=np.uint8) % 3,
        is_boundary=np.arange(count) % 2 == 0,
    )
    return PointBatchMaker(matrix=matrix, seed=4, round_index=1)


def test_an_epoch_shows_every_point_once_and_fills_the_last_batch():
    batches = [views[0] for views in maker().epoch("phase1", 0, 2, rank=0, world_size=1)]
    assert [len(batch.y) for batch in batches] == [2, 2, 2]
    seen = [float(value) for batch in batches for value in batch.taps[0].flatten()]
    assert sorted(seen[:5]) == [0, 3, 6, 9, 12]
    assert seen[5] == seen[0]
    for batch in batches:
        assert batch.crop == (1, 1)
        assert batch.batch.tolist() == [0, 1]
        assert batch.y.tolist() == batch.x.tolist() == [0, 0]
        rows = [int(value) // 3 for value in batch.taps[0].flatten()]
        assert batch.class_id.tolist() == [row % 3 for row in rows]
        assert batch.is_boundary.tolist() == [row % 2 == 0 for row in rows]
        assert batch.taps[1][:, :, 0, 0].tolist() == [[3 * r + 1, 3 * r + 2] for r in rows]


def test_two_workers_share_what_one_sees_and_epochs_differ():
    def shown(rank, world_size, epoch=0):
        cut = maker(8).epoch("phase1", epoch, 4, rank=rank, world_size=world_size)
        return [views[0].taps[0].flatten().tolist() for views in cut]

    alone = shown(0, 1)
    assert [a + b for a, b in zip(shown(0, 2), shown(1, 2), strict=True)] == alone
    assert shown(0, 1, epoch=1) != alone


def test_steps_take_the_place_of_epochs():
    points = maker(5)
    assert points.num_steps(PhaseConfig(epochs=4, batch_points=2)) == 12
    assert points.num_steps(PhaseConfig(steps=7, batch_points=2)) == 7
    assert num_epochs(points, PhaseConfig(steps=7, batch_points=2)) == 3
    assert num_epochs(points, Phase2Config(steps=6, batch_points=2)) == 2


def test_mirrored_points_come_half_of_the_time_and_others_in_every_epoch(pool, tmp_path):
    points = [("a", y, x, 0, "labelled") for y in range(2) for x in range(3)]
    rows = feature_rows(0, [p[:3] for p in points])
    for row in rows:  # the mirror image's: negated
        row["features"] += (-np.frombuffer(row["features"], np.float16)).tobytes()
    stage = write_stage(
        tmp_path / "mirrored", "point_features", {0: rows, 1: []},
        summary={"shards": {"0": {"points": 6}, "1": {"points": 0}}},
    )  # fmt: skip
    labels = (labels_of(tmp_path, points, 0),)
    matrix = read_point_matrix(
        pool, read_labeled_points(pool, labels), (stage,), CHANNELS, memory_gib=1.0, mirrored=True
    )
    assert matrix.is_mirrored
    assert matrix.features[4].tolist() == [11, 11.5, -1, -11, -11.5, 1]
    plain = matrix.taps(np.array([4, 1]))
    assert [tap.flatten().tolist() for tap in plain] == [[11, 1], [11.5, -1, 1.5, -1]]
    some = matrix.taps(np.array([4, 1]), np.array([True, False]))
    assert [tap.flatten().tolist() for tap in some] == [[-11, 1], [-11.5, 1, 1.5, -1]]

    maker = PointBatchMaker(matrix=matrix, seed=4, round_index=1)

    def shown(epoch, rank=0, world_size=1):
        cut = maker.epoch("phase1", epoch, 2, rank=rank, world_size=world_size)
        return [value for views in cut for value in views[0].taps[0].flatten().tolist()]

    epochs = [shown(epoch) for epoch in range(20)]
    assert all(sorted(map(abs, values)) == [0, 1, 2, 10, 11, 12] for values in epochs)
    shown_ever = {value for values in epochs for value in values}
    assert shown_ever >= {-12, -11, -10, -2, -1, 1, 2, 10, 11, 12}
    assert 30 < sum(value < 0 for values in epochs for value in values) < 70  # of 100 not at 0
    both = [value for pair in zip(shown(3, 0, 2), shown(3, 1, 2), strict=True) for value in pair]
    assert both == epochs[3]  # whatever the number of workers
    assert maker.batch_of(np.array([4])).taps[0].flatten().tolist() == [11]


def test_an_objective_with_several_views_is_refused():
    with pytest.raises(ConfigError, match=r"model\.train_backbone: true"):
        next(maker().epoch("phase1", 0, 2, rank=0, world_size=1, views=("augmented", "weak")))


class FirstTap(ByHand):
    """Says the first tap as the logits of three classes: v, 0, -v."""

    def forward(self, taps, *, supports):
        assert supports is False
        value = taps[0] / 4
        return NetworkOutput(torch.cat([value, 0 * value, -value], dim=1), pooled=taps[0])


def test_tau_and_targets_come_from_the_points_own_losses():
    points = maker(5)
    network = FirstTap(None)
    thresholds = record_matrix(network, points, Worker(), num_classes=4, use_bf16=False)
    losses = []
    for row in range(5):
        logits = [3 * row / 4, 0.0, -3 * row / 4]
        losses.append(math.log(sum(math.exp(v) for v in logits)) - logits[row % 3])
    tau = [(losses[0] + losses[3]) / 2, (losses[1] + losses[4]) / 2, losses[2]]
    assert thresholds.threshold[:3].tolist() == pytest.approx(tau, rel=1e-5)
    assert math.isnan(thresholds.threshold[3])
    assert points.matrix.is_target.tolist() == [losses[r] >= tau[r % 3] - 1e-6 for r in range(5)]
    assert network.phases == ["eval"]
