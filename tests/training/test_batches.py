"""Batches of an epoch: who is in them, how they are augmented, where their points lie."""

from itertools import chain

import numpy as np
import pytest

from madbal_ray import rng
from madbal_ray.config.training import TrainConfig
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.training import batches
from madbal_ray.training.augment import Augmentation
from madbal_ray.training.batches import BatchMaker
from madbal_ray.training.image_cache import ImageCache
from madbal_ray.vision import geometry
from tests.hand_made import FromArrays, pool_image

SEED = 7
NO_SHIFT = geometry.translation(0, 0)


class Drawn:
    """Stands for `draw_augmentation`: one matrix for all, and a note of what it was given."""

    def __init__(self, matrix=NO_SHIFT):
        self.matrix, self.calls = matrix, []

    def __call__(self, config, generator, *, size, crop):
        self.calls.append((int(generator.integers(0, 2**62)), size, crop))
        return Augmentation(self.matrix, float(len(self.calls)))


@pytest.fixture
def drawn(monkeypatch):
    stub = Drawn()
    monkeypatch.setattr(batches, "draw_augmentation", stub)
    return stub


def maker_of(images, points, *, round_index=0, crop=None, marks=False, fill=None):
    """Make batches of images whose points are (y, x, class[, is_target, is_boundary])."""
    every = [point for own in points for point in own]
    pictures = {
        one.image_id: np.full((one.input_height, one.input_width, 3), index, np.uint8)
        for index, one in enumerate(images)
    }
    return BatchMaker(
        points=LabeledPoints(
            images=images,
            start=np.cumsum([0, *(len(own) for own in points)]),
            y=np.array([p[0] for p in every], np.int16),
            x=np.array([p[1] for p in every], np.int16),
            class_id=np.array([p[2] for p in every], np.uint8),
            is_target=np.array([p[3] for p in every]) if marks else None,
            is_boundary=np.array([p[4] for p in every]) if marks else None,
        ),
        cache=ImageCache(FromArrays(inputs=pictures), memory_gib=1.0, disk_gib=0.0),
        config=TrainConfig(crop=crop),
        seed=SEED,
        round_index=round_index,
        threads=1,
    )


def many(count, **options):
    """Make batches of `count` images with one point each, whose class is the image."""
    images = [pool_image(f"{index}") for index in range(count)]
    return maker_of(images, [[(0, 0, index)] for index in range(count)], **options)


def members(maker, batch_size, *, rank=0, world_size=1, phase="phase1", epoch=0):
    found = maker.epoch(phase, epoch, batch_size, rank=rank, world_size=world_size)
    return [batch.class_id.tolist() for (batch,) in found]


def expected_order(count, round_index, phase, epoch):
    return rng.stream(SEED, "shuffle", round_index, phase, epoch).permutation(count).tolist()


@pytest.mark.parametrize(
    ("round_index", "phase", "epoch"),
    [(0, "phase1", 0), (1, "phase1", 0), (0, "phase2", 0), (0, "phase1", 1)],
)
def test_the_order_is_a_permutation_keyed_by_round_phase_and_epoch(
    drawn, round_index, phase, epoch
):
    found = members(many(9, round_index=round_index), 3, phase=phase, epoch=epoch)
    assert list(chain(*found)) == expected_order(9, round_index, phase, epoch)


def test_orders_of_rounds_phases_and_epochs_differ():
    keys = [(0, "phase1", 0), (1, "phase1", 0), (0, "phase2", 0), (0, "phase1", 1)]
    assert len({tuple(expected_order(9, *key)) for key in keys}) == 4


def test_the_last_batch_is_filled_from_the_start_of_the_order(drawn):
    maker = many(5)
    order = expected_order(5, 0, "phase1", 0)
    assert maker.num_batches(3) == 2
    assert members(maker, 3) == [order[:3], [*order[3:], order[0]]]
    assert many(6).num_batches(3) == 2


