"""Batches of whole inputs for a frozen backbone: who is in them, where their points lie."""

from dataclasses import dataclass

import numpy as np

from madbal_ray import rng
from madbal_ray.labels.labeled_points import LabeledPoints
from madbal_ray.training.input_batches import InputBatchMaker
from tests.hand_made import pool_image

SEED = 7


@dataclass
class Named:
    """Gives pictures of one pixel: the first letter of the image's name, thrice."""

    threads: int = 1

    def input_of(self, image):
        return np.full((1, 1, 3), ord(image.image_id[0]), np.uint8)


def maker_of(images, points, **marks):
    """Make batches of images whose points are (y, x, class)."""
    every = np.array([point for own in points for point in own])
    return InputBatchMaker(
        points=LabeledPoints(
            images=images,
            start=np.cumsum([0, *(len(own) for own in points)]),
            y=every[:, 0].astype(np.int16),
            x=every[:, 1].astype(np.int16),
            class_id=every[:, 2].astype(np.uint8),
            **marks,
        ),
        pool=Named(),
        seed=SEED,
        round_index=3,
    )


def test_each_point_is_of_its_input_and_keeps_its_class_and_marks():
    images = [pool_image(name, work=(4, 6)) for name in "abc"]
    points = [[(0, 5, 2)], [(1, 2, 0), (3, 3, 1)], [(2, 4, 1)]]
    marks = {"is_target": np.arange(4) % 2 == 1, "is_boundary": np.arange(4) == 3}
    found = list(maker_of(images, points, **marks).epoch("phase1", 1, 2, rank=0, world_size=1))
    order = rng.stream(SEED, "shuffle", 3, "phase1", 1).permutation(3).tolist()
    first = [0, 1, 3]
    for (batch,), members in zip(found, (order[:2], [order[2], order[0]]), strict=True):
        assert [chr(picture[0, 0, 0]) for picture in batch.pictures] == [
            images[index].image_id for index in members
        ]
        assert batch.crop == (4, 6)
        places = [
            (position, y, x, class_id, mark % 2 == 1, mark == 3)
            for position, index in enumerate(members)
            for mark, (y, x, class_id) in enumerate(points[index], start=first[index])
        ]
        columns = (getattr(batch, n) for n in ("batch", "y", "x", "class_id"))
        marked = (batch.is_target, batch.is_boundary)
        assert places == list(zip(*(c.tolist() for c in (*columns, *marked)), strict=True))


def test_points_lie_on_one_grid_where_working_grids_differ():
    """Both points are the centres of their images, whichever comes first."""
    images = [pool_image("small", work=(5, 5)), pool_image("large", work=(15, 25))]
    maker = maker_of(images, [[(2, 2, 0)], [(7, 12, 1)]])
    sizes = set()
    for epoch in range(8):
        ((batch,),) = maker.epoch("phase1", epoch, 2, rank=0, world_size=1)
        sizes.add(batch.crop)
        centre = [(side - 1) / 2 for side in batch.crop]
        assert batch.y.tolist() == [centre[0]] * 2
        assert batch.x.tolist() == [centre[1]] * 2
    assert sizes == {(5, 5), (15, 25)}