def test_workers_share_a_batch_without_overlap(drawn):
    order = expected_order(8, 0, "phase1", 0)
    first, second = (members(many(8), 4, rank=rank, world_size=2) for rank in (0, 1))
    low, high = ([i for i in order if i // 4 == half] for half in (0, 1))
    assert first == [low[0:2], low[2:4]]
    assert second == [high[0:2], high[2:4]]


@pytest.mark.parametrize(
    ("count", "batch_size", "world_size"), [(8, 4, 2), (5, 4, 2), (7, 10, 3), (23, 7, 3), (9, 8, 8)]
)
def test_a_worker_keeps_its_images_and_every_image_comes_in_every_epoch(
    count, batch_size, world_size, drawn
):
    maker, ranks = many(count), range(world_size)
    epochs = [
        [members(maker, batch_size, rank=r, world_size=world_size, epoch=e) for r in ranks]
        for e in (0, 1, 2)
    ]
    for parts in epochs:
        assert sorted(set(chain(*chain(*parts)))) == list(range(count))
        assert [sum(map(len, step)) for step in zip(*parts, strict=True)] == [
            batch_size
        ] * maker.num_batches(batch_size)
        whole = [set(chain(*part[:-1])) for part in parts]  # all but the batch that is filled up
        assert sum(map(len, whole)) == sum(len(batch) for part in parts for batch in part[:-1])
    own = [{frozenset(chain(*parts[rank])) for parts in epochs} for rank in ranks]
    assert all(len(images) == 1 for images in own)
    assert epochs[0] != epochs[1]
    runs = [sorted(next(iter(images))) for images in own]
    assert [i for run in runs for i in run] == list(range(count))  # neighbours, not strewn


def test_more_workers_than_images_share_them(drawn):
    maker, firsts = many(2), []
    for epoch in range(6):
        parts = [members(maker, 3, rank=r, world_size=3, epoch=epoch) for r in range(3)]
        order = expected_order(2, 0, "phase1", epoch)
        assert parts == [[[0]], [[1]], [order[:1]]]
        firsts.append(order[0])
    assert set(firsts) == {0, 1}


def stream_of(round_index, phase, epoch, name, *view):
    key = (round_index, phase, epoch, name, *view)
    return int(rng.stream(SEED, "augment", *key).integers(0, 2**62))


@pytest.mark.parametrize(
    ("round_index", "phase", "epoch"),
    [(0, "phase1", 0), (3, "phase1", 0), (0, "phase2", 0), (0, "phase1", 1)],
)
def test_augmentations_are_keyed_by_round_phase_epoch_and_image(drawn, round_index, phase, epoch):
    maker = many(3, round_index=round_index)
    order = list(chain(*members(maker, 3, phase=phase, epoch=epoch)))
    assert [call[0] for call in drawn.calls] == [
        stream_of(round_index, phase, epoch, str(index)) for index in order
    ]


def test_copies_of_an_image_in_a_batch_are_augmented_apart(drawn):
    ((batch,),) = many(1).epoch("phase1", 0, 3, rank=0, world_size=1)
    assert batch.class_id.tolist() == [0, 0, 0]
    assert [call[0] for call in drawn.calls] == [
        stream_of(0, "phase1", 0, "0"),
        stream_of(0, "phase1", 0, "0", "copy 1"),
        stream_of(0, "phase1", 0, "0", "copy 2"),
    ]


def test_an_image_that_fills_up_another_batch_is_augmented_as_before(drawn):
    order = list(chain(*members(many(3), 2)))
    assert [call[0] for call in drawn.calls] == [
        stream_of(0, "phase1", 0, str(index)) for index in order
    ]
    assert len(order) == 4


def test_further_views_have_augmentations_of_their_own(drawn):
    maker = many(2)
    found = list(
        maker.epoch("phase1", 0, 2, rank=0, world_size=1, views=(batches.PLAIN_VIEW, "other"))
    )
    ((plain, other),) = found
    order = expected_order(2, 0, "phase1", 0)
    assert [call[0] for call in drawn.calls] == [
        value
        for index in order
        for value in (
            stream_of(0, "phase1", 0, str(index)),
            stream_of(0, "phase1", 0, str(index), "other"),
        )
    ]
    assert [one.blur_sigma for one in plain.augmentations] == [1.0, 3.0]
    assert [one.blur_sigma for one in other.augmentations] == [2.0, 4.0]
    for batch in (plain, other):
        assert [int(picture[0, 0, 0]) for picture in batch.images] == order
        assert batch.class_id.tolist() == order
        assert batch.batch.tolist() == [0, 1]


def test_points_move_from_the_working_grid_to_the_input_grid_on_both_axes(drawn):
    image = pool_image("a", grid=(6, 8), work=(2, 4))
    maker = maker_of([image], [[(0, 0, 0), (0, 3, 1), (1, 2, 2)]])
    ((batch,),) = maker.epoch("phase1", 0, 1, rank=0, world_size=1)
    assert batch.y.tolist() == [1.0, 1.0, 4.0]
    assert batch.x.tolist() == [0.5, 6.5, 4.5]
    assert batch.crop == (6, 8)
    assert drawn.calls[0][1:] == ((6, 8), (6, 8))


def test_points_move_with_the_augmentation(drawn):
    drawn.matrix = geometry.translation(2, 0)
    maker = maker_of([pool_image("a", grid=(6, 8), work=(6, 8))], [[(1, 5, 0)]])
    ((batch,),) = maker.epoch("phase1", 0, 1, rank=0, world_size=1)
    assert (batch.y.tolist(), batch.x.tolist()) == ([3.0], [5.0])


def test_points_move_with_the_augmentation_of_their_own_view(monkeypatch):
    matrices = iter([geometry.translation(0, 1), geometry.translation(1, 0)])
    monkeypatch.setattr(
        batches, "draw_augmentation", lambda *args, **sizes: Augmentation(next(matrices), 0.0)
    )
    maker = maker_of([pool_image("a", grid=(6, 8), work=(6, 8))], [[(1, 5, 0)]])
    views = (batches.PLAIN_VIEW, "other")
    ((plain, other),) = maker.epoch("phase1", 0, 1, rank=0, world_size=1, views=views)
    assert (plain.y.tolist(), plain.x.tolist()) == ([1.0], [6.0])
    assert (other.y.tolist(), other.x.tolist()) == ([2.0], [5.0])


def test_points_outside_the_crop_are_dropped_and_marks_travel_with_the_others(drawn):
    drawn.matrix = geometry.translation(-10, -40)
    points = [
        (9, 50, 0, True, True),  # above the crop
        (10, 39, 1, True, False),  # left of it
        (10, 40, 2, True, False),  # its first pixel
        (41, 73, 3, False, True),  # its last pixel
        (42, 50, 4, True, True),  # below
        (20, 74, 5, True, True),  # right of it
    ]
    image = pool_image("a", grid=(64, 96), work=(64, 96))
    maker = maker_of([image], [points], crop=(32, 34), marks=True)
    ((batch,),) = maker.epoch("phase2", 0, 1, rank=0, world_size=1)
    assert batch.crop == (32, 34)
    assert drawn.calls[0][1:] == ((64, 96), (32, 34))
    assert batch.class_id.tolist() == [2, 3]
    assert (batch.y.tolist(), batch.x.tolist()) == ([0.0, 31.0], [0.0, 33.0])
    assert batch.is_target.tolist() == [True, False]
    assert batch.is_boundary.tolist() == [False, True]


def test_points_know_their_image_in_the_batch(drawn):
    images = [pool_image("0"), pool_image("1")]
    maker = maker_of(images, [[(0, 0, 0)], [(0, 1, 1), (1, 2, 1)]])
    ((batch,),) = maker.epoch("phase1", 0, 2, rank=0, world_size=1)
    order = expected_order(2, 0, "phase1", 0)
    assert batch.class_id.tolist() == [index for index in order for _ in range(index + 1)]
    assert batch.batch.tolist() == [
        place for place, index in enumerate(order) for _ in range(index + 1)
    ]
    assert batch.is_target is None
    assert batch.is_boundary is None
